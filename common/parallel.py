# SPDX-License-Identifier: BSD-3-Clause
"""The same function over many clips, on several processes that stop when told; and its progress."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from typing import TypeVar

import torch
from tqdm import tqdm

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 15.0

Job = TypeVar("Job")
Result = TypeVar("Result")


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def import_ahead(function: Callable) -> None:
    """Has all that workers need for `function` imported while this process does other things."""
    _context(function.__module__)


def run_parallel(
    function: Callable[[Job], Result], jobs: Sequence[Job], num_workers: int
) -> Iterator[tuple[int, Result]]:
    """Yields (index of the job, result) as results come in.

    Args:
        function: at the top level of its module, so that other processes find it.
        num_workers: at most; no more than there are cores or jobs. 1 works in this process.

    Raises:
        RuntimeError: a worker was killed.
    """
    num_workers = min(num_workers, len(jobs), available_cores())
    if num_workers <= 1:
        for index, job in enumerate(jobs):
            yield index, function(job)
        return
    others = set(multiprocessing.active_children())
    context = _context(function.__module__)
    executor = ProcessPoolExecutor(num_workers, context, initializer=_begin_worker)
    finished = False
    try:
        futures = {executor.submit(function, job): index for index, job in enumerate(jobs)}
        for future in as_completed(futures):
            yield futures[future], future.result()
        finished = True
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a worker process was killed, perhaps for want of memory: run again with fewer workers"
        ) from error
    finally:
        if not finished:
            # Whoever stops us does not want to wait for the clips in work.
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
        executor.shutdown(cancel_futures=True)


def show_progress(results: Iterator[Result], total: int, done: str) -> Iterator[Result]:
    """Passes results on, telling how far they are: a bar on a terminal, elsewhere a line at times,
    nothing where the log is for warnings only.

    Args:
        total: number of clips, a result each
        done: what was done to them, such as "prepared"
    """
    if not logger.isEnabledFor(logging.INFO):
        yield from results
        return
    if sys.stderr.isatty():
        yield from tqdm(results, total=total, desc=done, unit="clip", smoothing=0.05)
        return
    begun = said = time.monotonic()
    for number, result in enumerate(results, start=1):
        yield result
        now = time.monotonic()
        if number == total or now - said >= SECONDS_BETWEEN_LINES:
            said = now
            rate = number / max(now - begun, 1e-6)
            left = (total - number) / rate
            logger.info(
                "%s %d of %d clips, %.1f clips/s, %.0f s left", done, number, total, rate, left
            )


def _context(module: str) -> multiprocessing.context.BaseContext:
    # A fork of this process would copy locks that its threads hold; a fork server has no threads.
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])  # imported once, for all workers
    # Ctrl-C reaches the server, too; it would tell so while it imports.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
