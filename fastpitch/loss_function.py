# SPDX-License-Identifier: BSD-3-Clause
"""FastPitch's loss: one function a term, weighed and averaged over the whole optimizer step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from common.compiled import runs_triton
from common.precision import full_precision
from common.sequences import lengths_to_mask, masked_sum
from fastpitch.arg_parser import FastPitchLossConfig
from fastpitch.model import MAX_DURATION_FRAMES, FastPitchOutput

if TYPE_CHECKING:
    from fastpitch.data_function import Batch

ENERGY_LOSS_SCALE = 0.1
BLANK_LOG_PROB = -1.0
NEVER = -1e4  # a log-probability whose exponential is 0; -inf gives CTC NaN gradients on CPUs
SOFT_FLOOR = 1e-12


@dataclass(frozen=True)
class BatchCounts:
    """What the terms are averaged over: all micro-batches of a step, on all processes."""

    utterances: Tensor  # ()
    symbols: Tensor  # ()
    frames: Tensor  # ()

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> BatchCounts:
        """Counts of several batches together."""
        text_lens = torch.cat([batch.text_lens for batch in batches])
        mel_lens = torch.cat([batch.mel_lens for batch in batches])
        counts = (torch.ones_like(text_lens).sum(), text_lens.sum(), mel_lens.sum())
        return cls(*(count.float() for count in counts))


def mel_loss(output: FastPitchOutput, batch: Batch) -> Tensor:
    """() squared error of the mel, summed over frames, averaged over bands"""
    mask = lengths_to_mask(batch.mel_lens, batch.mel.shape[2])[:, None, :]
    errors = (output.mel.float() - batch.mel).square().mean(dim=1, keepdim=True)
    return masked_sum(errors, mask)


def symbol_loss(predicted: Tensor, target: Tensor, text_mask: Tensor) -> Tensor:
    """() squared error of durations (log), pitch or energy, summed over symbols"""
    return masked_sum((predicted.float() - target).square(), text_mask)


def duration_error(output: FastPitchOutput, text_mask: Tensor) -> Tensor:
    """() absolute error of durations in frames, summed over symbols; a measure, not a loss"""
    predicted = output.predicted.log_durations.float().expm1().clamp(0, MAX_DURATION_FRAMES)
    return masked_sum((predicted - output.target.log_durations.expm1()).abs(), text_mask)


def alignment_loss(log_prob: Tensor, text_lens: Tensor, mel_lens: Tensor) -> Tensor:
    """How improbable it is that the frames say the symbols in order (Badlani 2021, eq. 4).

    CTC in which symbol n of a text is class n, and a blank of fixed score stands beside them.

    Args:
        log_prob: (B, T_mel, T_text)
        text_lens: (B)
        mel_lens: (B)

    Returns:
        () each utterance's loss divided by its number of symbols, summed over utterances
    """
    if runs_triton(log_prob):
        from fastpitch import kernels

        losses = kernels.forward_sum_loss(log_prob, text_lens, mel_lens, BLANK_LOG_PROB)
    else:
        losses = ctc_losses(log_prob, text_lens, mel_lens)
    return (losses / text_lens).sum()


def ctc_losses(log_prob: Tensor, text_lens: Tensor, mel_lens: Tensor) -> Tensor:
    """(B) of `alignment_loss`, by PyTorch's CTC; arguments as there"""
    num_symbols = log_prob.shape[2]
    classes = F.pad(log_prob.float(), (1, 0), value=BLANK_LOG_PROB)
    real_classes = lengths_to_mask(text_lens + 1, num_symbols + 1)[:, None, :]
    log_classes = classes.masked_fill(~real_classes, NEVER).log_softmax(dim=2)
    targets = torch.arange(1, num_symbols + 1, device=text_lens.device)
    return F.ctc_loss(
        log_classes.transpose(0, 1),  # CTC wants (T_mel, B, classes)
        targets.expand(len(text_lens), -1),
        mel_lens,
        text_lens,
        reduction="none",
        zero_infinity=True,
    )


def binarization_loss(soft: Tensor, hard: Tensor) -> Tensor:
    """() distance of the soft from the hard alignment, summed over frames (Badlani 2021, eq. 9)"""
    return -(soft.clamp(min=SOFT_FLOOR).log() * hard).sum()


class FastPitchLoss:
    """Weighs the terms.

    Args:
        config: the weights
    """

    def __init__(self, config: FastPitchLossConfig) -> None:
        self.config = config

    def __call__(
        self,
        output: FastPitchOutput,
        batch: Batch,
        counts: BatchCounts | None = None,
        kl_weight: float | None = None,
    ) -> dict[str, Tensor]:
        """The terms of a batch, each () and already averaged.

        Args:
            output: of `FastPitch.forward`
            batch: its input
            counts: of the whole step this batch is a part of, so that the parts' losses add up to
                the loss of the whole; the batch's own if not given
            kl_weight: weight of the binarization loss; None leaves it out

        Returns:
            `loss` is what to minimise; the others are its unweighted terms under the names of the
            log, but for `kl_loss`, which is weighted; `dur_error` is in frames
        """
        counts = counts or BatchCounts.of([batch])
        text_mask = lengths_to_mask(batch.text_lens, batch.text.shape[1])
        predicted, target, alignment = output.predicted, output.target, output.alignment
        with full_precision(batch.mel):
            terms = {
                "mel_loss": mel_loss(output, batch) / counts.frames,
                "duration_predictor_loss": symbol_loss(
                    predicted.log_durations, target.log_durations, text_mask
                )
                / counts.symbols,
                "pitch_loss": symbol_loss(predicted.pitch, target.pitch, text_mask)
                / counts.symbols,
                "attn_loss": alignment_loss(alignment.log_prob, batch.text_lens, batch.mel_lens)
                / counts.utterances,
                "dur_error": duration_error(output, text_mask).detach() / counts.symbols,
            }
            if predicted.energy is not None:
                terms["energy_loss"] = (
                    symbol_loss(predicted.energy, target.energy, text_mask) / counts.symbols
                )
            if kl_weight is not None:
                kl_loss = binarization_loss(alignment.soft, alignment.hard) / counts.frames
                terms["kl_loss"] = kl_weight * kl_loss
        return {"loss": self._total(terms), **terms}

    def _total(self, terms: dict[str, Tensor]) -> Tensor:
        weights = {
            "mel_loss": 1.0,
            "duration_predictor_loss": self.config.dur_predictor_loss_scale,
            "pitch_loss": self.config.pitch_predictor_loss_scale,
            "attn_loss": self.config.attn_loss_scale,
            "energy_loss": ENERGY_LOSS_SCALE,
            "kl_loss": 1.0,
        }
        return sum(weights[name] * term for name, term in terms.items() if name in weights)
