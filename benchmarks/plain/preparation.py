# SPDX-License-Identifier: BSD-3-Clause
"""Preparation as one writes it down first: file by file, with librosa and torch.stft."""

from __future__ import annotations

import functools
from pathlib import Path

import librosa
import soundfile
import torch

from benchmarks.pitch import find_with_librosa
from common.config import AudioConfig


def prepare_plainly(clip: Path, folder: Path, config: AudioConfig) -> None:
    """Reads a clip, at its own rate, and writes `mels/<name>.pt` and `pitch/<name>.pt`."""
    audio, _ = soundfile.read(clip, dtype="float32")
    spectrum = torch.stft(
        torch.from_numpy(audio),
        n_fft=config.filter_length,
        hop_length=config.hop_length,
        win_length=config.win_length,
        window=torch.hann_window(config.win_length),
        return_complex=True,
    )
    mel = (_filters(config) @ spectrum.abs()).clamp(min=1e-5).log()
    torch.save(mel, folder / "mels" / f"{clip.stem}.pt")
    pitch = torch.from_numpy(find_with_librosa(audio, config)).float()
    torch.save(pitch[None], folder / "pitch" / f"{clip.stem}.pt")


@functools.lru_cache(maxsize=1)
def _filters(config: AudioConfig) -> torch.Tensor:
    return torch.from_numpy(
        librosa.filters.mel(
            sr=config.sampling_rate,
            n_fft=config.filter_length,
            n_mels=config.n_mel_channels,
            fmin=config.mel_fmin,
            fmax=config.mel_fmax,
        )
    )
