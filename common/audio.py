# SPDX-License-Identifier: BSD-3-Clause
"""Waveforms on disk, and the mel spectrograms that the models see."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import librosa
import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.config import AudioConfig
from common.files import is_file
from common.precision import full_precision

LOG_FLOOR = 1e-5
MAGNITUDE_EPSILON = 1e-9
# Float files may overshoot full scale a little; beyond this they are no audio in [-1, 1].
LARGEST_PEAK = 2.0


def read_audio(path: Path | str, sampling_rate: int) -> np.ndarray:
    """Reads a mono WAV or FLAC file at the given rate; another rate is resampled.

    Returns:
        (T_audio,) float32 in [-1, 1]

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not audio, not mono, empty, not finite, or not scaled to [-1, 1].
    """
    return resample(*read_at_own_rate(path), sampling_rate)


def read_at_own_rate(path: Path | str) -> tuple[np.ndarray, int]:
    """Reads a mono WAV or FLAC file as it is: (T_audio,) float32 in [-1, 1] and its rate in Hz.

    Raises:
        FileNotFoundError, ValueError: as `read_audio`
    """
    with _open_audio(path) as file:
        audio, file_rate = file.read(dtype="float32", always_2d=True), file.samplerate
    _check_size(path, *audio.shape)
    if not np.isfinite(audio).all():
        first = int(np.argmin(np.isfinite(audio))) / file_rate
        raise ValueError(f"{path}: NaN or infinite samples, from {first:.3f} s on: export it again")
    peak = float(np.abs(audio).max())
    if peak > LARGEST_PEAK:
        raise ValueError(
            f"{path}: expected samples in [-1, 1], got a peak of {peak:g}: store it as 16-bit PCM"
        )
    return np.clip(audio[:, 0], -1.0, 1.0), file_rate


def read_header(path: Path | str) -> tuple[int, int]:
    """Number of samples and rate in Hz of a mono WAV or FLAC file; samples are not read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not audio, not mono, or empty.
    """
    with _open_audio(path) as file:
        num_samples, num_channels, file_rate = file.frames, file.channels, file.samplerate
    _check_size(path, num_samples, num_channels)
    return num_samples, file_rate


@contextmanager
def _open_audio(path: Path | str) -> Iterator[soundfile.SoundFile]:
    if not is_file(Path(path)):
        raise FileNotFoundError(f"{path}: no such audio file")
    try:
        with soundfile.SoundFile(path) as file:
            yield file
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path}: expected WAV or FLAC audio: {error.error_string}") from error


def _check_size(path: Path | str, num_samples: int, num_channels: int) -> None:
    if num_channels != 1:
        raise ValueError(f"{path}: expected one channel, got {num_channels}: mix it down to mono")
    if num_samples == 0:
        raise ValueError(f"{path}: expected audio, got no samples: record it again or remove it")


def write_wav(path: Path | str, audio: np.ndarray | Tensor, sampling_rate: int) -> None:
    """Writes audio, (T_audio,) in [-1, 1], as 16-bit PCM; what goes beyond is clipped."""
    if isinstance(audio, Tensor):
        audio = audio.detach().cpu().numpy()
    if audio.ndim != 1:
        raise ValueError(f"{path}: expected audio of shape (T_audio,), got {tuple(audio.shape)}")
    if not np.isfinite(audio).all():
        raise ValueError(f"{path}: audio holds NaN or infinite samples, not written")
    samples = np.rint(np.asarray(audio, dtype=np.float64) * 32768)
    pcm = np.clip(samples, -32768, 32767).astype(np.int16)
    try:
        soundfile.write(path, pcm, sampling_rate, subtype="PCM_16", format="WAV")
    except soundfile.LibsndfileError as error:
        raise OSError(f"{path}: cannot be written: {error.error_string}") from error


def mel_filters(config: AudioConfig) -> np.ndarray:
    """(n_mels, n_fft // 2 + 1) weights of Slaney's mel bands, float32"""
    return librosa.filters.mel(
        sr=config.sampling_rate,
        n_fft=config.filter_length,
        n_mels=config.n_mel_channels,
        fmin=config.mel_fmin,
        fmax=config.mel_fmax,
    )


class MelSpectrogram(nn.Module):
    """Natural log of mel amplitudes, on the Slaney scale.

    Args:
        padding: "center" puts frame t around sample t * hop, T_mel = T_audio // hop + 1 (FastPitch,
            WaveGlow). "same" makes T_mel = T_audio // hop and has a gradient in silence (HiFi-GAN).
    """

    def __init__(self, config: AudioConfig, padding: Literal["center", "same"] = "center") -> None:
        super().__init__()
        if padding not in ("center", "same"):
            raise ValueError(f"padding must be 'center' or 'same', got {padding!r}")
        self.config = config
        self.padding = padding
        # Settings rebuild both, so checkpoints do without them.
        self.register_buffer("filters", torch.from_numpy(mel_filters(config)), persistent=False)
        self.register_buffer("window", torch.hann_window(config.win_length), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """The mel spectrogram, in full precision whatever region it is called in.

        Args:
            audio: (B, T_audio) in [-1, 1]

        Returns:
            (B, n_mels, T_mel)
        """
        padded = self._pad(audio)
        if padded.shape[-1] < self.config.filter_length:  # "same" and less than one hop
            return audio.new_empty(audio.shape[0], self.config.n_mel_channels, 0)
        spectrum = torch.stft(
            padded,
            n_fft=self.config.filter_length,
            hop_length=self.config.hop_length,
            win_length=self.config.win_length,
            window=self.window,
            center=False,
            return_complex=True,
        )
        with full_precision(audio):
            return (self.filters @ self._magnitude(spectrum)).clamp(min=LOG_FLOOR).log()

    def _magnitude(self, spectrum: Tensor) -> Tensor:
        if self.padding == "center":
            return spectrum.abs()
        return (spectrum.real.square() + spectrum.imag.square() + MAGNITUDE_EPSILON).sqrt()

    def _pad(self, audio: Tensor) -> Tensor:
        """Reflects both ends; where the audio is too short for that, the rest is zeros."""
        total = self.config.filter_length
        if self.padding == "same":
            total -= self.config.hop_length
        left, right = total // 2, total - total // 2
        longest = max(audio.shape[-1] - 1, 0)
        reflected = (min(left, longest), min(right, longest))
        if any(reflected):
            audio = F.pad(audio.unsqueeze(1), reflected, mode="reflect").squeeze(1)
        return F.pad(audio, (left - reflected[0], right - reflected[1]))


def resample(audio: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Audio at another rate; the same rate returns it as it is.

    Args:
        audio: (T_audio,) float32 in [-1, 1], as is the result
    """
    if from_rate == to_rate:
        return audio
    # The filter rings: a peak near full scale may overshoot it.
    return np.clip(soxr.resample(audio, from_rate, to_rate), -1.0, 1.0)


def resampled_length(num_samples: int, from_rate: int, to_rate: int) -> int:
    """How many samples `resample` makes of `num_samples`."""
    return math.floor(num_samples * to_rate / from_rate + 0.5)
