# SPDX-License-Identifier: BSD-3-Clause
"""Layers that more than one network uses."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RANDOM_BITS = 16  # for each number that may be dropped


class ConvNorm(nn.Module):
    """1-D convolution that keeps the length, with Xavier initialization."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        nonlinearity: str = "linear",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        nn.init.xavier_uniform_(self.conv.weight, gain=nn.init.calculate_gain(nonlinearity))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, T) -> (B, out_channels, T)"""
        return self.conv(x)


class ConvReLUNorm(nn.Module):
    """1-D convolution, ReLU, layer norm over the channels, dropout."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, dropout: float
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.norm = nn.LayerNorm(out_channels)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, in_channels, T), (B, 1, T) -> (B, out_channels, T), zero where the mask is False"""
        x = self.conv(x).relu()
        # LayerNorm wants channels last, and under autocast the precision of its weights.
        x = self.norm(x.transpose(1, 2).to(self.norm.weight.dtype)).transpose(1, 2)
        return self.dropout(x if mask is None else x * mask)


class FrameConv(nn.Conv1d):
    """1-D convolution that keeps the length, of channels that come last.

    It needs no transposes: as an image of height 1, that is a layout for which PyTorch has kernels,
    on CPUs and GPUs faster ones.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in_channels) -> (B, T, out_channels)"""
        if _is_plain_cpu(x) and len(x) == 1 and torch.is_grad_enabled():
            return _LongConvolution.apply(x, self.weight, self.bias)
        return _convolve(x, self.weight, self.bias)


class _LongConvolution(torch.autograd.Function):
    """`_convolve` of one long sequence; PyTorch's gradient of the weights is slow there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _convolve(grad, weight.flip(2).transpose(0, 1), None) if of_x else None,
            _weight_gradient(x[0], grad[0], weight.shape[2]) if of_weight else None,
            grad.sum(dim=(0, 1)) if of_bias else None,
        )


def _weight_gradient(x: Tensor, grad: Tensor, kernel_size: int) -> Tensor:
    """(T, in_channels), (T, out_channels) -> (out_channels, in_channels, kernel_size)"""
    length, reach = len(x), kernel_size // 2
    products = []
    for shift in range(-reach, reach + 1):  # each weight joins frames so far apart
        first, count = max(0, -shift), max(0, length - abs(shift))
        products.append(grad[first:][:count].T @ x[first + shift :][:count])
    return torch.stack(products, dim=2)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(B, T, in_channels), (out_channels, in_channels, kernel_size) -> (B, T, out_channels)"""
    image = x.transpose(1, 2).unsqueeze(2)
    padding = (0, weight.shape[2] // 2)
    return F.conv2d(image, weight.unsqueeze(2), bias, padding=padding).squeeze(2).transpose(1, 2)


class Dropout(nn.Dropout):
    """Drops out; on CPUs with few random bits for a number, since they take long to make."""

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Dropout`, with a probability that is a multiple of 1 / 65536."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        dropped = min(round(self.p * 2**RANDOM_BITS), 2**RANDOM_BITS - 1)
        words = x.new_empty(-(-x.numel() * RANDOM_BITS // 64), dtype=torch.int64)
        numbers = words.random_(-(2**63), None).view(torch.int16)[: x.numel()].view(x.shape)
        kept = torch.where(numbers >= dropped - 2 ** (RANDOM_BITS - 1), x, 0)
        return kept.mul_(2**RANDOM_BITS / (2**RANDOM_BITS - dropped))


def _is_plain_cpu(x: Tensor) -> bool:
    """Whether these numbers are computed with on a CPU as they are: in float32, by no compiler."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
