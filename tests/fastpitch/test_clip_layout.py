# SPDX-License-Identifier: BSD-3-Clause
"""Clips one after the other give what padded clips give, and cost less."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from common.sequences import lengths_to_mask
from fastpitch.clip_layout import PackedClips, PaddedClips, lay_out
from fastpitch.transformer import FeedForwardTransformer, TransformerSize

LENS = [9, 14, 1, 13, 12]


def stack(kernel_size, n_heads):
    size = TransformerSize(
        n_layers=2,
        n_heads=n_heads,
        d_model=8,
        d_head=6,
        filter_size=10,
        kernel_size=kernel_size,
        dropout=0.0,
        dropatt=0.0,
        dropemb=0.0,
    )
    return FeedForwardTransformer(size)


def transform(layers, x, clips):
    x = clips.pack(x)
    for layer in layers:
        x = layer(x, clips)
    return clips.unpack(x)


@pytest.mark.parametrize("isolate_padding", [False, True])
@pytest.mark.parametrize(("kernel_size", "n_heads"), [(1, 1), (3, 2), (7, 1)])
@pytest.mark.parametrize("lens", [LENS, [14], [3, 2]], ids=str)
def test_packed_clips_give_what_padded_clips_give(lens, kernel_size, n_heads, isolate_padding):
    model = stack(kernel_size, n_heads)
    mask = lengths_to_mask(torch.tensor(lens), 14)
    x, grad = torch.randn(len(lens), 14, 8), torch.randn(len(lens), 14, 8)
    results = []
    for clips in (
        PaddedClips(mask, isolate_padding),
        PackedClips(lens, 14, kernel_size // 2, isolate_padding),
    ):
        own = (x * mask[:, :, None]).requires_grad_()
        y = transform(model.layers, own, clips)
        y.backward(grad)
        grads = [parameter.grad for parameter in model.parameters()]
        model.zero_grad()
        results.append([y.detach(), own.grad * mask[:, :, None], *grads])
    assert_close(results[0], results[1], atol=2e-5, rtol=1e-4)


def test_only_where_it_is_isolated_the_end_of_a_clip_does_not_hear_the_padding():
    x, model = torch.randn(2, 14, 8), stack(3, 1)
    heard, isolated = (
        transform(model.layers, x, PackedClips([9, 14], 14, 1, isolate_padding))
        for isolate_padding in (False, True)
    )
    assert not torch.allclose(heard[0], isolated[0], atol=1e-5)
    assert torch.equal(heard[1], isolated[1])
    assert (heard[0, 9:] == 0).all()


def test_a_cpu_computes_nothing_for_padding():
    clips = lay_out(lengths_to_mask(torch.tensor(LENS), 14), 1, isolate_padding=False)
    packed = clips.pack(torch.randn(5, 14, 8))
    assert packed.shape == (1, sum(LENS) + 2 * len(LENS), 8)
    assert int(clips.mask.sum()) == sum(LENS)


def test_clips_of_one_length_stay_a_batch():
    mask = lengths_to_mask(torch.tensor([14, 14, 13]), 14)
    clips = lay_out(mask, 1, isolate_padding=False)
    assert isinstance(clips, PaddedClips) and clips.mask is mask
