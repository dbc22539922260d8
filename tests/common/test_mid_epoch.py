# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints in the middle of an epoch, and trainings that are asked to stop: nothing is lost."""

from __future__ import annotations

import logging

import pytest
import torch

from common.buckets import Buckets
from common.checkpoint import load_checkpoint
from common.checkpoint_folder import CheckpointFolder
from common.signals import StopRequest
from tests.common.test_trainer import FindMean, fit, make_trainer


def names_in(folder):
    return sorted(path.name.removeprefix("FindMean_checkpoint_") for path in folder.glob("*.pt"))


def newest(folder):
    return CheckpointFolder(folder, FindMean.files).latest()


def trained(folder, **settings):
    """An undisturbed training of three epochs, six steps each."""
    torch.manual_seed(5)
    return fit(folder, **settings)


def lines_of(*trainers, scope="train"):
    """Steps and losses of what several parts of a training logged, in their order."""
    return [
        (step, metrics["loss"])
        for trainer in trainers
        for name, step, metrics in trainer.report.lines
        if name == scope and step  # the means over a whole run are those of a job
    ]


def interrupted(folder, step, **settings):
    """A training that ends without a word before a step."""
    torch.manual_seed(5)
    trainer = make_trainer(folder, **settings)
    trainer.task.interrupt_at = step
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    return trainer


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(("killed_before", "resumed_after"), [(3, 2), (5, 4), (8, 6), (16, 14)])
def test_resuming_in_the_middle_of_an_epoch_is_bitwise(
    tmp_path, killed_before, resumed_after, num_workers
):
    whole = trained(tmp_path / "whole")
    settings = {"checkpoint_every_steps": 2, "num_workers": num_workers}
    interrupted(tmp_path / "parts", killed_before, **settings)
    torch.manual_seed(99)
    resumed = fit(tmp_path / "parts", resume=True, **settings)
    assert resumed.task.seen == whole.task.seen[resumed_after:]
    assert torch.equal(resumed.task.model.weight, whole.task.model.weight)
    assert lines_of(resumed) == lines_of(whole)[resumed_after:]
    in_epoch = resumed_after // 6  # whole epochs were done before
    averages = lines_of(resumed, scope="train_avg")
    assert averages == lines_of(whole, scope="train_avg")[in_epoch:]


def test_checkpoints_come_after_so_many_steps_and_the_last_two_are_kept(tmp_path):
    interrupted(tmp_path, 18, checkpoint_every_steps=4, epochs_per_checkpoint=2)
    assert names_in(tmp_path) == ["2.pt", "3_step_16.pt"]
    state = load_checkpoint(newest(tmp_path)["FindMean"])
    assert (state["epoch"], state["iteration"]) == (2, 16), "two epochs are done"


@pytest.mark.parametrize(("minutes", "expected"), [(1e-9, "2_step_8.pt"), (60, "1.pt")])
def test_checkpoints_come_after_so_many_minutes(tmp_path, minutes, expected):
    interrupted(tmp_path, 9, checkpoint_every_minutes=minutes)
    assert names_in(tmp_path)[-1] == expected


def test_saving_adds_a_line_where_lines_are_rare_and_changes_no_mean(tmp_path):
    whole = trained(tmp_path / "whole", step_logs_interval=6)
    parts = trained(tmp_path / "parts", step_logs_interval=6, checkpoint_every_steps=4)
    assert [step for step, _ in lines_of(whole)] == [(1, 6, 6), (2, 6, 6), (3, 6, 6)]
    saved = {(1, 4, 6), (2, 2, 6), (2, 6, 6), (3, 4, 6)}
    assert {step for step, _ in lines_of(parts)} == {step for step, _ in lines_of(whole)} | saved
    means = [lines_of(trainer, scope="train_avg") for trainer in (whole, parts)]
    assert means[0] == means[1]


def test_another_batch_size_goes_on_with_the_clips_that_are_left(tmp_path):
    interrupted(tmp_path, 3, checkpoint_every_steps=2)  # 4 of 12 clips done
    resumed = fit(tmp_path, resume=True, batch_size=4, epochs=2)
    assert [sizes for progress, sizes in resumed.task.seen if progress.epoch == 1] == [[4], [4]]
    assert [step for step, _ in lines_of(resumed)][:2] == [(1, 2, 3), (1, 3, 3)]
    assert resumed.report.num_steps == [3, 4, 5, 6, 7], "counted on, however long an epoch is"


# Of twelve clips, so that batches of at most 30 frames have one clip or as many as three.
UNEVEN = Buckets(lengths=[10, 30, 11, 12, 25, 13, 14, 28, 9, 8, 29, 15], max_frames=30)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("killed_before", [3, 4, 6])
def test_batches_of_different_sizes_resume_bitwise(tmp_path, killed_before, accumulation):
    settings = {"buckets": UNEVEN, "batch_size": 3, "grad_accumulation": accumulation}
    whole = trained(tmp_path / "whole", **settings)
    sizes = [size for _, step in whole.task.seen for size in step]
    assert len({*sizes}) == 3
    settings |= {"checkpoint_every_steps": 1}
    interrupted(tmp_path / "parts", killed_before, **settings)
    resumed = fit(tmp_path / "parts", resume=True, **settings)
    assert resumed.task.seen == whole.task.seen[killed_before - 1 :]
    assert torch.equal(resumed.task.model.weight, whole.task.model.weight)
    assert lines_of(resumed) == lines_of(whole)[killed_before - 1 :]


def test_other_batches_in_the_middle_of_an_epoch_are_warned_about(tmp_path, caplog):
    interrupted(tmp_path, 3, checkpoint_every_steps=2)
    fit(tmp_path, resume=True, epochs=1, buckets=UNEVEN)
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("The epoch was begun with another --batch-size, --bucket or")


class Stopping:
    """Asks a training to stop when something happens in it for the nth time."""

    def __init__(self, trainer, where, number):
        self.request, self.left = StopRequest(), number
        owner = trainer.checkpoints if where == "save" else trainer.task
        self.happens = getattr(owner, where)
        setattr(owner, where, self)

    def __call__(self, *arguments, **settings):
        self.left -= 1
        if self.left == 0:
            self.request.requested = True
        return self.happens(*arguments, **settings)


@pytest.mark.parametrize(
    ("where", "number", "saved"),
    [
        ("train_step", 1, "1_step_1.pt"),  # in the rehearsal
        ("train_step", 10, "2_step_9.pt"),
        ("train_step", 13, "2_step_12.pt"),  # the last of its epoch
        ("eval_step", 4, "2_step_12.pt"),  # validation is done again
        ("samples", 2, "3_step_13.pt"),
        ("save", 1, "2_step_7.pt"),
    ],
)
def test_a_training_that_is_asked_to_stop_loses_no_step(tmp_path, caplog, where, number, saved):
    whole = trained(tmp_path / "whole", samples_freq=1)
    torch.manual_seed(5)
    first = make_trainer(tmp_path / "parts", samples_freq=1)
    first.fit(Stopping(first, where, number).request)
    assert names_in(tmp_path / "parts")[-1] == saved
    assert f"Stopped after step {first.step}, as a signal asked" in caplog.text
    second = fit(tmp_path / "parts", samples_freq=1, resume=True)
    for scope in ("train", "train_avg", "val", "val_ema"):
        assert lines_of(first, second, scope=scope) == lines_of(whole, scope=scope)
    assert torch.equal(second.task.model.weight, whole.task.model.weight)


class Clock:
    """One that goes on by a minute with each step of a training."""

    def __init__(self):
        self.seconds = 1e6

    def __call__(self):
        return self.seconds

    def drive(self, trainer):
        self.train_step, trainer.task.train_step = trainer.task.train_step, self.take_a_step
        return trainer

    def take_a_step(self, *arguments):
        self.seconds += 60
        return self.train_step(*arguments)


def timed(folder, **settings):
    """A training whose steps take a minute each."""
    clock = Clock()
    trainer = clock.drive(make_trainer(folder, clock=clock, **settings))
    if newest(folder):
        trainer.restore(newest(folder))
    return trainer


def test_a_training_has_its_minutes_over_several_jobs_and_then_ends(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    whole = trained(tmp_path / "whole")
    torch.manual_seed(5)
    killed = timed(tmp_path, max_minutes=8)
    killed.task.interrupt_at = 7
    with pytest.raises(KeyboardInterrupt):
        killed.fit()
    assert names_in(tmp_path) == ["1.pt"], "six minutes are on record"
    for step in (8, 8, 10):
        part = timed(tmp_path, max_minutes=step)
        part.fit()
        assert part.step == step
        assert newest(tmp_path)["FindMean"].name == f"FindMean_checkpoint_2_step_{step}.pt"
    said = [line for line in caplog.messages if "--max-minutes" in line]
    assert said == [
        "Stopped after step 8: --max-minutes 8 are used up",
        "Nothing to do: 8.0 of --max-minutes 8 are used up",
        "Stopped after step 10: --max-minutes 10 are used up",
    ]
    rest = fit(tmp_path, resume=True)
    assert rest.task.seen == whole.task.seen[10:]
    assert torch.equal(rest.task.model.weight, whole.task.model.weight)


def test_what_was_trained_before_minutes_were_counted_has_them_all(tmp_path):
    fit(tmp_path, epochs=1)
    checkpoint = load_checkpoint(newest(tmp_path)["FindMean"])
    del checkpoint["training"]["seconds"]
    torch.save(checkpoint, newest(tmp_path)["FindMean"])
    resumed = timed(tmp_path, max_minutes=2)
    resumed.fit()
    assert resumed.step == 8


def test_a_request_before_the_first_step_ends_without_one(tmp_path, caplog):
    for epochs in (0, 3):
        trainer = make_trainer(tmp_path, epochs=epochs)
        request = StopRequest()
        request.requested = True
        trainer.fit(request)
        assert trainer.task.seen == [] and names_in(tmp_path) == []
        assert "Stopped after step 0" in caplog.text


def test_a_request_after_the_last_step_lets_the_training_end(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.fit(Stopping(trainer, "save", 3).request)
    assert names_in(tmp_path)[-1] == "3.pt"
    assert fit(tmp_path, resume=True).task.seen == []
