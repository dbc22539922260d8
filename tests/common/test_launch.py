# SPDX-License-Identifier: BSD-3-Clause
"""How the training commands begin and end: which checkpoint they resume, with which exit code."""

from __future__ import annotations

import pytest

from common.checkpoint import load_checkpoint
from common.config import RunConfig
from common.launch import checkpoint_to_resume, train_to_end
from common.signals import StopRequest
from tests.common.test_trainer import FindMean, checkpoints_in, fit, make_trainer


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


@pytest.mark.parametrize("restarts", ["0", "1"])
def test_a_restart_by_torchrun_does_not_go_on_with_another_training(
    tmp_path, monkeypatch, restarts
):
    fit(tmp_path, epochs=1)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
    run = RunConfig(output=tmp_path, epochs=2, batch_size=2)
    with pytest.raises(ValueError, match="of an earlier training: continue it with --resume"):
        checkpoint_to_resume(run, FindMean.files)
