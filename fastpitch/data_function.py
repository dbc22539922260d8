# SPDX-License-Identifier: BSD-3-Clause
"""What FastPitch trains on: utterances to batches."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.buckets import most_expensive
from common.config import AudioConfig, DataConfig
from common.filelists import Utterance
from common.sequences import pad_sequences
from common.text import PreparedText, TextProcessor
from fastpitch.clip_features import ClipFeatures, FeatureSource


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
    features: Any  # as the source reads them
    speaker: int
    path: Path


class FastPitchDataset(Dataset):
    """Reads utterances and their features: packed, from disk clip by clip, or computed.

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
        source: has the features of all utterances; None where they are to be read clip by clip
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
        source: FeatureSource | None = None,
    ) -> None:
        self.utterances = utterances
        self.source = source or ClipFeatures(data, audio)
        self.text = text
        self.pitch_mean = pitch_mean
        self.pitch_std = pitch_std
        self.seed = seed
        self._texts: dict[int, PreparedText] = {}

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        utterance = self.utterances[key[1]]
        return Sample(
            text=torch.tensor(self.encode(key)),
            features=self.source.read(utterance),
            speaker=utterance.speaker,
            path=utterance.audio,
        )

    def encode(self, key: tuple[int, int]) -> list[int]:
        """The symbol ids of an item's text."""
        epoch, index = key
        if index not in self._texts:
            self._texts[index] = self.text.prepare(self.utterances[index].text)
        return self._texts[index].encode(random.Random(f"{self.seed} {epoch} {index}"))

    def largest_items(self, count: int, max_frames: int | None = None) -> list[int]:
        """Items that make a batch need as much memory as any can: the longest clip, or of those the
        longest of which `max_frames` leave room for most; and, in a batch of several, the longest
        text that may come with it."""
        frames = [utterance.num_frames for utterance in self.utterances]
        symbols = [utterance.num_symbols for utterance in self.utterances]
        count, longest = most_expensive(frames, count, max_frames)
        clip = frames.index(longest)
        others = [index for index, length in enumerate(frames) if length <= longest]
        text = max(others, key=symbols.__getitem__)
        return ([clip, text] + [clip] * count)[:count]

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Puts samples into a batch, in their order."""
        text_lens = [len(sample.text) for sample in samples]
        mel_lens = [sample.features.num_frames for sample in samples]
        mel, pitch_hz, energy = self.source.pad([sample.features for sample in samples])
        unvoiced = pitch_hz <= 0  # NaN is neither: such a clip must not pass for one that is
        batch = Batch(
            text=pad_sequences([sample.text for sample in samples], self.text.padding_idx),
            text_lens=torch.tensor(text_lens),
            mel=mel,
            mel_lens=torch.tensor(mel_lens),
            pitch=torch.where(unvoiced, 0, (pitch_hz - self.pitch_mean) / self.pitch_std),
            energy=energy,
            prior=self.source.pad_priors(mel_lens, text_lens),
            speaker=torch.tensor([sample.speaker for sample in samples]),
            paths=[sample.path for sample in samples],
        )
        return batch.to(self.source.device)
