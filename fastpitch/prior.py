# SPDX-License-Identifier: BSD-3-Clause
"""Beta-binomial prior over alignments: speech runs through its text at a steady pace."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from scipy import ndimage, stats

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
    return stats.betabinom.pmf(symbol, num_symbols, alpha, beta).astype(np.float32)


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
        if num_frames < 1 or num_symbols < 1:
            raise ValueError(
                f"an alignment needs at least one frame and one symbol, got {num_frames} frames "
                f"and {num_symbols} symbols"
            )
        table_size = (_rounded(num_frames, FRAMES_STEP), _rounded(num_symbols, SYMBOLS_STEP))
        factors = (num_frames / table_size[0], num_symbols / table_size[1])
        return ndimage.zoom(self._table(*table_size), factors, order=1)

    def _table(self, num_frames: int, num_symbols: int) -> np.ndarray:
        size = (num_frames, num_symbols)
        if size not in self._tables:
            self._tables[size] = beta_binomial_prior(num_symbols, num_frames).T
            if len(self._tables) > self.max_tables:
                self._tables.popitem(last=False)
        self._tables.move_to_end(size)
        return self._tables[size]


def _rounded(size: int, step: int) -> int:
    # One is added before rounding in the published preparation; the tables must be the same.
    return step * max(1, round((size + 1) / step))
