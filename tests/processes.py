# SPDX-License-Identifier: BSD-3-Clause
"""Several processes that talk to each other, as torchrun starts them."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).parent.parent
PRELOADED = ("train", "hifigan.train", "waveglow.train", "prepare_dataset", "pytest")


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


def fork_server() -> BaseContext:
    """Starts processes in which everything is imported, which takes longer than most tests."""
    context = multiprocessing.get_context("forkserver")
    # The last two are imported by the first optimizer and the first picture.
    context.set_forkserver_preload([*PRELOADED, "torch._dynamo", "matplotlib.figure"])
    return context


def run_ranks(
    code: str, world_size: int = 2, arguments: Sequence[str] = (), timeout: float = 60
) -> list[Ended]:
    """Runs the same Python code in several processes, each told its rank, to their ends; by rank.

    Args:
        arguments: its `sys.argv[1:]`
        timeout: seconds until a process is killed
    """
    shared = {
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(rank) for rank in range(world_size)]
        processes = [
            fork_server().Process(
                target=run_rank,
                args=(code, arguments, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}),
                kwargs={"folder": folder},
            )
            for rank, folder in enumerate(folders)
        ]
        for process, folder in zip(processes, folders, strict=True):
            folder.mkdir()
            process.start()
        deadline = time.monotonic() + timeout
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
        for process in processes:
            process.kill()
            process.join()
        return [
            Ended(process.exitcode, *((folder / words).read_text() for words in ("out", "err")))
            for process, folder in zip(processes, folders, strict=True)
        ]


def run_rank(code: str, arguments: Sequence[str], variables: dict[str, str], folder: Path) -> None:
    """Runs code in this process; its words go into the files `out` and `err`."""
    for descriptor, words in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / words, os.O_CREAT | os.O_WRONLY), descriptor)
    os.environ.update(variables)
    torch.set_num_threads(1)
    sys.argv[1:] = arguments
    exec(code, {"__name__": "__main__"})


def run_command(module: str, arguments: Sequence[str], variables: dict[str, str]) -> None:
    """Is a command in this process."""
    os.environ.update(variables)
    torch.set_num_threads(1)
    sys.exit(importlib.import_module(module).main(arguments))
