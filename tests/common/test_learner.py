# SPDX-License-Identifier: BSD-3-Clause
"""What a training step does to a model, and what it leaves alone."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from common.config import RunConfig
from common.distributed import Processes
from common.learner import Learner
from common.optim import UpdateRule
from common.precision import Precision

OPTIMIZERS = ["lamb", "adam", "adamw"]
CLIP = torch.tensor([[0.3, -1.2, 0.7]])
CPU = torch.device("cpu")


def make_learner(name, ema_decay=0.9):
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    rule = UpdateRule(
        name=name,
        learning_rate=0.1,
        betas=(0.9, 0.98),
        eps=1e-9,
        weight_decay=0.01,
        max_grad_norm=1000.0,
    )
    run = RunConfig(output=Path(), epochs=1, batch_size=1, ema_decay=ema_decay)
    return Learner(model, rule, run, Processes(cuda=False))


def scale_losses(learner, **settings):
    """As with fp16 on a GPU, but that bf16 is computed."""
    learner.precision = Precision(amp=True, device=CPU, dtype="bf16", scaled=True)
    learner.precision.load_state_dict(learner.precision.state_dict() | settings)


def step(learner, *clips):
    def terms_of(clip):
        with learner.autocast():
            output = learner.wrapped(clip)
        return {"loss": output.float().square().mean() / len(clips)}

    return learner.step(clips, terms_of, 0.1)


def snapshot(learner):
    """All that a step may change, but for loss scaling."""
    state = learner.state_dict()
    return copy.deepcopy({k: v for k, v in state.items() if k != "scaler"})


def assert_same(first, second):
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list):
        assert len(first) == len(second)
        for pair in zip(first, second, strict=True):
            assert_same(*pair)
    else:
        assert first == second


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_that_is_not_finite_changes_nothing(name, poison):
    learner = make_learner(name)
    for _ in range(2):
        assert step(learner, CLIP)["bad_step"] == 0
    before = snapshot(learner)
    assert step(learner, CLIP, CLIP * poison)["bad_step"] == 1
    assert_same(snapshot(learner), before)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_after_a_bad_step_as_if_it_had_not_been(name):
    disturbed, undisturbed = make_learner(name), make_learner(name)
    for clip in (CLIP * torch.nan, CLIP, CLIP * torch.inf, CLIP + 1, CLIP * torch.nan, -CLIP):
        step(disturbed, clip)
    for clip in (CLIP, CLIP + 1, -CLIP):
        step(undisturbed, clip)
    assert_same(snapshot(disturbed), snapshot(undisturbed))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_loss_that_is_not_finite_is_bad_even_if_its_gradient_is(which):
    learner = make_learner("adam")
    before = snapshot(learner)
    offsets = [0.0, 0.0, 0.0]
    offsets[which] = torch.inf

    def terms_of(offset):
        return {"loss": learner.wrapped(CLIP).square().mean() + offset}

    metrics = learner.step(offsets, terms_of, 0.1)
    assert metrics["bad_step"] == 1 and metrics["loss"] == torch.inf
    assert_same(snapshot(learner)["state_dict"], before["state_dict"])


def test_a_good_step_says_so_and_gives_the_norm():
    learner = make_learner("lamb")
    reference = copy.deepcopy(learner.model)
    reference(CLIP).square().mean().backward()
    metrics = step(learner, CLIP)
    assert metrics["bad_step"] == 0
    expected = nn.utils.get_total_norm([p.grad for p in reference.parameters()])
    assert torch.equal(metrics["grad_norm"], expected)
    assert "scale" not in metrics


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_overflow_skips_that_step_and_halves_the_scale(name):
    learner = make_learner(name)
    scale_losses(learner, scale=2.0**17)
    step(learner, CLIP)
    before = snapshot(learner)
    scaler = learner.precision.scaler
    metrics = step(learner, CLIP * torch.inf)
    assert metrics["bad_step"] == 1 and metrics["scale"] == 2.0**17
    assert scaler.get_scale() == 2.0**16
    assert_same(snapshot(learner), before)
    metrics = step(learner, CLIP)
    assert metrics["bad_step"] == 0 and metrics["scale"] == 2.0**16


def test_a_scale_beyond_float32_comes_down_until_steps_are_taken():
    learner = make_learner("lamb")
    scale_losses(learner, scale=2.0**127)
    nn.init.constant_(learner.model[2].bias, 100.0)
    before = snapshot(learner)
    bad = [bool(step(learner, CLIP)["bad_step"]) for _ in range(20)]
    num_bad = bad.index(False)
    assert num_bad > 0 and bad == [True] * num_bad + [False] * (20 - num_bad)
    assert learner.precision.scaler.get_scale() == 2.0 ** (127 - num_bad)
    weights = learner.model.state_dict()
    assert all(not torch.equal(weights[k], v) for k, v in before["state_dict"].items())


def test_the_scale_grows_after_the_interval_and_an_overflow_starts_it_anew():
    learner = make_learner("adam")
    scale_losses(learner, scale=8.0, growth_interval=3)
    clips = [CLIP, CLIP, CLIP * torch.inf, CLIP, CLIP, CLIP, CLIP]
    scales = [float(step(learner, clip)["scale"]) for clip in clips]
    assert scales == [8, 8, 8, 4, 4, 4, 8]


def test_scale_and_counter_survive_a_resume():
    through, stopped = make_learner("lamb"), make_learner("lamb")
    for learner in (through, stopped):
        scale_losses(learner, scale=8.0, growth_interval=3)
        step(learner, CLIP)
        step(learner, CLIP * torch.nan)
        step(learner, CLIP)
    resumed = make_learner("lamb")
    scale_losses(resumed)
    resumed.load_state_dict(stopped.state_dict(), Path("a.pt"))
    for clip in (CLIP + 1, -CLIP, CLIP):
        assert_same(step(resumed, clip), step(through, clip))
    assert resumed.state_dict()["scaler"] == through.state_dict()["scaler"]
    assert resumed.state_dict()["scaler"]["scale"] == 8.0
    assert_same(snapshot(resumed), snapshot(through))


def test_a_scaled_step_is_the_unscaled_one():
    scaled, plain = make_learner("adamw"), make_learner("adamw")
    scale_losses(scaled)
    plain.precision = Precision(amp=True, device=CPU, dtype="bf16")
    for clip in (CLIP, -CLIP, CLIP + 1):
        metrics = step(scaled, clip)
        assert_same(
            {k: metrics[k] for k in ("loss", "grad_norm")},
            {k: v for k, v in step(plain, clip).items() if k in ("loss", "grad_norm")},
        )
    assert_same(snapshot(scaled), snapshot(plain))
