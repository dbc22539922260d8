# SPDX-License-Identifier: BSD-3-Clause
"""The training loop: epochs, steps, validation, saving, resuming. Knows no model."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from common.bad_steps import BadSteps, TrainingFailed
from common.checkpoint import load_checkpoint, not_finite
from common.checkpoint_folder import Best, CheckpointFolder, Moment
from common.config import RunConfig
from common.distributed import Processes
from common.epoch_log import EpochLog
from common.loaders import largest_batch
from common.metrics import Stopwatch, WeightedMeans
from common.pauses import Pauses
from common.progress import ProgressLine
from common.random_state import random_state_kept, random_states, restore_random_states
from common.rehearsal import (
    batch_advice,
    explaining_short_memory,
    rehearse,
    validation_advice,
)
from common.signals import Stopped, StopRequest
from common.task import Progress, Task
from common.tb_dllogger import TrainingLogger
from common.time_limit import TimeIsUp, TimeLimit

logger = logging.getLogger(__name__)


class Trainer:
    """Runs a task for the epochs that are asked for.

    Args:
        task: what to train
        run: how long, and where to
        train_loader: its batch sampler is an `EpochBatches`, its dataset has `largest_items`
        validation_loader: of the same kind of batches
        processes: that train together
        report: where to report to
        clock: gives the seconds that `--max-minutes` counts
    """

    def __init__(
        self,
        task: Task,
        run: RunConfig,
        train_loader: DataLoader,
        validation_loader: DataLoader,
        processes: Processes,
        report: TrainingLogger,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.task = task
        self.run = run
        self.train_loader = train_loader
        self.validation_loader = validation_loader
        self.processes = processes
        self.report = report
        self.checkpoints = CheckpointFolder(run.output, task.files, run.keep_milestones)
        self.bad_steps = BadSteps(processes, run.max_bad_steps)
        self.epoch_log = EpochLog(processes, self.bad_steps, report)
        steps_per_epoch = len(train_loader) // run.grad_accumulation
        self.time_limit = TimeLimit(run.max_minutes, clock)
        self.progress_line = ProgressLine(run.epochs, steps_per_epoch, is_shown=processes.is_main)
        self.epoch = 0  # epochs done
        self.clips_done = 0  # of the epoch after these, over all processes
        self.step = 0
        self._saved_step = 0

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
        self._saved_step = self.step
        state = states[self.task.files[-1]]
        restore_random_states(state.get("random_state"), self.processes, where)
        if "training" in state:  # checkpoints of old have none
            self._load_state_dict(state["training"], {path.parent for path in paths.values()})
        if self.processes.is_main:
            logger.info("Resumed from %s: epoch %d, step %d", where, self.epoch, self.step)

    def fit(self, stop: StopRequest | None = None) -> None:
        """Trains up to the last epoch, or until time is up or it is asked to stop, which saves a
        checkpoint first; with `--epochs 0`, only validates.

        Args:
            stop: may ask this process; one that was asked ends all

        Raises:
            OutOfMemory: a step, validation or samples do not fit into memory
            TrainingFailed: too many steps in a row were not finite, or the weights are not, or
                the processes do not begin alike
        """
        stop = stop or StopRequest()
        try:
            self._agree_to_begin(stop)
            if self.run.epochs == 0:
                self._validate(self.epoch, stop)
            elif self.epoch >= self.run.epochs:
                logger.info("Nothing to do: %d of %d epochs are done", self.epoch, self.run.epochs)
            elif self.time_limit.is_reached:
                spent, minutes = self.time_limit.seconds / 60, self.run.max_minutes
                logger.info("Nothing to do: %.1f of --max-minutes %g are used up", spent, minutes)
            else:
                self._train(stop)
        except TimeIsUp:
            if self.processes.is_main:
                minutes = self.run.max_minutes
                logger.info(
                    "Stopped after step %d: --max-minutes %g are used up", self.step, minutes
                )
        except Stopped:
            if self.step != self._saved_step:
                self._save()
            if self.processes.is_main:
                logger.warning(
                    "Stopped after step %d, as a signal asked: the same command with --resume "
                    "continues",
                    self.step,
                )

    def _train(self, stop: StopRequest) -> None:
        next_step = Progress(epoch=self.epoch + 1, step=self.step + 1)
        max_frames = self.train_loader.batch_sampler.max_frames
        largest = largest_batch(self.train_loader)
        rehearse(self.task, largest, next_step, self.run, self.processes, max_frames)
        advice = batch_advice(self.run, max_frames)
        epochs = []
        self.time_limit.begin()
        pauses = Pauses(self.run, self.processes, stop, self.time_limit)
        last_epoch = self.run.epochs
        if self.run.epochs_this_job is not None:
            last_epoch = min(last_epoch, self.epoch + self.run.epochs_this_job)
        for epoch in range(self.epoch + 1, last_epoch + 1):
            with explaining_short_memory("training", self.processes.device, advice):
                epochs.append(self._train_epoch(epoch, pauses))
            is_last = epoch == last_epoch
            losses = {}
            with random_state_kept(self.processes.device):
                if epoch % self.run.validation_freq == 0 or is_last:
                    losses = self._validate(epoch, stop)
                samples_freq = self.run.samples_freq
                if samples_freq and (epoch % samples_freq == 0 or is_last):
                    self._show_samples(epoch)
            self.epoch, self.clips_done = epoch, 0
            self.epoch_log.reset()
            if epoch % self.run.epochs_per_checkpoint == 0 or is_last:
                self._mark_if_best(epoch, losses)
                self._save()
                pauses.saved()
        means = _means(epochs[-self.run.benchmark_epochs_num :])
        if means:
            self.report.log("train_avg", (), means)

    def _train_epoch(self, epoch: int, pauses: Pauses) -> dict[str, float]:
        """The means over the epoch's good steps, with those of before a resume."""
        batches = self.train_loader.batch_sampler
        batches.epoch, batches.num_done = epoch, self.clips_done
        batches_per_step = self.run.grad_accumulation * self.processes.world_size
        num_done = -(-batches.num_batches_done // batches_per_step)  # steps
        num_steps = num_done + len(self.train_loader) // self.run.grad_accumulation
        self.progress_line.steps_per_epoch = num_steps
        groups = itertools.islice(self._groups(self.train_loader), num_steps - num_done)
        self.epoch_log.begin()
        pauses.begin(self.step)
        for iteration, micro_batches in enumerate(groups, start=num_done + 1):
            self.step += 1
            shares = self.task.train_step(micro_batches, Progress(epoch=epoch, step=self.step))
            turns = (iteration - num_done) * self.run.grad_accumulation
            self.clips_done = batches.num_done_after(turns)
            frames = sum(self.task.num_frames(batch) for batch in micro_batches)
            self.epoch_log.add(self.step, micro_batches, shares, frames)
            is_logged = iteration % self.run.step_logs_interval == 0 or iteration == num_steps
            if not is_logged and not pauses.is_due(self.step):
                continue
            wishes = self.epoch_log.read(pauses.wishes())  # the only synchronization
            pause = pauses.agree(self.step, wishes)
            if is_logged or any(pause):
                logged = self.epoch_log.log(epoch, iteration, num_steps)
                if logged:
                    seconds_left = self.time_limit.seconds_left
                    self.progress_line.update(epoch, iteration, logged, seconds_left)
            if any(pause):
                self._save()
                pauses.saved()
            if pause.end:
                raise TimeIsUp
            if pause.stop:
                raise Stopped
        self.progress_line.end_epoch()
        return self.epoch_log.end(epoch)

    def _validate(self, epoch: int, stop: StopRequest) -> dict[str, float]:
        """The loss by scope, over the batches of all processes, of which some may have none.

        Raises:
            Stopped: a process was asked to before the end
        """
        watch, means, num_frames = Stopwatch(), {}, torch.zeros((), device=self.processes.device)
        for batch in self.validation_loader:
            if stop.requested:
                break
            with self._explaining_short_memory("validation"):
                batch = batch.to(self.processes.device)
                num_frames = num_frames + self.task.num_frames(batch)
                for scope, (metrics, weight) in self.task.eval_step(batch).items():
                    means.setdefault(scope, WeightedMeans(self.processes)).add(metrics, weight)
        names = {scope: scope_means.names for scope, scope_means in means.items()}
        gathered = self.processes.gather((stop.requested, names))
        if any(is_asked for is_asked, _ in gathered):
            raise Stopped
        names = next((names for _, names in gathered if names), {})
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
        with self._explaining_short_memory("samples"):
            batch = next(iter(self.validation_loader)).to(self.processes.device)
            samples = self.task.samples(batch)
        for name, figure in samples.figures.items():
            self.report.figure(name, figure, epoch)
        for name, audio in samples.audio.items():
            self.report.audio(name, audio, samples.sampling_rate, epoch)

    def _explaining_short_memory(self, what: str) -> AbstractContextManager:
        """Region of work on a batch of validation clips."""
        advice = validation_advice(self.validation_loader.batch_sampler.batch_size)
        return explaining_short_memory(what, self.processes.device, advice)

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

    def _save(self) -> None:
        """Writes a checkpoint, in the main process; what fails there fails in all."""
        self.report.flush()
        random_state = random_states(self.processes)
        error = None
        if self.processes.is_main:
            try:
                self._write(random_state)
            except (OSError, TrainingFailed) as failure:
                error = failure
        errors = self.processes.gather(None if error is None else str(error))
        if error is not None:
            raise error
        if errors[0] is not None:
            raise TrainingFailed(errors[0])
        self._saved_step = self.step

    def _write(self, random_state: list[dict[str, Any]]) -> None:
        states = self.task.state_dict(Progress(epoch=self.epoch, step=self.step))
        if broken := not_finite(states):
            raise TrainingFailed(
                f"after step {self.step}, {', '.join(broken[:3])} and so on are not finite: no "
                "checkpoint is saved; --resume continues from the last good one"
            )
        moment = Moment(self.epoch + 1, self.step) if self.clips_done else Moment(self.epoch)
        states[self.task.files[-1]] |= {
            "random_state": random_state,
            "training": {
                "clips_done": self.clips_done,
                "batches": self.train_loader.batch_sampler.state_dict(),
                "epoch_log": self.epoch_log.state_dict(),
                "bad_steps_in_a_row": self.bad_steps.in_a_row,
                "checkpoints": self.checkpoints.state_dict(moment),
                "seconds": self.time_limit.seconds,
            },
        }
        self.checkpoints.save(moment, states)

    def _load_state_dict(self, state: Mapping[str, Any], folders: Collection[Path]) -> None:
        """Goes on with what `_write` adds to a task's state.

        Args:
            folders: that the checkpoint is in
        """
        self.clips_done = state["clips_done"]
        batches = self.train_loader.batch_sampler.state_dict()
        if self.clips_done and state.get("batches", {}) != batches and self.processes.is_main:
            logger.warning(
                "The epoch was begun with another --batch-size, --bucket or --max-batch-frames: in "
                "what is left of it, clips may come a second time and others not at all"
            )
        self.epoch_log.load_state_dict(state["epoch_log"])
        self.bad_steps.in_a_row = state["bad_steps_in_a_row"]
        self.time_limit.seconds_before = state.get("seconds", 0.0)
        if all(folder.resolve() == self.run.output.resolve() for folder in folders):
            self.checkpoints.load_state_dict(state["checkpoints"])

    def _agree_to_begin(self, stop: StopRequest) -> None:
        datasets = (self.train_loader.dataset, self.validation_loader.dataset)
        own = _Beginning(self.step, tuple(map(len, datasets)), stop.requested)
        begins = self.processes.gather(own)
        if len({each.step for each in begins}) > 1:
            told = ", ".join(f"{rank} at step {each.step}" for rank, each in enumerate(begins))
            raise TrainingFailed(
                f"the processes do not begin at the same step (process {told}): --output "
                f"{self.run.output} must be one folder for all of them"
            )
        if len({each.num_clips for each in begins}) > 1:
            counts = [" and ".join(map(str, each.num_clips)) for each in begins]
            told = ", ".join(f"{rank} has {count}" for rank, count in enumerate(counts))
            raise TrainingFailed(
                f"the processes found different numbers of clips to train and to validate on "
                f"(process {told}): --dataset-path must hold the same for all of them"
            )
        if any(each.is_asked_to_stop for each in begins):
            raise Stopped


class _Beginning(NamedTuple):
    """Where a process begins, which should be the same on all."""

    step: int
    num_clips: tuple[int, ...]
    is_asked_to_stop: bool


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    rows = [row for row in rows if row]  # an epoch may have had no good step
    return {name: sum(row[name] for row in rows) / len(rows) for name in (rows[0] if rows else ())}
