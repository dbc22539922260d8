# SPDX-License-Identifier: BSD-3-Clause
"""Signals ask once and end at the second time; workers leave them to their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from common.signals import STOP_SIGNALS, StopRequest, leave_stopping_to_parent


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_asks_to_stop_and_the_handlers_are_lent(number):
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        os.kill(os.getpid(), number)  # the same request, passed on by torchrun
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == before


def test_a_second_request_ends_at_once():
    code = (
        "import os, signal, time\n"
        "from common import signals\n"
        "signals.SAME_REQUEST_SECONDS = 0.05\n"
        "with signals.StopRequest():\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    print('asked', flush=True)\n"
        "    time.sleep(0.1)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here', flush=True)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "asked\n")


def test_a_request_that_is_repeated_without_a_break_stays_one():
    code = (
        "import os, signal\n"
        "from common import signals\n"
        "now = 0.0\n"
        "signals.time.monotonic = lambda: now\n"
        "with signals.StopRequest() as stop:\n"
        "    for _ in range(6):\n"
        "        os.kill(os.getpid(), signal.SIGUSR1)\n"
        "        now += 0.5 * signals.SAME_REQUEST_SECONDS\n"
        "    print(stop.requested)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "True\n")


def work(connection):
    leave_stopping_to_parent()
    connection.send("ready")
    time.sleep(60)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="signals do not tell their senders")
def test_a_worker_survives_what_stops_its_job_but_not_its_parents_word():
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    with StopRequest():  # as in the parent of a DataLoader's workers
        worker = multiprocessing.get_context("fork").Process(target=work, args=(theirs,))
        worker.start()
        try:
            assert ours.poll(20) and ours.recv() == "ready"
            for name in ("TERM", "USR1"):  # from somebody else
                subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
            worker.join(0.3)
            assert worker.is_alive()
            worker.terminate()
            worker.join(20)
            assert worker.exitcode == 0
        finally:
            worker.kill()


def wait_for_the_end(connection):
    connection.send("ready")
    # A signal that comes just before a sleep begins is heard only after it: none may be long.
    for _ in range(1200):
        time.sleep(0.05)


def test_a_fork_is_not_asked_but_ended():
    with StopRequest() as stop:
        ours, theirs = multiprocessing.get_context("fork").Pipe()
        fork = multiprocessing.get_context("fork").Process(target=wait_for_the_end, args=(theirs,))
        fork.start()
        assert ours.poll(20) and ours.recv() == "ready"
        fork.terminate()
        fork.join(20)
        assert fork.exitcode == -signal.SIGTERM
        assert not stop.requested
