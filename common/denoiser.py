# SPDX-License-Identifier: BSD-3-Clause
"""Takes the hum that a vocoder adds to everything out of its audio, whichever vocoder it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from common.config import AudioConfig
from common.precision import full_precision
from common.synthesizer import Vocoder, speak_each

NUM_ZERO_FRAMES = 88


def zero_mel(audio: AudioConfig, device: torch.device | str = "cpu") -> Tensor:
    """(1, n_mels, 88) zeros: the mel for which a vocoder shows its bias."""
    return torch.zeros(1, audio.n_mel_channels, NUM_ZERO_FRAMES, device=device)


class Denoiser:
    """A vocoder whose audio lacks the bias, a spectrum that is the same in all that it makes.

    Args:
        vocoder: whose audio is denoised
        strength: how much of the bias is taken from the magnitudes
        audio: settings of the vocoder's mels, for the transform
        bias_audio: (1, T_audio) what the vocoder makes of `zero_mel`, without noise of its own
    """

    def __init__(
        self, vocoder: Vocoder, strength: float, audio: AudioConfig, bias_audio: Tensor
    ) -> None:
        if not 0 <= strength < math.inf:
            raise ValueError(f"--denoising-strength must not be negative, got {strength}")
        self.vocoder = vocoder
        self.strength = strength
        self._transform = {
            "n_fft": audio.filter_length,
            "hop_length": audio.hop_length,
            "win_length": audio.win_length,
            "window": torch.hann_window(audio.win_length, device=bias_audio.device),
        }
        with full_precision(bias_audio):
            self._bias = self._spectrum(bias_audio.detach().float())[:, :, :1].abs()

    @torch.no_grad()
    def infer(self, mel: Tensor) -> Tensor:
        """Denoised audio.

        Args:
            mel: (B, n_mels, T_mel) natural log of amplitude, on the vocoder's device

        Returns:
            (B, T_audio) float32 in [-1, 1], as long as the vocoder's own
        """
        return self._denoise(self.vocoder.infer(mel))

    @torch.no_grad()
    def infer_each(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """Denoised audio of each mel (n_mels, T_mel): (T_audio,) as of that mel alone"""
        return [self._denoise(wave[None])[0] for wave in speak_each(self.vocoder, mels)]

    def _denoise(self, audio: Tensor) -> Tensor:
        with full_precision(audio):
            return self._without_bias(audio.float())

    def _without_bias(self, audio: Tensor) -> Tensor:
        num_samples = audio.shape[-1]
        # The first frame reflects half a window, which must be there.
        shortest = self._transform["n_fft"] // 2 + 1
        padded = F.pad(audio, (0, max(0, shortest - num_samples)))
        spectrum = self._spectrum(padded)
        magnitude = (spectrum.abs() - self.strength * self._bias).clamp(min=0)
        denoised = torch.istft(
            torch.polar(magnitude, spectrum.angle()),
            length=padded.shape[-1],
            **self._transform,
        )
        return denoised[:, :num_samples].clamp(-1, 1)

    def _spectrum(self, audio: Tensor) -> Tensor:
        """(B, n_fft // 2 + 1, frames) complex"""
        return torch.stft(audio, return_complex=True, **self._transform)
