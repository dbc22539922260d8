# SPDX-License-Identifier: BSD-3-Clause
"""Batches in a reproducible order; worker processes survive the epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

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

    Attributes:
        epoch: whose order it is
        num_done: items of a shuffled order, over all processes, that the epoch does not begin with
            because they had their turn before training was resumed
    """

    def __init__(
        self, num_items: int, batch_size: int, processes: Processes, seed: int | None
    ) -> None:
        self.num_items = num_items
        self.batch_size = batch_size
        self.processes = processes
        self.seed = seed
        self.epoch = 0
        self.num_done = 0

    def __len__(self) -> int:
        rank, world_size = self.processes.rank, self.processes.world_size
        if self.seed is not None:
            return max(0, self.num_items - self.num_done) // (self.batch_size * world_size)
        return len(range(rank, -(-self.num_items // self.batch_size), world_size))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = self._order()[self.num_done :]
        for turn in range(len(self)):
            batch = turn * self.processes.world_size + self.processes.rank
            items = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(self.epoch, index) for index in items]

    def _order(self) -> list[int]:
        if self.seed is None:
            return list(range(self.num_items))
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return torch.randperm(self.num_items, generator=generator).tolist()


def largest_batch(loader: DataLoader) -> Any:
    """A batch that no other of its size needs more memory than; the dataset's `largest_items` say
    which items make it."""
    items = loader.dataset.largest_items(loader.batch_sampler.batch_size)
    samples = {item: loader.dataset[1, item] for item in set(items)}
    return loader.collate_fn([samples[item] for item in items])


def make_loader(
    dataset: Dataset,
    batches: EpochBatches,
    collate: Callable,
    num_workers: int,
    pin_memory: bool,
) -> DataLoader:
    """A loader of batches; workers start once, at most one for each core."""
    num_workers = min(num_workers, available_cores(), len(batches))
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=_begin_worker,
        generator=torch.Generator(),  # its own: starting an epoch draws no global random number
    )


def _begin_worker(_: int) -> None:
    leave_stopping_to_parent()
