# SPDX-License-Identifier: BSD-3-Clause
"""The GPU check's own logic, tried on a CPU: what it runs, what it says, how it ends."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import full_speed
from benchmarks.gpu.__main__ import CheckConfig, chosen, provide, run_stage, work_folder
from benchmarks.gpu.__main__ import main as check
from benchmarks.gpu.arithmetic import count_flops, peak_flops
from benchmarks.gpu.corpus import Corpus
from benchmarks.gpu.goals import comparison, goals, performance
from benchmarks.gpu.profile_step import FIRST_WATCHED, LAST_WATCHED, WAITS, Watch
from benchmarks.gpu.report import FAILED, PASSED, SKIPPED, Result
from benchmarks.gpu.stages import (
    Plan,
    Reading,
    Stage,
    read_full_speed,
    read_profile,
    read_tests,
    read_training,
)
from common.bad_steps import BadSteps
from common.distributed import Processes
from common.metrics import PendingMetrics
from common.task import Progress

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """The folder of a report of two models on a CPU, and how the script ended."""
    output = tmp_path_factory.mktemp("checked") / "out put"
    arguments = ["--device", "cpu", "--quick", "--models", "FastPitch", "HiFi-GAN"]
    arguments += ["--seconds", "3000"]  # other tests may want this machine, too
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
    assert {"tests, pytest -m gpu", "train HiFi-GAN at full speed, bf16, compiled"} < {
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
    assert "ms a step" in row and "waits only where the log is read" in row
    assert "aten::" in (output / "profile_hifigan.txt").read_text()
    assert "train.py --dataset-path" in (output / "log.txt").read_text()
    assert (output / "performance.md").read_text() in done.stdout


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
    assert (result.status, result.note) == (FAILED, "did not end within 1 s, said at last: silent")
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
    """Waits when metrics are read and where bad steps are told of, as for a GPU."""

    def sum(self, values):
        warnings.warn(WAITS, stacklevel=1)
        return values

    def gather(self, value):
        warnings.warn(WAITS, stacklevel=1)
        return [value]


def test_waiting_in_a_step_is_found_and_that_of_the_logged_read_is_not_blamed(tmp_path):
    watch, task = Watch(tmp_path / "table.txt"), WaitingTask()
    step = watch.around(WaitingTask.train_step)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(1, LAST_WATCHED + 3):
            processes = WaitingProcesses(cuda=False)
            unread, bad_steps = PendingMetrics(processes), BadSteps(processes, max_in_a_row=9)
            metrics = step(task, [7], Progress(epoch=1, step=number))
            unread.add(bad_steps.add(number, [], metrics) | {"bad_step": torch.ones(())})
            rows, _ = unread.read()
            bad_steps.read(rows)
    summary = watch.summary()
    num_steps = LAST_WATCHED - FIRST_WATCHED + 1
    assert summary["num_steps"] == num_steps and summary["logged_reads"] == 2 * num_steps
    line = WaitingTask.train_step.__code__.co_firstlineno + 1
    assert summary["waits"] == {f"tests/test_gpu_check.py:{line}": num_steps}
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(summary))
    reading = read_profile(path)
    assert reading.is_failure and reading.numbers["ms a step"] > 0, "what was measured stands"
    assert reading.note == f"steps wait for the GPU: tests/test_gpu_check.py:{line} x 3 in 3 steps"
    result = run(tmp_path, "", read=lambda: reading)
    assert (result.status, result.numbers, result.note) == (FAILED, reading.numbers, reading.note)


@pytest.mark.parametrize("groups", [1, 4])
def test_the_arithmetic_of_convolutions_is_counted_with_their_gradients(groups):
    inputs = torch.randn(2, 8, 20, requires_grad=True)
    weight = torch.randn(12, 8 // groups, 3, requires_grad=True)
    forward = 2 * 2 * 18 * 12 * 3 * 8 // groups
    convolved = torch.nn.functional.conv1d(inputs, weight, groups=groups)
    assert convolved.shape == (2, 12, 18)
    work = functools.partial(torch.nn.functional.conv1d, inputs, weight, groups=groups)
    assert count_flops(lambda: work().sum().backward()) == 3 * forward
    assert count_flops(lambda: work().sum().backward(inputs=[weight])) == 2 * forward


def test_the_arithmetic_of_transposed_convolutions_and_products_is_counted():
    inputs = torch.randn(2, 8, 20, requires_grad=True)
    weight = torch.randn(8, 6, 4, requires_grad=True)
    forward = 2 * 2 * 20 * 8 * 6 * 4
    work = functools.partial(torch.nn.functional.conv_transpose1d, inputs, weight, stride=2)
    assert count_flops(lambda: work().sum().backward()) == 3 * forward
    assert count_flops(lambda: torch.ones(3, 4) @ torch.ones(4, 5)) == 2 * 3 * 4 * 5
    compiled = torch.compile(torch.nn.Linear(4, 5))
    assert count_flops(lambda: compiled(torch.ones(3, 4))) == 2 * 3 * 4 * 5


def test_what_a_device_can_do_is_known_by_its_name():
    assert peak_flops("NVIDIA H100 80GB HBM3", "bf16") == 989.4e12
    assert peak_flops("NVIDIA H100 PCIe", "fp16") == 756.5e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", "tf32") == 156e12
    assert peak_flops("NVIDIA L40S", "bf16") == 362e12
    assert peak_flops("NVIDIA H100 80GB HBM3", "fp32") is None
    assert peak_flops("Some Other Device", "bf16") is None


TINY_TRAINING = """
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from common.distributed import Processes


@dataclass
class Batch:
    frames: torch.Tensor


class Task:
    processes = Processes(cuda=False)

    def train_step(self, micro_batches, progress):
        return {"loss": (micro_batches[0].frames @ torch.ones(3, 5)).sum()}

    def num_frames(self, batch):
        return torch.tensor(len(batch.frames))


def main(flags):
    settings = dict(zip(flags[::2], flags[1::2]))
    if (settings["--batch-size"], settings["--grad-accumulation"]) != ("2", "2"):
        raise SystemExit("stopped: the largest batch: out of memory on this machine")
    folder = Path(settings["--output"])
    folder.mkdir(parents=True)
    Task().train_step([Batch(torch.ones(16, 3))], None)
    step = {"step": [1, 1, 1], "data": {"train_loss": 1.0, "train_frames/s": 1e12}}
    val = {"step": [1], "data": {"val_loss": 2.0}}
    lines = [f"DLLL {json.dumps(event)}\\n" for event in (step, val)]
    (folder / "nvlog.json").write_text("".join(lines))
"""


def test_at_full_speed_the_largest_batch_that_fits_is_taken(tmp_path, monkeypatch, capsys):
    (tmp_path / "tiny_training.py").write_text(TINY_TRAINING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    folder = tmp_path / "out"
    assert full_speed.main("tiny_training:Task", str(folder), "4", "-m", "tiny_training") == 0
    assert capsys.readouterr().out.count("out of memory") == 1, "with 4 clips, not with 2"
    reading = read_full_speed(folder / "full_speed.json", "bf16")
    assert reading.numbers["TFLOP/s"] == pytest.approx(2 * 3 * 5), "of each frame"
    assert reading.note == "2 clips a micro-batch"


def test_a_training_that_fails_otherwise_is_not_tried_with_a_smaller_batch(tmp_path, capsys):
    assert full_speed.main("no:Task", str(tmp_path), "4", "-m", "no_such_module") == 1
    assert capsys.readouterr().out.count("ModuleNotFoundError") == 1
    assert not [*tmp_path.iterdir()]


def test_the_speed_and_its_share_of_the_peak_are_read(tmp_path):
    log = tmp_path / "nvlog.json"
    steps = [
        {"step": [1, n, 2], "data": {"train_loss": 1.0, "train_frames/s": 1e6}} for n in (1, 2)
    ]
    events = [*steps, {"step": [1], "data": {"val_loss": 2.0}}]
    log.write_text("".join(f"DLLL {json.dumps(event)}\n" for event in events))
    path = tmp_path / "full_speed.json"
    summary = {"flops_per_frame": 1e8, "micro_batch": 64, "log": str(log), "device": "NVIDIA A100"}
    path.write_text(json.dumps(summary))
    reading = read_full_speed(path, "bf16")
    assert reading.numbers["TFLOP/s"] == pytest.approx(100)
    assert reading.numbers["% of peak"] == pytest.approx(100 * 100 / 312)
    assert reading.note == "64 clips a micro-batch"
    path.write_text(json.dumps(summary | {"device": "CPU"}))
    assert "% of peak" not in read_full_speed(path, "bf16").numbers


@pytest.fixture
def plan(tmp_path):
    """What a GPU is checked by."""
    corpus = Corpus(folder=tmp_path)
    return Plan(corpus=corpus, work=tmp_path, output=tmp_path, cuda=True, ampere=True)


def test_every_goal_is_measured_by_a_stage(plan):
    assert {goal.stage for goal in goals()} <= {stage.name for stage in plan.stages()}


def test_stages_that_compile_come_last_and_can_be_run_alone(plan):
    stages = [*plan.stages()]
    compiled = [stage for stage in stages if "--compile" in stage.command]
    assert compiled == stages[-len(compiled) :] == chosen(stages, ("compiled",))
    assert [stage.name for stage in chosen(stages, ("tests", "kernels"))] == [
        "tests, pytest -m gpu",
        "kernels in Triton",
    ]
    assert chosen(stages, ()) == stages
    with pytest.raises(ValueError, match="--only speech: no stage is called so, but: tests, pyt"):
        chosen(stages, ("speech",))


def test_trainings_of_an_earlier_run_are_skipped(plan):
    def skipped():
        return [stage.name for stage in plan.stages() if "earlier run" in stage.skipped]

    assert skipped() == []
    for name in ("WaveGlow/WaveGlow_checkpoint_1.pt", "full-speed-HiFi-GAN/full_speed.json"):
        (plan.work / name).parent.mkdir()
        (plan.work / name).touch()
    assert skipped() == ["train WaveGlow, fp16", "train HiFi-GAN at full speed, bf16"]


def test_the_corpus_of_an_earlier_run_serves_again_but_no_tiny_one_for_a_full_check(tmp_path):
    sizes = {"num_clips": 1, "longest_seconds": 0.1}
    config = CheckConfig(work=tmp_path / "work")
    with work_folder(config) as folder:
        corpus = Corpus(folder=folder / "corpus")
    with pytest.raises(TypeError):  # after the clips, before the lists
        provide(corpus, sizes | {"num_phrases": "none"})
    provide(corpus, sizes)
    made = (corpus.folder / "wavs/clip0.wav").stat().st_mtime_ns
    provide(corpus, sizes)
    assert (corpus.folder / "wavs/clip0.wav").stat().st_mtime_ns == made
    with work_folder(dataclasses.replace(config, quick=True)) as folder:
        assert not (folder / "corpus").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"--work .*file must be a folder"):
        CheckConfig(work=tmp_path / "file")


CHECK = """
import sys
from pathlib import Path
from benchmarks.gpu.__main__ import leave_nothing_running, run_stage
from benchmarks.gpu.stages import Stage

leave_nothing_running()
code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
with Path(sys.argv[1]).open("wb") as log:
    run_stage(Stage(name="a stage", command=("-c", code), share=1.0, read=None), 60.0, log)
"""


def test_a_check_that_is_ended_leaves_no_stage_running(tmp_path):
    log = tmp_path / "log.txt"
    process = subprocess.Popen([sys.executable, "-c", CHECK, str(log)], cwd=ROOT)
    deadline = time.monotonic() + 60
    while not log.exists() or not (said := log.read_text().splitlines()) or not said[-1].isdigit():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(said[-1]), 0)


def test_what_is_better_than_a_goal_has_a_ratio_above_one():
    training, failed, *_, speech = goals()
    assert training.more_is_better and not speech.more_is_better
    results = [
        Result(name=training.stage, status=PASSED, numbers={"frames/s": 2 * training.goal}),
        Result(name=speech.stage, status=PASSED, numbers={speech.number: 2 * speech.goal}),
        Result(name=failed.stage, status=FAILED, numbers={"frames/s": 1.0}),
    ]
    rows = [row.split(" | ") for row in comparison(results).splitlines()[2:]]
    assert [row[3] for row in rows] == ["2.00", "0.50"], "nothing of what failed"
    assert rows[0][1:3] == ["2,045,444", "1,022,722"]
    numbers = {"TFLOP/s": 170.0, "% of peak": 17.2}
    more = Result(name="full speed", status=PASSED, numbers=numbers, note="256 clips")
    section = performance({"device": "H100"}, [*results, more])
    assert "full speed: 170 TFLOP/s, 17.20 % of what the device's data sheet says" in section
