# SPDX-License-Identifier: BSD-3-Clause
"""What a GPU check consists of: commands as a user would type them, and how their logs are read."""

from __future__ import annotations

import functools
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from benchmarks.gpu.arithmetic import peak_flops
from benchmarks.gpu.corpus import Corpus

NEEDS_CUDA = "needs a CUDA device"
NEEDS_AMPERE = "needs a CUDA device of the Ampere generation or newer"
AMP = {
    "fp16": ("--amp",),
    "bf16": ("--amp", "--amp-dtype", "bf16"),
    "fp32": (),  # or TF32, on a GPU that has it
}


class Reading(NamedTuple):
    """What the files that a command left say."""

    numbers: Mapping[str, float]
    note: str = ""
    is_failure: bool = False  # what was measured stands, but the note says what must not be


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A command, in a process of its own."""

    name: str
    command: tuple[str, ...]  # for Python
    share: float  # of the time for all stages: what it may take at most
    read: Callable[[], Reading]  # raises an error where the command did not do what it should
    skipped: str = ""  # why it cannot be run here


@dataclass(frozen=True, kw_only=True)
class Model:
    """How a model is trained."""

    command: tuple[str, ...]
    flags: tuple[str, ...]  # as published
    quick_flags: tuple[str, ...]  # tiny
    task: str  # class of the task, module:name
    checkpoint: str  # file after so many epochs
    clips_per_step: int = 0  # of the stage at full speed; 0 where there is none
    full_speed_flags: tuple[str, ...] = ()


MODELS = {
    "FastPitch": Model(
        command=("train.py",),
        flags=(
            *("--batch-size", "32", "--learning-rate", "0.1", "--load-pitch-from-disk"),
            *("--dur-predictor-loss-scale", "0.1", "--pitch-predictor-loss-scale", "0.1"),
            *("--text-cleaners", "english_cleaners_v2", "--p-arpabet", "1.0"),
            *("--kl-loss-start-epoch", "0", "--energy-conditioning"),
        ),
        quick_flags=(
            *("--batch-size", "2", "--symbols-embedding-dim", "32", "--in-fft-n-layers", "1"),
            *("--in-fft-output-size", "32", "--out-fft-output-size", "32"),
            *("--out-fft-n-layers", "1"),
        ),
        task="fastpitch.task:FastPitchTask",
        checkpoint="FastPitch_checkpoint_{}.pt",
        clips_per_step=256,
        full_speed_flags=("--bucket", "--preload", "gpu"),
    ),
    "HiFi-GAN": Model(
        command=("-m", "hifigan.train"),
        flags=("--batch-size", "16", "--learning-rate", "0.0003"),
        quick_flags=(
            *("--batch-size", "2", "--variant", "V3", "--upsample-initial-channel", "16"),
            *("--discriminator-divisor", "8", "--segment-size", "2048"),
        ),
        task="hifigan.task:HiFiGANTask",
        checkpoint="hifigan_gen_checkpoint_{}.pt",
        clips_per_step=128,
        full_speed_flags=("--cudnn-benchmark",),
    ),
    "WaveGlow": Model(
        command=("-m", "waveglow.train"),
        flags=("--batch-size", "10", "--learning-rate", "0.0001", "--wn-channels", "256"),
        quick_flags=(
            *("--batch-size", "2", "--flows", "2", "--early-every", "2", "--wn-layers", "1"),
            *("--wn-channels", "16", "--segment-length", "2000"),
        ),
        task="waveglow.task:WaveGlowTask",
        checkpoint="WaveGlow_checkpoint_{}.pt",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run the stages on."""

    corpus: Corpus
    work: Path  # folder of what the commands write
    output: Path  # folder of what is kept
    cuda: bool
    ampere: bool  # whether the GPU is of that generation or newer, which have bf16 and TF32
    models: tuple[str, ...] = tuple(MODELS)
    quick: bool = False

    def stages(self) -> Iterator[Stage]:
        """In the order in which they need each other."""
        yield self._tests()
        yield self._kernels()
        yield self._preparation()
        for model in self.models:
            yield self._training(model)
        for compiled in (False, True):  # what takes long to begin comes last
            if {"FastPitch", "HiFi-GAN"} <= {*self.models}:
                for batch_size in (1, 8) if self.cuda else (1,):
                    yield self._speech("HiFi-GAN", batch_size, compiled)
            if {"FastPitch", "WaveGlow"} <= {*self.models} and not compiled:
                yield self._speech("WaveGlow", 1, compiled)
            for model in self.models:
                if MODELS[model].clips_per_step:
                    yield self._full_speed(model, compiled)

    def training_command(self, model: str, precision: str, output: Path) -> tuple[str, ...]:
        """One epoch of a model."""
        recipe, corpus = MODELS[model], self.corpus
        return (
            *recipe.command,
            *("--dataset-path", str(corpus.folder), "--output", str(output), "--epochs", "1"),
            *("--training-files", str(corpus.training_files)),
            *("--validation-files", str(corpus.validation_files)),
            *("--num-workers", "0" if self.quick else "8"),
            *recipe.flags,
            *(recipe.quick_flags if self.quick else ()),
            *self._device_flags(precision),
        )

    def _tests(self) -> Stage:
        results = self.work / "tests.xml"
        command = ("-m", "pytest", "-m", "gpu", "tests/gpu", "-v", "--tb=short", "-rs")
        return Stage(
            name="tests, pytest -m gpu",
            command=(*command, "-p", "no:cacheprovider", f"--junitxml={results}"),
            share=0.35,
            read=functools.partial(read_tests, results),
            skipped="" if self.cuda else NEEDS_CUDA,
        )

    def _kernels(self) -> Stage:
        path = self.work / "kernels.json"
        reason = "needs Triton, which PyTorch for CUDA on Linux brings"
        return Stage(
            name="kernels in Triton",
            command=("-m", "benchmarks.gpu.kernels", str(path)),
            share=0.1,
            read=lambda: Reading(json.loads(path.read_text(encoding="utf-8"))),
            skipped=NEEDS_CUDA if not self.cuda else "" if find_spec("triton") else reason,
        )

    def _preparation(self) -> Stage:
        lists = (str(self.corpus.many_files), str(self.corpus.validation_files))
        return Stage(
            name="prepare the corpus",
            command=(
                *("prepare_dataset.py", "--dataset-path", str(self.corpus.folder)),
                *("--wav-text-filelists", *lists, "--extract-mels", "--extract-pitch"),
                *("--n-workers", "1" if self.quick else "8"),
            ),
            share=0.1,
            read=lambda: Reading({}),
        )

    def _training(self, model: str) -> Stage:
        folder = self.work / model
        table = self.output / f"profile_{model.lower().replace('-', '')}.txt"
        command = ("-m", "benchmarks.gpu.profile_step", MODELS[model].task, folder, table)
        return Stage(
            name=f"train {model}, {self.precision}",
            command=(
                *map(str, command),
                *self.training_command(model, self.precision, folder),
                *("--epochs", str(self._num_epochs)),
            ),
            share=0.1,
            read=functools.partial(read_watched_training, folder),
            skipped=done_before(self._checkpoint(model)),
        )

    def _full_speed(self, model: str, compiled: bool) -> Stage:
        recipe = MODELS[model]
        folder = self.work / f"full-speed-{model}{'-compiled' * compiled}"
        command = ("-m", "benchmarks.gpu.full_speed", recipe.task, folder, recipe.clips_per_step)
        return Stage(
            name=full_speed_name(model, compiled),
            command=(
                *map(str, command),
                *self.training_command(model, "bf16", folder),
                *("--training-files", str(self.corpus.many_files), "--epochs", "4"),
                *("--validation-freq", "4", "--samples-freq", "0", "--step-logs-interval", "5"),
                *recipe.full_speed_flags,
                *(("--compile",) if compiled else ()),
            ),
            share=0.25 if compiled else 0.2,
            read=functools.partial(read_full_speed, folder / "full_speed.json", "bf16"),
            skipped=done_before(folder / "full_speed.json") if self.ampere else NEEDS_AMPERE,
        )

    def _speech(self, vocoder: str, batch_size: int, compiled: bool) -> Stage:
        fastpitch, checkpoint = (str(self._checkpoint(model)) for model in ("FastPitch", vocoder))
        flag = {"HiFi-GAN": "--hifigan", "WaveGlow": "--waveglow"}[vocoder]
        output = self.work / f"speech-{vocoder}-{batch_size}{'-compiled' * compiled}"
        times = {"HiFi-GAN": ("3", "10"), "WaveGlow": ("1", "2")}[vocoder]
        return Stage(
            name=speech_name(vocoder, batch_size, self.precision, compiled),
            command=(
                *("-m", "benchmarks.gpu.speak", fastpitch),
                *("--input", str(self.corpus.phrases), "--output", str(output)),
                *(flag, checkpoint, "--denoising-strength", "0.01"),
                *("--batch-size", str(batch_size), *self._device_flags(self.precision)),
                *(("--warmup-steps", times[0], "--repeats", times[1]) if not self.quick else ()),
                *(("--compile",) if compiled else ()),
            ),
            share=0.2 if compiled else 0.1,
            read=functools.partial(read_synthesis, output / "nvlog_infer.json"),
            skipped=NEEDS_CUDA if compiled and not self.cuda else "",
        )

    @property
    def precision(self) -> str:
        """Of most stages."""
        return "fp16" if self.cuda else "fp32"

    @property
    def _num_epochs(self) -> int:
        return 4 if self.quick else 1  # steps enough to watch

    def _checkpoint(self, model: str) -> Path:
        """What the training of a model leaves."""
        return self.work / model / MODELS[model].checkpoint.format(self._num_epochs)

    def _device_flags(self, precision: str) -> tuple[str, ...]:
        return (*(("--cuda",) if self.cuda else ()), *AMP[precision])


def done_before(path: Path) -> str:
    """Why a stage is skipped: an earlier run left its result. Empty where none did."""
    return f"was done in an earlier run, which left {path}" if path.exists() else ""


def full_speed_name(model: str, compiled: bool) -> str:
    """Of the stage that trains a model as fast as it goes."""
    return f"train {model} at full speed, bf16{', compiled' * compiled}"


def speech_name(vocoder: str, batch_size: int, precision: str, compiled: bool) -> str:
    """Of the stage that speaks."""
    how = f"batch {batch_size}, {precision}{', compiled' * compiled}"
    return f"speak, FastPitch and {vocoder}, {how}"


def read_log(path: Path) -> list[dict[str, Any]]:
    """The events of a DLLogger file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line.removeprefix("DLLL ")) for line in lines]


def read_tests(results: Path) -> Reading:
    """How many tests passed and were skipped, and why those; where one failed, so did pytest."""
    tests = list(ElementTree.parse(results).iter("testcase"))
    skips = [skip.get("message", "") for test in tests for skip in test.findall("skipped")]
    if len(skips) == len(tests):
        raise ValueError(f"none of {len(tests)} tests was run: {'; '.join(dict.fromkeys(skips))}")
    numbers = {"passed": len(tests) - len(skips), "skipped": len(skips)}
    return Reading(numbers, "; ".join(dict.fromkeys(skips)))


def read_training(log: Path) -> Reading:
    """How fast the later half of an epoch was, as the log has it; its loss must be a number."""
    events = read_log(log)
    steps = [event for event in events if "train_loss" in event["data"] and len(event["step"]) == 3]
    losses = [event["data"]["val_loss"] for event in events if "val_loss" in event["data"]]
    if not steps or not losses or not math.isfinite(losses[-1]):
        raise ValueError(f"{len(steps)} steps were taken, then the validation loss was {losses}")
    epoch, _, steps_per_epoch = steps[-1]["step"]
    speeds = [step["data"]["train_frames/s"] for step in steps[len(steps) // 2 :]]
    numbers = {"frames/s": statistics.median(speeds), "validation loss": losses[-1]}
    num_steps = epoch * steps_per_epoch
    skipped = num_steps - len(steps)
    return Reading(numbers, f"{skipped} of {num_steps} steps skipped" if skipped else "")


def read_watched_training(folder: Path) -> Reading:
    """How fast a training was, and its steps without the loading of data; none may wait."""
    training, step = read_training(folder / "nvlog.json"), read_profile(folder / "profile.json")
    notes = "; ".join(filter(None, (training.note, step.note)))
    return Reading({**training.numbers, **step.numbers}, notes, step.is_failure)


def read_full_speed(path: Path, precision: str) -> Reading:
    """How fast a training was, and how much of what the device can do at most."""
    summary = json.loads(path.read_text(encoding="utf-8"))
    speed = read_training(Path(summary["log"])).numbers  # its note counts what was not logged
    flops = speed["frames/s"] * summary["flops_per_frame"]
    peak = peak_flops(summary["device"], precision)
    numbers = {"TFLOP/s": flops / 1e12} | ({"% of peak": 100 * flops / peak} if peak else {})
    return Reading({**speed, **numbers}, f"{summary['micro_batch']} clips a micro-batch")


def read_profile(path: Path) -> Reading:
    """Time and memory of a step; the host must not wait for the device, but to read the log."""
    profile = json.loads(path.read_text(encoding="utf-8"))
    if profile["waits"]:
        places = ", ".join(f"{place} x {count}" for place, count in profile["waits"].items())
        note = f"steps wait for the GPU: {places} in {profile['num_steps']} steps"
        return Reading(profile["numbers"], note, is_failure=True)
    reads = f"waits only where the log is read, {profile['logged_reads']} times"
    return Reading(profile["numbers"], f"{reads} in {profile['num_steps']} steps")


def read_synthesis(log: Path) -> Reading:
    """Latency of a batch in milliseconds, and seconds of speech per second."""
    summary = read_log(log)[-1]["data"]
    milliseconds = {
        "ms FastPitch": summary["avg_fastpitch_latency"],
        "ms in all": summary["avg_latency"],
        "ms at most in 90 %": summary["90%_latency"],
    }
    numbers = {name: 1000 * seconds for name, seconds in milliseconds.items()}
    return Reading(numbers | {"times real time": summary["avg_RTF"]})
