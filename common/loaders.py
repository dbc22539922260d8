# SPDX-License-Identifier: BSD-3-Clause
"""Batches in a reproducible order; worker processes survive the epochs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from common.buckets import Buckets
from common.distributed import Processes
from common.parallel import available_cores
from common.signals import leave_stopping_to_parent


class EpochBatches(Sampler):
    """Which items make up each batch of an epoch, as (epoch, index) pairs.

    The order depends on the seed and `epoch` alone, the batches also on their size, nothing on
    the processes: they take turns, batch by batch.

    Args:
        num_items: in the dataset
        batch_size: items in a batch
        processes: that share the epoch
        seed: of the shuffling, which leaves a last, smaller round of batches out; None keeps the
            order and every item
        buckets: items of like length come together; None where any do

    Attributes:
        epoch: whose order it is
        num_done: items of a shuffled order, over all processes, that the epoch does not begin with
            because they had their turn before training was resumed
    """

    def __init__(
        self,
        num_items: int,
        batch_size: int,
        processes: Processes,
        seed: int | None,
        buckets: Buckets | None = None,
    ) -> None:
        self.num_items = num_items
        self.batch_size = batch_size
        self.processes = processes
        self.seed = seed
        self.buckets = buckets
        self.epoch = 0
        self.num_done = 0
        self._planned: tuple[tuple[int, int], int, list[list[int]]] | None = None

    def __len__(self) -> int:
        rank, world_size = self.processes.rank, self.processes.world_size
        if self.seed is not None:
            return len(self._left) // world_size
        return len(range(rank, len(self._left), world_size))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rank, world_size = self.processes.rank, self.processes.world_size
        for batch in self._left[rank::world_size][: len(self)]:
            yield [(self.epoch, index) for index in batch]

    @property
    def max_frames(self) -> int | None:
        """Of a batch, padding among them; None where there may be any number."""
        return None if self.buckets is None else self.buckets.max_frames

    @property
    def num_batches_done(self) -> int:
        """Of all processes, those that `num_done` items filled."""
        return self._plan()[0]

    def num_done_after(self, turns: int) -> int:
        """What `num_done` will be when each process has had so many batches more."""
        done = self._left[: turns * self.processes.world_size]
        return self.num_done + sum(map(len, done))

    def state_dict(self) -> dict[str, Any]:
        """What batches depend on besides seed, epoch and data, as plain values."""
        is_bucketed = self.buckets is not None
        settings = {"batch_size": self.batch_size, "max_frames": self.max_frames}
        return settings if is_bucketed else {}  # else the order is the same whatever their size

    @property
    def _left(self) -> list[list[int]]:
        """The batches of all processes that are not done."""
        return self._plan()[1]

    def _plan(self) -> tuple[int, list[list[int]]]:
        asked = self.epoch, self.num_done
        if self._planned is None or self._planned[0] != asked:
            self._planned = asked, *self._make_plan()
        return self._planned[1:]

    def _make_plan(self) -> tuple[int, list[list[int]]]:
        if self.seed is None:
            return 0, self._cut(list(range(self.num_items)))
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        if self.buckets is None:
            order = torch.randperm(self.num_items, generator=generator).tolist()[self.num_done :]
            num_full = len(order) // self.batch_size * self.batch_size
            return -(-self.num_done // self.batch_size), self._cut(order[:num_full])
        batches = self.buckets.batches(self.batch_size, generator)
        sizes = itertools.accumulate(map(len, batches), initial=0)
        num_batches_done = sum(size < self.num_done for size in sizes)
        return num_batches_done, batches[num_batches_done:]

    def _cut(self, order: Sequence[int]) -> list[list[int]]:
        starts = range(0, len(order), self.batch_size)
        return [list(order[start : start + self.batch_size]) for start in starts]


def largest_batch(loader: DataLoader) -> Any:
    """A batch that no other needs more memory than; the dataset's `largest_items` say which items
    make it."""
    batches = loader.batch_sampler
    items = loader.dataset.largest_items(batches.batch_size, batches.max_frames)
    samples = {item: loader.dataset[1, item] for item in set(items)}
    return loader.collate_fn([samples[item] for item in items])


def make_loader(
    dataset: Dataset,
    batches: EpochBatches,
    collate: Callable,
    num_workers: int,
    pin_memory: bool,
    in_thread: bool = False,
) -> DataLoader:
    """A loader of batches; workers start once, at most one for each core.

    Args:
        in_thread: a thread of this process loads, in place of workers where there are any: for
            items that cost less than to send them from another process
    """
    num_workers = min(num_workers, available_cores(), len(batches))
    loader_class = _ThreadLoader if in_thread and num_workers > 0 else DataLoader
    num_workers = 0 if in_thread else num_workers
    return loader_class(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=_begin_worker,
        generator=torch.Generator(),  # its own: starting an epoch draws no global random number
    )


class _ThreadLoader(DataLoader):
    """Loads a batch ahead, in a thread of this process."""

    def __iter__(self) -> Iterator[Any]:
        batches = super().__iter__()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") as thread:
            ahead = thread.submit(next, batches, None)
            while (batch := ahead.result()) is not None:
                ahead = thread.submit(next, batches, None)
                yield batch


def _begin_worker(_: int) -> None:
    leave_stopping_to_parent()
