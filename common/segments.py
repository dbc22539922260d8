# SPDX-License-Identifier: BSD-3-Clause
"""Pieces of recordings in batches, for vocoders."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from common.audio import LOG_FLOOR, read_audio
from common.config import AudioConfig, RunConfig
from common.distributed import Processes
from common.filelists import Utterance
from common.loaders import EpochBatches, make_loader
from common.sequences import pad_sequences


@dataclass(frozen=True, kw_only=True)
class AudioBatch:
    """B pieces of recordings, equally long."""

    audio: Tensor  # (B, T_audio) in [-1, 1]
    mel: Tensor | None  # (B, n_mels, T_mel) to make it from; None: the mel of the audio itself
    paths: list[Path]

    def to(self, device: torch.device) -> AudioBatch:
        """The batch on a device; copies overlap with other work where memory is pinned."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> AudioBatch:
        """The batch in memory from which a GPU copies fast; called by DataLoader."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> AudioBatch:
        mel = None if self.mel is None else function(self.mel)
        return dataclasses.replace(self, audio=function(self.audio), mel=mel)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A piece of a recording; shapes as in `AudioBatch`, without B."""

    audio: Tensor
    mel: Tensor | None = None
    path: Path


class SegmentDataset(Dataset):
    """Reads pieces of recordings.

    An item is asked for by (epoch, index): where its segment begins depends on these two and the
    seed alone, whatever process reads it and in whatever order.

    Args:
        clips: in the order of the indices
        audio: settings of the mels
        segment_length: samples; None gives whole clips, cut to whole frames
        seed: of where segments begin
    """

    def __init__(
        self,
        clips: Sequence[Utterance],
        audio: AudioConfig,
        *,
        segment_length: int | None,
        seed: int,
    ) -> None:
        self.clips = clips
        self.audio = audio
        self.segment_length = segment_length
        self.seed = seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> Segment:
        epoch, index = key
        whole = self.read(self.clips[index])
        if self.segment_length is None:
            return cut_to_hops(whole, self.audio.hop_length)
        rng = random.Random(f"{self.seed} {epoch} {index}")
        return cut_segment(whole, self.segment_length, self.audio.hop_length, rng)

    def largest_items(self, count: int, max_frames: int | None = None) -> list[int]:
        """Items that make a batch need as much memory as any can: all segments are as long."""
        return [0] * count

    def read(self, clip: Utterance) -> Segment:
        """A whole clip."""
        samples = torch.from_numpy(read_audio(clip.audio, self.audio.sampling_rate))
        return Segment(audio=samples, path=clip.audio)


def make_segment_loader(
    dataset: SegmentDataset, run: RunConfig, processes: Processes, *, shuffle: bool
) -> DataLoader:
    """A loader of segments in shuffled batches; or of clips in their order, one at a time since
    they differ in length."""
    batch_size, seed = (run.batch_size, run.seed) if shuffle else (1, None)
    batches = EpochBatches(len(dataset), batch_size, processes, seed)
    return make_loader(dataset, batches, collate_segments, run.num_workers, pin_memory=run.cuda)


def collate_segments(segments: Sequence[Segment]) -> AudioBatch:
    """Puts segments into a batch, in their order; shorter ones end in silence."""
    mels = [segment.mel for segment in segments]
    return AudioBatch(
        audio=pad_sequences([segment.audio for segment in segments]),
        mel=None if mels[0] is None else pad_sequences(mels, math.log(LOG_FLOOR)),
        paths=[segment.path for segment in segments],
    )


def cut_segment(segment: Segment, num_samples: int, hop_length: int, rng: random.Random) -> Segment:
    """A random piece of a clip; a clip that is shorter gets silence at its end.

    Args:
        num_samples: of the piece; a multiple of `hop_length` where there is a mel, whose frames
            are cut at the same places
    """
    audio, mel = segment.audio, segment.mel
    if mel is None:
        start = rng.randint(0, max(0, len(audio) - num_samples))
        return dataclasses.replace(segment, audio=_cut(audio, start, num_samples, 0.0))
    num_frames = num_samples // hop_length
    start = rng.randint(0, max(0, mel.shape[1] - num_frames))
    return dataclasses.replace(
        segment,
        audio=_cut(audio, start * hop_length, num_samples, 0.0),
        mel=_cut(mel, start, num_frames, math.log(LOG_FLOOR)),
    )


def cut_to_hops(segment: Segment, hop_length: int) -> Segment:
    """The whole clip, ended so that a vocoder makes as many samples from its mel."""
    audio, mel = segment.audio, segment.mel
    num_frames = max(1, len(audio) // hop_length) if mel is None else mel.shape[1]
    return dataclasses.replace(segment, audio=_cut(audio, 0, num_frames * hop_length, 0.0))


def _cut(sequence: Tensor, start: int, length: int, padding: float) -> Tensor:
    piece = sequence[..., start : start + length]
    return F.pad(piece, (0, length - piece.shape[-1]), value=padding)
