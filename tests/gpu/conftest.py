# SPDX-License-Identifier: BSD-3-Clause
"""What the tests that need a GPU share; without one they are skipped, and say why."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def cuda() -> torch.device:
    """The first GPU."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda", 0)


@pytest.fixture
def ampere(cuda: torch.device) -> torch.device:
    """The first GPU, if it has TF32 and bf16."""
    if torch.cuda.get_device_capability(cuda) < (8, 0):
        pytest.skip("needs a GPU of the Ampere generation or newer")
    return cuda
