# SPDX-License-Identifier: BSD-3-Clause
"""Alignment search and alignment loss in Triton, for CUDA: nothing is copied to the host, which
does not wait. One program an utterance goes through the frames and holds all symbols at once.

To be imported only where triton is installed, see `common.compiled.runs_triton`.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

SYMBOLS_PER_WARP = 64
MAX_WARPS = 8
NUM_STAGES = tl.constexpr(4)  # rows that are on their way from memory while one is worked on


def search(scores: Tensor, text_lens: Tensor, mel_lens: Tensor) -> Tensor:
    """What `monotonic_alignment_search` does, with the same comparisons and sums in float32.

    The device cannot refuse an utterance with fewer frames than symbols: all its frames go to the
    last symbol.

    Args:
        scores: (B, T_mel, T_text) float32
        text_lens: (B)
        mel_lens: (B)

    Returns:
        (B, T_mel, T_text) float32 one-hot over T_text in real frames, zero in padding
    """
    scores = scores.contiguous()
    moves = torch.empty_like(scores, dtype=torch.int8)
    paths = torch.zeros_like(scores)
    with torch.cuda.device_of(scores):
        _search[(len(scores),)](
            scores, text_lens, mel_lens, moves, paths, *scores.shape[1:], **_sizes(scores.shape[2])
        )
    return paths


def forward_sum_loss(
    log_prob: Tensor, text_lens: Tensor, mel_lens: Tensor, blank_log_prob: float
) -> Tensor:
    """-log of the sum over all paths that say the symbols in order, blanks between them or not.

    It is CTC's loss (Graves 2006) in float32, where symbol n of a text is class n, the classes of a
    frame are normalised here, and `zero_infinity` holds: 0, and no gradient, where there is no
    path.

    Args:
        log_prob: (B, T_mel, T_text) scores of the symbols, not normalised
        text_lens: (B)
        mel_lens: (B)
        blank_log_prob: score of the blank

    Returns:
        (B)
    """
    return _ForwardSum.apply(log_prob.float(), text_lens, mel_lens, blank_log_prob)


class _ForwardSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, log_prob: Tensor, text_lens: Tensor, mel_lens: Tensor, blank: float
    ) -> Tensor:
        log_prob = log_prob.contiguous()
        (batch_size, *sizes), block = log_prob.shape, _sizes(log_prob.shape[2] + 1)
        totals = log_prob.new_empty(log_prob.shape[:2])
        alphas = torch.empty_like(log_prob)
        losses = log_prob.new_empty(batch_size)
        with torch.cuda.device_of(log_prob):
            _normalize[(batch_size, sizes[0])](log_prob, text_lens, totals, *sizes, blank, **block)
            _sum_forward[(batch_size,)](
                log_prob, totals, text_lens, mel_lens, alphas, losses, *sizes, blank, **block
            )
        ctx.save_for_backward(log_prob, totals, text_lens, mel_lens, alphas, losses)
        ctx.blank = blank
        return torch.where(losses == torch.inf, 0.0, losses)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        log_prob = ctx.saved_tensors[0]
        gradients = torch.zeros_like(log_prob)
        sizes = log_prob.shape[1:]
        with torch.cuda.device_of(log_prob):
            _sum_backward[(len(log_prob),)](
                *ctx.saved_tensors,
                *(gradient.contiguous(), gradients, *sizes, ctx.blank),
                **_sizes(sizes[1] + 1),
            )
        return gradients, None, None, None


def _sizes(num_states: int) -> dict[str, int]:
    block = triton.next_power_of_2(num_states)
    return {"block": block, "num_warps": min(max(block // SYMBOLS_PER_WARP, 1), MAX_WARPS)}


# Sizes differ from batch to batch; a kernel made for each would be compiled again and again.
_compile = triton.jit(do_not_specialize=["num_rows", "num_columns"])


@_compile
def _search(
    scores, text_lens, mel_lens, moves, paths, num_rows, num_columns, block: tl.constexpr
):  # fmt: skip
    item = tl.program_id(0).to(tl.int64)
    num_symbols = tl.load(text_lens + item).to(tl.int32)
    num_frames = tl.load(mel_lens + item).to(tl.int32)
    begin = item * num_rows * num_columns
    symbols = tl.arange(0, block)
    real = symbols < num_symbols
    best = tl.load(scores + begin + symbols, mask=real & (symbols == 0), other=float("-inf"))
    for frame in tl.range(1, num_frames, num_stages=NUM_STAGES):
        here = begin + frame * num_columns + symbols
        score = tl.load(scores + here, mask=real, other=float("-inf"))
        come = _from_symbol_before(best, symbols)
        moved = (come >= best) & (symbols > 0) & (symbols <= frame)
        best = tl.where(symbols <= frame, tl.where(moved, come, best) + score, best)
        tl.store(moves + here, moved.to(tl.int8), mask=real)
    tl.debug_barrier()  # what one thread has stored others load
    symbol = num_symbols - 1
    for step in range(num_frames):
        here = begin + (num_frames - 1 - step) * num_columns + symbol
        tl.store(paths + here, 1.0, mask=symbol >= 0)
        symbol -= tl.load(moves + here, mask=(symbol > 0), other=0).to(tl.int32)


@_compile
def _normalize(
    log_prob, text_lens, totals, num_rows, num_columns, blank, block: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * num_rows + tl.program_id(1)
    symbols = tl.arange(0, block)
    real = symbols < tl.load(text_lens + tl.program_id(0))
    scores = tl.load(log_prob + row * num_columns + symbols, mask=real, other=float("-inf"))
    peak = tl.maximum(tl.max(scores, 0), blank)
    total = tl.sum(tl.exp(scores - peak), 0) + tl.exp(blank - peak)
    tl.store(totals + row, peak + tl.log(total))


@_compile
def _sum_forward(
    log_prob, totals, text_lens, mel_lens, alphas, losses, num_rows, num_columns, blank,
    block: tl.constexpr,
):  # fmt: skip
    # `said`: all paths to each symbol; `silent`: to the blank before it. Graves 2006, eq. 6 to 8.
    item = tl.program_id(0).to(tl.int64)
    num_symbols = tl.load(text_lens + item).to(tl.int32)
    num_frames = tl.load(mel_lens + item).to(tl.int32)
    begin = item * num_rows * num_columns
    symbols = tl.arange(0, block)
    real = symbols < num_symbols
    total = tl.load(totals + item * num_rows)
    first = real & (symbols == 0)
    said = tl.load(log_prob + begin + symbols, mask=first, other=float("-inf")) - total
    silent = tl.where(symbols == 0, blank - total, float("-inf"))
    tl.store(alphas + begin + symbols, said, mask=real)
    for frame in tl.range(1, num_frames, num_stages=NUM_STAGES):
        here = begin + frame * num_columns + symbols
        total = tl.load(totals + item * num_rows + frame)
        score = tl.load(log_prob + here, mask=real, other=float("-inf")) - total
        silent = _log_add(silent, _from_symbol_before(said, symbols))
        said = _log_add(said, silent) + score
        silent += blank - total
        tl.store(alphas + here, said, mask=real)
    last_said = tl.sum(tl.where(symbols == num_symbols - 1, said, 0.0), 0)
    last_silent = tl.sum(tl.where(symbols == num_symbols, silent, 0.0), 0)
    tl.store(losses + item, -_log_add(last_said, last_silent))


@_compile
def _sum_backward(
    log_prob, totals, text_lens, mel_lens, alphas, losses, loss_gradients, gradients,
    num_rows, num_columns, blank, block: tl.constexpr,
):  # fmt: skip
    # `said` and `silent`: all paths on from there, without the frame itself. Graves 2006, eq. 9 ff.
    item = tl.program_id(0).to(tl.int64)
    num_symbols = tl.load(text_lens + item).to(tl.int32)
    num_frames = tl.load(mel_lens + item).to(tl.int32)
    begin = item * num_rows * num_columns
    loss = tl.load(losses + item)
    loss_gradient = tl.load(loss_gradients + item)
    symbols = tl.arange(0, block)
    real = symbols < num_symbols
    after = tl.minimum(symbols + 1, block - 1)
    said = tl.where(symbols == num_symbols - 1, 0.0, float("-inf"))
    silent = tl.where(symbols == num_symbols, 0.0, float("-inf"))
    for step in tl.range(num_frames, num_stages=NUM_STAGES):
        frame = num_frames - 1 - step
        here = begin + frame * num_columns + symbols
        total = tl.load(totals + item * num_rows + frame)
        score = tl.load(log_prob + here, mask=real, other=float("-inf")) - total
        alpha = tl.load(alphas + here, mask=real, other=float("-inf"))
        gradient = (tl.exp(score) - tl.exp(alpha + said + loss)) * loss_gradient
        gradient = tl.where(loss == float("inf"), 0.0, gradient)
        tl.store(gradients + here, gradient, mask=real)
        said += score
        silent = _log_add(silent + blank - total, said)
        said = _log_add(said, tl.gather(silent, after, 0))


@triton.jit
def _from_symbol_before(values, symbols):
    before = tl.gather(values, tl.maximum(symbols - 1, 0), 0)
    return tl.where(symbols == 0, float("-inf"), before)


@triton.jit
def _log_add(first, second):
    peak = tl.maximum(first, second)
    total = peak + tl.log(1.0 + tl.exp(-tl.abs(first - second)))
    return tl.where(peak == float("-inf"), peak, total)
