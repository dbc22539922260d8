# SPDX-License-Identifier: BSD-3-Clause
"""Weights of models that only speak, in the form that products take them in."""

from __future__ import annotations

from torch import Tensor, nn

from common.layers import FrameConv
from common.packed_convolution import RELU, SpeakingConv
from common.precision import Precision


class SpeakingFrameConv(nn.Module):
    """What a `FrameConv` computes, and the ReLU after it if there is one."""

    def __init__(self, conv: FrameConv, has_relu: bool) -> None:
        super().__init__()
        self.conv = SpeakingConv(conv, conv.weight.dtype, RELU if has_relu else None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in_channels) -> (B, T, out_channels)"""
        image = x.to(self.conv.weight.dtype).transpose(1, 2).unsqueeze(2)
        return self.conv(image).squeeze(2).transpose(1, 2)


def prepare_weights(model: nn.Module, precision: Precision) -> None:
    """Rounds and lays out once what each call would else: the same results, sooner.

    Args:
        model: whose products autocast rounds, and which is not trained
        precision: without AMP nothing is rounded
    """
    for module in list(model.modules()):
        if precision.amp and isinstance(module, nn.Linear | nn.Conv1d):
            module.to(precision.dtype)
        if isinstance(module, nn.Sequential):
            _lay_out_convolutions(module, precision)


def _lay_out_convolutions(layers: nn.Sequential, precision: Precision) -> None:
    for index, layer in enumerate(layers):
        if isinstance(layer, FrameConv):
            following = layers[index + 1 : index + 2]
            has_relu = len(following) == 1 and isinstance(following[0], nn.ReLU)
            if precision.amp:
                layer.to(precision.dtype)
            layers[index] = SpeakingFrameConv(layer, has_relu)
            if has_relu:
                layers[index + 1] = nn.Identity()
