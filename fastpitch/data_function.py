# SPDX-License-Identifier: BSD-3-Clause
"""What FastPitch trains on: utterances to batches."""

from __future__ import annotations

import dataclasses
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.audio import MelSpectrogram, read_audio
from common.checkpoint import load_tensors
from common.config import AudioConfig, DataConfig
from common.filelists import Utterance
from common.files import atomic_path
from common.pitch import estimate_pitch
from common.sequences import pad_sequences
from common.text import TextProcessor
from fastpitch.prior import InterpolatedPrior

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B utterances, zero-padded."""

    text: Tensor  # (B, T_text) symbol ids, int64
    text_lens: Tensor  # (B)
    mel: Tensor  # (B, n_mels, T_mel) natural log of amplitude
    mel_lens: Tensor  # (B)
    pitch: Tensor  # (B, T_mel) standardised Hz, 0 where unvoiced
    energy: Tensor  # (B, T_mel) L2 norm of each mel frame
    prior: Tensor  # (B, T_mel, T_text)
    speaker: Tensor | None  # (B)
    paths: list[Path]

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; copies overlap with other work where memory is pinned."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch in memory from which a GPU copies fast; called by DataLoader."""
        return self._map(Tensor.pin_memory)

    def _map(self, function) -> Batch:
        tensors = {k: function(v) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return dataclasses.replace(self, **tensors)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One utterance; shapes as in `Batch`, without B and padding."""

    text: Tensor
    mel: Tensor
    pitch: Tensor
    energy: Tensor
    prior: Tensor
    speaker: int
    path: Path


class FastPitchDataset(Dataset):
    """Reads utterances and their features, from disk or computed.

    An item is asked for by (epoch, index): what is random about it depends on these two and the
    seed alone, whatever process reads it and in whatever order.

    Args:
        utterances: in the order of the indices
        data: where features come from
        audio: settings of mels and pitch
        text: turns writing into symbol ids
        pitch_mean: Hz
        pitch_std: Hz
        seed: of the choice between letters and phonemes
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        data: DataConfig,
        audio: AudioConfig,
        text: TextProcessor,
        *,
        pitch_mean: float,
        pitch_std: float,
        seed: int,
    ) -> None:
        self.utterances = utterances
        self.data = data
        self.audio = audio
        self.text = text
        self.pitch_mean = pitch_mean
        self.pitch_std = pitch_std
        self.seed = seed
        self.mel_spectrogram = MelSpectrogram(audio)
        self.prior = InterpolatedPrior()

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        utterance = self.utterances[index]
        rng = random.Random(f"{self.seed} {epoch} {index}")
        text = torch.tensor(self.text.encode(utterance.text, rng))
        mel = self._mel(utterance)
        return Sample(
            text=text,
            mel=mel,
            pitch=self._pitch(utterance, mel.shape[1]),
            energy=mel.norm(dim=0),
            prior=torch.from_numpy(self.prior(mel.shape[1], len(text))),
            speaker=utterance.speaker,
            path=utterance.audio,
        )

    def largest_items(self, count: int) -> list[int]:
        """Items that make a batch need as much memory as any can: the longest clip and, in a batch
        of several, the longest text."""
        frames = [utterance.num_frames for utterance in self.utterances]
        symbols = [utterance.num_symbols for utterance in self.utterances]
        longest = [frames.index(max(frames)), symbols.index(max(symbols))]
        return (longest + longest[:1] * count)[:count]

    def _mel(self, utterance: Utterance) -> Tensor:
        if self.data.load_mel_from_disk:
            mel = _load_feature(utterance.audio)
            if mel.ndim != 2 or mel.shape[0] != self.audio.n_mel_channels:
                raise ValueError(
                    f"{utterance.audio}: expected a mel of shape ({self.audio.n_mel_channels}, "
                    f"frames), got {tuple(mel.shape)}: prepare the dataset again"
                )
            return mel
        samples = torch.from_numpy(read_audio(utterance.audio, self.audio.sampling_rate))
        return self.mel_spectrogram(samples[None])[0]

    def _pitch(self, utterance: Utterance, num_frames: int) -> Tensor:
        if self.data.load_pitch_from_disk:
            pitch_hz = _load_feature(self._pitch_path(utterance)).reshape(-1)
            if len(pitch_hz) != num_frames:
                raise ValueError(
                    f"{self._pitch_path(utterance)}: has {len(pitch_hz)} frames, its mel has "
                    f"{num_frames}: prepare the dataset again"
                )
        else:
            pitch_hz = self._online_pitch(utterance, num_frames)
        unvoiced = pitch_hz <= 0  # NaN is neither: such a clip must not pass for one that is
        return torch.where(unvoiced, 0, (pitch_hz - self.pitch_mean) / self.pitch_std)

    def _pitch_path(self, utterance: Utterance) -> Path:
        return utterance.pitch or self.data.dataset_path / "pitch" / f"{utterance.name}.pt"

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


def collate(samples: Sequence[Sample], padding_idx: int = 0) -> Batch:
    """Puts samples into a batch, in their order; text is padded with `padding_idx`."""
    return Batch(
        text=pad_sequences([sample.text for sample in samples], padding_idx),
        text_lens=torch.tensor([len(sample.text) for sample in samples]),
        mel=pad_sequences([sample.mel for sample in samples]),
        mel_lens=torch.tensor([sample.mel.shape[1] for sample in samples]),
        pitch=pad_sequences([sample.pitch for sample in samples]),
        energy=pad_sequences([sample.energy for sample in samples]),
        prior=pad_sequences([sample.prior for sample in samples]),
        speaker=torch.tensor([sample.speaker for sample in samples]),
        paths=[sample.path for sample in samples],
    )


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
