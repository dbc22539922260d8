# SPDX-License-Identifier: BSD-3-Clause
"""The same results on any number of processes and nodes: training and preparing a dataset."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

import prepare_dataset
from common.checkpoint import load_checkpoint
from common.checkpoint_folder import CheckpointFolder
from tests.processes import fork_server, free_port, run_command
from tests.test_prepare_dataset import features_of
from tests.test_train import RATE, TINY_MODEL, log_of
from tests.test_training_scripts import torchrun_script

ROOT = Path(__file__).parent.parent
TRAINING_TIMEOUT = 120
WORDS = "One two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905
NO_DROPOUT = [
    flag
    for name in (
        *("in-fft-dropout", "in-fft-dropatt", "out-fft-dropout", "out-fft-dropatt"),
        *("dur-predictor-dropout", "pitch-predictor-dropout", "energy-predictor-dropout"),
    )
    for flag in (f"--p-{name}", "0")
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Clips of very different lengths, with file lists and prepared features."""
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder)
    prepare_dataset.main(preparation(folder))
    return folder


def make_corpus(folder: Path) -> None:
    """18 clips of 1.9 to 0.2 s, the last two of them for validation."""
    (folder / "wavs").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = []
    for index, length in enumerate(range(18, 0, -1)):
        seconds = 0.1 + 0.1 * length
        phase = 2 * np.pi * rng.uniform(110, 220) * np.arange(int(seconds * RATE)) / RATE
        voice = sum(np.sin(k * phase) / k for k in range(1, 6))
        noise = 0.002 * rng.standard_normal(len(phase))
        soundfile.write(folder / f"wavs/{index}.wav", 0.1 * voice + noise, RATE, subtype="PCM_16")
        lines.append(f"wavs/{index}.wav|{' '.join(WORDS[: (1 + length) // 2])}.\n")
    (folder / "train.txt").write_text("".join(lines[:16]))
    (folder / "val.txt").write_text("".join(lines[16:]))


def preparation(folder: Path) -> list[str]:
    return [
        *("-d", str(folder), "--wav-text-filelists"),
        *(str(folder / "train.txt"), str(folder / "val.txt")),
        *("--n-workers", "1", "--extract-mels", "--extract-pitch", "--save-alignment-priors"),
    ]


def flags(corpus: Path, output: Path, *, epochs: int, grad_accumulation: int) -> list[str]:
    return [
        *("--dataset-path", str(corpus), "--output", str(output), "--epochs", str(epochs)),
        *("--training-files", str(corpus / "train.txt")),
        *("--validation-files", str(corpus / "val.txt")),
        *("--batch-size", "2", "--grad-accumulation", str(grad_accumulation)),
        *("--num-workers", "0", "--ema-decay", "0.5", "--validation-freq", "9"),
        *("--samples-freq", "0"),
    ]


def fastpitch(corpus: Path, output: Path, grad_accumulation: int) -> list[str]:
    """Ten steps in five epochs, the binarization loss from the second on."""
    return [
        *flags(corpus, output, epochs=5, grad_accumulation=grad_accumulation),
        *("--load-pitch-from-disk", "--learning-rate", "0.02", "--warmup-steps", "4"),
        *("--kl-loss-start-epoch", "2", "--kl-loss-warmup-epochs", "2"),
        *TINY_MODEL,
        *NO_DROPOUT,
    ]


def hifigan(corpus: Path, output: Path, grad_accumulation: int) -> list[str]:
    """Four steps."""
    return [
        *flags(corpus, output, epochs=2, grad_accumulation=grad_accumulation),
        *("--variant", "V3", "--upsample-initial-channel", "16", "--segment-size", "2048"),
        *("--discriminator-divisor", "8", "--mpd-periods", "[2,3]", "--learning-rate", "0.001"),
    ]


def waveglow(corpus: Path, output: Path, grad_accumulation: int) -> list[str]:
    """Four steps."""
    return [
        *flags(corpus, output, epochs=2, grad_accumulation=grad_accumulation),
        *("--flows", "4", "--early-every", "2", "--wn-channels", "16", "--wn-layers", "2"),
        *("--segment-length", "2000", "--learning-rate", "0.001"),
    ]


def run_processes(module: str, arguments: Sequence[str], num_processes: int) -> list[int]:
    """Runs a command on several processes with the environment that torchrun gives them.

    Returns:
        exit codes
    """
    context = fork_server()
    shared = {
        "WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "LOCAL_WORLD_SIZE": str(num_processes),
    }
    processes = [
        context.Process(
            target=run_command,
            args=(module, arguments, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}),
        )
        for rank in range(num_processes)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TRAINING_TIMEOUT)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


def results_of(output: Path) -> list[dict[str, float]]:
    """What every step and validation logged, but for times."""
    timed = ("took", "frames/s", "memory")
    return [
        {name: value for name, value in event["data"].items() if not name.endswith(timed)}
        for event in log_of(output)
        if event["step"] != "PARAMETER"
    ]


def assert_agree(output: Path, expected: Path) -> None:
    rows = zip(results_of(output), results_of(expected), strict=True)
    for number, (row, expected_row) in enumerate(rows):
        for name, value in expected_row.items():
            # Rounding changes gradients more than what they are the gradients of.
            tolerance = 1e-4 if name.endswith("grad_norm") else 1e-5
            assert row.pop(name) == pytest.approx(value, rel=tolerance), f"{name}, line {number}"
        assert not row


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory) -> Path:
    """Ten steps of FastPitch on one process, in four micro-batches each."""
    output = tmp_path_factory.mktemp("alone")
    assert run_processes("train", fastpitch(corpus, output, 4), 1) == [0]
    assert len([event for event in log_of(output) if len(event["step"]) == 3]) == 10
    return output


@pytest.mark.parametrize(("num_processes", "grad_accumulation"), [(2, 2), (4, 1)])
def test_losses_do_not_depend_on_the_number_of_processes(
    corpus, alone, tmp_path, num_processes, grad_accumulation
):
    run_processes("train", fastpitch(corpus, tmp_path, grad_accumulation), num_processes)
    assert_agree(tmp_path, alone)


@pytest.mark.parametrize("flags_of", [hifigan, waveglow])
def test_vocoders_losses_do_not_depend_on_the_number_of_processes(corpus, tmp_path, flags_of):
    command = f"{flags_of.__name__}.train"
    run_processes(command, flags_of(corpus, tmp_path / "one", 4), 1)
    run_processes(command, flags_of(corpus, tmp_path / "two", 2), 2)
    assert len([row for row in results_of(tmp_path / "one") if "train_loss" in row]) == 4
    assert_agree(tmp_path / "two", tmp_path / "one")


def test_two_nodes_train_as_one_process_does(corpus, alone, tmp_path):
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"),
        *("--nproc-per-node", "1", "--master-addr", "127.0.0.1"),
        *("--master-port", str(free_port())),
    ]
    # Meanwhile the other one waits.
    arguments = [*fastpitch(corpus, tmp_path, 2), "--samples-freq", "3"]
    nodes = [
        subprocess.Popen(
            [*command, "--node-rank", str(rank), "train.py", *arguments],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [node.communicate(timeout=TRAINING_TIMEOUT)[1] for node in nodes]
    finally:
        for node in nodes:
            node.terminate()
    assert [node.returncode for node in nodes] == [0, 0], errors
    assert_agree(tmp_path, alone)


def test_a_script_told_to_stop_ends_well_with_a_checkpoint_to_go_on_from(corpus, tmp_path):
    arguments = [*fastpitch(corpus, tmp_path, 2), "--epochs", "300"]
    log = tmp_path / "nvlog.json"
    with torchrun_script(tmp_path, "train.py", *arguments) as script:
        give_up = time.monotonic() + TRAINING_TIMEOUT
        while time.monotonic() < give_up and script.poll() is None:
            if log.is_file() and '"step": [2, ' in log.read_text():
                break
            time.sleep(0.05)
        script.send_signal(signal.SIGTERM)
        _, errors = script.communicate(timeout=TRAINING_TIMEOUT)
    assert script.returncode == 0, errors
    last_step = [event["step"] for event in log_of(tmp_path) if len(event["step"]) == 3][-1]
    newest = CheckpointFolder(tmp_path, ["FastPitch"]).latest()
    state = load_checkpoint(newest["FastPitch"])
    assert state["iteration"] == 2 * (last_step[0] - 1) + last_step[1]


@pytest.mark.parametrize("num_processes", [2, 3])
def test_processes_prepare_a_dataset_as_one_does(corpus, tmp_path, num_processes):
    make_corpus(tmp_path)
    assert run_processes("prepare_dataset", preparation(tmp_path), num_processes) == (
        [0] * num_processes
    )
    assert len(features_of(corpus)) == 3 * 18 + 1
    assert features_of(tmp_path) == features_of(corpus)
    assert records_of(tmp_path).keys() == records_of(corpus).keys()
    assert [path.name for path in tmp_path.glob("prepared*")] == ["prepared.jsonl"]
    assert len((tmp_path / "preproc_log.json").read_text().splitlines()) == 1


def test_what_interrupted_processes_prepared_is_not_done_again(corpus, tmp_path):
    folder = tmp_path / "corpus"
    shutil.copytree(corpus, folder)
    lines = (folder / "prepared.jsonl").read_text().splitlines(keepends=True)
    (folder / "prepared.jsonl").write_text("".join(lines[:-4]))
    (folder / "prepared.1.jsonl").write_text("".join(lines[-4:-2]))
    (folder / "prepared.12.jsonl").write_text("".join(lines[-2:-1]) + lines[-1][:50])
    assert run_processes("prepare_dataset", preparation(folder), 2) == [0, 0]
    last_line = (folder / "preproc_log.json").read_text().splitlines()[-1]
    assert json.loads(last_line.removeprefix("DLLL "))["data"]["prepared"] == 1
    assert features_of(folder) == features_of(corpus)
    assert [path.name for path in folder.glob("prepared*")] == ["prepared.jsonl"]


def test_all_processes_stop_where_the_data_has_problems(tmp_path):
    make_corpus(tmp_path)
    (tmp_path / "wavs" / "3.wav").unlink()
    assert run_processes("prepare_dataset", preparation(tmp_path), 2) == [2, 1]
    assert not (tmp_path / "mels").exists()


def records_of(folder: Path) -> dict[str, dict]:
    lines = (folder / "prepared.jsonl").read_text().splitlines()
    return {record["audio"]: record for record in map(json.loads, lines)}
