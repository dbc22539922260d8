# SPDX-License-Identifier: BSD-3-Clause
"""A training step's precision: off, it is plain PyTorch."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from common.precision import Precision, full_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("max_grad_norm", [0.01, 1000.0], ids=["clipped", "unclipped"])
def test_a_step_without_amp_is_that_of_plain_pytorch(max_grad_norm):
    model, inputs = nn.Linear(4, 3), torch.randn(8, 4)
    plain = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    plain_optimizer = torch.optim.Adam(plain.parameters(), lr=0.1)
    precision = Precision(amp=False, device=CPU)
    for _ in range(3):
        optimizer.zero_grad()
        with precision.autocast():
            loss = model(inputs).square().mean()
        assert loss.dtype == torch.float32
        precision.backward(loss)
        stepped = precision.step(optimizer, model.parameters(), max_grad_norm)

        plain_optimizer.zero_grad()
        plain(inputs).square().mean().backward()
        plain_norm = nn.utils.clip_grad_norm_(plain.parameters(), max_grad_norm)
        plain_optimizer.step()
        assert torch.equal(stepped["grad_norm"], plain_norm)
        assert stepped["bad_step"] == 0 and "scale" not in stepped
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_amp_without_a_gpu_is_refused():
    with pytest.raises(ValueError, match=r"^--amp needs a GPU: add --cuda"):
        Precision(amp=True, device=CPU)


def test_nothing_is_saved_without_amp_and_a_state_with_amp_is_no_obstacle():
    precision = Precision(amp=False, device=CPU)
    assert precision.state_dict() == {}
    precision.load_state_dict({"scale": 1024.0, "growth_factor": 2.0, "_growth_tracker": 3})
    assert precision.state_dict() == {}


def test_products_are_exact_in_a_region_of_full_precision():
    inputs = torch.randn(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (inputs @ inputs).dtype == torch.bfloat16
        with full_precision(inputs):
            assert (inputs @ inputs).dtype == torch.float32
