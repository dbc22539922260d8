# SPDX-License-Identifier: BSD-3-Clause
"""How the training commands begin and end: which checkpoint they resume, with which exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.checkpoint import load_checkpoint
from common.config import RunConfig
from common.launch import checkpoint_to_resume, train_to_end
from common.loaders import make_loader
from common.signals import StopRequest
from common.tb_dllogger import FileLogger
from tests.common.test_trainer import (
    NUMBERS,
    FindMean,
    FixedNumbers,
    checkpoints_in,
    collate,
    fit,
    make_trainer,
)


def ending(trainer, caplog):
    """Exit code and last word of a training."""
    caplog.set_level("INFO")
    with pytest.raises(SystemExit) as end:
        train_to_end(trainer, "train.py", StopRequest())
    return end.value.code, caplog.records[-1].message


def test_too_many_bad_steps_end_with_code_1_and_leave_the_last_checkpoint(tmp_path, caplog):
    trainer = make_trainer(tmp_path, epochs=3, max_bad_steps=2)
    trainer.task.poisoned = {8, 9}
    code, word = ending(trainer, caplog)
    assert code == 1
    assert word.startswith("train.py: stopped: 2 steps in a row had no finite loss and gradient")
    assert checkpoints_in(tmp_path) == [1]
    assert load_checkpoint(tmp_path / "FindMean_checkpoint_1.pt")["iteration"] == 6


def test_an_interrupt_ends_with_code_130(tmp_path, caplog):
    trainer = make_trainer(tmp_path)
    trainer.task.interrupt_at = 8
    assert ending(trainer, caplog) == (
        130,
        "Interrupted: the same command with --resume continues",
    )


class Misread(FixedNumbers):
    """One of its clips has changed since the check."""

    def __getitem__(self, key):
        if key[1] == 1:
            raise ValueError("clip1.wav: changed: prepare the dataset again")
        return super().__getitem__(key)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_is_wrong_with_the_data_is_told_as_a_sentence(tmp_path, caplog, num_workers):
    trainer = make_trainer(tmp_path)
    batches = trainer.train_loader.batch_sampler
    trainer.train_loader = make_loader(Misread(NUMBERS), batches, collate, num_workers, False)
    code, word = ending(trainer, caplog)
    assert (code, word) == (1, "train.py: stopped: clip1.wav: changed: prepare the dataset again")


def test_what_nobody_expected_ends_with_code_1_and_its_traceback(tmp_path, caplog):
    trainer = make_trainer(tmp_path)
    trainer.task.poisoned = None  # a mistake in the code: `in None`
    trainer.task.overflowing = {1}
    code, word = ending(trainer, caplog)
    assert (code, word) == (1, "train.py: stopped")
    assert caplog.records[-1].exc_info[0] is TypeError


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no file that is always full")
def test_a_report_that_cannot_be_written_ends_with_code_1(tmp_path, caplog):
    trainer = make_trainer(tmp_path)
    trainer.report = FileLogger(tmp_path, Path("/dev/full"))
    code, word = ending(trainer, caplog)
    assert code == 1
    assert word.startswith("train.py: stopped: [Errno 28]")


@pytest.mark.parametrize("restarts", ["0", "1"])
def test_a_restart_by_torchrun_does_not_go_on_with_another_training(
    tmp_path, monkeypatch, restarts
):
    fit(tmp_path, epochs=1)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
    run = RunConfig(output=tmp_path, epochs=2, batch_size=2)
    with pytest.raises(ValueError, match="of an earlier training: continue it with --resume"):
        checkpoint_to_resume(run, FindMean.files)
