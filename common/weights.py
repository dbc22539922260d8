# SPDX-License-Identifier: BSD-3-Clause
"""Weights of models that only speak, in the form that products take them in."""

from __future__ import annotations

from torch import nn

from common.layers import FrameConv
from common.precision import Precision


def prepare_weights(model: nn.Module, precision: Precision) -> None:
    """Rounds and lays out once what each call would else: the same results, sooner.

    Args:
        model: whose products autocast rounds, and which is not trained
        precision: without AMP nothing is rounded
    """
    for module in model.modules():
        if precision.amp and isinstance(module, nn.Linear | nn.Conv1d):
            module.to(precision.dtype)
        if isinstance(module, FrameConv):
            # The channels of a frame side by side, as they are in what it is multiplied with.
            module.weight.data = module.weight.data.transpose(1, 2).contiguous().transpose(1, 2)
