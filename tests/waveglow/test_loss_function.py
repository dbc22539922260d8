# SPDX-License-Identifier: BSD-3-Clause
"""WaveGlow's loss against the public recipe's number and the formula of a changed density."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from tests.conftest import golden
from tests.waveglow.test_model import load, random_waveglow
from waveglow.loss_function import coupling_loss, latent_loss, mixing_loss, waveglow_loss
from waveglow.model import WaveGlowOutput


def test_loss_equals_the_public_recipe():
    fixture = golden("waveglow_tiny")
    output = load(fixture)(fixture["mel"], fixture["audio"])
    loss = waveglow_loss(output, sigma=1.0)["loss"]
    assert loss.shape == ()
    assert loss.item() == pytest.approx(fixture["loss_sigma1"], abs=1e-6)


def test_terms_follow_their_formulas():
    output = WaveGlowOutput(
        z=torch.tensor([[[1.0, -2.0], [3.0, 0.0]]]),
        log_s=[torch.tensor([[[0.5, 0.25]]]), torch.tensor([[[-1.0, 0.0]]])],
        log_det_W=[torch.tensor(2.0), torch.tensor(-0.5)],
    )
    assert latent_loss(output, sigma=0.5).item() == pytest.approx(14 / (2 * 0.25) / 4)
    assert coupling_loss(output).item() == pytest.approx(0.25 / 4)
    assert mixing_loss(output).item() == pytest.approx(-1.5 / 4)
    terms = waveglow_loss(output, sigma=0.5)
    assert list(terms) == ["loss", "latent_loss", "coupling_loss", "mixing_loss"]
    assert terms["loss"].item() == pytest.approx((28 + 0.25 - 1.5) / 4)


def test_loss_is_the_likelihood_of_a_change_of_variables():
    model = random_waveglow().double()
    mel, audio = torch.randn(1, 4, 2).double(), torch.rand(1, 64).double() - 0.5
    jacobian = torch.autograd.functional.jacobian(lambda x: model(mel, x).z.flatten(), audio)
    output = model(mel, audio)
    density = torch.distributions.Normal(0.0, 0.7).log_prob(output.z).sum()
    log_likelihood = density + torch.linalg.slogdet(jacobian[:, 0]).logabsdet
    constant = math.log(0.7 * math.sqrt(2 * math.pi))
    loss = waveglow_loss(output, sigma=0.7)["loss"]
    assert_close(loss + constant, -log_likelihood / 64)
