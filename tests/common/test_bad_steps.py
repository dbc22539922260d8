# SPDX-License-Identifier: BSD-3-Clause
"""Which clips are named where a step is skipped."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from common.bad_steps import BadSteps
from common.distributed import Processes
from tests.processes import run_ranks


class Batch(NamedTuple):
    """All that a micro-batch is asked for."""

    paths: list[Path]


def batches(*sizes: int) -> list[Batch]:
    """Micro-batches of clips, which are numbered through."""
    numbers = iter(range(sum(sizes)))
    return [Batch([Path(f"{next(numbers)}.wav") for _ in range(size)]) for size in sizes]


def told(caplog, micro_batches: list[Batch], bad_losses: list[float]) -> str:
    """The warning about a step, but for its beginning."""
    bad_steps = BadSteps(Processes(cuda=False), max_in_a_row=2)
    loss = torch.nan if any(bad_losses) else 1.0
    metrics = {"loss": torch.tensor(loss), "bad_losses": torch.tensor(bad_losses)}
    assert bad_steps.add(7, micro_batches, metrics).keys() == {"loss"}
    assert bad_steps.read([{"loss": loss, "bad_step": 1.0}]) == []
    (record,) = caplog.records
    return record.getMessage().removeprefix("Step 7 was skipped: its ")


def names(*numbers: int) -> str:
    return ", ".join(f"{number}.wav" for number in numbers)


def test_only_the_clips_of_bad_micro_batches_are_named(caplog):
    assert told(caplog, batches(2, 2, 2, 2), [0, 1, 0, 1]) == (
        f"loss is not finite (loss nan); clips: {names(2, 3, 6, 7)}"
    )


@pytest.mark.parametrize(
    ("sizes", "bad_losses", "named", "more"),
    [
        ((16, 16, 16), [0, 1, 0], range(16, 32), ""),
        ((16, 16, 16), [1, 1, 1], range(16), " and 32 more"),
        ((3, 3, 3, 3), [1, 1, 1, 1], range(8), " and 4 more"),
    ],
    ids=["the clip to blame", "large", "small"],
)
def test_no_clip_of_one_bad_micro_batch_is_left_out_and_of_many_most(
    caplog, sizes, bad_losses, named, more
):
    warning = told(caplog, batches(*sizes), bad_losses)
    assert warning == f"loss is not finite (loss nan); clips: {names(*named)}{more}"


def test_where_all_losses_are_finite_a_few_clips_are_named(caplog):
    assert told(caplog, batches(16, 16), [0, 0]) == (
        f"gradient is not finite (loss 1); clips: {names(*range(8))} and 24 more"
    )


TWO_PROCESSES = """
import logging
import sys

import torch

from common.bad_steps import BadSteps
from common.distributed import Processes
from tests.common.test_bad_steps import batches

logging.basicConfig(format="%(message)s", stream=sys.stdout)
processes = Processes(cuda=False)
bad_steps = BadSteps(processes, max_in_a_row=2)
own = batches(2, 2, 2, 2)[2 * processes.rank :][:2]
loss = torch.nan if processes.rank == 1 else 1.0
bad_losses = torch.tensor([0.0, float(processes.rank)])
bad_steps.add(7, own, {"loss": torch.tensor(loss), "bad_losses": bad_losses})
bad_steps.read([{"loss": torch.nan, "bad_step": 1.0}])
processes.end(0)
"""


def test_the_first_process_names_the_clips_of_another():
    first, second = run_ranks(TWO_PROCESSES)
    assert (first.code, second.code) == (0, 0), first.errors + second.errors
    assert first.output.endswith(f"its loss is not finite (loss nan); clips: {names(6, 7)}\n")
    assert second.output == ""
