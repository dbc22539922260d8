# SPDX-License-Identifier: BSD-3-Clause
"""The features of one clip: read from files of its own, or computed from its audio."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from common.audio import MelSpectrogram, read_audio
from common.checkpoint import load_tensors
from common.config import AudioConfig, DataConfig
from common.filelists import Utterance
from common.files import atomic_path
from common.pitch import check_f0_method, estimate_pitch
from fastpitch.prior import InterpolatedPrior

logger = logging.getLogger(__name__)


class Features(NamedTuple):
    """What is known of an utterance besides its text."""

    mel: Tensor  # (n_mels, T_mel) natural log of amplitude
    pitch_hz: Tensor  # (T_mel) 0 where unvoiced
    energy: Tensor  # (T_mel) L2 norm of each mel frame

    @classmethod
    def of(cls, mel: Tensor, pitch_hz: Tensor) -> Features:
        """With the energy of the mel."""
        return cls(mel, pitch_hz, mel.norm(dim=0))

    @property
    def num_frames(self) -> int:
        """T_mel."""
        return self.mel.shape[1]


class FeatureSource(Protocol):
    """Where a dataset has its features from."""

    device: torch.device  # on which it pads them

    def read(self, utterance: Utterance) -> Any:
        """What `pad` needs of an utterance; knows its `num_frames`."""

    def pad(self, utterances: Sequence[Any]) -> Features:
        """Features of B utterances, padded with zeros: with B before their other dimensions."""

    def pad_priors(self, mel_lens: Sequence[int], text_lens: Sequence[int]) -> Tensor:
        """(B, T_mel, T_text) the priors over their alignments, padded with zeros."""


class HostFeatures:
    """What sources have in common whose features are in the host's memory."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.prior = InterpolatedPrior()

    def pad(self, utterances: Sequence[Features]) -> Features:
        """See `FeatureSource`."""
        return Features(*map(_pad_frames, zip(*utterances, strict=True)))

    def pad_priors(self, mel_lens: Sequence[int], text_lens: Sequence[int]) -> Tensor:
        """See `FeatureSource`."""
        priors = torch.empty(len(mel_lens), max(mel_lens), max(text_lens))
        for padded, *size in zip(priors.numpy(), mel_lens, text_lens, strict=True):
            self.prior.fill(padded, *size)
        return priors


class ClipFeatures(HostFeatures):
    """Reads or computes features clip by clip.

    Args:
        data: where they come from
        audio: settings of mels and pitch
    """

    def __init__(self, data: DataConfig, audio: AudioConfig) -> None:
        if not data.load_pitch_from_disk:
            check_f0_method(data.pitch_online_method)
        super().__init__()
        self.data = data
        self.audio = audio
        self.mel_spectrogram = MelSpectrogram(audio)

    def read(self, utterance: Utterance) -> Features:
        """The features of an utterance."""
        mel = self._mel(utterance)
        return Features.of(mel, self._pitch(utterance, mel.shape[1]))

    def _mel(self, utterance: Utterance) -> Tensor:
        if self.data.load_mel_from_disk:
            return load_mel(utterance.audio, self.audio)
        samples = torch.from_numpy(read_audio(utterance.audio, self.audio.sampling_rate))
        return self.mel_spectrogram(samples[None])[0]

    def _pitch(self, utterance: Utterance, num_frames: int) -> Tensor:
        if self.data.load_pitch_from_disk:
            return load_pitch(utterance.with_pitch(self.data.dataset_path).pitch, num_frames)
        return self._online_pitch(utterance, num_frames)

    def _online_pitch(self, utterance: Utterance, num_frames: int) -> Tensor:
        cache = self._online_cache(utterance)
        kept = None if cache is None else _read_kept_pitch(cache, num_frames)
        if kept is not None:
            return kept
        samples = read_audio(utterance.audio, self.audio.sampling_rate)
        pitch = torch.from_numpy(estimate_pitch(samples, self.audio, self.data.pitch_online_method))
        if cache is not None:
            with atomic_path(cache) as temporary:
                torch.save(pitch, temporary)
        return pitch

    def _online_cache(self, utterance: Utterance) -> Path | None:
        if self.data.pitch_online_dir is None:
            return None
        audio = self.audio
        settings = f"{self.data.pitch_online_method}_{audio.sampling_rate}_{audio.filter_length}"
        return (
            self.data.pitch_online_dir / f"{settings}_{audio.hop_length}" / f"{utterance.name}.pt"
        )


def _pad_frames(features: Sequence[Tensor]) -> Tensor:
    # As `common.sequences.pad_sequences`, by numpy: PyTorch would wake all cores for each copy, and
    # training needs them.
    num_frames = max(each.shape[-1] for each in features)
    first = features[0].numpy()
    padded = np.empty((len(features), *first.shape[:-1], num_frames), dtype=first.dtype)
    for row, each in zip(padded, features, strict=True):
        row[..., : each.shape[-1]] = each.numpy()
        row[..., each.shape[-1] :] = 0
    return torch.from_numpy(padded)


def load_mel(path: Path, audio: AudioConfig) -> Tensor:
    """A mel that prepare_dataset.py wrote, (n_mels, T_mel)."""
    mel = _load_feature(path)
    if mel.ndim != 2 or mel.shape[0] != audio.n_mel_channels:
        raise ValueError(
            f"{path}: expected a mel of shape ({audio.n_mel_channels}, frames), got "
            f"{tuple(mel.shape)}: prepare the dataset again"
        )
    return mel


def load_pitch(path: Path, num_frames: int) -> Tensor:
    """Pitch that prepare_dataset.py wrote, (T_mel) Hz, of a clip whose mel has so many frames."""
    pitch_hz = _load_feature(path).reshape(-1)
    if len(pitch_hz) != num_frames:
        raise ValueError(
            f"{path}: has {len(pitch_hz)} frames, its mel has {num_frames}: prepare the dataset "
            "again"
        )
    return pitch_hz


def _load_feature(path: Path) -> Tensor:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file: run prepare_dataset.py first")
    return load_tensors(path).float()


def _read_kept_pitch(path: Path, num_frames: int) -> Tensor | None:
    """(T_mel) Hz; None where there is none, or that of a clip as it was before."""
    if not path.is_file():
        return None
    try:
        pitch = load_tensors(path)
    except ValueError as error:
        logger.warning("%s: computed again", error)
        return None
    return pitch if isinstance(pitch, Tensor) and pitch.shape == (num_frames,) else None
