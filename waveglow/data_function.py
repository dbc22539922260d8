# SPDX-License-Identifier: BSD-3-Clause
"""What WaveGlow trains on: segments of recordings, as loud as they are."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from common.audio import read_audio
from common.config import AudioConfig
from common.filelists import Utterance
from common.segments import Segment, cut_segment, cut_to_hops


class WaveGlowDataset(Dataset):
    """Reads recordings.

    An item is asked for by (epoch, index): where its segment begins depends on these two and the
    seed alone, whatever process reads it and in whatever order.

    Args:
        clips: in the order of the indices
        audio: settings of the mels
        segment_length: samples; None gives whole clips
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
        path = self.clips[index].audio
        samples = torch.from_numpy(read_audio(path, self.audio.sampling_rate))
        whole = Segment(audio=samples, path=path)
        if self.segment_length is None:
            return cut_to_hops(whole, self.audio.hop_length)
        rng = random.Random(f"{self.seed} {epoch} {index}")
        return cut_segment(whole, self.segment_length, self.audio.hop_length, rng)
