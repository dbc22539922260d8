# SPDX-License-Identifier: BSD-3-Clause
"""Update rules by name, and learning rates as functions of the step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.config import OptimizerConfig

SETTINGS = ("betas", "eps", "weight_decay")


class Lamb(torch.optim.Optimizer):
    """LAMB (You 2020, "Large Batch Optimization for Deep Learning", algorithm 2).

    The gradients of all parameters together are first clipped to a norm of `max_grad_norm`. Decay
    is decoupled; the trust ratio applies where there is decay.

    Args:
        params: parameters or groups of them
        lr: learning rate
        betas: decay of the averages of the gradient and its square
        eps: added to the root of the squared gradient
        weight_decay: decoupled weight decay
        max_grad_norm: largest norm of all gradients together
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        max_grad_norm: float = 1.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        self.max_grad_norm = max_grad_norm

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Updates the parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        scale = self._clip_scale()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                group["step"] = group.get("step", 0) + 1
                self._update(parameters, group, scale)
        return loss

    def _clip_scale(self) -> Tensor:
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norm = nn.utils.get_total_norm([grad for grad in grads if grad is not None])
        return (self.max_grad_norm / norm).clamp(max=1.0)

    def _update(self, parameters: list[Tensor], group: dict[str, Any], scale: Tensor) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
                self.state[parameter]["exp_avg_sq"] = torch.zeros_like(parameter)
        grads = torch._foreach_mul([p.grad for p in parameters], scale)
        means = [self.state[p]["exp_avg"] for p in parameters]
        squares = [self.state[p]["exp_avg_sq"] for p in parameters]
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)

        updates = torch._foreach_div(means, 1 - beta1 ** group["step"])
        roots = torch._foreach_sqrt(torch._foreach_div(squares, 1 - beta2 ** group["step"]))
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_div_(updates, roots)
        if group["weight_decay"] != 0:
            torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
            torch._foreach_mul_(updates, _trust_ratios(parameters, updates))
        torch._foreach_add_(parameters, updates, alpha=-group["lr"])


def _trust_ratios(parameters: list[Tensor], updates: list[Tensor]) -> list[Tensor]:
    """|parameter| / |update|, 1 where either is zero."""
    norms = zip(torch._foreach_norm(parameters), torch._foreach_norm(updates), strict=True)
    return [torch.where((p > 0) & (u > 0), p / u, torch.ones_like(p)) for p, u in norms]


@dataclass(frozen=True, kw_only=True)
class UpdateRule:
    """How gradients change weights."""

    name: str  # lamb, adam or adamw
    learning_rate: float  # of a step without a schedule
    betas: tuple[float, ...]  # decay of the averages of the gradient and its square
    eps: float
    weight_decay: float
    max_grad_norm: float

    @classmethod
    def of(cls, config: OptimizerConfig, betas: tuple[float, float], eps: float) -> UpdateRule:
        """The rule that flags ask for, with what they leave open."""
        return cls(
            name=config.optimizer,
            learning_rate=config.learning_rate,
            betas=betas,
            eps=eps,
            weight_decay=config.weight_decay,
            max_grad_norm=config.grad_clip_thresh,
        )


def make_optimizer(rule: UpdateRule, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of a rule.

    Frozen parameters are among its parameters, and never change: the states of public checkpoints
    count them.
    """
    settings = {
        "lr": rule.learning_rate,
        "betas": rule.betas,
        "eps": rule.eps,
        "weight_decay": rule.weight_decay,
    }
    if rule.name == "lamb":
        return Lamb(parameters, **settings)
    optimizer_class = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[rule.name]
    return optimizer_class(parameters, **settings, fused=True)


def check_rule(name: str, checkpoint: Mapping[str, Any], source: Path | str) -> None:
    """Refuses to continue a training with another update rule; public checkpoints do not say."""
    trained_with = checkpoint.get("optimizer_name", name)
    if trained_with != name:
        raise ValueError(
            f"--optimizer {name} cannot continue {source}, which was trained with {trained_with}: "
            "resume with that, or begin anew with its weights alone"
        )


def load_optimizer(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], source: Path | str
) -> None:
    """Continues with the averages of a saved optimizer, but with the settings of this run.

    Raises:
        ValueError: the state is that of another model or rule
    """
    try:
        optimizer.load_state_dict(state)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{source}: its optimizer does not fit: {error}") from error
    for group in optimizer.param_groups:
        group |= {k: v for k, v in optimizer.defaults.items() if k in SETTINGS}


def warmup_then_inverse_root(step: int, peak: float, warmup_steps: int) -> float:
    """Learning rate of a step (counted from 1): linear to peak / sqrt(warmup), then peak / sqrt.

    Vaswani 2017, equation 3, without the factor of the model size; constant without warm-up.
    """
    if warmup_steps == 0:
        return peak
    return peak * min(step**-0.5, step * warmup_steps**-1.5)


def decay_by_epoch(epoch: int, start: float, decay: float) -> float:
    """Learning rate of an epoch (counted from 1): falls to `decay` of itself after each."""
    return start * decay ** (epoch - 1)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Takes effect at the next step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
