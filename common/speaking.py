# SPDX-License-Identifier: BSD-3-Clause
"""Speaks many phrases in batches, and measures how long that takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from common.metrics import SpeechTimes, Stopwatch
from common.synthesizer import Controls, SymbolSequence, Synthesizer


@dataclass(frozen=True, kw_only=True)
class Passes:
    """How often to speak everything, and how much at a time."""

    batch_size: int
    warmup_steps: int = 0  # passes that are not measured, before the others
    repeats: int = 1
    seed: int


def speak_all(
    synthesizer: Synthesizer,
    inputs: Sequence[SymbolSequence | Tensor],
    controls: Controls,
    passes: Passes,
    write: Callable[[int, Tensor, Tensor], None],
) -> SpeechTimes:
    """Speaks texts and mels, batches of similar length at a time.

    Args:
        synthesizer: that speaks
        inputs: texts; in the place of one, a mel (n_mels, T_mel)
        controls: how to speak the texts
        passes: how often; random numbers repeat with the same seed and batch size
        write: is given, once for each input, its index, mel (n_mels, T_mel) and audio (T_audio,)

    Returns:
        The times of the texts; where there are none, of the mels
    """
    batches = batches_of(inputs, passes.batch_size)
    for batch in batches * passes.warmup_steps:  # all, since each size has a first time
        warming = [inputs[index] for index in batch]
        synthesizer.vocode(synthesizer.generate(warming, controls))
    torch.manual_seed(passes.seed)
    times = {kind: SpeechTimes() for kind in (SymbolSequence, Tensor)}
    all_passes = [(n, batch) for n in range(passes.repeats) for batch in batches]
    for pass_number, batch in tqdm(all_passes, "speaking", unit="batch", disable=None):
        spoken = [inputs[index] for index in batch]
        mels, waves = _speak_batch(synthesizer, spoken, controls, times[type(spoken[0])])
        if pass_number == 0:
            for index, mel, wave in zip(batch, mels, waves, strict=True):
                write(index, mel, wave)
    return times[type(inputs[batches[0][0]])]


def batches_of(inputs: Sequence[SymbolSequence | Tensor], batch_size: int) -> list[list[int]]:
    """Indices of texts, then of mels, the longest of each first."""
    texts = {n: len(each.ids) for n, each in enumerate(inputs) if isinstance(each, SymbolSequence)}
    mels = {n: each.shape[1] for n, each in enumerate(inputs) if n not in texts}
    batches = []
    for lens in (texts, mels):
        by_length = sorted(lens, key=lambda n: -lens[n])
        starts = range(0, len(lens), batch_size)
        batches += [by_length[start : start + batch_size] for start in starts]
    return batches


def fade_end(wave: Tensor, num_samples: int) -> Tensor:
    """(T_audio,) audio whose last samples fall to 0."""
    num_samples = min(num_samples, len(wave))
    gain = torch.ones_like(wave)
    gain[len(wave) - num_samples :] = torch.linspace(1, 0, num_samples)
    return wave * gain


def _speak_batch(
    synthesizer: Synthesizer,
    inputs: Sequence[SymbolSequence | Tensor],
    controls: Controls,
    times: SpeechTimes,
) -> tuple[list[Tensor], list[Tensor]]:
    """Mels and audio of a batch of one kind, with the time they took."""
    device = synthesizer.precision.device
    watch = Stopwatch(device)
    mels = synthesizer.generate(inputs, controls)
    generator_seconds = watch.seconds
    watch = Stopwatch(device)
    waves = synthesizer.vocode(mels)
    times.add(
        generator_seconds,
        watch.seconds,
        num_symbols=sum(len(each.ids) for each in inputs if isinstance(each, SymbolSequence)),
        num_frames=sum(mel.shape[1] for mel in mels),
        num_samples=sum(len(wave) for wave in waves),
    )
    return mels, waves
