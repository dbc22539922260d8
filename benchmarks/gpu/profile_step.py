# SPDX-License-Identifier: BSD-3-Clause
"""Watches a few steps of a training command: where the host waits for the GPU, what takes the time.

python -m benchmarks.gpu.profile_step MODULE:TASK FOLDER TABLE (SCRIPT | -m MODULE) [FLAG ...]
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import statistics
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from common.bad_steps import BadSteps
from common.metrics import Metrics, PendingMetrics, Stopwatch
from common.task import Progress, Task

TrainStep = Callable[..., Metrics]

ROOT = Path(__file__).resolve().parents[2]
WAITS = "called a synchronizing CUDA operation"  # PyTorch's warning of it
# Where the log is read; of bad steps, as loss scaling begins with, a second time.
READS = {PendingMetrics.read.__code__, BadSteps.read.__code__}
FIRST_WATCHED, LAST_WATCHED = 4, 6  # steps; those before may still set things up
TIMED_AT = LAST_WATCHED + 1
NUM_TIMED = 10
NUM_ROWS = 20  # of the table of operations
GIBIBYTE = 2**30


class Watch:
    """Sees every step of a training, from the beginning of one to the beginning of the next.

    Args:
        table: file for the operations that take most of a step
    """

    def __init__(self, table: Path) -> None:
        self.table = table
        self.places: Counter[str] = Counter()
        self.num_reads = 0
        self.numbers: dict[str, float] = {}
        self._watching = contextlib.ExitStack()

    def around(self, train_step: TrainStep) -> TrainStep:
        """A task's method, watched."""

        @functools.wraps(train_step)
        def watched(task: Task, micro_batches: Sequence[Any], progress: Progress) -> Metrics:
            step = functools.partial(train_step, task, micro_batches, progress)
            if progress.step == FIRST_WATCHED:
                device = task.processes.device
                self._watching.enter_context(profiled(device, self.table))
                self._watching.enter_context(self._waits_noted(device))
            if progress.step == TIMED_AT:
                self._watching.close()
                frames = sum(task.num_frames(batch) for batch in micro_batches)
                self._measure(step, float(frames), task.processes.device)
            return step()

        return watched

    def summary(self) -> dict[str, Any]:
        """What was seen."""
        return {
            "num_steps": LAST_WATCHED - FIRST_WATCHED + 1,
            "waits": dict(self.places.most_common()),
            "logged_reads": self.num_reads,
            "numbers": self.numbers,
        }

    def _measure(self, step: Callable[[], Metrics], frames: float, device: torch.device) -> None:
        seconds = []
        for _ in range(NUM_TIMED):
            stopwatch = Stopwatch(device)
            step()
            seconds.append(stopwatch.seconds)
        median = statistics.median(seconds)
        self.numbers = {"ms a step": 1000 * median, "frames/s without loading": frames / median}
        if device.type == "cuda":
            self.numbers["GiB at most"] = torch.cuda.max_memory_allocated(device) / GIBIBYTE

    @contextlib.contextmanager
    def _waits_noted(self, device: torch.device) -> Iterator[None]:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = self._note  # put back by the region
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("warn")
            try:
                yield
            finally:
                if device.type == "cuda":
                    torch.cuda.set_sync_debug_mode("default")

    def _note(self, message: Warning | str, *_: Any, **__: Any) -> None:
        if WAITS not in str(message):
            return
        frames = [frame for frame, _ in traceback.walk_stack(None)]
        if any(frame.f_code in READS for frame in frames):
            self.num_reads += 1
            return
        self.places[_place(frames)] += 1


def _place(frames: Sequence[Any]) -> str:
    """The innermost line of the project, this file's own apart; frames begin with the innermost."""
    for frame in frames:
        path = Path(frame.f_code.co_filename)
        is_ours = path.is_relative_to(ROOT) and not {".venv", "site-packages"} & set(path.parts)
        if is_ours and path != Path(__file__).resolve():
            return f"{path.relative_to(ROOT)}:{frame.f_lineno}"
    return "elsewhere"


@contextlib.contextmanager
def profiled(device: torch.device, table: Path) -> Iterator[None]:
    """Region of whose operations those that take longest are written to a file."""
    is_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * is_cuda
    with profile(activities=activities) as operations:
        yield
    order = "self_device_time_total" if is_cuda else "self_cpu_time_total"
    averages = operations.key_averages()
    text = averages.table(sort_by=order, row_limit=NUM_ROWS, max_name_column_width=60)
    table.write_text(f"{LAST_WATCHED - FIRST_WATCHED + 1} steps\n\n{text}\n", encoding="utf-8")


def run_watched(
    task_name: str, around: Callable[[TrainStep], TrainStep], command: Sequence[str]
) -> None:
    """Runs a training command in this process, with its task's `train_step` as `around` makes it.

    Args:
        task_name: the task's class, module:name
        around: takes and returns a method
        command: a script or -m and a module, then flags
    """
    module, class_name = task_name.split(":")
    task_class = getattr(importlib.import_module(module), class_name)
    task_class.train_step = around(task_class.train_step)
    program, *flags = command[1:] if command[0] == "-m" else (Path(command[0]).stem, *command[1:])
    importlib.import_module(program).main(flags)


def main(task_name: str, folder: str, table: str, *command: str) -> None:
    """Runs the command with its task watched, and writes FOLDER/profile.json.

    Raises:
        ValueError: the training had too few steps
    """
    watch = Watch(Path(table))
    run_watched(task_name, watch.around, command)
    if not watch.numbers:
        raise ValueError(f"the training was to have {TIMED_AT} steps or more, and had fewer")
    path = Path(folder) / "profile.json"
    path.write_text(json.dumps(watch.summary()), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
