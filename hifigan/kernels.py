# SPDX-License-Identifier: BSD-3-Clause
"""The distance of features in Triton, for CUDA: no copies of them in float32.

To be imported only where triton is installed, see `common.compiled.runs_triton`.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

NUMBERS_PER_PROGRAM = 8192
NUM_WARPS = 8


def mean_distance(first: Tensor, second: Tensor) -> Tensor:
    """() mean absolute difference, in float32; only `first` has a gradient.

    Each number is read once, and once more for the gradient.

    Args:
        first: of any shape and precision
        second: the same
    """
    return _MeanDistance.apply(first, second)


class _MeanDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        first, second = first.contiguous(), second.contiguous()
        grid = _grid(first)
        sums = first.new_empty(grid, dtype=torch.float32)
        with torch.cuda.device_of(first):
            _sum_distances[grid](first, second, sums, first.numel(), **_sizes())
        ctx.save_for_backward(first, second)
        return sums.sum() / first.numel()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        first, second = ctx.saved_tensors
        gradients = torch.empty_like(first)
        share = gradient.float() / first.numel()
        with torch.cuda.device_of(first):
            _share_gradient[_grid(first)](
                first, second, share, gradients, first.numel(), **_sizes()
            )
        return gradients, None


def _grid(values: Tensor) -> tuple[int]:
    return (triton.cdiv(values.numel(), NUMBERS_PER_PROGRAM),)


def _sizes() -> dict[str, int]:
    return {"block": NUMBERS_PER_PROGRAM, "num_warps": NUM_WARPS}


@triton.jit
def _sum_distances(first, second, sums, size, block: tl.constexpr):
    places = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = places < size
    difference = _difference(first + places, second + places, inside)
    tl.store(sums + tl.program_id(0), tl.sum(tl.abs(difference), 0))


@triton.jit
def _share_gradient(first, second, share, gradients, size, block: tl.constexpr):
    places = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = places < size
    difference = _difference(first + places, second + places, inside)
    sign = tl.where(difference > 0, 1.0, tl.where(difference < 0, -1.0, difference))
    gradient = sign * tl.load(share)
    tl.store(gradients + places, gradient.to(gradients.dtype.element_ty), mask=inside)


@triton.jit
def _difference(first, second, inside):
    one = tl.load(first, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(second, mask=inside, other=0.0).to(tl.float32)
    return one - other
