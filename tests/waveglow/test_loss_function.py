# SPDX-License-Identifier: BSD-3-Clause
"""WaveGlow's loss against the public recipe's number and the formula of a changed density."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from common.audio import MelSpectrogram
from common.config import AudioConfig
from tests.conftest import golden
from tests.waveglow.test_model import load, random_waveglow
from waveglow.arg_parser import WaveGlowConfig
from waveglow.loss_function import coupling_loss, latent_loss, mixing_loss, waveglow_loss
from waveglow.model import WaveGlow, WaveGlowOutput

STEPS = 60
SAMPLING_RATE = 8000


def test_loss_equals_the_public_recipe():
    fixture = golden("waveglow_tiny")
    output = load(fixture)(fixture["mel"], fixture["audio"])
    loss = waveglow_loss(output, sigma=1.0)
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
    assert waveglow_loss(output, sigma=0.5).item() == pytest.approx((28 + 0.25 - 1.5) / 4)


def test_loss_is_the_likelihood_of_a_change_of_variables():
    model = random_waveglow().double()
    mel, audio = torch.randn(1, 4, 2).double(), torch.rand(1, 64).double() - 0.5
    jacobian = torch.autograd.functional.jacobian(lambda x: model(mel, x).z.flatten(), audio)
    output = model(mel, audio)
    density = torch.distributions.Normal(0.0, 0.7).log_prob(output.z).sum()
    log_likelihood = density + torch.linalg.slogdet(jacobian[:, 0]).logabsdet
    constant = math.log(0.7 * math.sqrt(2 * math.pi))
    assert_close(waveglow_loss(output, sigma=0.7) + constant, -log_likelihood / 64)


def harmonic_batch():
    """(4, 2048) tones with overtones, each of another pitch and phase"""
    pitch_hz = 100 + 200 * torch.rand(4, 1, 1)
    phase = 2 * math.pi * torch.rand(4, 1, 1)
    overtones = torch.arange(1, 9)[None, :, None]
    seconds = torch.arange(2048) / SAMPLING_RATE
    waves = torch.sin(overtones * (2 * math.pi * pitch_hz * seconds + phase)) / overtones
    return 0.3 * waves.sum(dim=1) + 0.003 * torch.randn(4, 2048)


def test_the_loss_falls_steadily_while_learning():
    audio_config = AudioConfig(
        sampling_rate=SAMPLING_RATE,
        filter_length=256,
        hop_length=64,
        win_length=256,
        mel_fmax=4000.0,
        n_mel_channels=20,
    )
    to_mel = MelSpectrogram(audio_config)
    model = WaveGlow(
        WaveGlowConfig(n_mel_channels=20, flows=4, early_every=2, wn_channels=32, wn_layers=4),
        hop_length=64,
        win_length=256,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(STEPS):
        audio = harmonic_batch()
        loss = waveglow_loss(model(to_mel(audio), audio), sigma=1.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    means = torch.tensor(losses).view(6, -1).mean(dim=1)
    assert (means.diff() < -0.05).all(), means
    assert means[-1] < means[0] - 1.0
