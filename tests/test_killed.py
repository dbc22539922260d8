# SPDX-License-Identifier: BSD-3-Clause
"""Trainings that are killed or asked to stop at any moment, and end as if they had not been."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import assert_same
from tests.processes import ROOT, environment
from tests.test_train import checkpoint, corpus, flags, log_of  # noqa: F401

TWENTY = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "KILL_UNDER_TORCHRUN" not in os.environ,
        reason="takes four minutes: KILL_UNDER_TORCHRUN=1 runs it",
    ),
]
EPOCHS = 24  # more than are done between so many kills
STEPS = 3  # of an epoch: six clips, one at a time, on two processes


def arguments(corpus, output):  # noqa: F811
    return [
        *flags(corpus, output, EPOCHS, "--resume", "--ema-decay", "0.9"),
        *("--batch-size", "1", "--grad-accumulation", "1", "--validation-freq", "5"),
        *("--epochs-per-checkpoint", "4"),
    ]


DYING = """
import os, random, signal, sys, threading, time
from pathlib import Path

import train

NUM_DEATHS = int(os.environ["NUM_DEATHS"])


def die(folder, rng):
    before = set(folder.glob("*.pt"))
    while before >= set(folder.glob("*.pt")):
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.03))
    (folder / "deaths").open("a").write("died\\n")
    os.kill(os.getpid(), signal.SIGKILL)


attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
rng = random.Random(attempt)
if attempt < NUM_DEATHS and int(os.environ["RANK"]) == rng.randrange(2):
    folder = Path(sys.argv[sys.argv.index("--output") + 1])
    threading.Thread(target=die, args=(folder, rng), daemon=True).start()
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


@pytest.mark.parametrize("num_deaths", [1, pytest.param(20, marks=TWENTY)])
def test_torchrun_begins_again_where_the_last_checkpoint_was(
    trained,
    corpus,  # noqa: F811
    tmp_path,
    num_deaths,
):
    script, output = tmp_path / "dying.py", tmp_path / "run"
    script.write_text(DYING)
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--standalone", "--max-restarts", str(num_deaths), str(script)),
            *(*arguments(corpus, output), "--checkpoint-every-steps", "2"),
        ],
        cwd=ROOT,
        env=environment() | {"PYTHONPATH": str(ROOT), "NUM_DEATHS": str(num_deaths)},
        capture_output=True,
        text=True,
        timeout=60 + 30 * num_deaths,
    )
    assert ended.returncode == 0, ended.stderr
    assert (output / "deaths").read_text().count("died") == num_deaths
    assert ended.stderr.count("Resumed from") >= num_deaths
    assert_same(checkpoint(output, EPOCHS), checkpoint(trained / "whole", EPOCHS))
