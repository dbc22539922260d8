# SPDX-License-Identifier: BSD-3-Clause
"""Trainings that are killed or asked to stop at any moment, and end as if they had not been."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import ROOT, environment
from tests.test_train import assert_same, checkpoint, corpus, flags, log_of  # noqa: F401

EPOCHS = 24  # more than are done between so many kills
STEPS = 3  # of an epoch: six clips, one at a time, on two processes


def arguments(corpus, output):  # noqa: F811
    return [
        *flags(corpus, output, EPOCHS, "--resume", "--ema-decay", "0.9"),
        *("--batch-size", "1", "--grad-accumulation", "1", "--validation-freq", "5"),
        *("--samples-freq", str(EPOCHS), "--epochs-per-checkpoint", "4"),
    ]


DIES_ONCE = """
import os, signal, sys, threading, time
from pathlib import Path

import train


def die_once(folder):
    while not list(folder.glob("*_step_*.pt")):
        time.sleep(0.01)
    if not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)


if os.environ["RANK"] == "1":
    folder = Path(sys.argv[sys.argv.index("--output") + 1])
    threading.Thread(target=die_once, args=(folder,), daemon=True).start()
train.main()
"""


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):  # noqa: F811
    """The folder of three trainings: one whole, one killed, one stopped now and then."""
    folder = tmp_path_factory.mktemp("trained")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.killing", *arguments(corpus, folder)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    words = [path.read_text()[-3000:] for path in sorted(folder.glob("*/rank*.txt"))]
    assert ended.returncode == 0, "\n".join([ended.stdout, ended.stderr, *words])
    return folder


def test_killed_at_twenty_moments_a_training_ends_with_the_same_weights(trained):
    # That no unreadable checkpoint was ever the newest, the killer has looked at.
    assert_same(checkpoint(trained / "killed", EPOCHS), checkpoint(trained / "whole", EPOCHS))


def test_stopped_by_signals_a_training_loses_no_step(trained):
    assert_same(checkpoint(trained / "stopped", EPOCHS), checkpoint(trained / "whole", EPOCHS))
    steps = [event["step"] for event in log_of(trained / "stopped") if len(event["step"]) == 3]
    assert steps == [[e, i, STEPS] for e in range(1, EPOCHS + 1) for i in range(1, STEPS + 1)]


def test_torchrun_begins_again_where_the_last_checkpoint_was(trained, corpus, tmp_path):  # noqa: F811
    script, output = tmp_path / "dies_once.py", tmp_path / "run"
    script.write_text(DIES_ONCE)
    of_training = arguments(corpus, output)
    of_training.remove("--resume")  # torchrun repeats the command
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--standalone", "--max-restarts", "1", str(script)),
            *(*of_training, "--checkpoint-every-steps", "2"),
        ],
        cwd=ROOT,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert (output / "died").exists()
    assert "Resumed from" in ended.stderr
    assert_same(checkpoint(output, EPOCHS), checkpoint(trained / "whole", EPOCHS))
