# SPDX-License-Identifier: BSD-3-Clause
"""A model together with everything that a training step changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from common.checkpoint import load_weights
from common.config import RunConfig
from common.distributed import Processes
from common.ema import ExponentialMovingAverage
from common.metrics import Metrics, add_metrics
from common.optim import (
    UpdateRule,
    check_rule,
    load_optimizer,
    make_optimizer,
    set_learning_rate,
)
from common.precision import Precision

MicroBatch = TypeVar("MicroBatch")


class Learner:
    """A model, its optimizer, loss scaling and averaged weights.

    Args:
        model: on its device, with its first weights
        rule: how gradients change the weights
        run: precision and averaging of weights
        processes: that train together
        parameters: of the model, in the optimizer's order; by default the model's own

    Attributes:
        model: as given; `wrapped` is the same, whose forward pass belongs to a training step
    """

    def __init__(
        self,
        model: nn.Module,
        rule: UpdateRule,
        run: RunConfig,
        processes: Processes,
        parameters: Iterable[nn.Parameter] | None = None,
    ) -> None:
        self.model = model
        self.rule = rule
        self.processes = processes
        self.precision = Precision(run.amp, processes.device, run.amp_dtype)
        self.optimizer = make_optimizer(
            rule, model.parameters() if parameters is None else parameters
        )
        # Compiled is only what belongs to a training step, so that `model` is saved, evaluated and
        # averaged as it was given. What differs between batches is compiled once for all lengths.
        compiled = torch.compile(model) if run.compile else model
        self.wrapped = processes.wrap(compiled)  # gives all processes the weights of the first
        self.ema = ExponentialMovingAverage(model, run.ema_decay)

    def autocast(self) -> AbstractContextManager:
        """Region in which the model's forward pass runs."""
        return self.precision.autocast()

    def step(
        self,
        micro_batches: Sequence[MicroBatch],
        terms_of: Callable[[MicroBatch], Metrics],
        learning_rate: float,
    ) -> Metrics:
        """One optimizer step.

        Args:
            micro_batches: whose gradients add up
            terms_of: loss terms of a micro-batch, as shares that add up, over micro-batches and
                processes, to the means over the global batch; `loss` is what is back-propagated
            learning_rate: of this step

        Returns:
            This process's share of the sums of the terms, of `lrate`, and of what `Precision.step`
            says: `grad_norm`, `bad_step`, `scale`; and `bad_losses`, (micro-batches), 1 where its
            loss was not finite, else 0. After a bad step, whose loss or gradient was not finite on
            any process, weights, optimizer and average are on all what they were.
        """
        set_learning_rate(self.optimizer, learning_rate)
        # Among several processes, gradients lie in the buffers that are sent, and stay there; new
        # ones would lie beside them until the last micro-batch.
        self.optimizer.zero_grad(set_to_none=self.processes.world_size == 1)
        totals: Metrics = {}
        bad_losses = []
        for index, micro_batch in enumerate(micro_batches):
            is_last = index + 1 == len(micro_batches)
            with self.processes.sync_if(self.wrapped, is_last):
                terms = terms_of(micro_batch)
                totals = add_metrics(totals, terms)
                bad_losses.append(terms["loss"].isfinite().logical_not().float())
                # Gradients are averaged over the processes, losses add up over them.
                self.precision.backward(terms["loss"] * self.processes.world_size)
        # Gradients would not tell: that of an infinite loss may be finite, and one that is not
        # may come of a scale too large.
        bad_losses = torch.stack(bad_losses)
        bad_loss = self.processes.sum(bad_losses.amax())
        stepped = self.precision.step(
            self.optimizer, self.model.parameters(), self.rule.max_grad_norm, bad_loss
        )
        self.ema.update(self.model, stepped["bad_step"])
        shares = self.share({"lrate": learning_rate} | stepped)
        return totals | shares | {"bad_losses": bad_losses}

    def share(self, values: Mapping[str, Any]) -> Metrics:
        """This process's share of values that are the same on all."""
        device, world_size = self.processes.device, self.processes.world_size
        # A GPU is told a number by `full` without waiting for it, and by `as_tensor` with.
        return {
            name: (value if isinstance(value, Tensor) else torch.full((), value, device=device))
            / world_size
            for name, value in values.items()
        }

    def evaluated(self) -> Iterator[tuple[str, nn.Module]]:
        """The model and, if there is one, its average, in evaluation mode, each after the scope
        that its metrics are logged under."""
        for scope, model in (("val", self.model), ("val_ema", self.ema.model)):
            if model is not None:
                yield scope, model.eval()

    def state_dict(self) -> dict[str, Any]:
        """What continuing needs, under the names of the public recipe's checkpoints."""
        return {
            "state_dict": self.model.state_dict(),
            "ema_state_dict": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "optimizer_name": self.rule.name,
            "scaler": self.precision.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any], source: Path) -> None:
        """Restores `state_dict`, but for the rule's settings, which are this run's own.

        Raises:
            ValueError: the weights or the optimizer are others
        """
        check_rule(self.rule.name, state, source)
        load_weights(self.model, state["state_dict"], source)
        load_optimizer(self.optimizer, state["optimizer"], source)
        self.precision.load_state_dict(state["scaler"])
        self.ema.load(state.get("ema_state_dict"), state["state_dict"], source)
