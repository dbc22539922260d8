# SPDX-License-Identifier: BSD-3-Clause
"""Measures the kernels in Triton next to what serves where there is no Triton.

python -m benchmarks.gpu.kernels FILE [DEVICE] [CLIPS] [DIVISOR] writes FILE for the GPU check.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from common.metrics import Stopwatch
from fastpitch import kernels as alignment_kernels
from fastpitch.alignment import monotonic_alignment_search
from fastpitch.loss_function import BLANK_LOG_PROB, ctc_losses
from hifigan import kernels as feature_kernels

FRAMES, SYMBOLS = 850, 150  # of a long clip of LJSpeech
FEATURES = (128, 8192)  # of the largest layer of HiFi-GAN's discriminators
RUNS = 10


@dataclass(frozen=True, kw_only=True)
class Case:
    """Work that a kernel does, and that can be done without."""

    name: str
    kernel: Callable[[], object]
    plain: Callable[[], object]


def cases(device: torch.device, num_clips: int, scale: int = 1) -> Iterator[Case]:
    """The work of a micro-batch.

    Args:
        device: to work on
        num_clips: in the micro-batch
        scale: what frames, symbols and features are divided by
    """
    sizes = (num_clips, FRAMES // scale, SYMBOLS // scale)
    log_prob = torch.randn(sizes, device=device).log_softmax(dim=2)
    mel_lens, text_lens = (torch.full((num_clips,), size, device=device) for size in sizes[1:])
    yield Case(
        name="alignment search",
        kernel=lambda: alignment_kernels.search(log_prob, text_lens, mel_lens),
        plain=lambda: monotonic_alignment_search(
            log_prob.cpu(), text_lens.cpu(), mel_lens.cpu()
        ).to(device),
    )
    lens = (text_lens, mel_lens)
    yield Case(
        name="alignment loss and gradient",
        kernel=_with_gradient(
            lambda x: alignment_kernels.forward_sum_loss(x, *lens, BLANK_LOG_PROB).sum(), log_prob
        ),
        plain=_with_gradient(lambda x: ctc_losses(x, *lens).sum(), log_prob),
    )
    channels, length = (size // scale for size in FEATURES)
    real, fake = torch.randn(2, num_clips, channels, length, device=device).bfloat16()
    yield Case(
        name="feature loss and gradient, bf16",
        kernel=_with_gradient(lambda x: feature_kernels.mean_distance(x, real), fake),
        plain=_with_gradient(lambda x: F.l1_loss(x.float(), real.float()), fake),
    )


def _with_gradient(loss: Callable[[Tensor], Tensor], values: Tensor) -> Callable[[], None]:
    values = values.detach().requires_grad_()

    def work() -> None:
        torch.autograd.grad(loss(values), values)

    return work


def milliseconds(work: Callable[[], object], device: torch.device) -> float:
    """Median of several runs, after one that may compile."""
    work()
    taken = []
    for _ in range(RUNS):
        stopwatch = Stopwatch(device)
        work()
        taken.append(1000 * stopwatch.seconds)
    return statistics.median(taken)


def main(path: str, device: str = "cuda", num_clips: str = "32", scale: str = "1") -> None:
    """Measures, and writes how long each kernel takes and how many times longer the rest does."""
    numbers = {}
    for case in cases(torch.device(device), int(num_clips), int(scale)):
        kernel, plain = (
            milliseconds(work, torch.device(device)) for work in (case.kernel, case.plain)
        )
        numbers[f"ms {case.name}"] = kernel
        numbers[f"times as fast ({case.name})"] = plain / kernel
    Path(path).write_text(json.dumps(numbers), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
