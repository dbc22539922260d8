# SPDX-License-Identifier: BSD-3-Clause
"""Trains FastPitch on two processes, kills or stops them at random moments and resumes them.

A program of its own, since it forks: the processes of a training need not import everything again
then, but a fork must not inherit threads. `python -m tests.killing FLAGS`, with flags of train.py,
trains in the folders `whole`, `killed` and `stopped` of `--output`.
"""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

import train
from common.checkpoint import check_readable
from common.checkpoint_folder import CheckpointFolder
from tests.processes import free_port

WORLD_SIZE = 2
NUM_KILLS, NUM_STOPS = 20, 4
SECONDS_TO_BEGIN, SECONDS_TO_STOP = 30.0, 20.0


class Training:
    """Two processes that train together.

    Args:
        flags: of train.py
        output: the folder that they name
    """

    def __init__(self, flags: list[str], output: Path) -> None:
        self.output = output
        self.length = self.log_length()
        self.files = set(output.glob("*.pt"))
        port = str(free_port())
        self.running = [fork(flags, rank, port, output) for rank in range(WORLD_SIZE)]
        self.codes: dict[int, int] = {}

    def log_length(self) -> int:
        """Of what was logged, in bytes."""
        log = self.output / "nvlog.json"
        return log.stat().st_size if log.exists() else 0

    def has_logged(self) -> bool:
        """Whether this part of the training has, which it does before its first step."""
        return self.log_length() > self.length

    def has_saved(self) -> bool:
        """Whether this part of the training has saved a checkpoint."""
        return not self.files >= set(self.output.glob("*.pt"))

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Returns when the condition holds or all processes have ended."""
        deadline = time.monotonic() + seconds
        while not condition() and len(self.codes) < WORLD_SIZE:
            if time.monotonic() > deadline:
                self.send(signal.SIGABRT, range(WORLD_SIZE))  # they tell where they are
                raise TimeoutError(f"the training did not go on within {seconds:g} s")
            time.sleep(0.002)
            self.poll()

    def poll(self) -> None:
        """Takes note of processes that have ended."""
        for rank, pid in enumerate(self.running):
            if rank not in self.codes:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    self.codes[rank] = os.waitstatus_to_exitcode(status)

    def send(self, number: int, ranks: range | list[int]) -> None:
        """Sends a signal to processes that have not ended."""
        self.poll()
        for rank in ranks:
            if rank not in self.codes:
                os.kill(self.running[rank], number)

    def wait(self, seconds: float) -> None:
        """Returns when all processes have ended."""
        self.wait_until(lambda: False, seconds)


def fork(flags: list[str], rank: int, port: str, output: Path) -> int:
    """Starts a process of a training; its words go into a file."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        output.mkdir(parents=True, exist_ok=True)
        words = os.open(output / f"rank{rank}.txt", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.dup2(words, 2)
        faulthandler.enable()
        os.environ |= {"WORLD_SIZE": str(WORLD_SIZE), "RANK": str(rank), "LOCAL_RANK": str(rank)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        train.main(flags)
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def disturb(mode: str, times: int, flags: list[str], output: Path) -> None:
    """Trains to the end, with disturbances on the way.

    Raises:
        AssertionError: one did what it should not
    """
    rng = random.Random(0)
    for number in range(times):
        training = Training(flags, output)
        if mode == "kill" and number % 4 == 0:
            time.sleep(rng.uniform(0, 0.5))  # before the first step, on most machines
        elif mode == "kill":
            training.wait_until(training.has_saved, SECONDS_TO_BEGIN)
            time.sleep(rng.uniform(0, 0.03))  # two steps on a fast machine, and saving them
        else:
            training.wait_until(training.has_logged, SECONDS_TO_BEGIN)
            time.sleep(rng.uniform(0, 0.3))
        ranks = rng.choice([[0], [1], [0, 1]])
        training.poll()
        assert not training.codes, f"ended before disturbance {number}: {training.codes}"
        if mode == "kill":
            training.send(signal.SIGKILL, ranks)
            time.sleep(rng.uniform(0, 0.05))
            training.send(signal.SIGKILL, range(WORLD_SIZE))  # as torchrun ends the others
            training.wait(SECONDS_TO_STOP)
        else:
            training.send(signal.SIGTERM, ranks)
            training.wait(SECONDS_TO_STOP)
            assert set(training.codes.values()) == {0}, training.codes
        for path in (CheckpointFolder(output, train.FastPitchTask.files).latest() or {}).values():
            check_readable(path)
            print(mode, number, path.name, flush=True)
    training = Training(flags, output)
    training.wait(SECONDS_TO_BEGIN)
    assert set(training.codes.values()) == {0}, training.codes


def main() -> None:
    """Reads the command line."""
    flags = sys.argv[1:]
    folder = Path(flags[flags.index("--output") + 1])
    torch.set_num_threads(1)
    # Imports and compiles what only a training does; of repeated flags, the last counts.
    train.main([*flags, "--output", str(folder / "warm"), "--epochs", "1"])
    for name, mode, times, more in (
        ("whole", "", 0, ()),
        ("killed", "kill", NUM_KILLS, ("--checkpoint-every-steps", "2")),
        ("stopped", "stop", NUM_STOPS, ()),
    ):
        disturb(mode, times, [*flags, "--output", str(folder / name), *more], folder / name)


if __name__ == "__main__":
    main()
