# SPDX-License-Identifier: BSD-3-Clause
"""LAMB against the public recipe's numbers and against its formula; the learning rate."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from common.optim import (
    Lamb,
    UpdateRule,
    decay_by_epoch,
    load_optimizer,
    make_optimizer,
    set_learning_rate,
    warmup_then_inverse_root,
)
from tests.conftest import golden

COUNTS = ["tensor", "number", "of the group"]  # kinds of counts of steps in saved states


def optimize(params, grads, **settings):
    """The parameters after a step with each of the gradients."""
    params = [nn.Parameter(param.clone()) for param in params]
    optimizer = Lamb(params, **settings)
    for step_grads in grads:
        for param, grad in zip(params, step_grads, strict=True):
            param.grad = grad.clone()
        optimizer.step()
    return [param.detach() for param in params]


def lamb_by_formula(params, grads, lr, betas, eps, weight_decay, max_grad_norm=1.0):
    """You 2020, algorithm 2, one number after the other, in double precision."""
    params = [param.double() for param in params]
    means = [torch.zeros_like(param) for param in params]
    squares = [torch.zeros_like(param) for param in params]
    for step, step_grads in enumerate(grads, start=1):
        norm = sum(float((grad.double() ** 2).sum()) for grad in step_grads) ** 0.5
        for i, grad in enumerate(step_grads):
            grad = grad.double() * min(1.0, max_grad_norm / norm)
            means[i] = betas[0] * means[i] + (1 - betas[0]) * grad
            squares[i] = betas[1] * squares[i] + (1 - betas[1]) * grad**2
            mean = means[i] / (1 - betas[0] ** step)
            square = squares[i] / (1 - betas[1] ** step)
            update = mean / (square**0.5 + eps) + weight_decay * params[i]
            ratio = float(params[i].norm() / update.norm()) if weight_decay else 1.0
            params[i] = params[i] - lr * ratio * update
    return params


@pytest.mark.parametrize("case", ["after", "after_no_decay"])
def test_lamb_steps_as_the_public_recipe_does(case):
    fixture = golden("lamb")
    decay = fixture["weight_decay"] if case == "after" else 0.0
    stepped = optimize(
        fixture["params"],
        fixture["grads"],
        lr=fixture["lr"],
        betas=fixture["betas"],
        eps=fixture["eps"],
        weight_decay=decay,
    )
    for ours, theirs in zip(stepped, fixture[case], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize("grad_scale", [0.01, 10.0], ids=["unclipped", "clipped"])
def test_lamb_follows_its_formula(weight_decay, grad_scale):
    params = [torch.randn(4, 3), torch.randn(5)]
    grads = [[torch.randn_like(param) * grad_scale for param in params] for _ in range(7)]
    settings = {"lr": 0.02, "betas": (0.9, 0.98), "eps": 1e-9, "weight_decay": weight_decay}
    stepped = optimize(params, grads, **settings)
    expected = lamb_by_formula(params, grads, **settings)
    for ours, formula in zip(stepped, expected, strict=True):
        torch.testing.assert_close(ours.double(), formula, rtol=1e-5, atol=1e-6)


def test_lamb_moves_a_parameter_of_zeros():
    (stepped,) = optimize([torch.zeros(3)], [[torch.ones(3)]], lr=0.1, weight_decay=0.01)
    torch.testing.assert_close(stepped, torch.full((3,), -0.1), rtol=1e-4, atol=0)


def test_lamb_stays_finite_without_any_gradient():
    param = torch.randn(3)
    (stepped,) = optimize([param], [[torch.zeros(3)]] * 2, lr=0.1, weight_decay=0.0)
    assert torch.equal(stepped, param)


def test_lamb_leaves_parameters_and_gradients_that_are_not_its_own_alone():
    trained, unused = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(3))
    before = unused.detach().clone()
    optimizer = Lamb([trained, unused], lr=0.1)
    trained.grad = torch.full((3,), 100.0)
    optimizer.step()
    assert torch.equal(unused, before)
    assert torch.equal(trained.grad, torch.full((3,), 100.0))


def test_lamb_continues_from_its_state_as_if_it_had_never_stopped(tmp_path):
    param = nn.Parameter(torch.randn(6))
    grads = [torch.randn(6) for _ in range(4)]
    optimizer = Lamb([param], lr=0.1)

    def steps(optimizer, param, some_grads):
        for grad in some_grads:
            param.grad = grad.clone()
            optimizer.step()
        return param.detach().clone()

    steps(optimizer, param, grads[:2])
    torch.save([copy.deepcopy(param.data), optimizer.state_dict()], tmp_path / "state.pt")
    uninterrupted = steps(optimizer, param, grads[2:])

    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed_param = nn.Parameter(weights)
    resumed = Lamb([resumed_param], lr=0.7)
    resumed.load_state_dict(state)
    assert torch.equal(steps(resumed, resumed_param, grads[2:]), uninterrupted)


@pytest.mark.parametrize(
    ("name", "rule"),
    [("lamb", Lamb), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_the_update_rule_is_chosen_by_name(name, rule):
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    settings = {"betas": (0.8, 0.99), "eps": 1e-7, "weight_decay": 0.01}
    update = UpdateRule(name=name, learning_rate=0.3, max_grad_norm=1.0, **settings)
    optimizer = make_optimizer(update, model.parameters())
    (group,) = optimizer.param_groups
    assert type(optimizer) is rule
    frozen = model.bias.clone()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert torch.equal(model.bias, frozen)
    assert {key: group[key] for key in settings} == settings
    assert group["lr"] == 0.3


def train(model, optimizer, num_steps):
    for _ in range(num_steps):
        optimizer.zero_grad()
        model(torch.ones(1, 3).to(model.weight.device)).square().sum().backward()
        optimizer.step()


def check_that_a_state_not_fused_goes_on(name, kind, device):
    """That ours goes on with the state of PyTorch's other Adam, whose steps are counted otherwise.

    Args:
        kind: how: a tensor of each parameter, a number of each, or one of the group
        device: where ours goes on; the other computes on the CPU
    """
    public_class = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    settings = {"betas": (0.8, 0.99), "eps": 1e-8, "weight_decay": 0.01}
    public_model = nn.Linear(3, 2)
    public = public_class(public_model.parameters(), lr=0.1, foreach=True, **settings)
    train(public_model, public, 3)
    model, state = copy.deepcopy(public_model), copy.deepcopy(public.state_dict())
    for values in state["state"].values():  # as PyTorch once counted, and as apex does
        if kind == "number":
            values["step"] = int(values["step"])
        elif kind == "of the group":
            state["param_groups"][0]["step"] = int(values.pop("step"))
    model.to(device)
    rule = UpdateRule(name=name, learning_rate=0.1, max_grad_norm=1.0, **settings)
    optimizer = make_optimizer(rule, model.parameters())
    load_optimizer(optimizer, state, "a.pt")
    for parameter, values in optimizer.state.items():
        step = values["step"]
        assert (step, step.dtype, step.device) == (3, torch.float32, parameter.device)
    train(model, optimizer, 4)
    train(public_model, public, 4)
    for ours, theirs in zip(model.parameters(), public_model.parameters(), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_state_of_an_optimizer_that_was_not_fused_goes_on(name, kind):
    check_that_a_state_not_fused_goes_on(name, kind, torch.device("cpu"))


@pytest.mark.parametrize(
    "state",
    [
        {"state": {}, "param_groups": []},
        {"state": {}, "param_groups": [{"params": [0]}]},
        {"state": {0: {"exp_avg": torch.zeros(9)}}, "param_groups": [{"params": [0, 1]}]},
        {"state": {}},
        {},
    ],
    ids=["no group", "another model", "no steps", "no groups", "nothing"],
)
def test_a_state_of_something_else_is_refused_by_name(state):
    model = nn.Linear(3, 2)
    rule = UpdateRule(
        name="adam",
        learning_rate=0.1,
        betas=(0.9, 0.98),
        eps=1e-9,
        weight_decay=0.0,
        max_grad_norm=1.0,
    )
    optimizer = make_optimizer(rule, model.parameters())
    with pytest.raises(ValueError, match=r"^a\.pt: its optimizer does not fit: "):
        load_optimizer(optimizer, state, "a.pt")


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (1, 0.1 / 1000**1.5),
        (500, 0.1 * 500 / 1000**1.5),
        (1000, 0.1 / 1000**0.5),
        (4000, 0.1 / 4000**0.5),
        (1_000_000, 0.0001),
    ],
)
def test_the_learning_rate_rises_linearly_then_falls_with_the_root(step, expected):
    assert warmup_then_inverse_root(step, 0.1, 1000) == pytest.approx(expected, rel=1e-12)


def test_the_learning_rate_is_constant_without_warm_up():
    assert {warmup_then_inverse_root(step, 0.1, 0) for step in (1, 10, 10_000)} == {0.1}


def test_a_learning_rate_is_set_in_every_group():
    layers = [nn.Linear(1, 1), nn.Linear(1, 1)]
    optimizer = Lamb([{"params": layer.parameters()} for layer in layers])
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


def test_the_learning_rate_may_decay_epoch_by_epoch():
    rates = [decay_by_epoch(epoch, 3e-4, 0.9998) for epoch in (1, 2, 1001)]
    assert rates == pytest.approx([3e-4, 3e-4 * 0.9998, 3e-4 * 0.9998**1000])
