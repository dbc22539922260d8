# SPDX-License-Identifier: BSD-3-Clause
"""apex's optimizers, by stand-ins with its interface: none of this has run with apex itself."""

from __future__ import annotations

import copy
import logging
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from common.apex_optimizers import make_apex_optimizer
from common.optim import UpdateRule, load_optimizer, make_optimizer
from common.precision import Precision

SETTINGS = {"lr": 0.05, "betas": (0.9, 0.98), "eps": 1e-9, "weight_decay": 0.01}
NAMES = ["lamb", "adam", "adamw"]
CPU = torch.device("cpu")


class StandIn(torch.optim.Optimizer):
    """What apex's two have in common: steps are counted by group, gradients cleared to None."""

    def zero_grad(self):
        for group in self.param_groups:
            for param in group["params"]:
                param.grad = None

    @torch.no_grad()
    def step(self):
        clip = self.clip_factor()
        for group in self.param_groups:
            assert group["bias_correction"]
            group["step"] = group.get("step", 0) + 1
            for param in group["params"]:
                if param.grad is not None:
                    self.update(param, param.grad * clip, group)

    def averages(self, param, grad, group):
        """Of the gradient and of its square, freed from their beginning at zero."""
        state = self.state[param]
        for name, value, decay in zip(
            ("exp_avg", "exp_avg_sq"), (grad, grad**2), group["betas"], strict=True
        ):
            old = state.get(name, torch.zeros_like(param))
            state[name] = decay * old + (1 - decay) * value
            yield state[name] / (1 - decay ** group["step"])


class FusedLAMB(StandIn):
    def __init__(
        self,
        params,
        lr=1e-3,
        bias_correction=True,
        betas=(0.9, 0.999),
        eps=1e-6,
        weight_decay=0.01,
        amsgrad=False,
        adam_w_mode=True,
        grad_averaging=True,
        set_grad_none=True,
        max_grad_norm=1.0,
        use_nvlamb=False,
    ):
        assert adam_w_mode and grad_averaging and not use_nvlamb and not amsgrad
        defaults = {"lr": lr, "bias_correction": bias_correction, "betas": betas, "eps": eps}
        defaults |= {"weight_decay": weight_decay, "grad_averaging": grad_averaging}
        super().__init__(params, defaults | {"max_grad_norm": max_grad_norm})

    def clip_factor(self):
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norm = torch.cat([grad.flatten() for grad in grads if grad is not None]).norm()
        return min(1.0, float(self.defaults["max_grad_norm"] / norm))

    def update(self, param, grad, group):
        assert group["grad_averaging"]
        mean, square = self.averages(param, grad, group)
        change = mean / (square.sqrt() + group["eps"]) + group["weight_decay"] * param
        ratio = param.norm() / change.norm() if group["weight_decay"] else 1.0
        param -= group["lr"] * ratio * change


class FusedAdam(StandIn):
    def __init__(
        self,
        params,
        lr=1e-3,
        bias_correction=True,
        betas=(0.9, 0.999),
        eps=1e-8,
        adam_w_mode=True,
        weight_decay=0.0,
    ):
        self.adam_w_mode = adam_w_mode
        defaults = {"lr": lr, "bias_correction": bias_correction, "betas": betas, "eps": eps}
        super().__init__(params, defaults | {"weight_decay": weight_decay})

    def clip_factor(self):
        return 1.0

    def update(self, param, grad, group):
        decay = group["weight_decay"] * param
        mean, square = self.averages(param, grad if self.adam_w_mode else grad + decay, group)
        change = mean / (square.sqrt() + group["eps"])
        param -= group["lr"] * (change + (decay if self.adam_w_mode else 0))


@pytest.fixture
def apex(monkeypatch):
    """Stands in for an installed apex."""
    optimizers = ModuleType("apex.optimizers")
    optimizers.FusedLAMB, optimizers.FusedAdam = FusedLAMB, FusedAdam
    monkeypatch.setitem(sys.modules, "amp_C", ModuleType("amp_C"))
    monkeypatch.setitem(sys.modules, "apex", ModuleType("apex"))
    monkeypatch.setitem(sys.modules, "apex.optimizers", optimizers)


def rule(name, fused):
    settings = {key: value for key, value in SETTINGS.items() if key != "lr"}
    return UpdateRule(
        name=name, fused=fused, learning_rate=SETTINGS["lr"], max_grad_norm=1000.0, **settings
    )


def make(name, of_apex):
    """A model with a frozen parameter, and its optimizer."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    model[0].bias.requires_grad_(False)
    if of_apex:
        return model, make_apex_optimizer(name, model.parameters(), SETTINGS)
    return model, make_optimizer(rule(name, "builtin"), model.parameters())


def train(model, optimizer, clips):
    precision = Precision(amp=False, device=CPU)
    bad = []
    for clip in clips:
        optimizer.zero_grad()
        loss = 10 * model(clip).square().mean()
        precision.backward(loss)
        bad_loss = loss.isfinite().logical_not().float()
        stepped = precision.step(optimizer, model.parameters(), 1000.0, bad_loss)
        bad.append(int(stepped["bad_step"]))
    return bad


def assert_close(first, second):
    for name, weight in first.state_dict().items():
        torch.testing.assert_close(weight, second.state_dict()[name], rtol=1e-5, atol=1e-6)


CLIPS = torch.randn(8, 5, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_both_compute_the_same(apex, name):
    (ours, our_optimizer), (theirs, their_optimizer) = make(name, False), make(name, True)
    before = copy.deepcopy(ours)
    for model, optimizer in ((ours, our_optimizer), (theirs, their_optimizer)):
        train(model, optimizer, CLIPS)
    assert_close(ours, theirs)
    assert not torch.allclose(ours[0].weight, before[0].weight, atol=0.05)
    assert torch.equal(ours[0].bias, before[0].bias)


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_step_is_left_out(apex, name):
    disturbed, undisturbed = make(name, True), make(name, True)
    clips = [CLIPS[0] * torch.nan, CLIPS[1], CLIPS[2] * torch.inf, CLIPS[3]]
    assert train(*disturbed, clips) == [1, 0, 1, 0]
    assert train(*undisturbed, clips[1::2]) == [0, 0]
    for weight, expected in zip(
        disturbed[0].parameters(), undisturbed[0].parameters(), strict=True
    ):
        assert torch.equal(weight, expected)


@pytest.mark.parametrize("begins_with_apex", [False, True], ids=["builtin-apex", "apex-builtin"])
@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_goes_on_with_the_other(apex, name, begins_with_apex, tmp_path):
    through, first = make(name, begins_with_apex), make(name, begins_with_apex)
    train(*through, CLIPS)
    train(*first, CLIPS[:4])
    torch.save([first[0].state_dict(), first[1].state_dict()], tmp_path / "a.pt")
    weights, state = torch.load(tmp_path / "a.pt", weights_only=True)
    second = make(name, not begins_with_apex)
    second[0].load_state_dict(weights)
    load_optimizer(second[1], state, Path("a.pt"))
    train(*second, CLIPS[4:])
    assert_close(second[0], through[0])
    third = make(name, begins_with_apex)
    load_optimizer(third[1], second[1].state_dict(), Path("b.pt"))
    layouts = [optimizer.state_dict()["param_groups"] for _, optimizer in (third, through)]
    assert [[*group] for group in layouts[0]] == [[*group] for group in layouts[1]]
    counts = [optimizer.state_dict() for _, optimizer in (third, through)]
    assert counts[0]["state"].keys() == counts[1]["state"].keys()
    assert num_steps(counts[0]) == num_steps(counts[1]) == {8}


def num_steps(state):
    by_group = {group["step"] for group in state["param_groups"] if "step" in group}
    return by_group | {int(v["step"]) for v in state["state"].values() if "step" in v}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fused", ["auto", "builtin"])
def test_without_a_gpu_the_builtin_ones_are_taken(apex, name, fused, caplog):
    with caplog.at_level(logging.INFO):
        optimizer = make_optimizer(rule(name, fused), nn.Linear(2, 2).parameters())
    assert not isinstance(optimizer, StandIn) and not caplog.text


def test_apex_without_a_gpu_is_refused():
    with pytest.raises(ValueError, match=r"^--fused-optimizer apex needs a GPU: add --cuda, or"):
        make_optimizer(rule("lamb", "apex"), nn.Linear(2, 2).parameters())


def on_gpu(model):
    """Parameters that say they are on a GPU, which is all that is asked of them."""

    class OnGPU(nn.Parameter):
        is_cuda = True

    return [OnGPU(parameter.detach()) for parameter in model.parameters()]


def test_on_a_gpu_apex_is_taken_where_it_is_installed(apex, caplog):
    with caplog.at_level(logging.INFO):
        optimizer = make_optimizer(rule("lamb", "auto"), on_gpu(nn.Linear(2, 2)))
    assert isinstance(optimizer, FusedLAMB)
    assert "Weights are updated by apex's FusedLAMB" in caplog.text
    assert not isinstance(make_optimizer(rule("lamb", "builtin"), on_gpu(nn.Linear(2, 2))), StandIn)
    assert isinstance(make_optimizer(rule("adam", "apex"), on_gpu(nn.Linear(2, 2))), FusedAdam)


@pytest.mark.parametrize("missing", ["amp_C", "apex.optimizers"])
def test_apex_that_is_not_installed_is_a_sentence(apex, missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)  # as if there were none
    with pytest.raises(
        ValueError, match=r"^--fused-optimizer apex: apex is not installed with its"
    ):
        make_optimizer(rule("lamb", "apex"), on_gpu(nn.Linear(2, 2)))
    assert not isinstance(make_optimizer(rule("lamb", "auto"), on_gpu(nn.Linear(2, 2))), StandIn)
