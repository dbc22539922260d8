# SPDX-License-Identifier: BSD-3-Clause
"""Shadow weights: an exponential moving average of a model."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from common.checkpoint import load_weights

logger = logging.getLogger(__name__)


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
    def update(self, model: nn.Module, bad_step: Tensor) -> None:
        """Takes in the weights after a step; buffers are copied.

        Args:
            model: that has the weights
            bad_step: () 1 where the step was skipped and nothing is to be taken in, else 0
        """
        if self.model is None:
            return
        averages = list(self.model.parameters())
        changes = torch._foreach_sub(list(model.parameters()), averages)
        torch._foreach_mul_(changes, (1 - self.decay) * (1 - bad_step))
        torch._foreach_add_(averages, changes)
        for average, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(torch.where(bad_step > 0, average, buffer))

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights; empty where none are kept."""
        return {} if self.model is None else self.model.state_dict()

    def load(
        self,
        average: Mapping[str, Tensor] | None,
        weights: Mapping[str, Tensor],
        source: Path | str,
    ) -> None:
        """Continues a saved average; where none was saved, begins with the weights."""
        if self.model is not None:
            load_weights(self.model, average or weights, source)
        elif average:
            logger.warning(
                "%s holds averaged weights, which this run drops: --ema-decay keeps them", source
            )
