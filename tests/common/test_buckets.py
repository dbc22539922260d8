# SPDX-License-Identifier: BSD-3-Clause
"""Batches of clips of like length: hardly any padding, every clip, the same for any processes."""

from __future__ import annotations

import itertools

import pytest
import torch

from benchmarks.corpus import draw_frames
from common.buckets import Buckets, most_expensive
from common.config import AudioConfig
from common.distributed import Processes
from common.loaders import EpochBatches
from common.rehearsal import batch_advice
from tests.common.test_rehearsal import run_config

LENGTHS = draw_frames(13_100, AudioConfig())
FEW = LENGTHS[:230]


def plan_of(epoch=1, *, lengths=FEW, batch_size=4, max_frames=None, rank=0, world=1, num_done=0):
    processes = Processes(cuda=False)
    processes.rank, processes.world_size = rank, world
    buckets = Buckets(lengths=lengths, max_frames=max_frames)
    batches = EpochBatches(len(lengths), batch_size, processes, 5, buckets)
    batches.epoch, batches.num_done = epoch, num_done
    listed = [[index for _, index in batch] for batch in batches]
    assert len(listed) == len(batches)
    return listed


def padding_of(plan, lengths):
    real = sum(lengths[item] for batch in plan for item in batch)
    return 1 - real / sum(len(batch) * max(lengths[item] for item in batch) for batch in plan)


@pytest.mark.parametrize("settings", [{"batch_size": 16}, {"batch_size": 64, "max_frames": 16_000}])
def test_less_than_a_twentieth_of_the_frames_is_padding(settings):
    plan = plan_of(lengths=LENGTHS, **settings)
    assert padding_of(plan, LENGTHS) < 0.04
    shuffled = torch.randperm(len(LENGTHS)).tolist()
    plain = [shuffled[start : start + 16] for start in range(0, 13_000, 16)]
    assert padding_of(plain, LENGTHS) > 0.25, "what is saved"


def test_epochs_differ_in_batches_and_in_their_order():
    first, second = plan_of(epoch=1), plan_of(epoch=2)
    assert not {*map(frozenset, first)} & {*map(frozenset, second)}
    longest = [max(FEW[item] for item in batch) for batch in first]
    assert longest != sorted(longest) and plan_of(epoch=1) == first


def test_full_batches_have_all_clips_but_the_rest_of_the_last():
    plan = plan_of()
    assert [len(batch) for batch in plan] == [4] * 57
    assert len({*itertools.chain.from_iterable(plan)}) == 228
    seen = {item for epoch in range(1, 9) for batch in plan_of(epoch) for item in batch}
    assert seen == set(range(230)), "which are left out changes"


def test_limited_frames_are_kept_to_and_leave_no_clip_out():
    plan = plan_of(batch_size=9, max_frames=3000)
    assert sorted(itertools.chain.from_iterable(plan)) == list(range(230))
    for batch in plan:
        assert len(batch) <= 9 and len(batch) * max(FEW[item] for item in batch) <= 3000
    assert len({len(batch) for batch in plan}) > 3


@pytest.mark.parametrize("max_frames", [None, 3000])
def test_a_step_has_the_same_clips_whatever_the_processes(max_frames):
    settings = {"max_frames": max_frames}

    def steps(world, accumulation):
        ranks = [plan_of(rank=rank, world=world, **settings) for rank in range(world)]
        assert len({*map(len, ranks)}) == 1, "no process waits for another"
        turns = [*itertools.chain.from_iterable(zip(*ranks, strict=True))]
        per_step = world * accumulation
        whole = len(turns) // per_step * per_step
        return [turns[start : start + per_step] for start in range(0, whole, per_step)]

    assert steps(1, 4) == steps(2, 2) == steps(4, 1)


@pytest.mark.parametrize("max_frames", [None, 3000])
@pytest.mark.parametrize(("turns", "world"), [(3, 1), (2, 2)])
def test_what_is_left_of_an_epoch_is_the_rest_of_the_same_batches(max_frames, turns, world):
    settings = {"max_frames": max_frames}
    whole = plan_of(**settings)
    buckets = Buckets(lengths=FEW, **settings)
    processes = Processes(cuda=False)
    processes.world_size = world
    batches = EpochBatches(len(FEW), 4, processes, 5, buckets)
    batches.epoch = 1
    num_done = batches.num_done_after(turns)
    assert num_done == sum(map(len, whole[: turns * world]))
    assert plan_of(num_done=num_done, **settings) == whole[turns * world :]
    batches.num_done = num_done
    assert batches.num_batches_done == turns * world
    more = batches.num_done_after(1)
    assert more == sum(map(len, whole[: (turns + 1) * world]))


def test_a_clip_that_alone_is_too_long_is_a_sentence():
    with pytest.raises(ValueError, match=r"^--max-batch-frames 500 must not .* has, 800: raise it"):
        Buckets(lengths=[300, 800], max_frames=500)


@pytest.mark.parametrize("max_frames", [900, 2000, 3000, 10_000])
def test_no_batch_has_more_frames_or_longer_clips_than_what_is_tried_first(max_frames):
    num_items, longest = most_expensive(FEW, 9, max_frames)
    assert num_items * longest <= max_frames
    for epoch in range(1, 4):
        for batch in plan_of(epoch, batch_size=9, max_frames=max_frames):
            own = max(FEW[item] for item in batch)
            assert len(batch) * own * (own + 1500) <= num_items * longest * (longest + 1500)


def test_short_memory_is_answered_with_fewer_frames(tmp_path):
    advice = batch_advice(run_config(tmp_path, grad_accumulation=3), max_frames=9000)
    assert advice.startswith("with --max-batch-frames 9000: take half of that")
    assert "--grad-accumulation 6" in advice
