# SPDX-License-Identifier: BSD-3-Clause
"""The training scripts on several GPUs and nodes: their commands, presets, signals, Slurm."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.test_scripts import ROOT, dry_run, run_script, value_of

PRESETS = sorted((ROOT / "scripts" / "platform").iterdir())
GLOBAL_BATCH = {"FastPitch": 256, "HiFi-GAN": 128}
PUBLIC_PRESETS = {
    f"{machine}_{model}_{precision}_{num_gpus}GPU.sh"
    for machine, precisions in {
        "DGX1": ("AMP", "FP32"),
        "DGXA100": ("AMP", "TF32"),
        "DGXH100": ("AMP", "TF32"),
    }.items()
    for model, precision, num_gpus in itertools.product(GLOBAL_BATCH, precisions, (1, 4, 8))
}
TWO_NODES = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "node7"}

# A training in small: fails where it is told to, and when asked to stop, says so and ends with 0.
TRAINING = """
import os, signal, sys, time
rank, attempt = os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]
time.sleep(1.5 * (rank == "1" and sys.argv[1] == "wait"))  # one is slower to start
asked = []
signal.signal(signal.SIGUSR1, lambda *_: asked.append("USR1"))
print("ready", rank, attempt, flush=True)
if sys.argv[1] == "fail" and attempt == "0":
    sys.exit(3)
give_up = time.monotonic() + 60
while sys.argv[1] == "wait" and not asked and time.monotonic() < give_up:
    time.sleep(0.05)
print("saved", rank, attempt, flush=True)
"""


def machine(folder: Path, num_gpus: int) -> dict[str, str]:
    """The environment of a machine whose Python counts GPUs, and does nothing else."""
    program = f'case "$*" in *device_count*) echo {num_gpus} ;; esac\n'
    add_program(folder / "environment" / "bin", "python", program)
    return {"VIRTUAL_ENV": str(folder / "environment")}


def add_program(folder: Path, name: str, lines: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/usr/bin/env bash\n{lines}")
    (folder / name).chmod(0o755)


@pytest.fixture
def no_gpu(tmp_path) -> dict[str, str]:
    return machine(tmp_path, 0)


@pytest.fixture
def eight_gpus(tmp_path) -> dict[str, str]:
    return machine(tmp_path, 8)


def test_presets_have_the_names_of_the_public_recipe():
    assert {path.name for path in PRESETS} == PUBLIC_PRESETS


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_what_its_name_says_at_the_published_global_batch(preset, eight_gpus):
    _, model, precision, num_gpus = preset.stem.removesuffix("GPU").split("_")
    done = run_script(f"platform/{preset.name}", "--seed", "7", **eight_gpus)
    assert (done.returncode, done.stderr) == (0, "")
    command = shlex.split(done.stdout.splitlines()[-1])
    processes = int(value_of(command, "--nproc-per-node")) if command[0] == "torchrun" else 1
    assert processes == int(num_gpus)
    parts = [int(value_of(command, flag)) for flag in ("--batch-size", "--grad-accumulation")]
    assert processes * parts[0] * parts[1] == GLOBAL_BATCH[model]
    assert ("train.py" in command) == (model == "FastPitch")
    assert ("hifigan.train" in command) == (model == "HiFi-GAN")
    assert ("--amp" in command, "--no-tf32" in command) == (precision == "AMP", precision == "FP32")
    assert "--cuda" in command and command[-2:] == ["--seed", "7"]


def test_a_preset_divides_its_global_batch_among_nodes(eight_gpus):
    settings = TWO_NODES | {"BATCH_SIZE": "8"} | eight_gpus
    done = run_script("platform/DGXA100_FastPitch_AMP_8GPU.sh", **settings)
    assert value_of(shlex.split(done.stdout), "--grad-accumulation") == "2"  # 2 x 8 x 8 x 2 = 256


def test_several_nodes_meet_at_the_first(no_gpu):
    command = dry_run("train.sh", NUM_GPUS="4", **TWO_NODES, **no_gpu)
    assert command[:12] == [
        *("torchrun", "--nnodes", "2", "--node-rank", "1", "--master-addr", "node7"),
        *("--master-port", "29500", "--nproc-per-node", "4", "train.py"),
    ]
    assert value_of(command, "--grad-accumulation") == "2"  # 2 x 4 x 16 x 2 = 256


def test_the_warning_of_another_global_batch_counts_the_nodes(no_gpu):
    done = run_script("train.sh", GRAD_ACCUMULATION="3", **TWO_NODES, **no_gpu)
    assert "the global batch is 2 nodes x 1 x 16 x 3 = 96; the learning rate" in done.stderr


def test_restarts_need_torchrun(no_gpu):
    command = dry_run("hifigan/train.sh", MAX_RESTARTS="3", **no_gpu)
    assert command[:6] == [
        *("torchrun", "--standalone", "--nproc-per-node", "1", "--max-restarts", "3")
    ]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"NNODES": "2", "MASTER_ADDR": "a"}, "NODE_RANK must be 0 on the first node, 1 on the"),
        (TWO_NODES | {"NODE_RANK": "2"}, "NODE_RANK must be 0 on the first node"),
        (TWO_NODES | {"MASTER_ADDR": ""}, "set MASTER_ADDR, on all nodes, to the address of the"),
        ({"NODE_RANK": "1"}, "NODE_RANK is 1: set NNODES, the number of nodes"),
        ({"NNODES": "0"}, "NNODES must be a positive number, got '0'"),
        ({"MAX_RESTARTS": "few"}, "MAX_RESTARTS must be 0 or a positive number, got 'few'"),
        ({"MAX_RESTARTS": "1", "RESUME": "false"}, "MAX_RESTARTS needs RESUME=true"),
        (TWO_NODES | {"MAX_RESTARTS": "1"}, "MAX_RESTARTS is for one node"),
    ],
)
def test_contradictions_of_nodes_and_restarts_are_sentences(eight_gpus, settings, complaint):
    done = run_script("train.sh", **eight_gpus, **settings)
    assert done.returncode == 2
    assert f"train.sh: {complaint}" in done.stderr.replace("NNODES is 2: ", "")


@contextmanager
def torchrun_script(folder: Path, *arguments: str, **settings: str) -> Iterator[subprocess.Popen]:
    """A script that runs a training on two processes of torchrun, as scripts/train.sh does."""
    script = folder / "train.sh"
    script.write_text('source scripts/training.sh\ncheck_nodes\nrun_training "$@"\n')
    here = {"OUTPUT_DIR": str(folder), "NUM_GPUS": "2", "RESUME": "true", "OMP_NUM_THREADS": "1"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with started(["bash", str(script), *arguments], here | settings | {"PATH": path}) as program:
        yield program


def training(folder: Path, what: str, **settings: str) -> AbstractContextManager[subprocess.Popen]:
    (folder / "training.py").write_text(TRAINING)
    return torchrun_script(folder, str(folder / "training.py"), what, **settings)


@contextmanager
def started(command: Sequence[str], settings: Mapping[str, str]) -> Iterator[subprocess.Popen]:
    """A program in a session of its own, as a terminal's is, so that Ctrl-C can be sent to it."""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        try:
            yield program
        finally:
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGKILL)


def wait_for(process: subprocess.Popen, line: str) -> None:
    assert any(printed.strip() == line for printed in process.stdout), process.stderr.read()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGUSR1])
def test_all_processes_save_and_the_script_ends_well_when_told_to_stop(tmp_path, how):
    with training(tmp_path, "wait") as script:
        wait_for(script, "ready 0 0")  # the other is still starting
        script.send_signal(how)
        output, errors = script.communicate(timeout=60)
    assert sorted(output.splitlines()) == ["ready 1 0", "saved 0 0", "saved 1 0"]
    assert script.returncode == 0, errors


def test_an_interrupted_script_leaves_no_process_behind(tmp_path):
    with training(tmp_path, "wait") as script:
        wait_for(script, "ready 1 0")
        os.killpg(script.pid, signal.SIGINT)
        output, _ = script.communicate(timeout=20)  # when all that could write are gone
    assert "saved" not in output
    assert script.returncode == 1


def test_processes_that_failed_are_started_again(tmp_path):
    with training(tmp_path, "fail", MAX_RESTARTS="1") as script:
        output, errors = script.communicate(timeout=60)
    assert {"saved 0 1", "saved 1 1"} <= set(output.splitlines()), errors
    assert script.returncode == 0


def test_a_failure_is_the_exit_code_of_the_script(tmp_path):
    with training(tmp_path, "fail") as script:
        script.communicate(timeout=60)
    assert script.returncode == 1


# Slurm in small: two nodes on this machine, and a queue that writes down what goes back to it.
SRUN = """
while [[ "$1" == --* ]]; do shift; done
trap 'kill -USR1 "${tasks[@]}"' USR1
for node in 0 1; do
  SLURM_NODEID="$node" "$@" &
  tasks[node]=$!
done
wait "${tasks[@]}" || true # until all end or a signal comes
status=0
for task in "${tasks[@]}"; do wait "$task" || status=$?; done
exit "$status"
"""
SCONTROL = """
if [[ "$1" == show ]]; then printf '%s\\n' node7 node8; else echo "$*" >>"$QUEUE"; fi
"""
# A training script that tells what it is given and, told to, saves or fails.
TASK = """
trap 'echo saved; exit 0' USR1
sleep 0.3 # while those that started it get ready
echo "$NODE_RANK of $NNODES at $MASTER_ADDR:$MASTER_PORT, $SRUN_CPUS_PER_TASK cores: $*"
[[ "$1" != fail ]] || exit 3
for _ in $(seq 600); do
  [[ "$1" == wait ]] || break
  sleep 0.1
done
"""


@pytest.fixture
def slurm(tmp_path, eight_gpus) -> dict[str, str]:
    """The environment of a job on two nodes."""
    programs = tmp_path / "slurm"
    add_program(programs, "srun", SRUN)
    add_program(programs, "scontrol", SCONTROL)
    add_program(tmp_path, "task.sh", TASK)
    job = {
        "SLURM_JOB_ID": "1234567",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_CPUS_PER_TASK": "12",
    }
    path = f"{programs}:{os.environ['PATH']}"
    return job | eight_gpus | {"PATH": path, "QUEUE": str(tmp_path / "queue")}


def submit(folder: Path, slurm: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess:
    """Runs the batch script as Slurm does: a copy, somewhere else."""
    copy = folder / "slurm_script"
    shutil.copy(ROOT / "scripts" / "train.sbatch", copy)
    return subprocess.run(
        ["bash", copy, *arguments],
        cwd=folder,
        env=os.environ | slurm,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_slurm_runs_the_training_once_a_node(tmp_path, slurm):
    done = submit(tmp_path, slurm, str(tmp_path / "task.sh"), "--seed", "1 2")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        f"{node} of 2 at node7:24567, 12 cores: --seed 1 2" for node in (0, 1)
    ]
    assert not (tmp_path / "queue").exists()


def test_slurm_trains_fastpitch_unless_told_otherwise(tmp_path, slurm):
    done = submit(tmp_path, slurm | {"DRY_RUN": "true"})
    commands = sorted(shlex.split(line) for line in done.stdout.splitlines())
    assert [value_of(command, "--node-rank") for command in commands] == ["0", "1"]
    for command in commands:
        assert "train.py" in command and value_of(command, "--nproc-per-node") == "8"


def test_a_job_whose_time_is_up_saves_and_goes_back_to_the_queue(tmp_path, slurm):
    command = ["bash", str(ROOT / "scripts" / "train.sbatch"), str(tmp_path / "task.sh"), "wait"]
    with started(command, slurm) as job:
        lines = [job.stdout.readline() for _ in range(2)]
        assert all("at node7" in line for line in lines), job.stderr.read()
        job.send_signal(signal.SIGUSR1)
        output, errors = job.communicate(timeout=60)
    assert output.splitlines() == [
        *("saved", "saved", "train.sbatch: the time is up, job 1234567 goes back to the queue")
    ]
    assert job.returncode == 0, errors
    assert (tmp_path / "queue").read_text() == "requeue 1234567\n"


def test_a_job_that_fails_stays_out_of_the_queue(tmp_path, slurm):
    assert submit(tmp_path, slurm, str(tmp_path / "task.sh"), "fail").returncode == 3
    assert not (tmp_path / "queue").exists()


def test_slurm_s_mistakes_are_sentences(tmp_path, slurm):
    done = submit(tmp_path, slurm | {"SLURM_JOB_ID": ""})
    assert done.returncode == 2
    assert done.stderr == "train.sbatch: this is for Slurm: sbatch scripts/train.sbatch\n"
    done = submit(tmp_path, slurm | {"SLURM_SUBMIT_DIR": str(tmp_path)})
    assert "run sbatch in the repository's folder, not in" in done.stderr
    done = submit(tmp_path, slurm, "scripts/none.sh")
    assert "no such training script: scripts/none.sh" in done.stderr
