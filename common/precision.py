# SPDX-License-Identifier: BSD-3-Clause
"""Mixed precision: autocast, scaled backward, unscale-clip-step; the only user of torch.amp."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn


def full_precision(like: Tensor) -> AbstractContextManager:
    """Region in which matrix products stay in float32 even under autocast."""
    return torch.autocast(like.device.type, enabled=False)


class Precision:
    """How a training step computes; without AMP it is the same path with nothing to do.

    Args:
        amp: compute in fp16 with dynamic loss scaling
        device: of the model; fp16 without a GPU is refused
    """

    def __init__(self, amp: bool, device: torch.device) -> None:
        if amp and device.type != "cuda":
            raise ValueError("--amp needs a GPU: add --cuda, or leave --amp out")
        self.device = device
        self.amp = amp
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp)

    def autocast(self) -> AbstractContextManager:
        """Region in which the model's forward pass runs."""
        return torch.autocast(self.device.type, dtype=torch.float16, enabled=self.amp)

    def backward(self, loss: Tensor) -> None:
        """Back-propagates the scaled loss."""
        self.scaler.scale(loss).backward()

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Iterable[nn.Parameter],
        max_grad_norm: float,
    ) -> Tensor:
        """Clips the unscaled gradients and updates the weights.

        Returns:
            () norm of the gradients before clipping, on the device
        """
        self.scaler.unscale_(optimizer)
        grad_norm = nn.utils.clip_grad_norm_(parameters, max_grad_norm, foreach=True)
        self.scaler.step(optimizer)
        self.scaler.update()
        return grad_norm

    def state_dict(self) -> dict:
        """Scale and growth counter; empty without AMP."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Restores `state_dict`; a state saved without AMP leaves a fresh scaler."""
        if self.amp and state:
            self.scaler.load_state_dict(state)
