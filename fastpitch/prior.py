# SPDX-License-Identifier: BSD-3-Clause
"""Beta-binomial prior over alignments: speech runs through its text at a steady pace."""

from __future__ import annotations

from collections import OrderedDict

import numba
import numpy as np
from scipy import special

from common.compiled import compile_once

FRAMES_STEP = 100
SYMBOLS_STEP = 20


def beta_binomial_prior(num_frames: int, num_symbols: int, scaling: float = 1.0) -> np.ndarray:
    """How likely each symbol is at each frame, before anything was heard.

    Frame t of T_mel draws its symbol from a beta-binomial distribution of T_text trials with
    alpha = scaling * t and beta = scaling * (T_mel + 1 - t) (https://arxiv.org/abs/2108.10447,
    section 2.2). Outcome T_text has no symbol and is left out, so rows sum to less than 1.

    Args:
        scaling: above 1 narrows the band around the diagonal.

    Returns:
        (T_mel, T_text) float32
    """
    frame = np.arange(1, num_frames + 1)[:, None]
    symbol = np.arange(num_symbols)[None, :]
    alpha, beta = scaling * frame, scaling * (num_frames + 1 - frame)
    # As scipy.stats.betabinom has it, which takes half a second to import.
    log_choices = -np.log(num_symbols + 1) - special.betaln(num_symbols - symbol + 1, symbol + 1)
    log_weights = special.betaln(symbol + alpha, num_symbols - symbol + beta)
    return np.exp(log_choices + log_weights - special.betaln(alpha, beta)).astype(np.float32)


class InterpolatedPrior:
    """The prior of any size, stretched from a few cached tables of round sizes.

    The tables are distributions over frames for each symbol, not over symbols for each frame:
    that is what the published models were trained with.

    Args:
        max_tables: tables kept; the least recently used one goes first.
    """

    def __init__(self, max_tables: int = 128) -> None:
        self.max_tables = max_tables
        self._tables: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def __call__(self, num_frames: int, num_symbols: int) -> np.ndarray:
        """The prior of an utterance, (T_mel, T_text) float32."""
        prior = np.empty((num_frames, num_symbols), dtype=np.float32)
        self.fill(prior, num_frames, num_symbols)
        return prior

    def fill(self, padded: np.ndarray, num_frames: int, num_symbols: int) -> None:
        """Puts the prior of an utterance into its place in a batch, and zeros behind it.

        Args:
            padded: (at least T_mel, at least T_text) float32, changed in place
        """
        if num_frames < 1 or num_symbols < 1:
            raise ValueError(
                f"an alignment needs at least one frame and one symbol, got {num_frames} frames "
                f"and {num_symbols} symbols"
            )
        _stretch(self.table(num_frames, num_symbols), num_frames, num_symbols, padded)

    def table(self, num_frames: int, num_symbols: int) -> np.ndarray:
        """What the prior of an utterance is stretched from, (frames, symbols) float32; of round
        sizes."""
        return self._table(*table_size(num_frames, num_symbols))

    def _table(self, num_frames: int, num_symbols: int) -> np.ndarray:
        size = (num_frames, num_symbols)
        if size not in self._tables:
            table = beta_binomial_prior(num_symbols, num_frames).T
            self._tables[size] = np.ascontiguousarray(table)
            if len(self._tables) > self.max_tables:
                self._tables.popitem(last=False)
        self._tables.move_to_end(size)
        return self._tables[size]


def table_size(num_frames: int, num_symbols: int) -> tuple[int, int]:
    """The size of the table that the prior of an utterance is stretched from."""
    return _rounded(num_frames, FRAMES_STEP), _rounded(num_symbols, SYMBOLS_STEP)


def _rounded(size: int, step: int) -> int:
    # One is added before rounding in the published preparation; the tables must be the same.
    return step * max(1, round((size + 1) / step))


@compile_once
def _stretch(table, num_frames, num_symbols, padded):
    # The arithmetic of scipy.ndimage.zoom of order 1 in its order, so that its results are equal
    # bit for bit.
    first, second, first_weight, second_weight = _neighbours(len(table), num_frames)
    left, right, left_weight, right_weight = _neighbours(table.shape[1], num_symbols)
    upper, lower = np.empty(table.shape[1]), np.empty(table.shape[1])
    for frame in range(num_frames):
        for symbol in range(table.shape[1]):
            upper[symbol] = table[first[frame], symbol] * first_weight[frame]
            lower[symbol] = table[second[frame], symbol] * second_weight[frame]
        for symbol in range(num_symbols):
            padded[frame, symbol] = (
                upper[left[symbol]] * left_weight[symbol]
                + upper[right[symbol]] * right_weight[symbol]
                + lower[left[symbol]] * left_weight[symbol]
                + lower[right[symbol]] * right_weight[symbol]
            )
        padded[frame, num_symbols:] = 0
    padded[num_frames:] = 0


@numba.njit(nogil=True)
def _neighbours(num_before, num_after):
    # Of each place in the stretched row: two places in the row as it was, and their weights. Where
    # rounding leads beyond the end, zoom finds nothing.
    left, right = np.empty(num_after, np.int64), np.empty(num_after, np.int64)
    left_weight, right_weight = np.zeros(num_after), np.zeros(num_after)
    step = (num_before - 1) / (num_after - 1) if num_after > 1 else 1.0
    for place in range(num_after):
        position = place * step
        left[place] = min(int(position), num_before - 1)
        right[place] = min(left[place] + 1, num_before - 1)
        if position <= num_before - 1:
            right_weight[place] = position - left[place]
            left_weight[place] = 1 - right_weight[place]
    return left, right, left_weight, right_weight
