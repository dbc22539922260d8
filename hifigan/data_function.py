# SPDX-License-Identifier: BSD-3-Clause
"""What HiFi-GAN trains on: segments of recordings, in fine-tuning with mels to make them from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.audio import read_audio
from common.config import AudioConfig
from common.filelists import Utterance
from common.mels import load_mel
from common.recordings import mel_path
from common.segments import Segment, cut_segment, cut_to_hops

PEAK = 0.95  # of full scale


class HiFiGANDataset(Dataset):
    """Reads recordings, each brought to the same peak; in fine-tuning as loud as they are, since
    their mels have that loudness.

    An item is asked for by (epoch, index): where its segment begins depends on these two and the
    seed alone, whatever process reads it and in whatever order.

    Args:
        clips: in the order of the indices
        audio: settings of the mels
        segment_size: samples; None gives whole clips
        mels_dir: of mels to fine-tune on, `<name>.npy`; None makes recordings from their own mels
        seed: of where segments begin
    """

    def __init__(
        self,
        clips: Sequence[Utterance],
        audio: AudioConfig,
        *,
        segment_size: int | None,
        mels_dir: Path | None,
        seed: int,
    ) -> None:
        self.clips = clips
        self.audio = audio
        self.segment_size = segment_size
        self.mels_dir = mels_dir
        self.seed = seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> Segment:
        epoch, index = key
        whole = self._read(self.clips[index])
        if self.segment_size is None:
            return cut_to_hops(whole, self.audio.hop_length)
        rng = random.Random(f"{self.seed} {epoch} {index}")
        return cut_segment(whole, self.segment_size, self.audio.hop_length, rng)

    def _read(self, clip: Utterance) -> Segment:
        samples = torch.from_numpy(read_audio(clip.audio, self.audio.sampling_rate))
        if self.mels_dir is None:
            return Segment(audio=bring_to_peak(samples), path=clip.audio)
        mel = load_mel(mel_path(self.mels_dir, clip), self.audio.n_mel_channels)
        return Segment(audio=samples, mel=mel, path=clip.audio)


def bring_to_peak(audio: Tensor) -> Tensor:
    """(T_audio,) audio whose largest sample is `PEAK`; silence stays as it is."""
    peak = audio.abs().max()
    return audio * (PEAK / peak) if peak > 0 else audio
