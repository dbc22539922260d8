# SPDX-License-Identifier: BSD-3-Clause
"""The discriminators against the public recipe's numbers, and at the edges of their input."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from hifigan.arg_parser import DiscriminatorConfig
from hifigan.discriminators import (
    Discriminators,
    MultiPeriodDiscriminator,
    MultiScaleDiscriminator,
    PeriodDiscriminator,
)
from tests.conftest import golden
from tests.hifigan.test_model import LAYOUTS, layout

KINDS = {"mpd": MultiPeriodDiscriminator, "msd": MultiScaleDiscriminator}
SMALL = DiscriminatorConfig(mpd_periods=(2, 3, 11), discriminator_divisor=8)


def fill(model):
    """The weights that the fixture was made with, see its `fill`."""
    for index, (name, parameter) in enumerate(model.named_parameters()):
        count = parameter.numel()
        # In float32 the angles of the last of five million values would be off by up to a fifth.
        values = torch.sin(0.7 * torch.arange(count, dtype=torch.float64) + index)
        values /= max(1.0, math.sqrt(count / parameter.shape[0]))
        if "original0" in name:  # PyTorch's name of weight_g
            values = values.abs() + 0.5
        parameter.data = values.float().view_as(parameter)


def assert_close_in_scale(actual, expected):
    assert_close(actual, expected, atol=1e-5 * float(torch.as_tensor(expected).abs().max()), rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_judgements_equal_the_public_recipe(kind):
    fixture = golden("hifigan_discriminators")
    model = KINDS[kind](DiscriminatorConfig()).eval()
    fill(model)
    if kind == "msd":
        missing, unexpected = model.load_state_dict(fixture["msd_buffers"], strict=False)
        assert not unexpected and len(missing) + len(fixture["msd_buffers"]) == 80
    expected = fixture[kind]
    with torch.no_grad():
        real, fake = model(fixture["y"][:, 0]), model(fixture["y_hat"][:, 0])
    for judgement, name in ((real, "logits_real"), (fake, "logits_fake")):
        assert len(judgement.logits) == len(expected[name])
        for logits, expected_logits in zip(judgement.logits, expected[name], strict=True):
            assert_close_in_scale(logits, expected_logits)
    shapes = [[list(layer.shape) for layer in layers] for layers in real.features]
    assert shapes == expected["fmap_shapes"]
    for layers, means in zip(real.features, expected["fmap_abs_mean"], strict=True):
        for layer, mean in zip(layers, means, strict=True):
            assert layer.abs().mean().item() == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_discriminators_have_the_parameters_of_public_checkpoints(kind):
    expected = [(name, tuple(shape), d) for name, shape, d in LAYOUTS[f"hifigan_{kind}"]]
    assert layout(KINDS[kind](DiscriminatorConfig())) == expected


@pytest.mark.parametrize("divisor", [2, 4, 8])
def test_a_divisor_divides_all_channels_but_the_logits(divisor):
    full = Discriminators(DiscriminatorConfig())
    small = Discriminators(DiscriminatorConfig(discriminator_divisor=divisor))
    for (name, paper, _), (own_name, own, _) in zip(layout(full), layout(small), strict=True):
        assert name == own_name
        if name.endswith(".bias"):
            assert own[0] == (1 if "conv_post" in name else paper[0] // divisor), name


def test_gradients_reach_every_parameter_and_the_audio():
    model = Discriminators(SMALL)
    audio = torch.randn(2, 1000, requires_grad=True)
    for judgement in model(audio):
        sum(logits.square().sum() for logits in judgement.logits).backward()
    assert audio.grad.any(dim=1).all()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_an_item_does_not_depend_on_its_neighbours():
    model = Discriminators(SMALL).eval()
    audio = torch.randn(3, 1000)
    together = model(audio)
    for item in range(3):
        alone = model(audio[item : item + 1])
        for one, all_ in zip(alone.mpd + alone.msd, together.mpd + together.msd, strict=True):
            for mine, ours in zip(flat(one), flat(all_), strict=True):
                assert_close(mine[0], ours[item], atol=1e-5, rtol=1e-5)


def flat(tensors):
    return [t for each in tensors for t in (each if isinstance(each, list) else [each])]


def test_silence_is_judged_with_finite_logits_and_gradients():
    model = Discriminators(SMALL)
    audio = torch.zeros(1, 1000, requires_grad=True)
    judgements = model(audio)
    logits = [*judgements.mpd.logits, *judgements.msd.logits]
    assert all(each.isfinite().all() for each in logits)
    sum(each.square().sum() for each in logits).backward()
    assert audio.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("length", [22, 23, 32, 33])
def test_audio_is_reflected_to_whole_periods(length):
    model = PeriodDiscriminator(11, divisor=8)
    audio = torch.randn(2, length)
    whole = F.pad(audio[None], (0, -length % 11), mode="reflect")[0]
    assert whole.shape[1] % 11 == 0
    logits, features = model(audio)
    expected_logits, expected_features = model(whole)
    assert torch.equal(logits, expected_logits)
    assert features[0].shape[3] == 11 and torch.equal(features[0], expected_features[0])


@pytest.mark.parametrize("length", [4, 5, 6, 7])
def test_audio_shorter_than_what_it_lacks_is_judged(length):
    for judgement in Discriminators(SMALL)(torch.randn(2, length)):
        assert all(logits.isfinite().all() and logits.numel() for logits in judgement.logits)


def test_a_period_discriminator_compares_only_equal_places_of_the_periods():
    model = PeriodDiscriminator(3, divisor=8)
    audio = torch.randn(1, 99, requires_grad=True)
    _, features = model(audio)
    features[-1][..., 1].sum().backward()
    places = audio.grad.view(33, 3).abs().sum(dim=0) > 0
    assert places.tolist() == [False, True, False]


def test_later_scales_hear_averages():
    model = MultiScaleDiscriminator(SMALL).eval()
    audio = torch.randn(2, 64)
    half = torch.stack([F.pad(audio, (1, 1))[:, n : n + 4].mean(1) for n in range(0, 63, 2)], 1)
    logits, _ = model.discriminators[1](half)
    assert_close(model(audio).logits[1], logits)
