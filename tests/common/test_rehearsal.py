# SPDX-License-Identifier: BSD-3-Clause
"""The most expensive step, tried first: it leaves no trace, and says what to do if it fails."""

from __future__ import annotations

import pytest
import torch

from common.config import RunConfig
from common.loaders import largest_batch
from common.rehearsal import OutOfMemory, batch_advice, is_out_of_memory, on_cpu, rehearse
from common.task import Progress
from tests.common.test_trainer import FindMean, fit, make_trainer

FIRST = Progress(epoch=1, step=1)


class TooLarge(FindMean):
    """Needs more memory than any machine has."""

    def train_step(self, micro_batches, progress):
        torch.empty(2**60)
        raise AssertionError("this memory should not be there")


class LaterTooLarge(FindMean):
    """Needs it from the second step on."""

    def train_step(self, micro_batches, progress):
        if progress.step == 2:
            torch.empty(2**60)
        return super().train_step(micro_batches, progress)


class TooLargeToValidate(FindMean):
    """Needs it for other work than training."""

    def eval_step(self, batch):
        torch.empty(2**60)
        raise AssertionError("this memory should not be there")


class TooLargeToShow(FindMean):
    """Needs it for other work than training."""

    def samples(self, batch):
        torch.empty(2**60)
        raise AssertionError("this memory should not be there")


def run_config(tmp_path, **settings) -> RunConfig:
    return RunConfig(output=tmp_path, epochs=1, **{"batch_size": 16} | settings)


def test_everything_is_as_before(tmp_path):
    trainer = fit(tmp_path / "before", epochs=2)
    state, random_state = on_cpu(trainer.task.state_dict(FIRST)), torch.get_rng_state()
    batch = largest_batch(trainer.train_loader)
    rehearse(trainer.task, batch, FIRST, trainer.run, trainer.processes)
    assert torch.equal(torch.get_rng_state(), random_state)
    after = trainer.task.state_dict(FIRST)["FindMean"]
    assert torch.equal(after["state_dict"]["weight"], state["FindMean"]["state_dict"]["weight"])
    momentum = after["optimizer"]["state"][0]["momentum_buffer"]
    assert torch.equal(momentum, state["FindMean"]["optimizer"]["state"][0]["momentum_buffer"])


class Uncompilable(FindMean):
    """Is compiled by a compiler that is not there."""

    def train_step(self, micro_batches, progress):
        def compile_graph(*_):
            raise RuntimeError("no compiler was found")

        return torch.compile(torch.sin, backend=compile_graph)(torch.zeros(1))


def test_what_cannot_be_compiled_is_told_in_a_sentence(tmp_path):
    trainer = make_trainer(tmp_path, compile=True)
    task, batch = Uncompilable(trainer.processes), largest_batch(trainer.train_loader)
    with pytest.raises(ValueError, match=r"^--compile: leave it out(.|\n)*no compiler was found$"):
        rehearse(task, batch, FIRST, trainer.run, trainer.processes)


@pytest.mark.parametrize(("accumulation", "tried"), [(1, 1), (5, 2)])
def test_two_micro_batches_tell_what_more_would_need(tmp_path, accumulation, tried):
    sizes = []

    class Watched(FindMean):
        def train_step(self, micro_batches, progress):
            sizes.append([len(batch.values) for batch in micro_batches])
            return super().train_step(micro_batches, progress)

    trainer = make_trainer(tmp_path, grad_accumulation=accumulation)
    batch = largest_batch(trainer.train_loader)
    rehearse(Watched(trainer.processes), batch, FIRST, trainer.run, trainer.processes)
    assert sizes == [[2] * tried]


def test_memory_that_is_short_shows_before_the_first_epoch(tmp_path):
    trainer = make_trainer(tmp_path, batch_size=8)
    trainer.task = TooLarge(trainer.processes)
    words = "largest batch: .* --batch-size 8: take --batch-size 4 --grad-accumulation 2;"
    with pytest.raises(OutOfMemory, match=words):
        trainer.fit()
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (LaterTooLarge, "^training: .* with --batch-size 2: take --batch-size 1"),
        (TooLargeToValidate, "^validation: .* with 2 whole clips .* longest of --validation-files"),
        (TooLargeToShow, "^samples: .* with 2 whole clips .* longest of --validation-files"),
    ],
)
def test_memory_that_is_short_later_is_told_with_what_was_running(tmp_path, task, words):
    trainer = make_trainer(tmp_path)
    trainer.task = task(trainer.processes)
    with pytest.raises(OutOfMemory, match=words):
        trainer.fit()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "take --batch-size 8 --grad-accumulation 2; --amp"),
        ({"batch_size": 5, "grad_accumulation": 3}, "take --batch-size 2 --grad-accumulation 8;"),
        ({"batch_size": 1}, "leave out the longest clips"),
    ],
)
def test_the_advice_keeps_the_global_batch(tmp_path, settings, words):
    assert words in batch_advice(run_config(tmp_path, **settings))


def test_who_has_half_precision_is_not_told_to_take_it(tmp_path):
    assert "--amp" not in batch_advice(run_config(tmp_path, amp=True))


def test_other_errors_are_not_taken_for_short_memory():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert not is_out_of_memory(ValueError("not enough memory"))


def test_copies_share_no_memory():
    original = {"a": [torch.ones(2), {"b": torch.zeros(1)}], "c": (1, "text"), "d": None}
    copy = on_cpu(original)
    original["a"][0].add_(1)
    original["a"][1]["b"].add_(1)
    assert torch.equal(copy["a"][0], torch.ones(2)) and torch.equal(
        copy["a"][1]["b"], torch.zeros(1)
    )
    assert (copy["c"], copy["d"]) == ((1, "text"), None)
