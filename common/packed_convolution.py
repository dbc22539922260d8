# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions of models that only speak: weights in the order in which a CPU reads them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TYPICAL_FRAMES = 768  # the order suits this length best; others may be longer or shorter
RELU = 0.0


class SpeakingConv(nn.Module):
    """A convolution over the time of (B, C, 1, T) whose channels lie side by side in memory.

    That is how the hardware multiplies them; with time side by side every call has to rearrange
    what it reads and what it writes. On CPUs oneDNN, PyTorch's library for them, would order the
    weights anew at each call, too: they are given to it in its own order, by the operator that
    PyTorch's compiler calls, which also computes the ReLU.

    Args:
        conv: that keeps the length
        dtype: in which to compute
        slope: of the leaky ReLU that follows; RELU is the plain one, None none
    """

    def __init__(self, conv: nn.Conv1d, dtype: torch.dtype, slope: float | None = None) -> None:
        super().__init__()
        self.weight = laid_out(conv.weight, dtype)
        self.bias = frozen(conv.bias.to(dtype, copy=True))
        self.dilation = (1, conv.dilation[0])
        self.reach = conv.padding[0]  # samples that are heard on either side
        self.slope = slope
        self._packed = self._pack()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, 1, T) -> (B, C_out, 1, T)"""
        padding = (0, self.reach)
        if self._packed is None or not x.is_contiguous(memory_format=torch.channels_last):
            x = F.conv2d(x, self.weight, self.bias, padding=padding, dilation=self.dilation)
            return x if self.slope is None else F.leaky_relu(x, self.slope, inplace=True)
        return torch.ops.mkldnn._convolution_pointwise(
            x, self._packed, self.bias, padding, (1, 1), self.dilation, 1, *self._activation()
        )

    def _activation(self) -> tuple[str, list[float], str]:
        if self.slope is None:
            return "none", [], ""
        return ("relu", [], "") if self.slope == RELU else ("leaky_relu", [self.slope], "")

    def _pack(self) -> Tensor | None:
        """The weights in oneDNN's own order; None where it does not compute."""
        if self.weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
            return None
        if self.weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return None
        shape = (1, self.weight.shape[1], 1, TYPICAL_FRAMES)
        return torch._C._nn.mkldnn_reorder_conv2d_weight(
            self.weight.detach().to_mkldnn(), (0, self.reach), (1, 1), self.dilation, 1, shape
        )


def laid_out(weight: Tensor, dtype: torch.dtype) -> nn.Parameter:
    """(C_out, C_in, taps) -> (C_out, C_in, 1, taps), the channels of a tap side by side"""
    weight = weight.detach()[:, :, None, :].to(dtype, copy=True)
    return frozen(weight.contiguous(memory_format=torch.channels_last))


def frozen(value: Tensor) -> nn.Parameter:
    """A weight that is not learned."""
    return nn.Parameter(value.detach(), requires_grad=False)
