# SPDX-License-Identifier: BSD-3-Clause
"""On a GPU, as a user does it: half precision learns alike, trainings resume, models speak."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

import prepare_dataset
from benchmarks.gpu import speak
from benchmarks.gpu.corpus import make_corpus
from benchmarks.gpu.stages import MODELS, Plan, read_log
from fastpitch.arg_parser import FastPitchConfig

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
MOST_GPUS = 8  # for which there are clips enough
NEAR = {"rel": 0.02, "abs": 0.02}  # losses may be near zero
NO_DROPOUT = [
    word
    for field in dataclasses.fields(FastPitchConfig)
    if field.name.startswith("p_")
    for word in (f"--{field.name}", "0")
]


@pytest.fixture(scope="module")
def plan(cuda, tmp_path_factory):
    """Commands that train tiny models on a few clips."""
    folder = tmp_path_factory.mktemp("gpu")
    corpus = make_corpus(
        folder / "corpus", num_clips=2 * MOST_GPUS, num_phrases=2, longest_seconds=0.6
    )
    filelists = (str(corpus.training_files), str(corpus.validation_files))
    prepare_dataset.main(
        [
            *("-d", str(corpus.folder), "--wav-text-filelists", *filelists),
            *("--extract-mels", "--extract-pitch", "--n-workers", "1"),
        ]
    )
    return Plan(corpus=corpus, work=folder, output=folder, cuda=True, ampere=True, quick=True)


def command(plan, model, precision, output, *more):
    dropout = NO_DROPOUT if model == "FastPitch" else []
    return [*plan.training_command(model, precision, output), *dropout, *more]


def train(plan, model, precision, output, *more):
    """Trains in this process; returns what was logged of each step by epoch and iteration."""
    first, *flags = command(plan, model, precision, output, *more)
    if first == "-m":
        first, *flags = flags
    importlib.import_module(first.removesuffix(".py")).main(flags)
    return steps_of(output)


def steps_of(output):
    events = [event for event in read_log(output / "nvlog.json") if len(event["step"]) == 3]
    return {tuple(event["step"][:2]): event["data"] for event in events}


@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32"])
@pytest.mark.parametrize("model", MODELS)
def test_steps_in_less_precision_are_near_those_in_full(
    request, cuda, plan, tmp_path, model, precision
):
    if precision != "fp16":
        request.getfixturevalue("ampere")
    # Weights that stay as they are, so that each step compares for itself.
    still = ("--learning-rate", "1e-12", "--epochs", "4")
    full = train(plan, model, "fp32", tmp_path / "full", *still, "--no-tf32")
    amp = "fp32" if precision == "tf32" else precision  # which is what GPUs make of it
    half = train(plan, model, amp, tmp_path / "half", *still)
    assert len(half) > len(full) / 4, "the scale comes down until steps are taken"
    for step, metrics in half.items():
        assert metrics["train_loss"] == pytest.approx(full[step]["train_loss"], **NEAR)
        assert metrics["train_grad_norm"] == pytest.approx(full[step]["train_grad_norm"], rel=0.1)


@pytest.mark.parametrize("preload", [(), ("--preload", "gpu")], ids=" ".join)
@pytest.mark.parametrize("bucket", [(), ("--bucket",)], ids=" ".join)
def test_a_training_is_the_one_of_a_cpu(plan, tmp_path, bucket, preload):
    flags = ("--epochs", "2", "--no-tf32", *bucket)
    on_cpu = dataclasses.replace(plan, cuda=False)
    steps = [
        train(plan, "FastPitch", "fp32", tmp_path / "gpu", *flags, *preload),
        train(on_cpu, "FastPitch", "fp32", tmp_path / "cpu", *flags),
    ]
    assert steps[0].keys() == steps[1].keys()
    for step, metrics in steps[0].items():
        assert metrics["train_loss"] == pytest.approx(steps[1][step]["train_loss"], **NEAR)


@pytest.mark.parametrize("model", MODELS)
def test_a_resumed_training_goes_on_as_if_it_had_not_stopped(plan, tmp_path, model):
    whole = train(plan, model, "fp16", tmp_path / "whole", "--epochs", "2", "--ema-decay", "0.9")
    train(plan, model, "fp16", tmp_path / "parts", "--epochs", "1", "--ema-decay", "0.9")
    torch.manual_seed(99)  # whatever happened in between
    parts = train(
        plan, model, "fp16", tmp_path / "parts", "--epochs", "2", "--ema-decay", "0.9", "--resume"
    )
    assert parts.keys() == whole.keys()
    for step, metrics in parts.items():
        for name in ("train_scale", "train_lrate"):
            assert metrics[name] == whole[step][name]
        assert metrics["train_loss"] == pytest.approx(whole[step]["train_loss"], **NEAR)


def test_all_gpus_together_learn_as_one_does(plan, tmp_path):
    num_gpus = min(torch.cuda.device_count(), MOST_GPUS)
    if num_gpus < 2:
        pytest.skip("NCCL needs two GPUs or more, one for each process")
    alone = train(
        plan,
        "FastPitch",
        "fp32",
        tmp_path / "one",
        "--grad-accumulation",
        str(num_gpus),
        "--no-tf32",
    )
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_gpus}"]
    together = command(plan, "FastPitch", "fp32", tmp_path / "all", "--no-tf32")
    subprocess.run([sys.executable, *launcher, *together], cwd=ROOT, check=True, timeout=100)
    steps = steps_of(tmp_path / "all")
    assert steps.keys() == alone.keys()
    for step, metrics in steps.items():
        assert metrics["train_loss"] == pytest.approx(alone[step]["train_loss"], rel=1e-3)


@pytest.fixture(scope="module")
def trained(plan):
    """Checkpoints of one epoch by model."""
    for model in MODELS:
        train(plan, model, "fp32", plan.work / model)
    return {model: plan.work / model / MODELS[model].checkpoint.format(1) for model in MODELS}


@pytest.mark.parametrize(
    ("flag", "vocoder"), [("--hifigan", "HiFi-GAN"), ("--waveglow", "WaveGlow")]
)
def test_models_speak_in_half_precision_what_they_speak_on_a_cpu(
    plan, trained, tmp_path, flag, vocoder
):
    for name, device in (("cpu", []), ("gpu", ["--cuda", "--amp"])):
        speak.main(
            str(trained["FastPitch"]),
            *("--input", str(plan.corpus.phrases), "--output", str(tmp_path / name)),
            *(flag, str(trained[vocoder]), "--save-mels", *device),
        )
    files = sorted((tmp_path / "cpu").glob("*.wav"))
    assert len(files) == 2
    for file in files:
        twin = tmp_path / "gpu" / file.name
        with wave.open(str(file)) as ours, wave.open(str(twin)) as theirs:
            assert ours.getnframes() == theirs.getnframes() > 0
            samples = np.frombuffer(theirs.readframes(theirs.getnframes()), np.int16)
        assert samples.any()
        mels = [np.load(path.with_suffix(".npy")) for path in (file, twin)]
        assert np.abs(mels[0] - mels[1]).mean() < 0.05  # nepers
