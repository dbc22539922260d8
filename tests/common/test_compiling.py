# SPDX-License-Identifier: BSD-3-Clause
"""Compiled models say what they say otherwise, and are asked for few sizes."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.testing import assert_close

from common.compiling import padded_count, padded_size
from common.weight_norm import fold_norms
from fastpitch.arg_parser import FastPitchConfig
from fastpitch.model import FastPitch
from hifigan.arg_parser import HiFiGANConfig
from hifigan.channels_last import ChannelsLastHiFiGAN
from hifigan.model import HiFiGAN
from models import compile_models
from tests.conftest import golden
from tests.test_training_benchmark import TINY

CLOSE = {"atol": 1e-5, "rtol": 1e-4}


class Recorder:
    """Compiles nothing; keeps the shapes that functions are called with."""

    def __init__(self) -> None:
        self.shapes = set()

    def __call__(self, function):
        def recorded(x, *others, **settings):
            self.shapes.add(tuple(x.shape))
            return function(x, *others, **settings)

        return recorded


def make_fastpitch() -> FastPitch:
    fixture = golden("fastpitch_tiny")
    model = FastPitch(FastPitchConfig(**fixture["config"])).eval()
    model.load_state_dict(fixture["state_dict"])
    return model


def make_hifigan() -> HiFiGAN:
    config = HiFiGANConfig(
        upsample_rates=(4, 2),
        upsample_kernel_sizes=(8, 4),
        upsample_initial_channel=8,
        resblock_kernel_sizes=(3, 5),
        resblock_dilation_sizes=((1, 3), (2,)),
    )
    model = HiFiGAN(config, n_mel_channels=5).eval()
    fold_norms(model)
    return model


@pytest.fixture
def fastpitch() -> FastPitch:
    return make_fastpitch()


@pytest.fixture
def hifigan() -> ChannelsLastHiFiGAN:
    return ChannelsLastHiFiGAN(make_hifigan())


def texts(*lens: int) -> torch.Tensor:
    """(B, T_text) symbols, zero in padding"""
    rows = torch.zeros(len(lens), max(lens), dtype=torch.int64)
    for row, length in zip(rows, lens, strict=True):
        row[:length] = torch.randint(1, 100, (length,))
    return rows


def test_sizes_are_few_and_little_longer():
    sizes = [padded_size(length) for length in range(1, 2000)]
    assert all(length <= size for length, size in enumerate(sizes, start=1))
    assert all(size < max(n + 32, 1.25 * n + 1) for n, size in enumerate(sizes, start=1))
    assert len(set(sizes)) < 32
    assert [padded_count(count) for count in (1, 2, 3, 5, 8)] == [1, 2, 4, 8, 8]


@pytest.mark.parametrize("lens", [(9,), (9, 3, 5)])
def test_fastpitch_says_the_same_with_padded_sizes(fastpitch, lens):
    text = texts(*lens)
    expected = fastpitch.infer(text, isolate_padding=True)
    recorder = Recorder()
    compile_models(fastpitch, None, recorder)
    result = fastpitch.infer(text, isolate_padding=True)
    assert_close(result.mel_lens, expected.mel_lens)
    assert_close(result.prosody, expected.prosody, **CLOSE)
    for mel, other, mel_len in zip(result.mel, expected.mel, expected.mel_lens, strict=True):
        assert_close(mel[:, :mel_len], other[:, :mel_len], **CLOSE)
    assert all(shape[1] == padded_size(shape[1]) for shape in recorder.shapes)


def test_hifigan_says_the_same_with_padded_sizes(hifigan):
    groups = [[torch.randn(5, n) for n in lens] for lens in ((7,), (9,), (4, 2, 11), (3, 3, 3))]
    expected = [hifigan.infer_each(mels) for mels in groups]
    recorder = Recorder()
    compile_models(None, hifigan, recorder)
    assert_close([hifigan.infer_each(mels) for mels in groups], expected, **CLOSE)
    assert recorder.shapes == {(1, 5, 32)}


def test_compiled_models_say_the_same(hifigan):
    fastpitch = FastPitch(FastPitchConfig(**TINY)).eval()
    mels = [torch.randn(5, n) for n in (40, 3, 70)]
    batches = [texts(9, 3), texts(40, 2, 5)]
    expected_mels = [fastpitch.infer(text, isolate_padding=True).mel for text in batches]
    expected = hifigan.infer_each(mels)
    trace = functools.partial(torch.compile, backend="eager", dynamic=True, fullgraph=True)
    compile_models(fastpitch, hifigan, trace)
    for text, mel in zip(batches, expected_mels, strict=True):
        assert_close(fastpitch.infer(text, isolate_padding=True).mel, mel, **CLOSE)
    assert_close(hifigan.infer_each(mels), expected, **CLOSE)
