# SPDX-License-Identifier: BSD-3-Clause
"""Measures an optimizer step of FastPitch on a CPU, next to a plain one that computes the same.

Run from the repository's root: python -m benchmarks.training
"""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.memory import peak_bytes
from benchmarks.pitch import cpu_name
from benchmarks.plain.model import PlainFastPitch, align
from benchmarks.plain.step import PlainStep
from common.cli import FlagParser, flag
from common.config import AudioConfig, OptimizerConfig, RunConfig
from common.distributed import Processes
from common.griffin_lim import GriffinLim
from common.heap import keep_freed_memory
from common.optim import UpdateRule, warmup_then_inverse_root
from common.sequences import lengths_to_mask
from common.task import Progress
from fastpitch.arg_parser import FastPitchConfig, FastPitchLossConfig
from fastpitch.attention import SoftAlignment
from fastpitch.data_function import Batch
from fastpitch.model import FastPitch
from fastpitch.prior import InterpolatedPrior
from fastpitch.task import BETAS, EPS, FastPitchTask

# Mel frames and symbols of LJSpeech's first clips, LJ001-0001 to LJ001-0016.
FRAMES = (832, 164, 833, 443, 699, 490, 723, 154, 651, 760, 389, 710, 223, 857, 796, 454)
SYMBOLS = (151, 30, 155, 89, 143, 74, 114, 25, 104, 116, 74, 108, 43, 168, 166, 79)
PROGRESS = Progress(epoch=51, step=1000)  # the binarization loss has half of its weight
LOSS = FastPitchLossConfig(
    dur_predictor_loss_scale=0.1, pitch_predictor_loss_scale=0.1, kl_loss_start_epoch=1
)
EMA_DECAY = 0.999
MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Benchmark: how much, how often."""

    clips: int = flag(len(FRAMES), help="size of the batch")
    runs: int = flag(2, help="steps that are timed; the median counts")

    def __post_init__(self) -> None:
        if not 1 <= self.clips <= len(FRAMES):
            raise ValueError(f"--clips must lie in 1 to {len(FRAMES)}, got {self.clips}")
        if self.runs < 1:
            raise ValueError(f"--runs must be 1 or more, got {self.runs}")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables; returns the exit code."""
    parser = FlagParser(__doc__.splitlines()[0], BenchmarkConfig, FastPitchConfig)
    values = parser.parse(argv)
    benchmark = parser.build(BenchmarkConfig, values)
    config = parser.build(FastPitchConfig, values)
    config = dataclasses.replace(config, energy_conditioning=True)  # as in the recipe
    batch = make_batch(config, benchmark.clips)
    keep_freed_memory()  # as train.py does; the plain form has it, too
    torch.manual_seed(0)
    model = FastPitch(config)
    print(describe(model, batch, benchmark), flush=True)
    measure_steps(make_steps(model), batch, benchmark.runs)
    compare_aligners(model.attention, batch)
    return 0


def make_batch(config: FastPitchConfig, num_clips: int) -> Batch:
    """Generated features of clips that are as long as LJSpeech's first."""
    random = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    text_lens, mel_lens = torch.tensor(SYMBOLS[:num_clips]), torch.tensor(FRAMES[:num_clips])
    num_symbols, num_frames = int(text_lens.max()), int(mel_lens.max())
    text_mask = lengths_to_mask(text_lens, num_symbols)
    mel_mask = lengths_to_mask(mel_lens, num_frames)
    symbols = torch.randint(1, config.n_symbols, text_mask.shape, generator=random)
    pitch = noise(num_clips, num_frames)
    prior = torch.zeros(num_clips, num_frames, num_symbols)
    prior_of = InterpolatedPrior()
    for item, (frames, text) in enumerate(zip(mel_lens.tolist(), text_lens.tolist(), strict=True)):
        prior[item, :frames, :text] = torch.as_tensor(prior_of(frames, text))
    return Batch(
        text=symbols * text_mask,
        text_lens=text_lens,
        mel=(noise(num_clips, config.n_mel_channels, num_frames) - 5) * mel_mask[:, None, :],
        mel_lens=mel_lens,
        pitch=pitch * (pitch > -0.5) * mel_mask,  # a third of the frames is unvoiced
        energy=noise(num_clips, num_frames).abs() * mel_mask,
        prior=prior,
        speaker=None,
        paths=[],
    )


def make_task(model: FastPitch, amp: bool = False) -> FastPitchTask:
    """The task that `train.py` trains, with LAMB and averaged weights."""
    audio = AudioConfig()
    run = RunConfig(
        output=Path(tempfile.gettempdir()),  # nothing is written
        epochs=1000,
        batch_size=len(FRAMES),
        amp=amp,
        amp_dtype="bf16",
        ema_decay=EMA_DECAY,
    )
    return FastPitchTask(
        model,
        run=run,
        optimization=OptimizerConfig(learning_rate=0.1),
        loss=LOSS,
        audio=audio,
        vocoder=GriffinLim(audio),
        setup={},
        processes=Processes(cuda=False),
    )


def make_plain_step(model: FastPitch, task: FastPitchTask) -> PlainStep:
    """The plain form of a task's step, from the weights of a model on."""
    rule = UpdateRule.of(task.optimization, BETAS, EPS)
    learning_rate = warmup_then_inverse_root(
        PROGRESS.step, rule.learning_rate, task.optimization.warmup_steps
    )
    return PlainStep(
        PlainFastPitch(model.config, model.state_dict()),
        task.loss,
        dataclasses.replace(rule, learning_rate=learning_rate),
        kl_weight=LOSS.kl_weight(PROGRESS.epoch),
        ema_decay=EMA_DECAY,
    )


def make_steps(model: FastPitch) -> dict[str, Callable[[Batch], Tensor]]:
    """Steps by name; all begin with the weights of the model, and none changes it."""

    def step_of(task: FastPitchTask) -> Callable[[Batch], Tensor]:
        return lambda batch: task.train_step([batch], PROGRESS)["loss"]

    tasks = [make_task(_copy_of(model), amp) for amp in (False, True)]
    return {
        "plain, float32": make_plain_step(model, tasks[0]),
        "train.py, float32": step_of(tasks[0]),
        "train.py, bf16": step_of(tasks[1]),
    }


def measure_steps(steps: dict[str, Callable[[Batch], Tensor]], batch: Batch, num_runs: int) -> None:
    """Prints the table of steps; the first is what the others are compared with."""
    peaks = {name: peak_bytes(functools.partial(step, batch)) for name, step in steps.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(num_runs):
        for name, step in steps.items():  # in turn, so that what disturbs disturbs all alike
            begin = time.perf_counter()
            step(batch)
            seconds[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    slowest = next(iter(medians.values()))
    frames = int(batch.mel_lens.sum())
    print("| step | ms | mel frames/s | ratio | memory at most, MiB |")
    print("|---|--:|--:|--:|--:|")
    for name, median in medians.items():
        cells = (name, f"{1000 * median:.0f}", f"{frames / median:.0f}", f"{slowest / median:.2f}")
        print(f"| {' | '.join(cells)} | {peaks[name] / MEBIBYTE:.0f} |")


def compare_aligners(aligner: SoftAlignment, batch: Batch) -> None:
    """Prints how much memory a forward and backward of the aligner takes, plain and ours."""
    plain = peak_bytes(functools.partial(align_plainly, aligner, batch))
    ours = peak_bytes(functools.partial(align_and_back, aligner, batch))
    print("\n| aligner, forward and backward | memory at most, MiB | ratio |")
    print("|---|--:|--:|")
    print(f"| plain | {plain / MEBIBYTE:.0f} | 1 |")
    print(f"| fastpitch/attention.py | {ours / MEBIBYTE:.0f} | {ours / plain:.2f} |")


def align_and_back(aligner: SoftAlignment, batch: Batch) -> None:
    """A forward and backward of the aligner."""
    embedded = _embedded(aligner, batch)
    mask = lengths_to_mask(batch.text_lens, batch.text.shape[1])
    _back(*aligner(batch.mel, embedded, mask, batch.prior))


def align_plainly(aligner: SoftAlignment, batch: Batch) -> None:
    """The same from all differences between frames and symbols."""
    embedded = _embedded(aligner, batch)
    mask = lengths_to_mask(batch.text_lens, batch.text.shape[1])
    queries, keys = aligner.query_proj(batch.mel), aligner.key_proj(embedded.transpose(1, 2))
    _back(*align(queries, keys, mask, batch.prior))


def _embedded(aligner: SoftAlignment, batch: Batch) -> Tensor:
    channels = aligner.key_proj[0].conv.in_channels
    random = torch.Generator().manual_seed(1)
    return torch.randn(*batch.text.shape, channels, generator=random).requires_grad_()


def _back(soft: Tensor, log_prob: Tensor) -> None:
    (soft.square().sum() + log_prob.sum()).backward()


def _copy_of(model: FastPitch) -> FastPitch:
    copy = FastPitch(model.config)
    copy.load_state_dict(model.state_dict())
    return copy


def describe(model: FastPitch, batch: Batch, benchmark: BenchmarkConfig) -> str:
    """What was measured, with what, on what."""
    num_clips, num_frames, num_symbols = batch.prior.shape
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    padding = 1 - float(batch.mel_lens.sum()) / (num_clips * num_frames)
    return (
        f"{cpu_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; Python "
        f"{platform.python_version()}, PyTorch {torch.__version__}, "
        f"{torch.backends.cpu.get_cpu_capability()}.\n"
        f"FastPitch of {millions:.1f} M parameters, {num_clips} clips of up to {num_frames} frames "
        f"and {num_symbols} symbols, {padding:.0%} of the frames padding. A step: forward, "
        "backward, clipping, LAMB, average of the weights. Memory is that of tensors made in a "
        f"step. Median of {benchmark.runs} steps after one.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
