# SPDX-License-Identifier: BSD-3-Clause
"""Griffin-Lim as a vocoder."""

from __future__ import annotations

import pytest
import torch

from common.audio import MelSpectrogram
from common.config import AudioConfig
from common.griffin_lim import GriffinLim

CONFIG = AudioConfig()


def harmonic_mel() -> torch.Tensor:
    """Mel of half a second of a voice-like sound with vibrato, (1, n_mels, T_mel)."""
    time = torch.arange(11025) / 22050
    phase = 2 * torch.pi * (150 * time + 2 * torch.sin(2 * torch.pi * 4 * time))
    audio = sum(torch.sin(n * phase) / n for n in range(1, 20)) * 0.2
    return MelSpectrogram(CONFIG)(audio[None])


def test_the_mel_of_the_audio_is_close_to_the_mel_given():
    mel = harmonic_mel()
    audio = GriffinLim(CONFIG).infer(mel)
    again = MelSpectrogram(CONFIG)(audio)[..., : mel.shape[-1]]
    error = (again.exp() - mel.exp()).norm() / mel.exp().norm()
    assert error < 0.15


def test_the_same_mel_gives_the_same_audio_alone_and_in_a_batch():
    mel = harmonic_mel()
    batch = torch.cat([mel, mel - 1.0])
    vocoder = GriffinLim(CONFIG, iterations=5)
    torch.testing.assert_close(vocoder.infer(batch)[:1], vocoder.infer(mel), rtol=0, atol=0)


@pytest.mark.parametrize("num_frames", [0, 1, 2, 3, 4, 50])
def test_audio_lasts_one_hop_per_frame(num_frames):
    audio = GriffinLim(CONFIG, iterations=2).infer(torch.full((2, 80, num_frames), -4.0))
    assert audio.shape == (2, num_frames * 256)
    assert audio.dtype == torch.float32
    assert audio.isfinite().all()


def test_loud_mels_stay_within_full_scale_and_silent_ones_silent():
    vocoder = GriffinLim(CONFIG, iterations=2)
    assert vocoder.infer(torch.full((1, 80, 20), 5.0)).abs().max() == 1.0
    assert vocoder.infer(torch.full((1, 80, 20), -11.5129)).abs().max() < 1e-3


def test_a_mel_of_another_shape_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match=r"\(B, 80, T_mel\), got \(1, 40, 10\)"):
        GriffinLim(CONFIG).infer(torch.zeros(1, 40, 10))
    with pytest.raises(ValueError, match="at least one iteration"):
        GriffinLim(CONFIG, iterations=0)
