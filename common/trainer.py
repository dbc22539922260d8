# SPDX-License-Identifier: BSD-3-Clause
"""The training loop: epochs, steps, validation, saving, resuming. Knows no model."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from common.checkpoint import CheckpointFolder, load_checkpoint
from common.config import RunConfig
from common.distributed import Processes
from common.metrics import Stopwatch, WeightedMeans
from common.tb_dllogger import TrainingLogger

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

Metrics = dict[str, Tensor]  # each (), on the device


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where training is, counted from 1."""

    epoch: int
    step: int  # optimizer steps since the beginning


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What a model makes of a few clips, to look at and listen to."""

    figures: Mapping[str, Figure] = field(default_factory=dict)
    audio: Mapping[str, Tensor] = field(default_factory=dict)  # (T_audio,) in [-1, 1]
    sampling_rate: int = 0


class Task(Protocol):
    """A model and how it learns; the Trainer calls, the Task computes."""

    name: str

    def train_step(self, micro_batches: Sequence[Any], progress: Progress) -> Metrics:
        """One optimizer step; this process's share of the means over the global batch."""

    def eval_step(self, batch: Any) -> dict[str, tuple[Metrics, Tensor]]:
        """For each scope (val, val_ema): means over a batch, and how much they weigh."""

    def num_frames(self, batch: Any) -> Tensor:
        """() frames of work in a batch, for the throughput."""

    def samples(self, batch: Any) -> Samples:
        """Pictures and audio of a validation batch."""

    def state_dict(self) -> dict[str, Any]:
        """Everything a checkpoint needs, tensors and plain values."""

    def load_state_dict(self, state: Mapping[str, Any], source: Path) -> None:
        """Restores `state_dict`; errors name the source."""


class Trainer:
    """Runs a task for the epochs that are asked for.

    Args:
        task: what to train
        run: how long, and where to
        train_loader: its batch sampler has an `epoch`
        validation_loader: of the same kind of batches
        processes: that train together
        report: where to report to
    """

    def __init__(
        self,
        task: Task,
        run: RunConfig,
        train_loader: DataLoader,
        validation_loader: DataLoader,
        processes: Processes,
        report: TrainingLogger,
    ) -> None:
        self.task = task
        self.run = run
        self.train_loader = train_loader
        self.validation_loader = validation_loader
        self.processes = processes
        self.report = report
        self.checkpoints = CheckpointFolder(run.output, task.name, run.keep_milestones)
        self.steps_per_epoch = len(train_loader) // run.grad_accumulation
        self.epoch = 0  # epochs done
        self.step = 0

    def restore(self) -> None:
        """Continues from the checkpoint that `--resume` or `--checkpoint-path` leads to, if any.

        Raises:
            FileNotFoundError: `--checkpoint-path` leads nowhere
            ValueError: the checkpoint does not fit, or holds weights alone
        """
        path = self.run.checkpoint_path
        if self.run.resume and path is None:
            path = self.checkpoints.latest()
            if path is None:
                logger.info("No checkpoint in %s to resume from: starting anew", self.run.output)
        if path is None:
            return
        checkpoint = load_checkpoint(path)
        try:
            self.task.load_state_dict(checkpoint, path)
            self.epoch, self.step = checkpoint["epoch"], checkpoint["iteration"]
        except KeyError as error:
            raise ValueError(f"{path}: cannot be continued: it has no {error.args[0]}") from error
        if "random_state" in checkpoint:
            _set_random_state(checkpoint["random_state"])
        else:
            logger.warning("%s holds no random states: the run will not repeat exactly", path)
        logger.info("Resumed from %s: epoch %d, step %d", path, self.epoch, self.step)

    def fit(self) -> None:
        """Trains up to the last epoch; with `--epochs 0`, only validates."""
        if self.run.epochs == 0:
            self._validate(self.epoch)
            return
        if self.epoch >= self.run.epochs:
            logger.info("Nothing to do: %d of %d epochs are done", self.epoch, self.run.epochs)
            return
        epochs = []
        for epoch in range(self.epoch + 1, self.run.epochs + 1):
            epochs.append(self._train_epoch(epoch))
            last = epoch == self.run.epochs
            if epoch % self.run.validation_freq == 0 or last:
                self._validate(epoch)
            if epoch % self.run.samples_freq == 0 or last:
                self._show_samples(epoch)
            if epoch % self.run.epochs_per_checkpoint == 0 or last:
                self._save(epoch)
        self.report.log("train_avg", (), _means(epochs[-self.run.benchmark_epochs_num :]))

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        self.train_loader.batch_sampler.epoch = epoch
        watch, epoch_means = Stopwatch(), []
        groups = itertools.islice(self._groups(self.train_loader), self.steps_per_epoch)
        bar = tqdm(groups, f"epoch {epoch}", self.steps_per_epoch, leave=False, disable=None)
        step_watch = Stopwatch()
        for iteration, micro_batches in enumerate(bar, start=1):
            self.step += 1
            progress = Progress(epoch=epoch, step=self.step)
            shares = self.task.train_step(micro_batches, progress)
            frames = sum(self.task.num_frames(batch) for batch in micro_batches)
            metrics = self._read_step(shares, frames)
            metrics["frames/s"] = metrics.pop("frames") / step_watch.seconds
            metrics["took"] = step_watch.seconds
            step_watch = Stopwatch()
            self.report.log("train", (epoch, iteration, self.steps_per_epoch), metrics)
            bar.set_postfix_str(f"loss {metrics['loss']:.4g}, {metrics['frames/s']:,.0f} frames/s")
            epoch_means.append(metrics)
        means = _means(epoch_means)
        means["took"] = watch.seconds
        self.report.log("train_avg", (epoch,), means)
        return means

    def _validate(self, epoch: int) -> None:
        watch, means, num_frames = Stopwatch(), {}, 0
        for batch in self.validation_loader:
            batch = batch.to(self.processes.device)
            num_frames = num_frames + self.task.num_frames(batch)
            for scope, (metrics, weight) in self.task.eval_step(batch).items():
                means.setdefault(scope, WeightedMeans(self.processes)).add(metrics, weight)
        frames = float(self.processes.sum(torch.as_tensor(num_frames)))
        for scope, scope_means in means.items():
            metrics = scope_means.read()
            metrics |= {"frames/s": frames / watch.seconds, "took": watch.seconds}
            self.report.log(scope, (epoch,), metrics)

    def _show_samples(self, epoch: int) -> None:
        if not self.processes.is_main:
            return
        batch = next(iter(self.validation_loader)).to(self.processes.device)
        samples = self.task.samples(batch)
        for name, figure in samples.figures.items():
            self.report.figure(name, figure, epoch)
        for name, audio in samples.audio.items():
            self.report.audio(name, audio, samples.sampling_rate, epoch)

    def _groups(self, loader: DataLoader) -> Iterator[list[Any]]:
        """The micro-batches of each optimizer step, on the device."""
        batches = iter(loader)
        while group := list(itertools.islice(batches, self.run.grad_accumulation)):
            yield [batch.to(self.processes.device) for batch in group]

    def _read_step(self, shares: Metrics, frames: Tensor) -> dict[str, float]:
        """The sums over all processes as numbers: the only synchronization of a step."""
        values = torch.stack([*(value.detach().double() for value in shares.values()), frames])
        return dict(zip([*shares, "frames"], self.processes.sum(values).tolist(), strict=True))

    def _save(self, epoch: int) -> None:
        if not self.processes.is_main:
            return
        state = self.task.state_dict()
        progress = {"epoch": epoch, "iteration": self.step, "random_state": _random_state()}
        self.checkpoints.save(epoch, {**progress, **state})


def _random_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_initialized() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
