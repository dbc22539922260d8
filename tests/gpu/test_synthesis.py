# SPDX-License-Identifier: BSD-3-Clause
"""On a GPU: models that are laid out or compiled for speaking say what they say otherwise."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from common.compiling import compiler_for
from common.precision import Precision
from common.weights import prepare_weights
from hifigan.channels_last import ChannelsLastHiFiGAN
from models import compile_models
from tests.common.test_compiling import make_fastpitch, make_hifigan, texts

pytestmark = pytest.mark.gpu

HALF = {"atol": 2e-2, "rtol": 2e-2}
TF32 = {"atol": 1e-3, "rtol": 1e-3}


def some_mels(device: torch.device) -> list[torch.Tensor]:
    return [torch.randn(5, n, device=device) for n in (40, 3, 70, 1)]


def test_hifigan_speaks_in_half_precision_what_it_speaks_in_full(cuda):
    plain = make_hifigan().to(cuda)
    mels = some_mels(cuda)
    waves = ChannelsLastHiFiGAN(plain, torch.float16).infer_each(mels)
    for wave, mel in zip(waves, mels, strict=True):
        assert_close(wave, plain.infer(mel[None])[0], **HALF)


def test_compiled_hifigan_says_the_same_and_later_calls_leave_it_as_it_was(cuda):
    model = ChannelsLastHiFiGAN(make_hifigan().to(cuda))
    mels = some_mels(cuda)
    expected = [model.infer_each(mels[:count]) for count in (1, 2, 4)]
    compile_models(None, model, compiler_for(cuda))
    for _ in range(3):  # warmed up, captured, replayed
        found = [model.infer_each(mels[:count]) for count in (1, 2, 4)]
        assert_close(found, expected, **TF32)


def test_compiled_fastpitch_says_the_same(cuda):
    model = make_fastpitch().to(cuda)
    precision = Precision(True, cuda)
    prepare_weights(model, precision)
    batches = [texts(9).to(cuda), texts(9, 3).to(cuda), texts(40, 2, 5).to(cuda)]

    def speak():
        with precision.autocast():
            return [model.infer(text, isolate_padding=True) for text in batches]

    expected = speak()
    compile_models(model, None, compiler_for(cuda))
    for _ in range(3):
        for found, other in zip(speak(), expected, strict=True):
            assert_close(found.prosody.pitch, other.prosody.pitch, **HALF)
            assert (found.mel_lens - other.mel_lens).abs().max() <= 1
