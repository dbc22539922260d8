# SPDX-License-Identifier: BSD-3-Clause
"""The loop, with the smallest model that learns: when it trains, validates, saves and resumes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import Dataset

from common.bad_steps import TrainingFailed
from common.buckets import Buckets
from common.checkpoint import load_checkpoint, load_weights
from common.config import RunConfig
from common.distributed import Processes
from common.launch import checkpoint_to_resume
from common.loaders import EpochBatches, make_loader
from common.task import Progress, Samples
from common.trainer import Trainer

NUM_TRAINING, NUM_VALIDATION = 12, 5


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A batch."""

    values: Tensor  # (B)
    paths: list[Path]

    def to(self, device: torch.device) -> Numbers:
        return replace(self, values=self.values.to(device))


class FixedNumbers(Dataset):
    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def largest_items(self, count: int, max_frames: int | None = None) -> list[int]:
        return [0] * count

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Path]:
        return self.values[key[1]], Path(f"clip{key[1]}.wav")


def collate(samples: Sequence[tuple[Tensor, Path]]) -> Numbers:
    values, paths = zip(*samples, strict=True)
    return Numbers(values=torch.stack(values), paths=list(paths))


class FindMean:
    """Learns one weight, the mean of noisy numbers; the noise shows whether randomness resumes."""

    files = ("FindMean",)

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.model.weight)
        self.wrapped = processes.wrap(self.model)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.seen: list[tuple[Progress, list[int]]] = []
        self.interrupt_at: int | None = None
        self.corrupt_at: int | None = None
        self.poisoned: set[int] = set()  # steps whose loss is made NaN
        self.overflowing: set[int] = set()  # steps whose gradient alone is not finite

    def train_step(self, micro_batches: Sequence[Numbers], progress: Progress) -> dict[str, Tensor]:
        if progress.step == self.interrupt_at:
            raise KeyboardInterrupt
        self.seen.append((progress, [len(batch.values) for batch in micro_batches]))
        values = torch.cat([batch.values for batch in micro_batches])
        self.optimizer.zero_grad()
        loss = self._loss(values + 0.1 * torch.randn_like(values), self.wrapped)
        share = 1 / self.processes.world_size
        metrics = {"loss": loss * share, "lrate": torch.tensor(0.1 * share)}
        if self.poisoned or self.overflowing:
            bad = progress.step in self.poisoned | self.overflowing
            metrics |= {"bad_step": torch.tensor(float(bad)), "scale": torch.tensor(1024.0)}
            metrics["bad_losses"] = torch.zeros(len(micro_batches))
            if progress.step in self.poisoned:
                metrics["loss"] = loss * torch.nan
                metrics["bad_losses"][-1] = 1
            if bad:
                return metrics
        loss.backward()
        self.optimizer.step()
        if progress.step == self.corrupt_at:
            self.model.weight.data.fill_(torch.inf)
        return metrics

    def eval_step(self, batch: Numbers) -> dict[str, tuple[dict[str, Tensor], Tensor]]:
        with torch.no_grad():
            loss = self._loss(batch.values, self.model)
        weight = torch.tensor(len(batch.values))
        return {"val": ({"loss": loss}, weight), "val_ema": ({"loss": loss + 1}, weight)}

    def num_frames(self, batch: Numbers) -> Tensor:
        return torch.tensor(100 * len(batch.values))

    def samples(self, batch: Numbers) -> Samples:
        return Samples(
            figures={"mel": Figure()}, audio={"voice": batch.values}, sampling_rate=22050
        )

    def state_dict(self, progress: Progress) -> dict[str, dict]:
        checkpoint = {
            "epoch": progress.epoch,
            "iteration": progress.step,
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        return {"FindMean": checkpoint}

    def load_state_dict(self, states: Mapping, sources: Mapping[str, Path]) -> Progress:
        state = states["FindMean"]
        load_weights(self.model, state["state_dict"], sources["FindMean"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.seen.clear()  # by another training, or in a rehearsal
        return Progress(epoch=state["epoch"], step=state["iteration"])

    def _loss(self, values: Tensor, model: nn.Module) -> Tensor:
        return (model(torch.ones(len(values), 1))[:, 0] - values).square().mean()


class Notes:
    """A report that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, tuple[int, ...], dict[str, float]]] = []
        self.num_steps: list[int] = []  # at each line of a step
        self.shown: list[tuple[str, int]] = []

    def parameters(self, settings) -> None: ...

    def log(self, scope, step, metrics, num_steps=None) -> None:
        self.lines.append((scope, step, dict(metrics)))
        if num_steps is not None:
            self.num_steps.append(num_steps)

    def figure(self, name, figure, epoch) -> None:
        self.shown.append((name, epoch))

    def audio(self, name, audio, sampling_rate, epoch) -> None:
        assert sampling_rate == 22050
        self.shown.append((name, epoch))

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def of(self, scope: str) -> dict[tuple[int, ...], dict[str, float]]:
        return {step: metrics for name, step, metrics in self.lines if name == scope}


NUMBERS = torch.linspace(1, 5, NUM_TRAINING + NUM_VALIDATION, dtype=torch.float32)


def make_trainer(
    folder: Path,
    *,
    processes: Processes | None = None,
    num_validation: int = NUM_VALIDATION,
    buckets: Buckets | None = None,
    clock: Callable[[], float] = time.perf_counter,
    **settings,
) -> Trainer:
    run = RunConfig(
        **{
            "output": folder,
            "epochs": 3,
            "batch_size": 2,
            "epochs_per_checkpoint": 1,
            "num_workers": 0,
            **settings,
        }
    )
    processes = processes or Processes(cuda=False)

    def loader(values: Tensor, seed: int | None):
        own = None if seed is None else buckets
        batches = EpochBatches(len(values), run.batch_size, processes, seed, own)
        return make_loader(
            FixedNumbers(values), batches, collate, run.num_workers, pin_memory=False
        )

    return Trainer(
        FindMean(processes),
        run,
        loader(NUMBERS[:NUM_TRAINING], run.seed),
        loader(NUMBERS[NUM_TRAINING:][:num_validation], None),
        processes,
        Notes(),
        clock,
    )


def fit(folder: Path, *, checkpoint: Path | None = None, **settings) -> Trainer:
    trainer = make_trainer(folder, **settings)
    newest = checkpoint_to_resume(trainer.run, FindMean.files)
    if newest or checkpoint:
        trainer.restore(newest or {"FindMean": checkpoint})
    trainer.fit()
    return trainer


def checkpoints_in(folder: Path) -> list[int]:
    return sorted(int(path.stem.rpartition("_")[2]) for path in folder.glob("*.pt"))


def test_training_finds_the_mean(tmp_path):
    trainer = fit(tmp_path, epochs=20, epochs_per_checkpoint=20)
    losses = [metrics["loss"] for metrics in trainer.report.of("train_avg").values()]
    assert float(trainer.task.model.weight.detach()) == pytest.approx(
        float(NUMBERS[:NUM_TRAINING].mean()), abs=0.5
    )
    assert losses[-1] < losses[0] / 2


def test_steps_are_groups_of_micro_batches_counted_through_the_epochs(tmp_path):
    trainer = fit(tmp_path, grad_accumulation=4)
    assert trainer.task.seen == [
        (Progress(epoch=epoch, step=epoch), [2, 2, 2, 2]) for epoch in (1, 2, 3)
    ], "six micro-batches make one group of four; the rest waits for the next epoch's order"
    assert list(trainer.report.of("train")) == [(1, 1, 1), (2, 1, 1), (3, 1, 1)]


def test_every_step_logs_its_metrics_and_throughput(tmp_path):
    trainer = fit(tmp_path, epochs=2)
    steps = trainer.report.of("train")
    assert list(steps) == [(epoch, i, 6) for epoch in (1, 2) for i in range(1, 7)]
    for metrics in steps.values():
        assert set(metrics) == {"loss", "lrate", "frames/s", "took"}
        assert metrics["lrate"] == pytest.approx(0.1)
        assert metrics["frames/s"] * metrics["took"] == pytest.approx(200, rel=0.5)


def test_steps_may_be_logged_now_and_then_and_epochs_still_count_them_all(tmp_path):
    torch.manual_seed(5)
    every = fit(tmp_path / "every", epochs=2)
    torch.manual_seed(5)
    fourth = fit(tmp_path / "fourth", epochs=2, step_logs_interval=4)
    lines = fourth.report.of("train")
    assert list(lines) == [(1, 4, 6), (1, 6, 6), (2, 4, 6), (2, 6, 6)]
    for step, metrics in lines.items():
        assert metrics["loss"] == every.report.of("train")[step]["loss"]
        assert metrics["frames/s"] * metrics["took"] == pytest.approx(200, rel=0.5)
    for epoch in (1, 2):
        means = [trainer.report.of("train_avg")[(epoch,)]["loss"] for trainer in (every, fourth)]
        assert means[0] == pytest.approx(means[1])


def test_a_job_may_stop_early_and_the_next_goes_on(tmp_path):
    torch.manual_seed(5)
    whole = fit(tmp_path / "whole", epochs=5)
    torch.manual_seed(5)
    for expected in ([1, 2], [3, 4], [5]):
        part = fit(tmp_path / "parts", epochs=5, epochs_this_job=2, resume=True)
        assert [step[0] for step in part.report.of("train_avg") if step] == expected
    assert torch.equal(part.task.model.weight, whole.task.model.weight)


def test_an_epoch_logs_the_means_of_its_steps_and_the_run_those_of_its_last_epochs(tmp_path):
    trainer = fit(tmp_path, epochs=4, benchmark_epochs_num=2)
    steps, averages = trainer.report.of("train"), trainer.report.of("train_avg")
    assert list(averages) == [(1,), (2,), (3,), (4,), ()]
    for epoch in range(1, 5):
        losses = [metrics["loss"] for step, metrics in steps.items() if step[0] == epoch]
        assert averages[(epoch,)]["loss"] == pytest.approx(sum(losses) / 6)
        took = [metrics["took"] for step, metrics in steps.items() if step[0] == epoch]
        assert averages[(epoch,)]["took"] >= sum(took) * 0.99
    last_two = (averages[(3,)]["loss"] + averages[(4,)]["loss"]) / 2
    assert averages[()]["loss"] == pytest.approx(last_two)


def test_validation_weighs_every_clip_the_same_whatever_the_batches(tmp_path):
    losses = []
    for batch_size in (1, 2, 3):
        trainer = fit(tmp_path / str(batch_size), epochs=0, batch_size=batch_size)
        values = NUMBERS[NUM_TRAINING:]
        assert trainer.report.of("val")[(0,)]["loss"] == pytest.approx(
            float(values.square().mean())
        )
        losses.append(trainer.report.of("val_ema")[(0,)]["loss"])
    assert losses == pytest.approx([losses[0]] * 3)


def test_validation_comes_at_its_frequency_and_after_the_last_epoch(tmp_path):
    trainer = fit(tmp_path, epochs=5, validation_freq=2)
    assert list(trainer.report.of("val")) == [(2,), (4,), (5,)]
    assert list(trainer.report.of("val_ema")) == [(2,), (4,), (5,)]
    assert set(trainer.report.of("val")[(5,)]) == {"loss", "frames/s", "took"}


def test_pictures_and_audio_come_at_their_frequency_and_after_the_last_epoch(tmp_path):
    trainer = fit(tmp_path, epochs=5, samples_freq=2)
    assert trainer.report.shown == [(name, n) for n in (2, 4, 5) for name in ("mel", "voice")]
    assert not fit(tmp_path / "none", samples_freq=0).report.shown


def test_checkpoints_are_saved_at_their_epochs_and_at_the_last(tmp_path):
    fit(tmp_path, epochs=7, epochs_per_checkpoint=2, keep_milestones=(2,))
    assert checkpoints_in(tmp_path) == [2, 6, 7]
    checkpoint = load_checkpoint(tmp_path / "FindMean_checkpoint_6.pt")
    assert (checkpoint["epoch"], checkpoint["iteration"]) == (6, 36)


def test_no_epochs_only_validate(tmp_path):
    trainer = fit(tmp_path, epochs=0)
    assert [scope for scope, _, _ in trainer.report.lines] == ["val", "val_ema"]
    assert trainer.task.seen == []
    assert list(tmp_path.iterdir()) == []


def test_no_epochs_from_a_checkpoint_validate_its_weights_under_its_epoch(tmp_path):
    trained = fit(tmp_path, epochs=2)
    path = tmp_path / "FindMean_checkpoint_2.pt"
    validated = fit(tmp_path / "other", epochs=0, checkpoint=path)
    ours, theirs = validated.report.of("val"), trained.report.of("val")
    assert ours[(2,)]["loss"] == theirs[(2,)]["loss"]


def test_two_epochs_and_two_more_are_four(tmp_path):
    torch.manual_seed(5)
    whole = fit(tmp_path / "whole", epochs=4)
    torch.manual_seed(5)
    fit(tmp_path / "parts", epochs=2)
    torch.manual_seed(99)
    resumed = fit(tmp_path / "parts", epochs=4, resume=True)
    assert (resumed.step, list(resumed.report.of("train_avg"))) == (24, [(3,), (4,), ()])
    assert resumed.task.seen == whole.task.seen[12:]
    assert torch.equal(resumed.task.model.weight, whole.task.model.weight)
    for step, metrics in resumed.report.of("train").items():
        assert metrics["loss"] == whole.report.of("train")[step]["loss"]


def test_resuming_a_training_that_is_done_changes_nothing(tmp_path, caplog):
    caplog.set_level("INFO")
    fit(tmp_path, epochs=2)
    before = (tmp_path / "FindMean_checkpoint_2.pt").read_bytes()
    trainer = fit(tmp_path, epochs=2, resume=True)
    assert "Nothing to do: 2 of 2 epochs are done" in caplog.text
    assert trainer.report.lines == []
    assert (tmp_path / "FindMean_checkpoint_2.pt").read_bytes() == before


def test_resuming_without_a_checkpoint_says_so_and_starts_anew(tmp_path, caplog):
    caplog.set_level("INFO")
    trainer = fit(tmp_path, epochs=1, resume=True)
    assert f"No checkpoint in {tmp_path} to resume from: starting anew" in caplog.text
    assert trainer.step == 6


def test_a_checkpoint_without_random_states_is_taken_with_a_warning(tmp_path, caplog):
    fit(tmp_path, epochs=1)
    path = tmp_path / "FindMean_checkpoint_1.pt"
    checkpoint = load_checkpoint(path)
    del checkpoint["random_state"]
    torch.save(checkpoint, path)
    trainer = fit(tmp_path, epochs=2, resume=True)
    assert f"{path} holds no random states: the run will not repeat exactly" in caplog.text
    assert trainer.step == 12


@pytest.mark.parametrize("missing", ["epoch", "iteration", "optimizer"])
def test_a_checkpoint_that_cannot_be_continued_is_refused(tmp_path, missing):
    fit(tmp_path, epochs=1)
    path = tmp_path / "FindMean_checkpoint_1.pt"
    checkpoint = load_checkpoint(path)
    del checkpoint[missing]
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=rf"{path}: cannot be continued: it has no {missing}"):
        make_trainer(tmp_path).restore({"FindMean": path})


def test_an_interrupt_leaves_the_last_checkpoint_to_resume_from(tmp_path):
    torch.manual_seed(5)
    whole = fit(tmp_path / "whole", epochs=3)
    torch.manual_seed(5)
    trainer = make_trainer(tmp_path / "parts")
    trainer.task.interrupt_at = 15
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == [
        "FindMean_checkpoint_1.pt",
        "FindMean_checkpoint_2.pt",
        "best.json",
    ]
    resumed = fit(tmp_path / "parts", resume=True)
    assert torch.equal(resumed.task.model.weight, whole.task.model.weight)


def test_only_the_main_process_saves_and_shows(tmp_path):
    trainer = make_trainer(tmp_path, epochs=1)
    trainer.processes = Processes(cuda=False)  # the loaders keep theirs, and all batches
    trainer.processes.rank = 1
    trainer.fit()
    assert list(tmp_path.iterdir()) == []
    assert trainer.report.shown == []


def test_a_bad_step_is_warned_about_with_its_clips_and_left_out_of_the_means(tmp_path, caplog):
    trainer = make_trainer(tmp_path, epochs=1, step_logs_interval=4)
    trainer.task.poisoned = {3}
    trainer.fit()
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    batches = make_trainer(tmp_path, epochs=1).train_loader.batch_sampler
    batches.epoch = 1
    first, second = (f"clip{index}.wav" for _, index in list(batches)[2])
    assert warning == (
        "Step 3 was skipped: its loss is not finite (loss nan, scale 1024); "
        f"clips: {first}, {second}"
    )
    assert trainer.bad_steps.in_a_row == 0, "others came after it"
    for metrics in trainer.report.of("train").values():
        assert metrics.keys() == {"loss", "lrate", "scale", "frames/s", "took"}
    means = trainer.report.of("train_avg")[(1,)]
    assert "bad_step" not in means and means["loss"] > 0
    assert means["scale"] == 1024


def test_of_several_micro_batches_only_the_clips_of_bad_ones_are_named(tmp_path, caplog):
    trainer = make_trainer(tmp_path, epochs=1, batch_size=2, grad_accumulation=3)
    trainer.task.poisoned = {2}
    trainer.fit()
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    batches = trainer.train_loader.batch_sampler
    batches.epoch, batches.num_done = 1, 0
    first, second = (f"clip{index}.wav" for _, index in list(batches)[-1])
    assert warning.endswith(f"; clips: {first}, {second}")


def test_where_only_the_gradient_is_bad_the_loss_is_told_and_a_few_clips(tmp_path, caplog):
    trainer = make_trainer(tmp_path, epochs=1, batch_size=12)
    trainer.task.overflowing = {1}
    trainer.fit()
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("Step 1 was skipped: its gradient is not finite (loss ")
    assert warning.count(".wav") == 8 and warning.endswith(" and 4 more")


def test_an_epoch_without_a_good_step_has_no_means(tmp_path):
    trainer = make_trainer(tmp_path, epochs=2)
    trainer.task.poisoned = set(range(1, 7))
    trainer.fit()
    assert [step[0] for step in trainer.report.of("train")] == [2] * 6
    averages = trainer.report.of("train_avg")
    assert list(averages) == [(2,), ()]
    assert averages[()]["loss"] == averages[(2,)]["loss"]


def test_too_many_bad_steps_in_a_row_end_the_training(tmp_path):
    trainer = make_trainer(tmp_path, epochs=9, max_bad_steps=3)
    trainer.task.poisoned = {2, 3, 10, 11, 12}
    with pytest.raises(TrainingFailed, match=r"^3 steps in a row .*--max-bad-steps 3"):
        trainer.fit()
    assert trainer.step == 12
    assert checkpoints_in(tmp_path) == [1]
    assert load_checkpoint(tmp_path / "FindMean_checkpoint_1.pt")["iteration"] == 6


def test_weights_that_are_not_finite_never_reach_a_checkpoint(tmp_path):
    trainer = make_trainer(tmp_path, epochs=3)
    trainer.task.corrupt_at = 9
    with pytest.raises(
        TrainingFailed, match=r"after step 12, .*state_dict.weight.* are not finite"
    ):
        trainer.fit()
    assert checkpoints_in(tmp_path) == [1]


def test_the_best_saved_epoch_is_marked_kept_and_remembered(tmp_path):
    losses = {1: 5.0, 2: 3.0, 3: 1.0, 4: float("nan"), 5: 4.0, 6: 3.5, 7: 2.0}

    def fit_with_losses(epochs):
        trainer = make_trainer(tmp_path, epochs=epochs, epochs_per_checkpoint=1)
        trainer.task.eval_step = lambda batch: {
            "val": ({"loss": torch.tensor(0.0)}, torch.tensor(1)),
            "val_ema": ({"loss": torch.tensor(losses[len(trainer.report.of("val")) + 1])}, 1.0),
        }
        return trainer

    trainer = fit_with_losses(epochs=6)
    trainer.fit()
    assert checkpoints_in(tmp_path) == [3, 5, 6]
    assert json.loads((tmp_path / "best.json").read_text()) == {
        "epoch": 3,
        "loss": 1.0,
        "scope": "val_ema",
        "files": ["FindMean_checkpoint_3.pt"],
    }
    resumed = fit(tmp_path, epochs=8, resume=True)
    assert resumed.checkpoints.best == trainer.checkpoints.best
    assert checkpoints_in(tmp_path) == [3, 7, 8]


def test_an_epoch_that_is_not_saved_is_not_marked(tmp_path):
    fit(tmp_path, epochs=5, epochs_per_checkpoint=2, validation_freq=1)
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["epoch"] in (2, 4, 5)
    assert (tmp_path / best["files"][0]).is_file()


def test_checkpoints_of_another_folder_are_not_this_trainings_to_remove(tmp_path):
    fit(tmp_path / "theirs", epochs=2)
    start = tmp_path / "theirs" / "FindMean_checkpoint_2.pt"
    trainer = fit(tmp_path / "ours", epochs=6, checkpoint=start)
    assert checkpoints_in(tmp_path / "theirs") == [1, 2]
    assert trainer.checkpoints.best.epoch > 2


def test_what_was_trained_before_checkpoints_knew_of_processes_resumes(tmp_path, caplog):
    whole = fit(tmp_path / "whole", epochs=3)
    path = tmp_path / "parts" / "FindMean_checkpoint_2.pt"
    torch.manual_seed(1234)
    fit(path.parent, epochs=2)
    checkpoint = load_checkpoint(path)
    del checkpoint["training"]
    checkpoint["random_state"] = checkpoint["random_state"][0]  # one process's, not in a list
    torch.save(checkpoint, path)
    resumed = fit(path.parent, epochs=3, resume=True)
    assert torch.equal(resumed.task.model.weight, whole.task.model.weight)
    assert not [each for each in caplog.records if each.levelname == "WARNING"]


def test_pictures_and_validation_change_nothing_in_the_training(tmp_path):
    weights = []
    for folder, freq in (("often", 1), ("seldom", 3)):
        torch.manual_seed(5)
        trainer = make_trainer(tmp_path / folder, samples_freq=freq, validation_freq=freq)
        plain = trainer.task.samples
        trainer.task.samples = lambda batch, plain=plain: (torch.rand(9), plain(batch))[1]
        trainer.fit()
        weights.append(trainer.task.model.weight)
    assert torch.equal(*weights)


def test_the_bad_steps_in_a_row_are_counted_through_a_resume(tmp_path):
    first = make_trainer(tmp_path, epochs=1)
    first.task.poisoned = {5, 6}
    first.fit()
    trainer = make_trainer(tmp_path, epochs=2, max_bad_steps=3, resume=True)
    trainer.restore({"FindMean": tmp_path / "FindMean_checkpoint_1.pt"})
    trainer.task.poisoned = {7}
    with pytest.raises(TrainingFailed, match="3 steps in a row"):
        trainer.fit()
