# SPDX-License-Identifier: BSD-3-Clause
"""Runs a training command with the largest micro-batches that fit, and counts its arithmetic.

python -m benchmarks.gpu.full_speed MODULE:TASK FOLDER CLIPS (SCRIPT | -m MODULE) [FLAG ...]
trains with CLIPS an optimizer step: all in one micro-batch, or in more where memory is short.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.arithmetic import count_flops
from benchmarks.gpu.profile_step import TrainStep, run_watched
from common.metrics import Metrics
from common.task import Progress, Task

COUNTED = "counted"  # what the process that trains is called with
SHORT_MEMORY = "out of memory"
CLIPS_COUNTED = 8  # as many as fit beside whatever is there


def main(task_name: str, folder: str, clips: str, *command: str) -> int:
    """Trains and writes FOLDER/full_speed.json; returns the exit code of the training."""
    for micro_batch in halves(int(clips)):
        output = Path(folder) / str(micro_batch)
        size = ("--batch-size", str(micro_batch), "--output", str(output))
        several = ("--grad-accumulation", str(int(clips) // micro_batch))
        words = (COUNTED, task_name, str(output), *command, *size, *several)
        code, text = run([sys.executable, "-m", "benchmarks.gpu.full_speed", *words])
        if code == 0 or SHORT_MEMORY not in text:
            break
    if code == 0:
        counted = json.loads((output / "counted.json").read_text(encoding="utf-8"))
        summary = counted | {"micro_batch": micro_batch, "log": str(output / "nvlog.json")}
        (Path(folder) / "full_speed.json").write_text(json.dumps(summary), encoding="utf-8")
    return code


def halves(number: int) -> Iterator[int]:
    """The number and its halves, as long as they divide it without rest."""
    yield number
    if number % 2 == 0:
        yield from halves(number // 2)


def run(command: Sequence[str]) -> tuple[int, str]:
    """The exit code of a process, and what it said, which is said again meanwhile."""
    lines = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout:
            lines.append(line)
            sys.stdout.write(line)
            sys.stdout.flush()
    return process.returncode, "".join(lines)


def train_and_count(task_name: str, folder: str, *command: str) -> None:
    """Trains in this process, and writes FOLDER/counted.json of the first step."""
    path = Path(folder) / "counted.json"

    def around(train_step: TrainStep) -> TrainStep:
        @functools.wraps(train_step)
        def step(task: Task, micro_batches: Sequence[Any], progress: Progress) -> Metrics:
            if not path.exists():
                clips = first_clips(micro_batches[0], CLIPS_COUNTED)
                flops = count_flops(lambda: train_step(task, [clips], progress))
                device = task.processes.device
                name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
                counted = {"flops_per_frame": flops / float(task.num_frames(clips)), "device": name}
                path.write_text(json.dumps(counted), encoding="utf-8")
            return train_step(task, micro_batches, progress)

        return step

    run_watched(task_name, around, command)


def first_clips(batch: Any, number: int) -> Any:
    """The first clips of a batch."""
    fields = {
        name: value[:number]
        for name, value in vars(batch).items()
        if isinstance(value, Tensor | list)
    }
    return dataclasses.replace(batch, **fields)


if __name__ == "__main__":
    if sys.argv[1] == COUNTED:
        train_and_count(*sys.argv[2:])
    else:
        sys.exit(main(*sys.argv[1:]))
