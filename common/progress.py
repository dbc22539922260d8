# SPDX-License-Identifier: BSD-3-Clause
"""How far a training is: a line that moves on a terminal, plain lines elsewhere."""

from __future__ import annotations

import datetime
import logging
import math
import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 60.0  # where there is no terminal
PACE_DECAY = 0.95  # of the seconds that a step takes, averaged over the last twenty lines or so


class ProgressLine:
    """Tells epoch, step, loss, frames/s and the time left until the last epoch is over.

    Args:
        num_epochs: in all
        steps_per_epoch: in each
        seconds_between_lines: between plain lines
        is_shown: False where another process tells

    Attributes:
        steps_per_epoch: of the epoch that runs, where they differ
        is_terminal: whether standard error is one
    """

    def __init__(
        self,
        num_epochs: int,
        steps_per_epoch: int,
        seconds_between_lines: float = SECONDS_BETWEEN_LINES,
        is_shown: bool = True,
    ) -> None:
        self.num_epochs = num_epochs
        self.steps_per_epoch = steps_per_epoch
        self.seconds_between_lines = seconds_between_lines
        self.is_shown = is_shown
        self.is_terminal = sys.stderr.isatty()
        self._last_line = time.monotonic()
        self._seconds_per_step: float | None = None
        self._bar: tqdm | None = None

    def update(
        self,
        epoch: int,
        iteration: int,
        metrics: Mapping[str, float],
        most_seconds_left: float = math.inf,
    ) -> None:
        """Tells of a step.

        Args:
            epoch: counted from 1
            iteration: the step within the epoch, counted from 1
            metrics: `loss`, `frames/s` and `took`, the seconds of a step
            most_seconds_left: after which training ends in any case
        """
        if not self.is_shown:
            return
        pace = self._seconds_per_step or metrics["took"]
        self._seconds_per_step = PACE_DECAY * pace + (1 - PACE_DECAY) * metrics["took"]
        numbers = f"loss {metrics['loss']:.4g}, {metrics['frames/s']:,.0f} frames/s"
        seconds_left = max(0.0, min(self.seconds_left(epoch, iteration), most_seconds_left))
        left = f"{duration(seconds_left)} left"
        if self.is_terminal:
            self._move_bar(epoch, iteration, f"{numbers}, {left}")
        elif time.monotonic() - self._last_line >= self.seconds_between_lines:
            self._last_line = time.monotonic()
            where = f"epoch {epoch}/{self.num_epochs} step {iteration}/{self.steps_per_epoch}"
            logger.info("%s: %s, %s", where, numbers, left)

    def end_epoch(self) -> None:
        """Takes the moving line away; the epoch's own line follows."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def seconds_left(self, epoch: int, iteration: int) -> float:
        """What the remaining steps will take, after at least one was told of."""
        steps = (self.num_epochs - epoch + 1) * self.steps_per_epoch - iteration
        return steps * self._seconds_per_step

    def _move_bar(self, epoch: int, iteration: int, numbers: str) -> None:
        layout = (
            f"epoch {epoch}/{self.num_epochs} step {{n_fmt}}/{{total_fmt}} |{{bar:20}}| {numbers}"
        )
        if self._bar is None:
            total = self.steps_per_epoch
            self._bar = tqdm(total=total, initial=iteration, bar_format=layout, leave=False)
            return
        self._bar.bar_format = layout
        self._bar.n = iteration
        self._bar.refresh()


def duration(seconds: float) -> str:
    """Days, hours, minutes and seconds: `1 day, 2:03:04`."""
    return str(datetime.timedelta(seconds=round(seconds)))
