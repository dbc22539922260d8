# SPDX-License-Identifier: BSD-3-Clause
"""The GPU check's own logic, tried on a CPU: what it runs, what it says, how it ends."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.__main__ import main as check
from benchmarks.gpu.__main__ import run_stage
from benchmarks.gpu.corpus import make_corpus
from benchmarks.gpu.profile_step import FIRST_WATCHED, LAST_WATCHED, WAITS, Watch
from benchmarks.gpu.profile_step import main as profile
from benchmarks.gpu.report import FAILED, PASSED, SKIPPED
from benchmarks.gpu.stages import (
    MODELS,
    Plan,
    Reading,
    Stage,
    read_profile,
    read_tests,
    read_training,
)
from common.distributed import Processes
from common.metrics import PendingMetrics
from common.task import Progress

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """The folder of a report of two models on a CPU, and how the script ended."""
    output = tmp_path_factory.mktemp("checked") / "out put"
    arguments = ["--device", "cpu", "--quick", "--models", "FastPitch", "HiFi-GAN"]
    done = subprocess.run(
        ["bash", ROOT / "scripts" / "gpu_check.sh", *arguments],
        env=os.environ | {"VIRTUAL_ENV": sys.prefix, "OUTPUT_DIR": str(output)},
        capture_output=True,
        text=True,
        check=False,
    )
    return output, done


def test_on_a_cpu_what_needs_a_gpu_is_skipped_and_the_rest_passes(checked):
    output, done = checked
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((output / "report.json").read_text())
    statuses = {stage["name"]: stage["status"] for stage in report["stages"]}
    run = {name for name, status in statuses.items() if status == PASSED}
    assert run == {
        "prepare the corpus",
        "train FastPitch, fp32",
        "train HiFi-GAN, fp32",
        "speak, FastPitch and HiFi-GAN, batch 1, fp32",
    }
    skipped = [stage for stage in report["stages"] if stage["status"] == SKIPPED]
    assert len(run) + len(skipped) == len(statuses)
    assert {"tests, pytest -m gpu", "train HiFi-GAN, tf32", "profile FastPitch, fp16"} < {
        stage["name"] for stage in skipped
    }
    for stage in skipped:
        assert stage["note"].startswith("needs a CUDA device") and not stage["numbers"]
    assert report["machine"]["device"] == "CPU"
    assert report["verdict"] == f"4 passed, 0 failed, {len(skipped)} skipped"


def test_the_table_on_the_screen_is_that_of_the_report(checked):
    output, done = checked
    text = (output / "report.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 10 and "\n".join(rows) in done.stdout
    (row,) = (row for row in rows if row.startswith("| train HiFi-GAN, fp32 | PASSED |"))
    assert "frames/s" in row and "validation loss" in row
    assert "train.py --dataset-path" in (output / "log.txt").read_text()


def test_without_a_gpu_nothing_is_said_to_have_passed(tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert check(["--output", str(tmp_path)]) == 2
    assert "no CUDA device, so nothing was checked" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_a_model_that_is_not_known_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        check(["--models", "Tacotron"])
    assert "--models must be among FastPitch, HiFi-GAN, WaveGlow, got 'Tacotron'" in (
        capsys.readouterr().err
    )


def test_the_script_refuses_what_is_neither_true_nor_false():
    script = ["bash", str(ROOT / "scripts" / "gpu_check.sh")]
    environment = os.environ | {"SETUP": "no"}
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "SETUP must be true or false, got 'no'" in done.stderr


def run(tmp_path, code, seconds=60.0, read=lambda: Reading({"frames/s": 3.0})):
    stage = Stage(name="a stage", command=("-c", code), share=1.0, read=read)
    with (tmp_path / "log.txt").open("wb") as log:
        return run_stage(stage, seconds, log)


def test_a_stage_fails_with_the_last_words_of_its_process(tmp_path):
    result = run(tmp_path, "print('a'); print('the GPU is on fire'); raise SystemExit(3)")
    assert (result.status, result.note) == (FAILED, "exit code 3: the GPU is on fire")


def test_a_stage_that_hangs_is_ended_with_all_that_it_started(tmp_path):
    beats = tmp_path / "beats"
    child = f"import time\nwhile True: open({str(beats)!r}, 'a').write('.'); time.sleep(0.05)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    result = run(tmp_path, code, seconds=1.0)
    assert (result.status, result.note) == (FAILED, "did not end within 1 s")
    size = beats.stat().st_size if beats.exists() else 0
    time.sleep(0.3)
    assert (beats.stat().st_size if beats.exists() else 0) == size


def test_a_stage_whose_files_are_wrong_or_missing_fails(tmp_path):
    missing = tmp_path / "nvlog.json"
    result = run(tmp_path, "", read=lambda: read_training(missing))
    assert result.status == FAILED and "nvlog.json" in result.note
    assert run(tmp_path, "").status == PASSED
    assert run(tmp_path, "", seconds=-1.0).note == "no time was left: raise --seconds"


def test_a_training_without_a_finite_loss_fails(tmp_path):
    log = tmp_path / "nvlog.json"
    events = [
        {"step": [1, 1, 2], "data": {"train_loss": 1.0, "train_frames/s": 5.0}},
        {"step": [1], "data": {"val_loss": 2.0}},
    ]
    log.write_text("".join(f"DLLL {json.dumps(event)}\n" for event in events))
    expected = Reading({"frames/s": 5.0, "validation loss": 2.0}, "1 of 2 steps skipped")
    assert read_training(log) == expected
    log.write_text(log.read_text().replace("2.0", "NaN"))
    with pytest.raises(ValueError, match=r"the validation loss was \[nan\]"):
        read_training(log)


def test_tests_that_were_all_skipped_have_not_passed(tmp_path):
    results = tmp_path / "tests.xml"
    skipped = '<testcase name="a"><skipped message="needs two GPUs"/></testcase>'
    results.write_text(f'<testsuites>{skipped}<testcase name="b"/></testsuites>')
    assert read_tests(results) == Reading({"passed": 1, "skipped": 1}, "needs two GPUs")
    results.write_text(f"<testsuites>{skipped}</testsuites>")
    with pytest.raises(ValueError, match="none of 1 tests was run: needs two GPUs"):
        read_tests(results)


class WaitingTask:
    """Waits for the device as PyTorch tells of it, in every step."""

    processes = Processes(cuda=False)

    def train_step(self, micro_batches, progress):
        warnings.warn(WAITS, stacklevel=1)
        return {"loss": torch.tensor(1.0)}

    def num_frames(self, batch):
        return torch.tensor(batch)


class WaitingProcesses(Processes):
    """Waits when metrics are read, where a GPU is waited for, too."""

    def sum(self, values):
        warnings.warn(WAITS, stacklevel=1)
        return values


def test_waiting_in_a_step_is_found_and_that_of_the_logged_read_is_not_blamed(tmp_path):
    watch, task = Watch(tmp_path / "table.txt"), WaitingTask()
    step = watch.around(WaitingTask.train_step)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(1, LAST_WATCHED + 3):
            unread = PendingMetrics(WaitingProcesses(cuda=False))
            unread.add(step(task, [7], Progress(epoch=1, step=number)))
            unread.read()
    summary = watch.summary()
    num_steps = LAST_WATCHED - FIRST_WATCHED + 1
    assert summary["num_steps"] == summary["logged_reads"] == num_steps
    line = WaitingTask.train_step.__code__.co_firstlineno + 1
    assert summary["waits"] == {f"tests/test_gpu_check.py:{line}": num_steps}
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(summary))
    with pytest.raises(
        ValueError, match=r"steps wait for the GPU: tests/test_gpu_check.py:\d+ x 3"
    ):
        read_profile(path)


def test_a_training_command_is_profiled(tmp_path, monkeypatch):
    corpus = make_corpus(
        tmp_path / "corpus", num_clips=2 * (LAST_WATCHED + 1), num_phrases=0, longest_seconds=0.3
    )
    plan = Plan(corpus=corpus, work=tmp_path, output=tmp_path, cuda=False, ampere=False, quick=True)
    module, task = MODELS["HiFi-GAN"].task.split(":")
    task_class = getattr(importlib.import_module(module), task)
    monkeypatch.setattr(task_class, "train_step", task_class.train_step)  # put back afterwards
    command = plan.training_command("HiFi-GAN", "fp32", tmp_path / "run")
    profile(MODELS["HiFi-GAN"].task, str(tmp_path / "run"), str(tmp_path / "table.txt"), *command)
    reading = read_profile(tmp_path / "run" / "profile.json")
    assert reading.numbers["ms a step"] > 0 and reading.numbers["frames/s"] > 0
    assert "aten::" in (tmp_path / "table.txt").read_text()
