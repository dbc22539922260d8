# SPDX-License-Identifier: BSD-3-Clause
"""HiFi-GAN's losses against the public recipe's numbers and their optima."""

from __future__ import annotations

import pytest
import torch

from hifigan.loss_function import (
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    mel_loss,
)
from tests.conftest import golden


@pytest.fixture
def fixture():
    return golden("hifigan_losses")


def test_losses_equal_the_public_recipe(fixture):
    real, fake = fixture["real"], fixture["fake"]
    features = feature_loss(fixture["fmap_real"], fixture["fmap_fake"])
    assert discriminator_loss(real, fake).item() == pytest.approx(fixture["discriminator_loss"])
    assert adversarial_loss(fake).item() == pytest.approx(fixture["generator_loss"])
    assert features.item() == pytest.approx(fixture["feature_loss"])


def test_losses_are_zero_where_their_aim_is_reached(fixture):
    ones = [torch.ones(2, 30), torch.ones(2, 31)]
    zeros = [torch.zeros(2, 30), torch.zeros(2, 31)]
    mel = torch.randn(2, 80, 9)
    assert discriminator_loss(ones, zeros) == 0
    assert adversarial_loss(ones) == 0
    assert feature_loss(fixture["fmap_real"], fixture["fmap_real"]) == 0
    assert mel_loss(mel, mel) == 0


def test_mel_loss_is_the_mean_absolute_difference():
    mel = torch.zeros(2, 80, 9)
    assert mel_loss(mel + 0.5, mel).item() == pytest.approx(0.5)


def test_half_precision_is_summed_in_full():
    real = [[torch.zeros(1, 8, 4096, dtype=torch.float16)]]
    fake = [[torch.full((1, 8, 4096), 100.0, dtype=torch.float16)]]
    assert feature_loss(real, fake).dtype == torch.float32
    assert adversarial_loss(fake[0]).item() == pytest.approx(99.0**2)
    assert discriminator_loss([fake[0][0] * 5], real[0]).item() == pytest.approx(499.0**2)


def test_losses_of_another_number_of_discriminators_are_refused(fixture):
    with pytest.raises(ValueError, match="shorter"):
        discriminator_loss(fixture["real"], fixture["fake"][:2])
