# SPDX-License-Identifier: BSD-3-Clause
"""Prepared weights give what the others give, with mixed precision and without."""

from __future__ import annotations

import copy

import torch

from common.layers import FrameConv
from common.precision import Precision
from common.weight_norm import fold_norms
from common.weights import prepare_weights
from fastpitch.arg_parser import FastPitchConfig
from fastpitch.model import FastPitch
from tests.conftest import golden
from waveglow.arg_parser import WaveGlowConfig
from waveglow.model import WaveGlow

BF16 = Precision(True, torch.device("cpu"), "bf16")


def test_fastpitch_says_what_it_says_under_autocast():
    fixture = golden("fastpitch_tiny")
    model = FastPitch(FastPitchConfig(**fixture["config"])).eval()
    model.load_state_dict(fixture["state_dict"])
    rounded = copy.deepcopy(model)
    prepare_weights(rounded, BF16)
    text = torch.randint(1, model.config.n_symbols, (2, 7))
    with BF16.autocast():
        expected, result = model.infer(text), rounded.infer(text)
    assert torch.equal(result.mel, expected.mel)
    assert torch.equal(result.durations, expected.durations)
    assert model.proj.weight.dtype == torch.float32
    assert rounded.proj.weight.dtype == torch.bfloat16


def test_waveglow_says_what_it_says_under_autocast():
    model = WaveGlow(WaveGlowConfig(flows=2, wn_channels=8, wn_layers=2)).eval()
    for network in model.WN:
        torch.nn.init.normal_(network.end.weight, std=0.1)
    fold_norms(model)
    rounded = copy.deepcopy(model)
    prepare_weights(rounded.WN, BF16)
    mel = torch.randn(1, 80, 5)
    with BF16.autocast():
        torch.manual_seed(1)
        expected = model.infer(mel)
        torch.manual_seed(1)
        assert torch.equal(rounded.infer(mel), expected)


def test_without_mixed_precision_nothing_is_rounded():
    convolution, x = FrameConv(4, 6, 3), torch.randn(2, 5, 4)
    expected, weight = convolution(x), convolution.weight.clone()
    prepare_weights(convolution, Precision(False, torch.device("cpu")))
    assert torch.equal(convolution.weight, weight)
    assert convolution.weight.stride() == (12, 1, 4)
    torch.testing.assert_close(convolution(x), expected)
