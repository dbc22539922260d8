# SPDX-License-Identifier: BSD-3-Clause
"""The training loop: epochs, steps, validation, saving, resuming. Knows no model."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from common.bad_steps import BadSteps, TrainingFailed
from common.checkpoint import load_checkpoint, not_finite
from common.checkpoint_folder import Best, CheckpointFolder, Moment
from common.config import RunConfig
from common.distributed import Processes
from common.metrics import Metrics, PendingMetrics, Stopwatch, WeightedMeans
from common.random_state import random_state_kept, random_states, restore_random_states
from common.tb_dllogger import TrainingLogger

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)


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

    files: Sequence[str]  # names of a checkpoint's files; the last is needed only to continue

    def train_step(self, micro_batches: Sequence[Any], progress: Progress) -> Metrics:
        """One optimizer step; this process's share of the means over the global batch.

        Where the step may be skipped, `bad_step` among them says so: its shares add up to 1.
        """

    def eval_step(self, batch: Any) -> dict[str, tuple[Metrics, Tensor]]:
        """For each scope (val, val_ema): means over a batch, and how much they weigh."""

    def num_frames(self, batch: Any) -> Tensor:
        """() frames of work in a batch, for the throughput."""

    def samples(self, batch: Any) -> Samples:
        """Pictures and audio of a validation batch."""

    def state_dict(self, progress: Progress) -> dict[str, dict[str, Any]]:
        """What each file of a checkpoint holds, by name: tensors and plain values."""

    def load_state_dict(
        self, states: Mapping[str, Mapping[str, Any]], sources: Mapping[str, Path]
    ) -> Progress:
        """Restores `state_dict`, says how far it was; errors name the sources."""


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
        self.checkpoints = CheckpointFolder(run.output, task.files, run.keep_milestones)
        self.bad_steps = BadSteps(processes, run.max_bad_steps)
        self.steps_per_epoch = len(train_loader) // run.grad_accumulation
        self.epoch = 0  # epochs done
        self.step = 0

    def restore(self, paths: Mapping[str, Path]) -> None:
        """Continues from a checkpoint.

        Args:
            paths: the checkpoint's files, by name

        Raises:
            FileNotFoundError: a file is not there
            ValueError: the checkpoint does not fit, or holds weights alone
        """
        states = {name: load_checkpoint(path) for name, path in paths.items()}
        where = " and ".join(map(str, paths.values()))
        try:
            progress = self.task.load_state_dict(states, paths)
        except KeyError as error:
            raise ValueError(f"{where}: cannot be continued: it has no {error.args[0]}") from error
        self.epoch, self.step = progress.epoch, progress.step
        state = states[self.task.files[-1]]
        restore_random_states(state.get("random_state"), self.processes, where)
        if "training" in state:  # checkpoints of old have none
            self._load_state_dict(state["training"], {path.parent for path in paths.values()})
        if self.processes.is_main:
            logger.info("Resumed from %s: epoch %d, step %d", where, self.epoch, self.step)

    def fit(self) -> None:
        """Trains up to the last epoch; with `--epochs 0`, only validates.

        Raises:
            TrainingFailed: too many steps in a row were not finite, or the weights are not, or
                the processes do not begin at the same step
        """
        self._check_agreement()
        if self.run.epochs == 0:
            self._validate(self.epoch)
            return
        if self.epoch >= self.run.epochs:
            logger.info("Nothing to do: %d of %d epochs are done", self.epoch, self.run.epochs)
            return
        epochs = []
        last_epoch = self.run.epochs
        if self.run.epochs_this_job is not None:
            last_epoch = min(last_epoch, self.epoch + self.run.epochs_this_job)
        for epoch in range(self.epoch + 1, last_epoch + 1):
            epochs.append(self._train_epoch(epoch))
            is_last = epoch == last_epoch
            losses = {}
            with random_state_kept(self.processes.device):
                if epoch % self.run.validation_freq == 0 or is_last:
                    losses = self._validate(epoch)
                if epoch % self.run.samples_freq == 0 or is_last:
                    self._show_samples(epoch)
            if epoch % self.run.epochs_per_checkpoint == 0 or is_last:
                self._mark_if_best(epoch, losses)
                self._save(epoch)
        means = _means(epochs[-self.run.benchmark_epochs_num :])
        if means:
            self.report.log("train_avg", (), means)

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """The means over the epoch's good steps."""
        self.train_loader.batch_sampler.epoch = epoch
        epoch_watch = watch = Stopwatch()
        unread, steps = PendingMetrics(self.processes), []
        groups = itertools.islice(self._groups(self.train_loader), self.steps_per_epoch)
        bar = tqdm(groups, f"epoch {epoch}", self.steps_per_epoch, leave=False, disable=None)
        for iteration, micro_batches in enumerate(bar, start=1):
            self.step += 1
            shares = self.task.train_step(micro_batches, Progress(epoch=epoch, step=self.step))
            frames = sum(self.task.num_frames(batch) for batch in micro_batches)
            unread.add(shares | {"frames": frames})
            self.bad_steps.add(self.step, micro_batches, shares)
            if iteration % self.run.step_logs_interval and iteration < self.steps_per_epoch:
                continue
            rows = unread.read()  # the only synchronization
            seconds, watch = watch.seconds, Stopwatch()
            speed = {"frames/s": sum(row.pop("frames") for row in rows) / seconds}
            speed["took"] = seconds / len(rows)
            good = [row | speed for row in self.bad_steps.read(rows)]
            if not good:
                continue
            steps += good
            self.report.log("train", (epoch, iteration, self.steps_per_epoch), good[-1])
            bar.set_postfix_str(f"loss {good[-1]['loss']:.4g}, {speed['frames/s']:,.0f} frames/s")
        means = _means(steps)
        if means:
            means["took"] = epoch_watch.seconds
            self.report.log("train_avg", (epoch,), means)
        return means

    def _validate(self, epoch: int) -> dict[str, float]:
        """The loss by scope, over the batches of all processes, of which some may have none."""
        watch, means, num_frames = Stopwatch(), {}, torch.zeros((), device=self.processes.device)
        for batch in self.validation_loader:
            batch = batch.to(self.processes.device)
            num_frames = num_frames + self.task.num_frames(batch)
            for scope, (metrics, weight) in self.task.eval_step(batch).items():
                means.setdefault(scope, WeightedMeans(self.processes)).add(metrics, weight)
        names = {scope: scope_means.names for scope, scope_means in means.items()}
        names = next(filter(None, self.processes.gather(names)), {})
        frames = float(self.processes.sum(num_frames))
        losses = {}
        for scope in names:
            metrics = means.get(scope, WeightedMeans(self.processes)).read(names[scope])
            losses[scope] = metrics["loss"]
            metrics |= {"frames/s": frames / watch.seconds, "took": watch.seconds}
            self.report.log(scope, (epoch,), metrics)
        return losses

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

    def _mark_if_best(self, epoch: int, losses: Mapping[str, float]) -> None:
        """Marks an epoch that is about to be saved, unless one before was better."""
        if not losses:
            return
        scope, loss = list(losses.items())[-1]  # of the averaged weights, if there are any
        best = self.checkpoints.best
        if math.isfinite(loss) and (best is None or best.scope != scope or loss < best.loss):
            self.checkpoints.best = Best(epoch=epoch, loss=loss, scope=scope)

    def _save(self, epoch: int) -> None:
        """Writes a checkpoint, in the main process; what fails there fails in all."""
        states = random_states(self.processes)
        error = None
        if self.processes.is_main:
            try:
                self._write(Moment(epoch), states)
            except (OSError, TrainingFailed) as failure:
                error = failure
        errors = self.processes.gather(None if error is None else str(error))
        if error is not None:
            raise error
        if errors[0] is not None:
            raise TrainingFailed(errors[0])

    def _write(self, moment: Moment, random_state: list[dict[str, Any]]) -> None:
        states = self.task.state_dict(Progress(epoch=moment.epoch, step=self.step))
        if broken := not_finite(states):
            raise TrainingFailed(
                f"after step {self.step}, {', '.join(broken[:3])} and so on are not finite: no "
                "checkpoint is saved; --resume continues from the last good one"
            )
        states[self.task.files[-1]] |= {
            "random_state": random_state,
            "training": {
                "bad_steps_in_a_row": self.bad_steps.in_a_row,
                "checkpoints": self.checkpoints.state_dict(moment),
            },
        }
        self.checkpoints.save(moment, states)

    def _load_state_dict(self, state: Mapping[str, Any], folders: Collection[Path]) -> None:
        """Goes on with what `_write` adds to a task's state.

        Args:
            folders: that the checkpoint is in
        """
        self.bad_steps.in_a_row = state["bad_steps_in_a_row"]
        if all(folder.resolve() == self.run.output.resolve() for folder in folders):
            self.checkpoints.load_state_dict(state["checkpoints"])

    def _check_agreement(self) -> None:
        begins = self.processes.gather((self.epoch, self.step))
        if len(set(begins)) > 1:
            told = ", ".join(f"{rank} at step {step}" for rank, (_, step) in enumerate(begins))
            raise TrainingFailed(
                f"the processes do not begin at the same step (process {told}): --output "
                f"{self.run.output} must be one folder for all of them"
            )


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    rows = [row for row in rows if row]  # an epoch may have had no good step
    return {name: sum(row[name] for row in rows) / len(rows) for name in (rows[0] if rows else ())}
