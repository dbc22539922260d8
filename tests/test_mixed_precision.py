# SPDX-License-Identifier: BSD-3-Clause
"""Mixed precision of all models on a CPU: what stays in float32, and that training works."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import hifigan.train
import prepare_dataset
import train
import waveglow.train
from common.checkpoint import load_checkpoint
from common.config import AudioConfig, OptimizerConfig, RunConfig
from common.distributed import Processes
from common.griffin_lim import GriffinLim
from common.learner import Learner
from common.precision import Precision
from common.segments import AudioBatch
from common.task import Progress
from fastpitch.arg_parser import FastPitchConfig, FastPitchLossConfig
from fastpitch.model import FastPitch
from fastpitch.task import FastPitchTask
from hifigan.arg_parser import VARIANTS, DiscriminatorConfig, HiFiGANOptimizerConfig
from hifigan.discriminators import Discriminators
from hifigan.model import HiFiGAN
from hifigan.task import HiFiGANTask
from tests.conftest import assert_same, golden, golden_batch
from tests.test_train import RATE, TEXTS, TINY_MODEL, hum, log_of, losses_of
from waveglow.arg_parser import WaveGlowConfig, WaveGlowLossConfig
from waveglow.model import WaveGlow
from waveglow.task import WaveGlowTask

CPU = torch.device("cpu")
HALF = {torch.bfloat16, torch.float16}
ATEN = torch.ops.aten
# Sums of many numbers, differences of close ones, exponentials and logarithms.
DELICATE = {
    ATEN._ctc_loss: "CTC",
    ATEN._fft_r2c: "STFT",
    ATEN._linalg_slogdet: "log-determinant",
    ATEN._log_softmax: "log-softmax",
    ATEN._softmax: "softmax",
    ATEN.exp: "exp",
    ATEN.expm1: "expm1",
    ATEN.log: "log",
    ATEN.log1p: "log1p",
    ATEN.mean: "mean",
    ATEN.native_layer_norm: "layer norm",
    ATEN.pow: "power",
    ATEN.sqrt: "root",
    ATEN.linalg_vector_norm: "norm",
}
LARGE = {
    ATEN.addmm: "products",
    ATEN.bmm: "products",
    ATEN.mm: "products",
    ATEN.convolution: "convolution",
}


class DTypes(TorchDispatchMode):
    """Notes which types of numbers go into operations."""

    def __init__(self):
        super().__init__()
        self.of = defaultdict(set)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = (DELICATE | LARGE).get(operation.overloadpacket)
        if name is not None:
            self.of[name] |= {
                leaf.dtype
                for leaf in tree_leaves((args, kwargs))
                if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
            }
        if operation is ATEN.sum.default:  # over all; that over one dimension is a bias's gradient
            self.of["sum"].add(args[0].dtype)
        return operation(*args, **(kwargs or {}))


def run_config(amp):
    return RunConfig(output=Path(), epochs=1, batch_size=2, amp=amp, amp_dtype="bf16")


def fastpitch_task(amp, processes=None):
    processes = processes or Processes(cuda=False)
    fixture = golden("fastpitch_tiny")
    torch.manual_seed(1)
    no_dropout = {key: 0.0 for key in fixture["config"] if key.startswith("p_")}
    model = FastPitch(FastPitchConfig(**(fixture["config"] | no_dropout)))
    model.load_state_dict(fixture["state_dict"])
    task = FastPitchTask(
        model.to(processes.device),
        run=run_config(amp),
        optimization=OptimizerConfig(learning_rate=0.01, warmup_steps=0),
        loss=FastPitchLossConfig(kl_loss_start_epoch=0, kl_loss_warmup_epochs=0),
        audio=AudioConfig(),
        vocoder=GriffinLim(AudioConfig()),
        setup={},
        processes=processes,
    )
    return task, golden_batch(fixture)


def voices():
    """Tones with noise, as a batch of recordings."""
    pitch_hz = torch.tensor([[110.0], [180.0]])
    tones = torch.sin(2 * math.pi * pitch_hz * torch.arange(4096) / 22050)
    audio = 0.3 * tones + 0.01 * torch.randn(2, 4096)
    return AudioBatch(audio=audio, mel=None, paths=[Path()] * 2)


def hifigan_task(amp, processes=None):
    processes = processes or Processes(cuda=False)
    torch.manual_seed(1)
    size = dataclasses.replace(VARIANTS["V2"], upsample_initial_channel=32)
    judges = DiscriminatorConfig(mpd_periods=(2, 3), discriminator_divisor=8)
    task = HiFiGANTask(
        HiFiGAN(size).to(processes.device),
        Discriminators(judges).to(processes.device),
        run=run_config(amp),
        optimization=HiFiGANOptimizerConfig(learning_rate=0.001),
        audio=AudioConfig(),
        mel_fmax_loss=11025.0,
        setup={},
        processes=processes,
    )
    return task, voices()


def waveglow_task(amp, processes=None):
    processes = processes or Processes(cuda=False)
    torch.manual_seed(1)
    model = WaveGlow(WaveGlowConfig(flows=4, early_every=2, wn_channels=16, wn_layers=2))
    for network in model.WN:  # zeros at first, of which nothing can be seen
        torch.nn.init.normal_(network.end.weight, std=0.05)
    task = WaveGlowTask(
        model.to(processes.device),
        run=run_config(amp),
        optimization=OptimizerConfig(optimizer="adam", learning_rate=0.001, warmup_steps=0),
        loss=WaveGlowLossConfig(),
        audio=AudioConfig(),
        setup={},
        processes=processes,
    )
    return task, voices()


# What is delicate in each.
TASKS = {
    "fastpitch": (
        fastpitch_task,
        {"CTC", "layer norm", "log", "log-softmax", "log1p", "mean", "power", "softmax", "sum"},
    ),
    "hifigan": (hifigan_task, {"STFT", "log", "mean", "power", "root"}),
    "waveglow": (waveglow_task, {"STFT", "exp", "log", "log-determinant", "mean", "power", "sum"}),
}
each_task = pytest.mark.parametrize("name", TASKS)


def make(name, precision):
    """A task and its batch; `fp16` is what a GPU does, loss scaling included, but on a CPU."""
    task, batch = TASKS[name][0](amp=precision == "bf16")
    if precision == "fp16":
        for learner in learners(task):
            learner.precision = Precision(amp=True, device=CPU, dtype="bf16")
            learner.precision.scaler = torch.amp.GradScaler("cpu")
            learner.precision.dtype = torch.float16
    return task, batch


def learners(task):
    return [member for member in vars(task).values() if isinstance(member, Learner)]


@each_task
def test_what_is_delicate_stays_in_float32(name):
    task, batch = make(name, "bf16")
    with DTypes() as dtypes:
        metrics = task.train_step([batch], Progress(epoch=1, step=1))
        task.eval_step(batch)
    assert metrics["bad_step"] == 0
    assert dtypes.of["convolution"] == {torch.bfloat16}
    assert TASKS[name][1] <= dtypes.of.keys()
    rounded = {what for what, seen in dtypes.of.items() if seen & HALF}
    assert rounded <= {*LARGE.values()}
    assert all(value.dtype == torch.float32 for value in metrics.values())


def test_attention_weighs_in_float32():
    # The sum of thousands of nearly equal weights, which half precision cannot count.
    query, key = torch.randn(1, 1, 3, 8).bfloat16(), torch.randn(1, 1, 4000, 8).bfloat16() / 8
    value = torch.ones(1, 1, 4000, 8).bfloat16()
    mask = (torch.arange(4000) < 3000)[None, None, None]
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert_close(attended, torch.ones_like(attended), rtol=0.005, atol=0)
    total = torch.zeros(3).bfloat16()
    for score in (query @ key.transpose(2, 3)).exp()[0, 0, :, :3000].T:
        total += score
    assert (total < 1000).all(), "so far off would be a sum of 3000 weights in half precision"


@each_task
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_losses_and_gradients_are_near_those_of_float32(name, precision):
    results = []
    for each in ("float32", precision):
        task, batch = make(name, each)
        metrics = task.eval_step(batch)["val"][0]
        for learner in learners(task):
            if each == "fp16":  # what the scale comes down to in the beginning
                state = learner.precision.state_dict() | {"scale": 256.0}
                learner.precision.load_state_dict(state)
        stepped = task.train_step([batch], Progress(epoch=1, step=1))
        assert stepped["bad_step"] == 0
        kept = {key: value for key, value in stepped.items() if "scale" not in key}
        results.append({f"val_{key}": value for key, value in metrics.items()} | kept)
    tolerance = {"bf16": 0.04, "fp16": 0.004}[precision]
    for key, expected in results[0].items():
        assert_close(results[1][key], expected, rtol=tolerance, atol=1e-4, msg=key)


def test_fp16_begins_with_a_scale_too_large_and_then_learns():
    task, batch = make("fastpitch", "fp16")
    steps = [task.train_step([batch], Progress(epoch=1, step=step)) for step in range(1, 13)]
    bad = [bool(metrics["bad_step"]) for metrics in steps]
    num_bad = bad.index(False)
    assert num_bad > 0 and not any(bad[num_bad:])
    scales = [float(metrics["scale"]) for metrics in steps[: num_bad + 1]]
    assert scales == [2.0 ** (16 - step) for step in range(num_bad + 1)]
    assert steps[-1]["loss"] < 0.9 * steps[0]["loss"]


@each_task
def test_a_poisoned_micro_batch_is_told_and_leaves_the_scale(name):
    task, batch = make(name, "fp16")
    features = "mel" if name == "fastpitch" else "audio"
    poisoned = dataclasses.replace(batch, **{features: getattr(batch, features) * math.nan})
    stepped = task.train_step([batch, poisoned], Progress(epoch=1, step=1))
    assert stepped["bad_step"] == 1 and stepped["bad_losses"].tolist() == [0, 1]
    assert {learner.precision.scaler.get_scale() for learner in learners(task)} == {2.0**16}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Eight clips of a humming voice, for all three."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "wavs").mkdir()
    rng = np.random.default_rng(0)
    for index in range(len(TEXTS)):
        soundfile.write(folder / f"wavs/{index}.wav", hum(rng), RATE, subtype="PCM_16")
    lines = [f"wavs/{index}.wav|{text}\n" for index, text in enumerate(TEXTS)]
    for part, chosen in (("train", lines[:6]), ("val", lines[6:])):
        (folder / f"{part}.txt").write_text("".join(chosen))
    lists = [str(folder / "train.txt"), str(folder / "val.txt")]
    prepare_dataset.main(
        ["-d", str(folder), "--wav-text-filelists", *lists, "--n-workers", "1", "--extract-pitch"]
    )
    return folder


# Each training, with its own flags.
COMMANDS = {
    "fastpitch": (
        train.main,
        [
            *("--load-pitch-from-disk", "--learning-rate", "0.03", "--warmup-steps", "0"),
            *("--kl-loss-start-epoch", "2", *TINY_MODEL),
        ],
    ),
    "hifigan": (
        hifigan.train.main,
        [
            *("--variant", "V3", "--upsample-initial-channel", "32", "--mpd-periods", "[2]"),
            *("--discriminator-divisor", "8", "--segment-size", "2048"),
            *("--learning-rate", "0.002"),
        ],
    ),
    "waveglow": (
        waveglow.train.main,
        [
            *("--flows", "2", "--early-every", "1", "--wn-channels", "16", "--wn-layers", "1"),
            *("--segment-length", "2000", "--learning-rate", "0.002", "--n-mel-channels", "20"),
            *("--mel-fmax", "7600"),
        ],
    ),
}
FILES = {
    "fastpitch": FastPitchTask.files,
    "hifigan": HiFiGANTask.files,
    "waveglow": WaveGlowTask.files,
}
each_command = pytest.mark.parametrize("name", COMMANDS)


def run(name, corpus, output, epochs, *more):
    command, flags = COMMANDS[name]
    command(
        [
            *("--dataset-path", str(corpus), "--output", str(output), "--epochs", str(epochs)),
            *("--training-files", str(corpus / "train.txt")),
            *("--validation-files", str(corpus / "val.txt"), "--validation-freq", "1"),
            *("--batch-size", "3", "--num-workers", "0", "--ema-decay", "0.5"),
            *("--epochs-per-checkpoint", "1", "--samples-freq", "0"),
            *(*flags, *more),
        ]
    )


@each_command
def test_training_in_bf16_learns_and_resumes_bitwise(name, corpus, tmp_path):
    amp = ("--amp", "--amp-dtype", "bf16", "--samples-freq", "3")
    run(name, corpus, tmp_path / "whole", 3, *amp)
    run(name, corpus, tmp_path / "parts", 1, *amp)
    torch.manual_seed(99)  # whatever happened in between
    run(name, corpus, tmp_path / "parts", 3, "--resume", *amp)
    for file in (f"{kind}_checkpoint_3.pt" for kind in FILES[name]):
        first, second = (load_checkpoint(tmp_path / part / file) for part in ("whole", "parts"))
        for state in (first, second):
            state.get("training", {}).pop("seconds", None)  # that it took
        assert_same(first, second)
    (settings, *_) = log_of(tmp_path / "whole")
    assert settings["data"]["amp"] and settings["data"]["amp_dtype"] == "bf16"
    key = "val_loss" if name == "waveglow" else "val_mel_loss"
    losses = losses_of(tmp_path / "whole", key)
    assert losses_of(tmp_path / "parts", key) == losses
    assert len(losses) == 3 and losses[-1] < losses[0]
    run(name, corpus, tmp_path / "float32", 1)
    assert losses_of(tmp_path / "float32", key) != losses[:1], "of half precision"
    assert losses_of(tmp_path / "float32", key) == pytest.approx(losses[:1], rel=0.05)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@each_command
@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--amp"], "--amp needs a GPU: add --cuda, or --amp-dtype bf16, which CPUs compute as"),
        (["--amp-run"], "--amp needs a GPU: add --cuda, or --amp-dtype bf16"),
        (["--amp", "--amp-dtype", "fp32"], "--amp-dtype: invalid choice: 'fp32'"),
        (["--fused-optimizer", "apex"], "--fused-optimizer apex needs a GPU: add --cuda"),
    ],
)
def test_what_a_cpu_cannot_do_is_a_sentence(name, corpus, tmp_path, capsys, more, sentence):
    with pytest.raises(SystemExit) as end:
        run(name, corpus, tmp_path / "out", 1, *more)
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))
