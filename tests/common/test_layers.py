# SPDX-License-Identifier: BSD-3-Clause
"""Layers that are made to be fast against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from common.layers import Dropout, FrameConv


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 9])
@pytest.mark.parametrize("shape", [(1, 20, 6), (3, 7, 6), (1, 1, 6), (1, 3, 6)], ids=str)
def test_a_convolution_of_frames_is_that_of_pytorch(shape, kernel_size):
    plain = nn.Conv1d(6, 4, kernel_size, padding=kernel_size // 2)
    ours = FrameConv(6, 4, kernel_size)
    ours.load_state_dict(plain.state_dict())
    x, grad = torch.randn(shape), torch.randn(*shape[:2], 4)
    results = []
    for layer, time_last in ((plain, True), (ours, False)):
        own = x.clone().requires_grad_()
        y = layer(own.transpose(1, 2)).transpose(1, 2) if time_last else layer(own)
        y.backward(grad)
        results.append([y.detach(), own.grad, layer.weight.grad, layer.bias.grad])
    assert_close(results[0], results[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frozen", ["weight", "bias", "input"])
def test_a_convolution_gives_gradients_only_to_what_learns(frozen):
    layer, x = FrameConv(6, 4, 3), torch.randn(1, 20, 6, requires_grad=frozen != "input")
    if frozen != "input":
        layer.get_parameter(frozen).requires_grad_(False)
    layer(x).sum().backward()
    grads = {"input": x.grad, "weight": layer.weight.grad, "bias": layer.bias.grad}
    assert {name for name, grad in grads.items() if grad is None} == {frozen}


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    x = torch.ones(1000, 333, requires_grad=True)
    y = Dropout(p)(x)
    y.sum().backward()
    assert float((y == 0).float().mean()) == pytest.approx(p, abs=0.004)
    assert float(y.detach().mean()) == pytest.approx(1.0, abs=0.004)
    (kept,) = y.detach()[y != 0].unique()
    assert float(kept) == pytest.approx(1 / (1 - p), rel=1e-4)
    assert torch.equal(x.grad, y)


def test_dropout_of_nearly_all_is_finite():
    assert Dropout(0.9999999)(torch.ones(1000)).isfinite().all()


def test_dropout_is_drawn_anew_each_time_and_repeats_with_the_seed():
    x, drop = torch.ones(999), Dropout(0.5)
    first, second = drop(x), drop(x)
    assert 0.4 < float((first != second).float().mean()) < 0.6
    torch.manual_seed(1234)
    assert torch.equal(drop(x), first)


def test_neighbours_are_dropped_independently():
    dropped = (Dropout(0.5)(torch.ones(400_000)) == 0).float() - 0.5
    for distance in (1, 2, 3, 4, 8):
        together = float((dropped[:-distance] * dropped[distance:]).mean())
        assert abs(together) < 0.002, distance


@pytest.mark.parametrize("drop", [Dropout(0.0), Dropout(0.5).eval()], ids=["none", "evaluation"])
def test_what_nothing_is_dropped_from_is_the_same(drop):
    x = torch.randn(5)
    assert torch.equal(drop(x), x)


def test_dropout_keeps_half_precision():
    y = Dropout(0.5)(torch.ones(64, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    assert set(y.tolist()) == {0.0, 2.0}
