# SPDX-License-Identifier: BSD-3-Clause
"""Models that speak, compiled by PyTorch and called with few sizes, a CUDA graph for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_STEP = 32

Compile = Callable[[Callable], Callable]


def compiler_for(device: torch.device) -> Compile:
    """How functions are compiled for a device; on a GPU each call is then one CUDA graph."""
    mode = "reduce-overhead" if device.type == "cuda" else None

    def compile_function(function: Callable) -> Callable:
        # Compiled once for all sizes: there are more of them than PyTorch recompiles for.
        return torch.compile(function, mode=mode, dynamic=True)

    return compile_function


def padded_size(length: int) -> int:
    """The next of few sizes: four to an octave, hence at most a quarter longer."""
    step = max(SMALLEST_STEP, 2 ** (length.bit_length() - 3))
    return -(-length // step) * step


def padded_count(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def compile_sequences(module: nn.Module, compile_function: Compile) -> None:
    """Compiles a module that takes (B, T, C) and (B, T) True = real data, and gives (B, T, ...).

    What it gives for real data must not depend on the padding.
    """
    forward = compile_function(module.forward)

    def padded_forward(x: Tensor, mask: Tensor, *others: Any, **settings: Any) -> Tensor:
        length = x.shape[1]
        missing = padded_size(length) - length
        x, mask = F.pad(x, (0, 0, 0, missing)), F.pad(mask, (0, missing))
        # A copy, since the next call of a CUDA graph writes to the same place.
        return forward(x, mask, *others, **settings)[:, :length].clone()

    module.forward = padded_forward
