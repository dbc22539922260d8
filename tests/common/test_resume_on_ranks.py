# SPDX-License-Identifier: BSD-3-Clause
"""Several processes save and resume as one does: bitwise, or saying what has changed."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from common.bad_steps import TrainingFailed
from common.checkpoint import load_checkpoint
from common.config import RunConfig
from common.distributed import Processes
from common.learner import Learner
from common.optim import UpdateRule
from tests.common.test_trainer import checkpoints_in, fit, make_trainer
from tests.processes import Ended, run_ranks

CHECKS = """
import sys
from pathlib import Path

import torch

from common.distributed import Processes
from tests.common import test_resume_on_ranks

torch.set_num_threads(1)
processes = Processes(cuda=False)
for name in sys.argv[2:]:
    getattr(test_resume_on_ranks, name)(Path(sys.argv[1]) / name, processes)
    print(name, flush=True)
processes.end(0)
"""


def passed(ended: list[Ended], check: str) -> bool:
    """Whether all processes passed a check; their words where not."""
    for process in ended:
        assert process.code == 0 and check in process.output.split(), process.errors
    return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two processes went through their checks."""
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def two(folder) -> list[Ended]:
    """Two processes that went through all checks, one after the other: starting takes longest."""
    names = [
        check.__name__
        for check in (
            check_that_resuming_is_bitwise,
            check_that_averages_begin_alike,
            check_that_a_failure_to_save_ends_all,
            check_that_different_folders_are_refused,
            check_that_different_data_are_refused,
            check_that_time_is_up_for_all,
        )
    ]
    return run_ranks(CHECKS, 2, arguments=[str(folder), *names])


def seed(value: int, processes: Processes) -> None:
    torch.manual_seed(value + processes.rank)


def check_that_resuming_is_bitwise(folder: Path, processes: Processes) -> None:
    seed(5, processes)
    whole = fit(folder / "whole", processes=processes, epochs=4, batch_size=1)
    own_state = torch.get_rng_state()
    seed(5, processes)
    fit(folder / "parts", processes=processes, epochs=2, batch_size=1)
    seed(99, processes)
    resumed = fit(folder / "parts", processes=processes, epochs=4, batch_size=1, resume=True)
    assert torch.equal(resumed.task.model.weight, whole.task.model.weight)
    assert torch.equal(torch.get_rng_state(), own_state), "each process has its own back"
    states = load_checkpoint(folder / "parts" / "FindMean_checkpoint_4.pt")["random_state"]
    assert not torch.equal(states[0]["cpu"], states[1]["cpu"])
    assert torch.equal(states[processes.rank]["cpu"], own_state)


def test_two_processes_that_resume_equal_two_that_never_stopped_bitwise(two):
    assert passed(two, check_that_resuming_is_bitwise.__name__)


def test_another_number_of_processes_goes_on_and_says_what_does_not_repeat(two, folder, caplog):
    assert passed(two, check_that_resuming_is_bitwise.__name__)
    saved = folder / check_that_resuming_is_bitwise.__name__ / "parts"
    alone = fit(saved, epochs=5, batch_size=2, resume=True)
    assert alone.step == 5 * 6
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith(
        f"{saved}/FindMean_checkpoint_4.pt was saved by 2 processes and is continued by 1: "
    )


def check_that_averages_begin_alike(folder: Path, processes: Processes) -> None:
    seed(0, processes)
    rule = UpdateRule(
        name="adam",
        learning_rate=0.1,
        betas=(0.9, 0.98),
        eps=1e-9,
        weight_decay=0.0,
        max_grad_norm=1000.0,
    )
    run = RunConfig(output=folder, epochs=1, batch_size=1, ema_decay=0.9)
    learner = Learner(nn.Linear(3, 2), rule, run, processes)
    for model in (learner.model, learner.ema.model):
        first, second = processes.gather(model.state_dict())
        assert torch.equal(first["weight"], second["weight"])
    assert torch.equal(learner.ema.model.weight, learner.model.weight)


def test_all_processes_average_from_the_same_first_weights(two):
    assert passed(two, check_that_averages_begin_alike.__name__)


def check_that_a_failure_to_save_ends_all(folder: Path, processes: Processes) -> None:
    trainer = make_trainer(folder, processes=processes, epochs=1)
    trainer.task.corrupt_at = 2
    with pytest.raises(TrainingFailed, match="are not finite: no checkpoint is saved"):
        trainer.fit()
    assert checkpoints_in(folder) == []


def test_when_nothing_can_be_saved_no_process_waits_for_the_first(two):
    assert passed(two, check_that_a_failure_to_save_ends_all.__name__)


def check_that_different_folders_are_refused(folder: Path, processes: Processes) -> None:
    own = folder / str(processes.rank)
    trainer = make_trainer(own, processes=processes)
    trainer.epoch, trainer.step = processes.rank, 6 * processes.rank
    with pytest.raises(
        TrainingFailed, match=r"process 0 at step 0, 1 at step 6.* must be one folder"
    ):
        trainer.fit()


def test_processes_that_found_different_checkpoints_do_not_begin(two):
    assert passed(two, check_that_different_folders_are_refused.__name__)


def check_validation_with_idle_ranks(folder: Path, processes: Processes) -> None:
    trainer = fit(folder, processes=processes, epochs=1, num_validation=3)  # in batches of two
    for scope in ("val", "val_ema"):
        ((step, metrics),) = trainer.report.of(scope).items()
        assert step == (1,) and set(metrics) == {"loss", "frames/s", "took"}
        losses = processes.gather(metrics["loss"])
        assert losses == losses[:1] * 3 and losses[0] > 0


def test_a_process_without_a_batch_to_validate_goes_on_with_the_others(folder):
    check = check_validation_with_idle_ranks.__name__
    three = run_ranks(CHECKS, 3, arguments=[str(folder), check])
    assert passed(three, check)


def check_that_different_data_are_refused(folder: Path, processes: Processes) -> None:
    trainer = make_trainer(folder, processes=processes, num_validation=5 - processes.rank)
    with pytest.raises(
        TrainingFailed, match=r"process 0 has 12 and 5, 1 has 12 and 4.* must hold the same"
    ):
        trainer.fit()


def test_processes_that_found_different_clips_are_refused(two):
    assert passed(two, check_that_different_data_are_refused.__name__)


def check_that_time_is_up_for_all(folder: Path, processes: Processes) -> None:
    for _ in range(2):
        clock = itertools.count(step=5.0 if processes.is_main else 0.0)
        trainer = fit(folder, processes=processes, clock=clock.__next__, max_minutes=1, resume=True)
        (step,) = {*processes.gather(trainer.step)}
        assert 0 < step < 9
    assert trainer.task.seen == []


def test_processes_whose_clocks_differ_stop_at_the_same_step_and_stay_stopped(two):
    assert passed(two, check_that_time_is_up_for_all.__name__)
