# SPDX-License-Identifier: BSD-3-Clause
"""Batches of sequences of different lengths: masks, padding, means without the padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def lengths_to_mask(lens: Tensor, max_len: int) -> Tensor:
    """Where real data is.

    Args:
        lens: (B) lengths
        max_len: T, length of the padded sequences

    Returns:
        (B, T) bool, True = real data
    """
    return torch.arange(max_len, device=lens.device) < lens[:, None]


def pad_sequences(sequences: Sequence[Tensor], padding: float = 0) -> Tensor:
    """Stacks tensors that differ in size.

    Args:
        sequences: B tensors of the same number of dimensions
        padding: value behind the shorter ones

    Returns:
        (B, ...) each dimension as large as the largest
    """
    shape = [max(sizes) for sizes in zip(*(x.shape for x in sequences), strict=True)]
    padded = sequences[0].new_full((len(sequences), *shape), padding)
    for row, sequence in zip(padded, sequences, strict=True):
        row[tuple(slice(size) for size in sequence.shape)] = sequence
    return padded


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of the values where the mask is True; others do not count, NaN included."""
    return torch.where(mask, values, 0).sum()
