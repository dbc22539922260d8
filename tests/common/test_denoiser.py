# SPDX-License-Identifier: BSD-3-Clause
"""The denoiser against the public recipe's numbers, and against sounds whose bias is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from common.config import AudioConfig
from common.denoiser import Denoiser, zero_mel
from hifigan.arg_parser import HiFiGANConfig
from hifigan.model import HiFiGAN
from tests.conftest import golden

AUDIO = AudioConfig(filter_length=256, hop_length=64, win_length=256, n_mel_channels=4)


def tone(num_samples: int, cycles_per_window: int, amplitude: float) -> Tensor:
    """(T_audio,) cosine, which also its reflection at the start continues"""
    times = torch.arange(num_samples) / AUDIO.filter_length
    return amplitude * torch.cos(2 * math.pi * cycles_per_window * times)


class Humming:
    """A vocoder that hums a tone, and adds another where the mel is not zero."""

    def infer(self, mel: Tensor) -> Tensor:
        num_samples = mel.shape[2] * AUDIO.hop_length
        speech = mel.any(dim=2).any(dim=1)[:, None] * tone(num_samples, 50, 0.5)
        return speech + tone(num_samples, 10, 0.2)


def denoiser_of(vocoder: Humming, strength: float) -> Denoiser:
    return Denoiser(vocoder, strength, AUDIO, vocoder.infer(zero_mel(AUDIO)))


@pytest.mark.parametrize("strength", ["0.01", "0.1"])
def test_denoised_audio_is_that_of_the_public_recipe(strength):
    fixture = golden("hifigan_tiny")
    vocoder = HiFiGAN(HiFiGANConfig(**fixture["config"]))
    vocoder.load_state_dict(fixture["state_dict"])
    audio = AudioConfig()
    denoiser = Denoiser(vocoder, float(strength), audio, vocoder.infer(zero_mel(audio)))
    denoised = denoiser.infer(fixture["mel"])
    expected = fixture["denoised"][strength].squeeze(1)
    torch.testing.assert_close(denoised, expected, rtol=0, atol=1e-4)
    assert (expected - fixture["audio"].squeeze(1)).abs().max() > 5e-3


def test_the_hum_goes_and_the_speech_stays():
    mel = torch.ones(1, 4, 60)
    inside = slice(1000, -1000)
    hum, speech = tone(60 * 64, 10, 0.2)[inside], tone(60 * 64, 50, 0.5)[inside]
    plain = Humming().infer(mel)[0, inside]
    denoised = denoiser_of(Humming(), 1.0).infer(mel)[0, inside]
    torch.testing.assert_close(plain - speech, hum)
    assert (denoised - speech).norm() < 0.1 * hum.norm()


def test_half_the_strength_leaves_half_the_hum():
    inside = slice(1000, -1000)
    silence = torch.zeros(1, 4, 60)
    denoised = denoiser_of(Humming(), 0.5).infer(silence)[0, inside]
    torch.testing.assert_close(denoised, tone(60 * 64, 10, 0.1)[inside], rtol=0, atol=1e-3)


def test_no_strength_changes_nothing():
    mel = torch.ones(2, 4, 30)
    torch.testing.assert_close(denoiser_of(Humming(), 0.0).infer(mel), Humming().infer(mel))


def test_more_strength_than_there_is_sound_makes_silence():
    denoised = denoiser_of(Humming(), 50.0).infer(torch.zeros(1, 4, 60))
    assert denoised[0, :-1000].abs().max() < 1e-4


@pytest.mark.parametrize("num_frames", [1, 2, 3, 7])
def test_the_shortest_audio_keeps_its_length(num_frames):
    denoised = denoiser_of(Humming(), 0.1).infer(torch.ones(3, 4, num_frames))
    assert denoised.shape == (3, num_frames * AUDIO.hop_length)
    assert denoised.isfinite().all()


def test_audio_of_half_precision_is_denoised_in_full():
    class Half(Humming):
        def infer(self, mel: Tensor) -> Tensor:
            return super().infer(mel).half()

    mel = torch.ones(1, 4, 30)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = denoiser_of(Half(), 0.5).infer(mel)
    assert half.dtype == torch.float32
    full = denoiser_of(Humming(), 0.5).infer(mel)
    torch.testing.assert_close(half, full, rtol=0, atol=2e-3)


@pytest.mark.parametrize("strength", [-0.1, math.inf, math.nan])
def test_a_strength_that_takes_nothing_is_refused(strength):
    with pytest.raises(ValueError, match="--denoising-strength must not be negative"):
        denoiser_of(Humming(), strength)


def test_each_of_several_mels_is_denoised_as_it_is_alone():
    denoiser = denoiser_of(Humming(), 0.5)
    mels = [torch.ones(4, num_frames) for num_frames in (9, 1, 30, 9)]
    for wave, mel in zip(denoiser.infer_each(mels), mels, strict=True):
        torch.testing.assert_close(wave, denoiser.infer(mel[None])[0])
