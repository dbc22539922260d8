# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions with ordered weights give what PyTorch's own give."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from common.packed_convolution import RELU, SpeakingConv


def channels_last(*shape):
    return torch.randn(shape).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("slope", [None, RELU, 0.1])
@pytest.mark.parametrize("length", [1, 7, 2000])
@pytest.mark.parametrize(("kernel_size", "dilation"), [(1, 1), (3, 1), (7, 5)])
def test_a_convolution_of_any_length_gives_the_same_numbers(slope, length, kernel_size, dilation):
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv1d(6, 10, kernel_size, padding=padding, dilation=dilation)
    x = channels_last(2, 6, 1, length)
    expected = conv(x[:, :, 0])
    if slope is not None:
        expected = F.leaky_relu(expected, slope)
    ours = SpeakingConv(conv, torch.float32, slope)(x)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert_close(ours[:, :, 0], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("slope", [None, RELU, 0.1])
def test_half_precision_rounds_no_more_than_once_more(slope):
    conv, x = nn.Conv1d(6, 10, 3, padding=1), channels_last(1, 6, 1, 50).bfloat16()
    exact = F.conv1d(x[:, :, 0].float(), conv.weight.bfloat16().float(), conv.bias, padding=1)
    if slope is not None:
        exact = F.leaky_relu(exact, slope)
    ours = SpeakingConv(conv, torch.bfloat16, slope)(x)
    assert ours.dtype == torch.bfloat16
    assert_close(ours[:, :, 0].float(), exact, atol=2e-2, rtol=2e-2)


def test_where_onednn_does_not_compute_pytorch_does(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    conv, x = nn.Conv1d(6, 10, 3, padding=1), channels_last(1, 6, 1, 50)
    ours = SpeakingConv(conv, torch.float32, 0.1)
    assert ours._packed is None
    assert_close(ours(x)[:, :, 0], F.leaky_relu(conv(x[:, :, 0]), 0.1))


def test_channels_that_do_not_lie_side_by_side_are_taken_as_well():
    conv, x = nn.Conv1d(6, 10, 3, padding=1), torch.randn(2, 6, 1, 50)
    assert_close(SpeakingConv(conv, torch.float32)(x)[:, :, 0], conv(x[:, :, 0]))


def test_the_weights_that_are_given_stay_as_they_are():
    conv = nn.Conv1d(6, 10, 3, padding=1)
    weight = conv.weight.clone()
    SpeakingConv(conv, torch.bfloat16, RELU)
    assert torch.equal(conv.weight, weight) and conv.weight.requires_grad
