# SPDX-License-Identifier: BSD-3-Clause
"""Signals with which a queue or a user asks a training to stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# One request may come as many signals: torchrun passes on what it gets itself, and a script repeats
# it until the process has ended.
SAME_REQUEST_SECONDS = 5.0  # between two signals at most


class Stopped(Exception):  # noqa: N818 -- what happened, not a fault
    """Training ends here, as was asked for."""


class StopRequest:
    """Whether this process was asked to stop; inside `with`, SIGTERM and SIGUSR1 ask it.

    What is in work is finished first. A second request, which comes after SAME_REQUEST_SECONDS
    without a signal, ends the process at once.

    Attributes:
        requested: whether it was
    """

    def __init__(self) -> None:
        self.requested = False
        self._seconds = 0.0  # of the last signal, on the monotonic clock
        self._pid = os.getpid()
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        self._previous = {number: signal.signal(number, self._take) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _take(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        is_ours = os.getpid() == self._pid  # else that of a fork, which nobody would ask
        if not is_ours or (self.requested and now - self._seconds > SAME_REQUEST_SECONDS):
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.requested, self._seconds = True, now


def leave_stopping_to_parent() -> None:
    """Makes a worker process go on when its whole job is asked to stop: its parent, which still
    needs it, ends it later, with SIGTERM, too."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS does not tell who sent a signal
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_parent_says_so, daemon=True).start()


def _end_when_parent_says_so() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
