# SPDX-License-Identifier: BSD-3-Clause
"""Update rules by name, and learning rates as functions of the step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.apex_optimizers import MAX_GRAD_NORM, make_apex_optimizer
from common.config import OptimizerConfig

logger = logging.getLogger(__name__)


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

    Attributes:
        found_inf: () float, 1 where the next step must change nothing, whatever the gradients are;
            as in PyTorch's fused optimizers, it is never read by the host
    """

    _step_supports_amp_scaling = True  # PyTorch's sign that `found_inf` is respected

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        max_grad_norm: float = MAX_GRAD_NORM,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        self.max_grad_norm = max_grad_norm
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Updates the parameters that have a gradient.

        Nothing changes if a gradient is not finite, or if `found_inf` is 1.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norm = nn.utils.get_total_norm([grad for grad in grads if grad is not None])
        scale = (self.max_grad_norm / norm).clamp(max=1.0)
        taken = norm.isfinite().to(norm.dtype)  # 0 or 1
        if self.found_inf is not None:
            taken = taken * (1 - self.found_inf)
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                # On the device, where alone it is known whether the step is taken.
                steps = group.get("step", 0)
                if not isinstance(steps, Tensor):
                    steps = torch.full((), steps, dtype=torch.double, device=taken.device)
                group["step"] = steps + taken
                self._update(parameters, group, scale, taken)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The averages and settings; the count of steps as a plain number."""
        state = super().state_dict()
        for group in state["param_groups"]:
            if "step" in group:
                group["step"] = int(group["step"])
        return state

    def _update(
        self, parameters: list[Tensor], group: dict[str, Any], scale: Tensor, taken: Tensor
    ) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
                self.state[parameter]["exp_avg_sq"] = torch.zeros_like(parameter)
        grads = _scaled_or_zero([p.grad for p in parameters], scale, taken)
        means = [self.state[p]["exp_avg"] for p in parameters]
        squares = [self.state[p]["exp_avg_sq"] for p in parameters]
        beta1, beta2 = group["betas"]
        torch._foreach_mul_(means, 1 - (1 - beta1) * taken)
        torch._foreach_add_(means, grads, alpha=1 - beta1)
        torch._foreach_mul_(squares, 1 - (1 - beta2) * taken)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)

        # The averages begin at zero: both are divided by how far they can have come.
        steps = group["step"].clamp(min=1)
        bias1, bias2 = (1 - beta1**steps), (1 - beta2**steps).sqrt()
        roots = torch._foreach_sqrt(squares)
        torch._foreach_mul_(roots, (1 / bias2).to(scale.dtype))
        torch._foreach_add_(roots, group["eps"])
        updates = torch._foreach_div(means, roots)
        torch._foreach_mul_(updates, (taken / bias1).to(scale.dtype))
        if group["weight_decay"] != 0:
            torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
            ratios = _trust_ratios(parameters, updates) * taken
            torch._foreach_mul_(updates, ratios.unbind())
        torch._foreach_add_(parameters, updates, alpha=-group["lr"])


def _scaled_or_zero(grads: list[Tensor], scale: Tensor, taken: Tensor) -> list[Tensor]:
    """The gradients times a factor; where the step is not taken zeros, even of what is NaN.

    They are scaled in one piece: a kernel for each of hundreds of gradients costs more.
    """
    scaled = torch.cat([grad.flatten() for grad in grads]).mul_(scale)
    scaled.masked_fill_(taken == 0, 0.0)
    parts = scaled.split([grad.numel() for grad in grads])
    return [part.view_as(grad) for part, grad in zip(parts, grads, strict=True)]


def _trust_ratios(parameters: list[Tensor], updates: list[Tensor]) -> Tensor:
    """(number of parameters) |parameter| / |update|, 1 where either is zero"""
    norms = torch.stack(torch._foreach_norm(parameters))
    update_norms = torch.stack(torch._foreach_norm(updates))
    return torch.where((norms > 0) & (update_norms > 0), norms / update_norms, 1.0)


@dataclass(frozen=True, kw_only=True)
class UpdateRule:
    """How gradients change weights."""

    name: str  # lamb, adam or adamw
    fused: str = "auto"  # whose: auto, builtin or apex
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
            fused=config.fused_optimizer,
            learning_rate=config.learning_rate,
            betas=betas,
            eps=eps,
            weight_decay=config.weight_decay,
            max_grad_norm=config.grad_clip_thresh,
        )


def make_optimizer(rule: UpdateRule, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of a rule: apex's if the rule wants it, or wants any and it can be had.

    Frozen parameters are among its parameters, and never change: the states of public checkpoints
    count them.

    Raises:
        ValueError: apex's is wanted and cannot be had
    """
    parameters = list(parameters)
    settings = {
        "lr": rule.learning_rate,
        "betas": rule.betas,
        "eps": rule.eps,
        "weight_decay": rule.weight_decay,
    }
    apex_optimizer = _apex_optimizer(rule, parameters, settings)
    if apex_optimizer is not None:
        return apex_optimizer
    if rule.name == "lamb":
        return Lamb(parameters, **settings)
    optimizer_class = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[rule.name]
    return optimizer_class(parameters, **settings, fused=True)


def _apex_optimizer(
    rule: UpdateRule, parameters: list[nn.Parameter], settings: dict[str, Any]
) -> torch.optim.Optimizer | None:
    on_gpu = all(parameter.is_cuda for parameter in parameters)
    if rule.fused == "builtin" or (rule.fused == "auto" and not on_gpu):
        return None
    if not on_gpu:
        raise ValueError("--fused-optimizer apex needs a GPU: add --cuda, or leave the flag out")
    try:
        optimizer = make_apex_optimizer(rule.name, parameters, settings)
    except ImportError as error:
        if rule.fused == "auto":
            return None
        raise ValueError(
            f"--fused-optimizer apex: apex is not installed with its CUDA extensions ({error}): "
            "install it, or leave the flag out; the built-in optimizers compute the same"
        ) from error
    logger.info("Weights are updated by apex's %s", type(optimizer).__name__)
    return optimizer


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
        optimizer.load_state_dict(_converted(state, optimizer))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{source}: its optimizer does not fit: {error}") from error


def _converted(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state as an optimizer keeps it, with the settings that it was made with.

    PyTorch's count the steps of each parameter, LAMB and apex's those of a group.
    """
    values_of = {index: dict(values) for index, values in state["state"].items()}
    # What is set for a group now; loading adds to the defaults.
    settings = {k: v for k, v in optimizer.defaults.items() if k in optimizer.param_groups[0]}
    groups = []
    for saved in state["param_groups"]:
        group = settings | {"params": saved["params"]}
        own = [values_of[index] for index in saved["params"] if index in values_of]
        counts = [int(values["step"]) for values in own if "step" in values]
        num_steps = saved.get("step", max(counts, default=None))
        if own and num_steps is None:
            raise ValueError("it does not say how many steps it has done")
        if isinstance(optimizer, torch.optim.Adam):  # AdamW is one
            for values in own:
                values.setdefault("step", torch.tensor(float(num_steps)))
        else:
            for values in own:
                values.pop("step", None)
            if num_steps is not None:
                group["step"] = int(num_steps)
        groups.append(group)
    return {"state": values_of, "param_groups": groups}


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
