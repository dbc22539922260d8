# SPDX-License-Identifier: BSD-3-Clause
"""What the steps of an epoch tell: read from the device together, logged now and then, averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from common.bad_steps import BadSteps
from common.distributed import Processes
from common.metrics import Metrics, PendingMetrics, Stopwatch, pop_peak_memory
from common.tb_dllogger import TrainingLogger


class EpochLog:
    """The metrics of an epoch, of which a part may have been trained before a resume.

    Args:
        processes: that train together
        bad_steps: is told of every step; bad ones are left out of lines and means
        report: where lines go
    """

    def __init__(self, processes: Processes, bad_steps: BadSteps, report: TrainingLogger) -> None:
        self.processes = processes
        self.bad_steps = bad_steps
        self.report = report
        self.reset()

    def reset(self) -> None:
        """Begins an epoch."""
        self._sums: dict[str, float] = {}
        self._num_steps = 0  # that the sums are over
        self._is_averaged = False  # and the means logged
        self._seconds_before = 0.0  # of the part that was trained before a resume
        self.begin()

    def begin(self) -> None:
        """Steps follow from now on."""
        self._unread = PendingMetrics(self.processes)
        self._unlogged: list[dict[str, float]] = []
        self._num_unlogged, self._frames = 0, 0.0  # of bad steps, too
        self._step = 0  # the last
        pop_peak_memory(self.processes.device)  # not that of rehearsal, validation and samples
        self._watch = self._epoch_watch = Stopwatch()

    def add(self, step: int, micro_batches: Sequence[Any], shares: Metrics, frames: Tensor) -> None:
        """Takes in a step: this process's shares of its metrics and of its frames."""
        self._step = step
        shares = self.bad_steps.add(step, micro_batches, shares)
        self._unread.add(shares | {"frames": frames})

    def read(self, more: Mapping[str, float]) -> dict[str, float]:
        """Reads the steps since the last reading; the only synchronization with the device.

        Args:
            more: numbers of this process

        Returns:
            Their sums over all processes

        Raises:
            TrainingFailed: too many steps in a row were bad
        """
        rows, sums = self._unread.read(more)
        self._num_unlogged += len(rows)
        self._frames += sum(row.pop("frames") for row in rows)
        self._unlogged += self.bad_steps.read(rows)
        return sums

    def log(self, epoch: int, iteration: int, iterations: int) -> dict[str, float] | None:
        """Logs the last good step that was read, with speed and memory since the last line.

        Returns:
            What was logged; None where there was nothing to
        """
        seconds, self._watch = self._watch.seconds, Stopwatch()
        speed = {"frames/s": self._frames / seconds, "took": seconds / self._num_unlogged}
        speed |= pop_peak_memory(self.processes.device)
        rows = [row | speed for row in self._unlogged]
        self._unlogged, self._num_unlogged, self._frames = [], 0, 0.0
        if not rows:
            return None
        for row in rows:
            self._sums = {name: self._sums.get(name, 0.0) + row[name] for name in row}
        self._num_steps += len(rows)
        self.report.log("train", (epoch, iteration, iterations), rows[-1], self._step)
        return rows[-1]

    def end(self, epoch: int) -> dict[str, float]:
        """The means over the epoch's good steps, which are logged if they are not yet; empty where
        there is none."""
        means = {name: total / self._num_steps for name, total in self._sums.items()}
        if means:
            means["took"] = self._seconds
            if not self._is_averaged:
                self.report.log("train_avg", (epoch,), means)
        self._is_averaged = True
        return means

    def state_dict(self) -> dict[str, Any]:
        """What the rest of the epoch needs to know of the steps that were logged."""
        return {
            "sums": self._sums,
            "num_steps": self._num_steps,
            "seconds": self._seconds if self._num_steps else 0.0,
            "is_averaged": self._is_averaged,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with an epoch of which a part was trained before."""
        self._sums, self._num_steps = dict(state["sums"]), state["num_steps"]
        self._seconds_before = state["seconds"]
        self._is_averaged = state["is_averaged"]

    @property
    def _seconds(self) -> float:
        return self._seconds_before + self._epoch_watch.seconds
