# SPDX-License-Identifier: BSD-3-Clause
"""--compile: the same numbers, few graphs whatever the lengths, nothing of it in what is saved.

What is compiled here goes to no code generator, which would take minutes: the graphs are what
counts.
"""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.testing import assert_close

import tests.test_mixed_precision as tasks
from benchmarks.training import PROGRESS, make_batch
from tests.processes import run_ranks
from tests.test_training_benchmark import shortened

LENGTHS = [(90, 20), (70, 16), (80, 25), (101, 31), (101, 25), (60, 7), (90, 20)]
PARTS = 2  # of FastPitch, before and after the alignment
TWO_RANKS = """
import functools, torch
torch.compile = functools.partial(torch.compile, backend="eager")
import tests.test_mixed_precision as tasks
run = tasks.run_config
processes = tasks.Processes(cuda=False)
tasks.run_config = lambda amp: tasks.dataclasses.replace(run(amp), compile=compiles)
states = []
for compiles in (False, True):
    task, batch = tasks.fastpitch_task(amp=False, processes=processes)
    task.train_step([batch, batch], tasks.Progress(epoch=1, step=1))
    states.append(task.learner.state_dict())
tasks.assert_close(states[0]["state_dict"], states[1]["state_dict"], atol=1e-3, rtol=1e-2)
processes.end(0)
"""


@pytest.fixture
def compiling(monkeypatch):
    """Tasks that are made from now on compile; gives what counts their graphs."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    plain = tasks.run_config
    monkeypatch.setattr(
        tasks, "run_config", lambda amp: dataclasses.replace(plain(amp), compile=True)
    )
    return counter


@pytest.mark.parametrize("name", tasks.TASKS)
def test_a_compiled_step_gives_the_numbers_of_a_step(name, request):
    results = []
    for _ in range(2):
        task, batch = tasks.make(name, "fp32")
        metrics = [task.train_step([batch], PROGRESS) for _ in range(2)]
        results.append((metrics, [learner.state_dict() for learner in tasks.learners(task)]))
        if len(results) == 1:
            counter = request.getfixturevalue("compiling")
    assert counter.frame_count > 0
    assert_close(results[1][0], results[0][0], atol=1e-3, rtol=1e-2)
    for ours, plain in zip(results[1][1], results[0][1], strict=True):
        assert list(ours["state_dict"]) == list(plain["state_dict"])
        assert list(ours["ema_state_dict"]) == list(plain["ema_state_dict"])
        assert_close(ours["state_dict"], plain["state_dict"], atol=1e-3, rtol=1e-2)


def test_lengths_do_not_compile_again_and_neither_does_validation(compiling):
    task, _ = tasks.make("fastpitch", "fp32")
    clips = make_batch(task.learner.model.config, 4)
    counts = []
    for lengths in LENGTHS:
        task.train_step([shortened(clips, *lengths)], PROGRESS)
        counts.append(compiling.frame_count)
    assert counts == [PARTS] + [2 * PARTS] * (len(LENGTHS) - 1)
    task.eval_step(shortened(clips, 50, 5))
    assert compiling.frame_count == 2 * PARTS


def test_two_processes_compile_and_average_their_gradients():
    for rank in run_ranks(TWO_RANKS, timeout=100):
        assert rank.code == 0, rank.errors
