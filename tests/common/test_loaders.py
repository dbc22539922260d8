# SPDX-License-Identifier: BSD-3-Clause
"""The order of batches: reproducible, shared out among processes, the same with workers."""

from __future__ import annotations

import itertools
import threading

import pytest
import torch
from torch.utils.data import Dataset

from common.distributed import Processes
from common.loaders import EpochBatches, make_loader


def one_of(rank: int = 0, world_size: int = 1) -> Processes:
    """This process, as it knows itself among others that it need not talk to here."""
    processes = Processes(cuda=False)
    processes.rank, processes.world_size = rank, world_size
    return processes


def batches_of(epoch=1, *, num_items=23, batch_size=4, seed=5, rank=0, world_size=1):
    batches = EpochBatches(num_items, batch_size, one_of(rank, world_size), seed)
    batches.epoch = epoch
    listed = list(batches)
    assert len(listed) == len(batches)
    return listed


def items_of(batches):
    return [index for batch in batches for _, index in batch]


def test_each_epoch_has_another_order_and_says_which_it_is():
    first, second = batches_of(epoch=1), batches_of(epoch=2)
    assert items_of(first) != items_of(second)
    assert {epoch for batch in first for epoch, _ in batch} == {1}
    assert {epoch for batch in second for epoch, _ in batch} == {2}


def test_the_same_seed_gives_the_same_order_whatever_was_drawn_before():
    first = batches_of()
    torch.rand(7)
    assert batches_of() == first
    assert batches_of(seed=6) != first


def test_an_epoch_is_shuffled_without_repeats_in_full_batches():
    batches = batches_of(num_items=23, batch_size=4)
    items = items_of(batches)
    assert {len(batch) for batch in batches} == {4}
    assert len(items) == len(set(items)) == 20
    assert items != sorted(items)


def test_no_item_is_left_out_for_ever():
    seen = set(itertools.chain.from_iterable(items_of(batches_of(epoch)) for epoch in range(1, 20)))
    assert seen == set(range(23))


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_one_order_without_overlap(world_size):
    ranks = [batches_of(rank=rank, world_size=world_size) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1, "no process waits for another"
    in_turns = [batch for turn in zip(*ranks, strict=True) for batch in turn]
    alone = batches_of()
    assert in_turns == alone[: len(in_turns)]
    assert len(alone) - len(in_turns) < world_size


def test_validation_keeps_the_order_and_every_item():
    batches = batches_of(num_items=10, batch_size=4, seed=None)
    assert items_of(batches) == list(range(10))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert batches_of(epoch=2, num_items=10, seed=None)[0][0] == (2, 0)


@pytest.mark.parametrize("num_items", [0, 1, 4, 9, 16])
def test_processes_validate_every_item_exactly_once(num_items):
    ranks = [
        batches_of(num_items=num_items, batch_size=4, seed=None, rank=rank, world_size=3)
        for rank in range(3)
    ]
    assert sorted(itertools.chain.from_iterable(map(items_of, ranks))) == list(range(num_items))


def test_too_few_items_make_no_batch_of_training():
    assert batches_of(num_items=3, batch_size=4) == []


class Squares(Dataset):
    """Items that say which epoch asked for which of them."""

    def __getitem__(self, key: tuple[int, int]) -> torch.Tensor:
        epoch, index = key
        return torch.tensor([epoch, index, index**2])


@pytest.mark.parametrize(("num_workers", "in_thread"), [(0, False), (2, False), (2, True)])
def test_a_loader_gives_the_same_batches_whoever_loads(num_workers, in_thread):
    batches = EpochBatches(11, 2, one_of(), seed=5)
    loader = make_loader(Squares(), batches, torch.stack, num_workers, False, in_thread)
    for epoch in (1, 2):
        loader.batch_sampler.epoch = epoch
        loaded = [batch[:, 1].tolist() for batch in loader]
        assert loaded == [
            [i for _, i in batch] for batch in batches_of(epoch, num_items=11, batch_size=2)
        ]
        assert len(loaded) == len(loader) == 5


def test_loading_draws_no_global_random_numbers():
    loader = make_loader(
        Squares(),
        EpochBatches(8, 2, one_of(), seed=5),
        torch.stack,
        num_workers=0,
        pin_memory=False,
    )
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_there_are_no_more_workers_than_batches():
    loader = make_loader(
        Squares(),
        EpochBatches(4, 4, one_of(), seed=5),
        torch.stack,
        num_workers=64,
        pin_memory=False,
    )
    assert loader.num_workers == 1


class Faulty(Squares):
    """Of which one item cannot be read."""

    def __getitem__(self, key: tuple[int, int]) -> torch.Tensor:
        if key[1] == 3:
            raise ValueError("item 3 is damaged")
        return super().__getitem__(key)


def test_what_fails_in_the_loading_thread_fails_here():
    batches = EpochBatches(8, 2, one_of(), seed=5)
    loader = make_loader(Faulty(), batches, torch.stack, 1, pin_memory=False, in_thread=True)
    with pytest.raises(ValueError, match="item 3 is damaged"):
        list(loader)


def test_an_epoch_that_is_left_early_leaves_no_thread():
    batches = EpochBatches(20, 2, one_of(), seed=5)
    loader = make_loader(Squares(), batches, torch.stack, 1, pin_memory=False, in_thread=True)
    epoch = iter(loader)
    next(epoch)
    assert [each for each in threading.enumerate() if each.name.startswith("loader")]
    epoch.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("loader")]
