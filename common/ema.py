# SPDX-License-Identifier: BSD-3-Clause
"""Shadow weights: an exponential moving average of a model."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """Follows a model's weights slowly: average = decay * average + (1 - decay) * weights.

    Args:
        model: to follow
        decay: in [0, 1); 0 keeps no average, and every method has nothing to do
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval() if decay > 0 else None

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in the weights after a step; buffers are copied."""
        if self.model is None:
            return
        torch._foreach_lerp_(
            list(self.model.parameters()), list(model.parameters()), 1 - self.decay
        )
        for average, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(buffer)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights; empty where none are kept."""
        return {} if self.model is None else self.model.state_dict()
