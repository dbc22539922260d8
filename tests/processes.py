# SPDX-License-Identifier: BSD-3-Clause
"""Several processes that talk to each other, as torchrun starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent


class Ended(NamedTuple):
    """A process that is over."""

    code: int
    output: str
    errors: str


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def environment() -> dict[str, str]:
    """For processes that share few cores with others of their kind."""
    return os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def start_ranks(
    code: str, world_size: int = 2, arguments: Sequence[str] = ()
) -> list[subprocess.Popen]:
    """Starts the same Python code in several processes, each told its rank."""
    shared = {
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    return [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=ROOT,
            env=environment() | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world_size)
    ]


def run_ranks(
    code: str, world_size: int = 2, arguments: Sequence[str] = (), timeout: float = 60
) -> list[Ended]:
    """Runs the same Python code in several processes to their ends; by rank."""
    started = start_ranks(code, world_size, arguments)
    try:
        texts = [process.communicate(timeout=timeout) for process in started]
    finally:
        for process in started:
            process.kill()
    return [Ended(process.returncode, *text) for process, text in zip(started, texts, strict=True)]
