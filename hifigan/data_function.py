# SPDX-License-Identifier: BSD-3-Clause
"""What HiFi-GAN trains on: segments of recordings, in fine-tuning with mels to make them from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from common.config import AudioConfig
from common.filelists import Utterance
from common.mels import load_mel
from common.recordings import mel_path
from common.segments import Segment, SegmentDataset

PEAK = 0.95  # of full scale


class HiFiGANDataset(SegmentDataset):
    """Reads recordings, each brought to the same peak; in fine-tuning as loud as they are, since
    their mels have that loudness.

    Args:
        clips, audio, segment_length, seed: as for `SegmentDataset`
        mels_dir: of mels to fine-tune on, `<name>.npy`; None makes recordings from their own mels
    """

    def __init__(
        self,
        clips: Sequence[Utterance],
        audio: AudioConfig,
        *,
        segment_length: int | None,
        mels_dir: Path | None,
        seed: int,
    ) -> None:
        super().__init__(clips, audio, segment_length=segment_length, seed=seed)
        self.mels_dir = mels_dir

    def read(self, clip: Utterance) -> Segment:
        """A whole clip, and in fine-tuning its mel."""
        whole = super().read(clip)
        if self.mels_dir is None:
            return dataclasses.replace(whole, audio=bring_to_peak(whole.audio))
        mel = load_mel(mel_path(self.mels_dir, clip), self.audio.n_mel_channels)
        return dataclasses.replace(whole, mel=mel)


def bring_to_peak(audio: Tensor) -> Tensor:
    """(T_audio,) audio whose largest sample is `PEAK`; silence stays as it is."""
    peak = audio.abs().max()
    return audio * (PEAK / peak) if peak > 0 else audio
