# SPDX-License-Identifier: BSD-3-Clause
"""Pauses come soon after a wish, at the same steps on all processes, and not at every step."""

from __future__ import annotations

import itertools

import pytest

from common.config import RunConfig
from common.distributed import Processes
from common.pauses import MAX_STEPS_BETWEEN_READINGS, SECONDS_BETWEEN_READINGS, Pause, Pauses
from common.signals import StopRequest
from common.time_limit import TimeLimit


def make_pauses(tmp_path, rank=0, **settings):
    processes = Processes(cuda=False)
    processes.rank, processes.world_size = rank, 2
    run = RunConfig(output=tmp_path, epochs=1, batch_size=1, **settings)
    return Pauses(run, processes, StopRequest(), TimeLimit(run.max_minutes))


def wishes(**own):
    return {"seconds": 1.0, "save": 0.0, "stop": 0.0, "end": 0.0} | own


def readings(pauses, seconds_per_step, num_steps):
    """The steps at which metrics are read."""
    steps, before = [], 0
    for step in range(1, num_steps + 1):
        if pauses.is_due(step):
            pauses.agree(step, wishes(seconds=(step - before) * seconds_per_step))
            steps.append(step)
            before = step
    return steps


@pytest.mark.parametrize("seconds_per_step", [0.001, 0.1, 0.7, 1.0, 30.0])
def test_metrics_are_read_every_few_seconds_however_long_a_step_takes(tmp_path, seconds_per_step):
    steps = readings(make_pauses(tmp_path), seconds_per_step, 500)
    assert steps[0] == 1
    distances = [after - before for before, after in itertools.pairwise(steps)]
    longest = max(distances)
    assert longest == min(distances[:-1] or distances)
    assert longest == 1 or longest * seconds_per_step <= SECONDS_BETWEEN_READINGS
    assert longest <= MAX_STEPS_BETWEEN_READINGS
    assert longest == MAX_STEPS_BETWEEN_READINGS or (longest + 1) * seconds_per_step > 2.0


def test_what_one_process_wants_all_do(tmp_path):
    first, second = make_pauses(tmp_path), make_pauses(tmp_path, rank=1)
    assert first.wishes()["stop"] == 0
    second.stop.requested = True
    assert second.wishes()["stop"] == 1
    for pauses in (first, second):
        pauses.begin(4)
        assert pauses.agree(5, wishes(stop=1.0)) == Pause(save=False, stop=True, end=False)
        assert pauses.agree(6, wishes(save=1.0)) == Pause(save=True, stop=False, end=False)
        assert pauses.agree(7, wishes(end=1.0)) == Pause(save=False, stop=False, end=True)
        assert pauses.agree(8, wishes()) == Pause(save=False, stop=False, end=False)


def test_the_clock_for_saving_is_the_first_processs(tmp_path):
    first, second = (make_pauses(tmp_path, rank, checkpoint_every_minutes=1e-9) for rank in (0, 1))
    assert (first.wishes()["save"], second.wishes()["save"]) == (1, 0)
    late = make_pauses(tmp_path, checkpoint_every_minutes=60.0)
    assert late.wishes()["save"] == 0


def test_steps_to_save_after_are_read_in_any_case(tmp_path):
    pauses = make_pauses(tmp_path, checkpoint_every_steps=30)
    steps = readings(pauses, 0.001, 95)
    assert {30, 60, 90} <= {*steps} and len(steps) < 8
    pauses.begin(119)
    assert pauses.agree(120, wishes()) == Pause(save=True, stop=False, end=False)
