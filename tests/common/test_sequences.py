# SPDX-License-Identifier: BSD-3-Clause
"""Masks and padding of sequences of different lengths."""

from __future__ import annotations

import torch

from common.sequences import lengths_to_mask, masked_sum, pad_sequences


def test_a_mask_is_true_where_data_is():
    mask = lengths_to_mask(torch.tensor([2, 0, 3]), 3)
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[True, True, False], [False, False, False], [True, True, True]]


def test_padding_goes_behind_the_shorter_sequences():
    padded = pad_sequences([torch.tensor([1, 2]), torch.tensor([3]), torch.tensor([4, 5, 6])], 9)
    assert padded.dtype == torch.int64
    assert padded.tolist() == [[1, 2, 9], [3, 9, 9], [4, 5, 6]]


def test_padding_makes_every_dimension_as_large_as_the_largest():
    wide, tall = torch.rand(2, 5), torch.rand(4, 3)
    padded = pad_sequences([wide, tall])
    assert padded.shape == (2, 4, 5)
    assert torch.equal(padded[0, :2, :5], wide)
    assert torch.equal(padded[1, :4, :3], tall)
    assert torch.isclose(padded.sum(), wide.sum() + tall.sum())


def test_a_masked_sum_leaves_padding_out_even_where_it_is_not_a_number():
    values = torch.tensor([[1.0, 2.0, torch.nan], [3.0, torch.inf, torch.nan]], requires_grad=True)
    total = masked_sum(values, lengths_to_mask(torch.tensor([2, 1]), 3))
    assert total == 6
    total.backward()
    assert values.grad.tolist() == [[1, 1, 0], [1, 0, 0]]
