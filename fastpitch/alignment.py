# SPDX-License-Identifier: BSD-3-Clause
"""Hard alignment: monotonic search, durations, and moving values between symbols and frames."""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from common.compiled import compile_once, runs_triton
from common.precision import full_precision


def monotonic_alignment_search(log_prob: Tensor, text_lens: Tensor, mel_lens: Tensor) -> Tensor:
    """The most probable monotonic path through each alignment (Kim 2020, Glow-TTS, section 3.2).

    A path begins at the first symbol, ends at the last and gives every symbol a frame: a frame
    either keeps the symbol of the frame before or moves on by one (and moves where both are equal).

    Args:
        log_prob: (B, T_mel, T_text)
        text_lens: (B)
        mel_lens: (B)

    Returns:
        (B, T_mel, T_text) one-hot over T_text in real frames, zero in padding; dtype of `log_prob`

    Raises:
        ValueError: an utterance has fewer frames than symbols, or no symbols. A CUDA device cannot
            say so without being waited for: there all frames go to the last symbol. The check of
            the data refuses such clips before a training begins.
    """
    scores = log_prob.detach().float()
    if runs_triton(scores):
        from fastpitch import kernels

        return kernels.search(scores, text_lens, mel_lens).to(log_prob)
    scores = scores.cpu().numpy()
    num_symbols, num_frames = text_lens.cpu().numpy(), mel_lens.cpu().numpy()
    impossible = np.flatnonzero((num_frames < num_symbols) | (num_symbols < 1))
    if impossible.size:
        item = impossible[0]
        raise ValueError(
            f"cannot align {num_symbols[item]} symbols with {num_frames[item]} frames: "
            "every symbol needs a frame, and there must be a symbol"
        )
    paths = np.zeros(scores.shape, dtype=np.float32)
    _search_batch(scores, num_symbols, num_frames, paths)
    return torch.from_numpy(paths).to(log_prob)


@compile_once
def _search_batch(scores, num_symbols, num_frames, paths):
    for item in range(scores.shape[0]):
        _search(scores[item], num_symbols[item], num_frames[item], paths[item])


@numba.njit(nogil=True)
def _search(scores, num_symbols, num_frames, path):
    best = np.full(num_symbols, -np.inf, dtype=np.float32)  # score of the best path to a symbol
    moved = np.zeros((num_frames, num_symbols), dtype=np.bool_)
    best[0] = scores[0, 0]
    for frame in range(1, num_frames):
        # Backwards, so that best[symbol - 1] is still the frame before.
        for symbol in range(min(frame, num_symbols - 1), 0, -1):
            moved[frame, symbol] = best[symbol - 1] >= best[symbol]
            best[symbol] = max(best[symbol - 1], best[symbol]) + scores[frame, symbol]
        best[0] += scores[frame, 0]
    symbol = num_symbols - 1
    for frame in range(num_frames - 1, -1, -1):
        path[frame, symbol] = 1
        if moved[frame, symbol]:
            symbol -= 1


def durations_to_alignment(durations: Tensor) -> Tensor:
    """The hard alignment in which each symbol lasts the given number of frames.

    Args:
        durations: (B, T_text) frames, whole numbers

    Returns:
        (B, T_mel, T_text) float32; T_mel is the longest sum of durations
    """
    ends = durations.long().cumsum(dim=1)[:, None, :]
    starts = ends - durations.long()[:, None, :]
    num_frames = int(ends.max())  # the one place where synthesis waits for a GPU
    frames = torch.arange(num_frames, device=durations.device)[None, :, None]
    return ((starts <= frames) & (frames < ends)).float()


def expand(encoded: Tensor, hard: Tensor) -> Tensor:
    """Repeats each symbol's vector over its frames.

    Args:
        encoded: (B, T_text, C)
        hard: (B, T_mel, T_text)

    Returns:
        (B, T_mel, C) zero in padding
    """
    return hard.to(encoded.dtype) @ encoded  # one-hot rows: exact in any precision


def average_over_symbols(values: Tensor, hard: Tensor) -> Tensor:
    """Mean of each symbol's frames, over non-zero values only: unvoiced frames do not count.

    Args:
        values: (B, T_mel)
        hard: (B, T_mel, T_text)

    Returns:
        (B, T_text) 0 for a symbol that has no frame with a value
    """
    with full_precision(values):
        totals = (values[:, None, :] @ hard).squeeze(1)
        counts = ((values != 0).to(hard)[:, None, :] @ hard).squeeze(1)
    return totals / counts.clamp(min=1)
