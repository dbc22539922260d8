# SPDX-License-Identifier: BSD-3-Clause
"""What tests share: fixtures computed by the public recipe, generated speech, tiny models."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from fastpitch.data_function import Batch

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parent.parent.parent / "shared"


def golden(name: str) -> dict[str, Any]:
    """A fixture that the public recipe computed on a CPU."""
    return torch.load(DATA / f"{name}.pt", weights_only=True)


def golden_batch(fixture: dict[str, Any]) -> Batch:
    """The batch of a FastPitch fixture."""
    batch = fixture["batch"]
    return Batch(
        text=batch["text"],
        text_lens=batch["text_lens"],
        mel=batch["mel"],
        mel_lens=batch["mel_lens"],
        pitch=batch["pitch"][:, 0],
        energy=batch["energy"],
        prior=batch["attn_prior"],
        speaker=batch["speaker"],
        paths=[],
    )


def assert_same(first: Any, second: Any) -> None:
    """Nested dicts and lists are equal, their tensors bit for bit."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for pair in zip(first, second, strict=True):
            assert_same(*pair)
    else:
        assert first == second


@pytest.fixture(scope="session")
def shared() -> Path:
    """Material beside the repository that may not be copied into it; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared, which is not part of the project")
    return SHARED


@pytest.fixture(autouse=True)
def quiet_loggers() -> None:
    """No test hears what a command that ran before it has asked loggers to say."""
    for name, logger in logging.Logger.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and not name.startswith("_pytest"):
            logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test draws the same random numbers on every run."""
    torch.manual_seed(1234)
