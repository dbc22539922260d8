# SPDX-License-Identifier: BSD-3-Clause
"""A training step as one would write it down, with LAMB and an average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.plain.model import PlainFastPitch
from common.apex_optimizers import MAX_GRAD_NORM
from common.optim import UpdateRule
from fastpitch.data_function import Batch
from fastpitch.loss_function import FastPitchLoss


class PlainStep:
    """Trains a `PlainFastPitch` as `FastPitchTask` does a `FastPitch`.

    Args:
        model: to train
        loss: to minimise
        rule: LAMB's settings
        kl_weight: of the binarization loss
        ema_decay: of the averaged weights

    Attributes:
        averages: of the weights, under their names
    """

    def __init__(
        self,
        model: PlainFastPitch,
        loss: FastPitchLoss,
        rule: UpdateRule,
        *,
        kl_weight: float,
        ema_decay: float,
    ) -> None:
        self.model = model
        self.loss = loss
        self.rule = rule
        self.kl_weight = kl_weight
        self.ema_decay = ema_decay
        self.num_steps = 0
        weights = model.weights
        self.means = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self.squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self.averages = {name: weight.detach().clone() for name, weight in weights.items()}

    def __call__(self, batch: Batch) -> Tensor:
        """A step; () its loss."""
        weights = list(self.model.weights.values())
        for weight in weights:
            weight.grad = None
        loss = self.loss(self.model(batch), batch, kl_weight=self.kl_weight)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, self.rule.max_grad_norm, foreach=False)
        self._update()
        self._average()
        return loss.detach()

    @torch.no_grad()
    def _update(self) -> None:
        """LAMB (You 2020, algorithm 2), as `common.optim.Lamb`."""
        self.num_steps += 1
        beta1, beta2 = self.rule.betas
        grads = [weight.grad for weight in self.model.weights.values()]
        norm = torch.stack([grad.norm() for grad in grads]).norm()
        scale = (MAX_GRAD_NORM / norm).clamp(max=1.0)
        for name, weight in self.model.weights.items():
            grad = weight.grad * scale
            mean, square = self.means[name], self.squares[name]
            mean.mul_(beta1).add_(grad, alpha=1 - beta1)
            square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            root = (square / (1 - beta2**self.num_steps)).sqrt() + self.rule.eps
            update = mean / (1 - beta1**self.num_steps) / root
            if self.rule.weight_decay != 0:
                update = update + self.rule.weight_decay * weight
                length, update_length = weight.norm(), update.norm()
                if length > 0 and update_length > 0:
                    update = update * (length / update_length)
            weight.sub_(self.rule.learning_rate * update)

    @torch.no_grad()
    def _average(self) -> None:
        for name, weight in self.model.weights.items():
            average = self.averages[name]
            average.mul_(self.ema_decay).add_(weight, alpha=1 - self.ema_decay)
