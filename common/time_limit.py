# SPDX-License-Identifier: BSD-3-Clause
"""How long a training may take, over all jobs that it is made of."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class TimeIsUp(Exception):  # noqa: N818 -- what happened, not a fault
    """Training ends here, saved: it has had its minutes."""


class TimeLimit:
    """Counts the minutes of a training, those before a resume included.

    Args:
        minutes: that it may take; None for any number
        clock: gives seconds, of which differences count

    Attributes:
        seconds_before: that it took before it was resumed
    """

    def __init__(
        self, minutes: float | None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.minutes = minutes
        self.clock = clock
        self.seconds_before = 0.0
        self._begun: float | None = None

    def begin(self) -> None:
        """Counts from now on."""
        self._begun = self.clock()

    @property
    def seconds(self) -> float:
        """That the training took so far."""
        return self.seconds_before + (0.0 if self._begun is None else self.clock() - self._begun)

    @property
    def seconds_left(self) -> float:
        """That it still may take; infinite where it may take any number."""
        return math.inf if self.minutes is None else 60 * self.minutes - self.seconds

    @property
    def is_reached(self) -> bool:
        """Whether it took all that it may."""
        return self.seconds_left <= 0
