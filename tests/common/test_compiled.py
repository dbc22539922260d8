# SPDX-License-Identifier: BSD-3-Clause
"""Where kernels in Triton run, and what is said where they could."""

from __future__ import annotations

import sys

import torch

from common import compiled
from common.compiled import runs_triton


def test_that_triton_is_missing_is_said_once(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "triton", None)  # as if it were not installed
    compiled._triton_is_installed.cache_clear()
    assert not compiled._triton_is_installed() and not compiled._triton_is_installed()
    compiled._triton_is_installed.cache_clear()
    (message,) = caplog.messages
    assert "Triton is not installed" in message and "pip install triton" in message


def test_on_a_cpu_no_kernels_run(caplog):
    assert not runs_triton(torch.zeros(1)) and not caplog.messages
