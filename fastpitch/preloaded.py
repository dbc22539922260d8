# SPDX-License-Identifier: BSD-3-Clause
"""A prepared dataset in a device's memory, where batches are gathered by indices."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from common.filelists import Utterance
from common.metrics import free_memory
from common.sequences import lengths_to_mask
from fastpitch.clip_features import Features
from fastpitch.packed import PackedFeatures
from fastpitch.prior import InterpolatedPrior, table_size

logger = logging.getLogger(__name__)

# Of mels: they differ by less than 0.004 from float32, which is 0.03 dB.
DTYPE = torch.float16


class Place(NamedTuple):
    """Where an utterance is among all frames."""

    start: int
    num_frames: int


class PreloadedFeatures:
    """The features of utterances in a device's memory; a `FeatureSource`.

    Args:
        packed: where they are read from, of all utterances that it was opened for
        device: where they go
        dtype: of the mels; pitch and energy are float32

    Raises:
        ValueError: the device has less memory
    """

    def __init__(
        self, packed: PackedFeatures, device: torch.device, dtype: torch.dtype = DTYPE
    ) -> None:
        self.device = device
        self.places: dict[Path, Place] = {}
        num_frames = sum(length for _, length in packed.starts.values())
        bytes_per_frame = packed.n_mel_channels * dtype.itemsize + 2 * torch.float32.itemsize
        check_memory(num_frames * bytes_per_frame, len(packed.starts), free_memory(device))
        self.mel = torch.empty(num_frames, packed.n_mel_channels, dtype=dtype, device=device)
        self.pitch_hz = torch.empty(num_frames, device=device)
        self.energy = torch.empty(num_frames, device=device)
        self._priors = _DevicePriors(device)
        start = 0
        for audio, (packed_start, length) in packed.starts.items():
            features = packed.at(packed_start, length)
            here = slice(start, start + length)
            self.mel[here] = features.mel.to(device).T
            self.pitch_hz[here] = features.pitch_hz.to(device)
            self.energy[here] = features.energy.to(device)
            self.places[audio] = Place(start, length)
            start += length

    def read(self, utterance: Utterance) -> Place:
        """See `FeatureSource`."""
        return self.places[utterance.audio]

    def pad(self, utterances: Sequence[Place]) -> Features:
        """See `FeatureSource`; the host does not wait for the device."""
        starts, lens = torch.tensor(utterances).T.to(self.device, non_blocking=True)
        longest = max(place.num_frames for place in utterances)
        frames = starts[:, None] + torch.arange(longest, device=self.device)
        frames = frames.clamp(max=len(self.mel) - 1)  # beyond the last one, only padding
        is_real = lengths_to_mask(lens, longest)
        mel = self.mel[frames].float().where(is_real[..., None], 0)  # (B, T_mel, n_mels)
        return Features(
            mel.transpose(1, 2).contiguous(),
            self.pitch_hz[frames].where(is_real, 0),
            self.energy[frames].where(is_real, 0),
        )

    def pad_priors(self, mel_lens: Sequence[int], text_lens: Sequence[int]) -> Tensor:
        """See `FeatureSource`."""
        return self._priors(mel_lens, text_lens)


class _DevicePriors:
    """`InterpolatedPrior` on a device, for many utterances at once, equal bit for bit."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._prior = InterpolatedPrior(max_tables=1)
        self._tables = torch.empty(0, device=device)  # all that were needed so far, in a row
        self._places: dict[tuple[int, int], int] = {}  # where one of a size begins

    def __call__(self, mel_lens: Sequence[int], text_lens: Sequence[int]) -> Tensor:
        numbers = []
        for size in zip(mel_lens, text_lens, strict=True):
            table = table_size(*size)
            numbers.append((*table, *size, self._place(table, size)))
        rows, columns, frames, symbols, begin = (
            torch.tensor(numbers).T[..., None].to(self.device, non_blocking=True)
        )
        upper, lower, *row_weights = _neighbours(rows, frames, max(mel_lens))
        left, right, *column_weights = _neighbours(columns, symbols, max(text_lens))
        priors = torch.zeros((), dtype=torch.double, device=self.device)
        for row, row_weight in zip((upper, lower), row_weights, strict=True):
            row_begin = (begin + row * columns)[..., None]
            for column, column_weight in zip((left, right), column_weights, strict=True):
                corner = self._tables[row_begin + column[:, None]] * row_weight[..., None]
                priors = priors + corner * column_weight[:, None]
        return priors.float()

    def _place(self, table: tuple[int, int], size: tuple[int, int]) -> int:
        if table not in self._places:
            values = torch.from_numpy(self._prior.table(*size)).flatten()
            self._places[table] = len(self._tables)
            new = values.to(self.device, non_blocking=True)
            self._tables = torch.cat([self._tables, new])
        return self._places[table]


def check_memory(needed: int, num_clips: int, free: int | None) -> None:
    """Tells how much memory is needed, and refuses where there is less.

    Args:
        needed: bytes
        num_clips: for which
        free: bytes; None where nobody counts them
    """
    logger.info("--preload gpu: %.2f GiB for %d clips", needed / 2**30, num_clips)
    if free is not None and needed > free:
        raise ValueError(
            f"--preload gpu needs {needed / 2**30:.2f} GiB of GPU memory for {num_clips} clips, "
            f"{free / 2**30:.2f} GiB are free: leave it out, packed files are fast as well"
        )


def _neighbours(before: Tensor, after: Tensor, length: int) -> tuple[Tensor, ...]:
    """As in `fastpitch.prior`, of each row: (B, length) two places, and their weights.

    Args:
        before: (B, 1) sizes of the tables
        after: (B, 1) sizes that they are stretched to
        length: of the longest
    """
    steps = torch.where(after > 1, (before - 1).double() / (after - 1).clamp(min=1), 1.0)
    places = torch.arange(length, device=before.device)
    positions = places * steps
    is_inside = (positions <= before - 1) & (places < after)
    left = torch.minimum(positions.long(), before - 1)
    right = torch.minimum(left + 1, before - 1)
    right_weight = positions - left
    weights = ((1 - right_weight).where(is_inside, 0), right_weight.where(is_inside, 0))
    return left, right, *weights
