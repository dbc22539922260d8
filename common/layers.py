# SPDX-License-Identifier: BSD-3-Clause
"""Convolution blocks that more than one network uses."""

from __future__ import annotations

from torch import Tensor, nn


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
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, in_channels, T), (B, 1, T) -> (B, out_channels, T), zero where the mask is False"""
        x = self.conv(x).relu()
        # LayerNorm wants channels last, and under autocast the precision of its weights.
        x = self.norm(x.transpose(1, 2).to(self.norm.weight.dtype)).transpose(1, 2)
        return self.dropout(x if mask is None else x * mask)
