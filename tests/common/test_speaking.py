# SPDX-License-Identifier: BSD-3-Clause
"""Many phrases are spoken in batches, each written once and all measured."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from common.precision import Precision
from common.speaking import Passes, batches_of, fade_end, speak_all
from common.synthesizer import Controls, SymbolSequence, Synthesizer
from fastpitch.model import Prosody, Synthesis


class Spell:
    """A generator of one band that spells symbols, a frame each."""

    def infer(self, text, **_) -> Synthesis:
        return Synthesis(
            mel=text[:, None].float(),
            mel_lens=(text != 0).sum(dim=1),
            prosody=Prosody(text, text, None),
            durations=torch.ones_like(text),
        )


class Noise:
    """A vocoder that adds noise; keeps how many frames it has heard."""

    def __init__(self) -> None:
        self.num_frames: list[int] = []

    def infer(self, mel: Tensor) -> Tensor:
        self.num_frames.append(mel.shape[0] * mel.shape[2])
        audio = mel[:, 0].repeat_interleave(2, dim=1)
        return audio + 0.1 * torch.randn(audio.shape)


@pytest.fixture
def synthesizer() -> Synthesizer:
    precision = Precision(amp=False, device=torch.device("cpu"))
    return Synthesizer(Spell(), Noise(), symbols="_abc", padding_idx=0, precision=precision)


def text(*ids: int) -> SymbolSequence:
    return SymbolSequence(ids=list(ids))


def spoken_with(synthesizer: Synthesizer, inputs, **settings):
    """Times, and what was written of each input."""
    written = {}

    def write(index: int, mel: Tensor, wave: Tensor) -> None:
        assert index not in written
        written[index] = (mel, wave)

    passes = Passes(**{"batch_size": 2, "seed": 1} | settings)
    return speak_all(synthesizer, inputs, Controls(), passes, write), written


INPUTS = [text(1), torch.full((1, 4), 7.0), text(1, 2, 3), text(3, 2), torch.full((1, 9), 8.0)]


def test_texts_come_before_mels_and_long_ones_before_short():
    assert batches_of(INPUTS, 2) == [[2, 3], [0], [4, 1]]
    assert batches_of(INPUTS, 64) == [[2, 3, 0], [4, 1]]
    assert batches_of([], 2) == []


def test_every_input_is_written_once_whatever_the_repeats(synthesizer):
    _, written = spoken_with(synthesizer, INPUTS, repeats=3, warmup_steps=2)
    assert sorted(written) == [0, 1, 2, 3, 4]
    assert [written[n][0].flatten().tolist() for n in (2, 1)] == [[1, 2, 3], [7, 7, 7, 7]]
    assert [len(written[n][1]) for n in range(5)] == [2, 8, 6, 4, 18]


def test_the_times_of_texts_are_not_mixed_with_those_of_mels(synthesizer):
    times, _ = spoken_with(synthesizer, INPUTS, repeats=2)
    assert (times.num_symbols, times.num_frames, times.num_samples) == (12, 12, 24)
    assert len(times.vocoder_seconds) == 4
    times, _ = spoken_with(synthesizer, [INPUTS[1], INPUTS[3]])
    assert (times.num_symbols, times.num_samples) == (2, 4)
    times, _ = spoken_with(synthesizer, [INPUTS[1], INPUTS[4]])
    assert (times.num_symbols, times.num_samples) == (0, 26)


def test_warming_up_is_not_measured(synthesizer):
    times, _ = spoken_with(synthesizer, [text(1, 2)], warmup_steps=3)
    assert synthesizer.vocoder.num_frames == [2, 2, 2, 2]
    assert times.num_samples == 4


def test_noise_repeats_with_the_seed_whatever_came_before(synthesizer):
    first = spoken_with(synthesizer, INPUTS)[1]
    again = spoken_with(synthesizer, INPUTS, warmup_steps=3)[1]
    other = spoken_with(synthesizer, INPUTS, seed=2)[1]
    for n in range(len(INPUTS)):
        assert torch.equal(first[n][1], again[n][1])
        assert not torch.equal(first[n][1], other[n][1])


@pytest.mark.parametrize("num_samples", [0, 3, 100])
def test_an_end_fades_to_zero(num_samples):
    wave = torch.ones(10)
    faded = fade_end(wave, num_samples)
    assert torch.equal(wave, torch.ones(10))
    kept = 10 - min(num_samples, 10)
    assert (faded[:kept] == 1).all()
    assert (faded.diff() <= 0).all()
    assert float(faded[-1]) == (0.0 if num_samples else 1.0)
