# SPDX-License-Identifier: BSD-3-Clause
"""How much memory the processes take that this one starts."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS_BETWEEN_LOOKS = 0.1


class PeakMemory:
    """The most that any one process below this one has had resident, as Linux counts it.

    Attributes:
        megabytes: 0 where there is no /proc
    """

    def __init__(self) -> None:
        self.megabytes = 0.0
        self._is_over = threading.Event()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Looks at all processes, again and again, while the block runs."""
        watcher = threading.Thread(target=self._look, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            self._is_over.set()
            watcher.join()

    def _look(self) -> None:
        while not self._is_over.wait(SECONDS_BETWEEN_LOOKS):
            self.megabytes = max([self.megabytes, *map(_peak_megabytes, _descendants(os.getpid()))])


def _descendants(process: int) -> Iterator[int]:
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found = [int(child) for child in children.read_text(encoding="ascii").split()]
        except OSError:  # it has ended
            continue
        for child in found:
            yield child
            yield from _descendants(child)


def _peak_megabytes(process: int) -> float:
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0
