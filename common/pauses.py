# SPDX-License-Identifier: BSD-3-Clause
"""When training pauses between two steps to read its metrics, to save and to stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from common.config import RunConfig
from common.distributed import Processes
from common.metrics import Stopwatch
from common.signals import StopRequest
from common.time_limit import TimeLimit

# Requests are heard where metrics are read: at least so often, and after so many steps.
SECONDS_BETWEEN_READINGS = 2.0
MAX_STEPS_BETWEEN_READINGS = 100


class Pause(NamedTuple):
    """What is to be done after a step."""

    save: bool
    stop: bool  # as a process was asked to
    end: bool  # since time is up


class Pauses:
    """Decides alike on all processes, without a word more between them than metrics need.

    A process alone knows of a signal that it got, and clocks differ: so each says what it wants
    where metrics are summed, and all do what any of them wants. There, they also learn how long a
    step takes, and from that after how many steps they meet again.

    Args:
        run: when to save in the middle of an epoch
        processes: that train together
        stop: this process's request
        time_limit: of the training, as this process counts
    """

    def __init__(
        self, run: RunConfig, processes: Processes, stop: StopRequest, time_limit: TimeLimit
    ) -> None:
        self.run = run
        self.processes = processes
        self.stop = stop
        self.time_limit = time_limit
        self._since_reading = Stopwatch()
        self._since_saving = Stopwatch()
        self._read_step = 0
        self._next_reading = 0  # the first step

    def begin(self, step: int) -> None:
        """The steps after this one follow without interruption."""
        self._since_reading = Stopwatch()
        self._read_step = step

    def is_due(self, step: int) -> bool:
        """Whether metrics are to be read after this step, logged or not."""
        return step >= self._next_reading or self._is_saved(step)

    def wishes(self) -> dict[str, float]:
        """What this process says where metrics are read; numbers that are summed over all."""
        every = self.run.checkpoint_every_minutes
        is_late = every is not None and self._since_saving.seconds >= 60 * every
        return {
            "seconds": self._since_reading.seconds / self.processes.world_size,
            "save": float(is_late and self.processes.is_main),
            "stop": float(self.stop.requested),
            "end": float(self.time_limit.is_reached and self.processes.is_main),
        }

    def agree(self, step: int, wishes: Mapping[str, float]) -> Pause:
        """What to do after this step.

        Args:
            wishes: the sums over all processes
        """
        seconds_per_step = wishes["seconds"] / (step - self._read_step)
        num_steps = SECONDS_BETWEEN_READINGS / max(seconds_per_step, 1e-6)
        self._next_reading = step + min(max(1, int(num_steps)), MAX_STEPS_BETWEEN_READINGS)
        self.begin(step)
        return Pause(
            save=wishes["save"] > 0 or self._is_saved(step),
            stop=wishes["stop"] > 0,
            end=wishes["end"] > 0,
        )

    def saved(self) -> None:
        """Sets the clock back after a checkpoint."""
        self._since_saving = Stopwatch()

    def _is_saved(self, step: int) -> bool:
        every = self.run.checkpoint_every_steps
        return every is not None and step % every == 0
