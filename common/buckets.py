# SPDX-License-Identifier: BSD-3-Clause
"""Batches of clips of like length, in which little is padding."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import torch

# Clips are sorted by length within pools of so many batches: larger ones save hardly any padding,
# smaller ones let a clip meet others from epoch to epoch.
POOL_BATCHES = 25
# What a frame costs by itself, in frames that it attends to: roughly, for the default model.
FRAME_COST = 1500


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """What batches of like length are made from.

    Args:
        lengths: frames of each item
        max_frames: of a batch, padding among them; None where only the number of items counts

    Raises:
        ValueError: a clip alone has more
    """

    lengths: Sequence[int]
    max_frames: int | None = None

    def __post_init__(self) -> None:
        longest = max(self.lengths, default=0)
        if self.max_frames is not None and longest > self.max_frames:
            raise ValueError(
                f"--max-batch-frames {self.max_frames} must not be less than the longest clip has, "
                f"{longest}: raise it, or leave out that clip"
            )

    def batches(self, batch_size: int, generator: torch.Generator) -> list[list[int]]:
        """Shuffled batches of at most `batch_size` items.

        Without `max_frames` all are full, and the items of a last one that would not be, whichever
        they are, are left out.
        """
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        if self.max_frames is None:
            order = order[: len(order) // batch_size * batch_size]
        batches: list[list[int]] = []
        pool_size = POOL_BATCHES * batch_size
        for start in range(0, len(order), pool_size):
            pool = sorted(order[start : start + pool_size], key=self.lengths.__getitem__)
            batches += self._cut(pool, batch_size)
        places = torch.randperm(len(batches), generator=generator).tolist()
        return [batches[place] for place in places]

    def _cut(self, pool: Sequence[int], batch_size: int) -> list[list[int]]:
        batches: list[list[int]] = []
        for item in pool:  # shorter ones first: each is the longest of its batch so far
            num_items = len(batches[-1]) if batches else batch_size
            if num_items == batch_size or self._is_too_much(num_items + 1, self.lengths[item]):
                batches.append([])
            batches[-1].append(item)
        return batches

    def _is_too_much(self, num_items: int, length: int) -> bool:
        return self.max_frames is not None and num_items * length > self.max_frames


def most_expensive(
    lengths: Sequence[int], batch_size: int, max_frames: int | None
) -> tuple[int, int]:
    """The number of items, and the length of the longest, of the batch that needs most memory."""
    if max_frames is None:
        return batch_size, max(lengths)
    lengths = sorted(lengths)
    possible = []
    for num_items in range(1, batch_size + 1):
        longest = bisect.bisect_right(lengths, max_frames // num_items)
        if longest:
            possible.append((num_items, lengths[longest - 1]))
    return max(possible, key=lambda each: each[0] * each[1] * (each[1] + FRAME_COST))
