# SPDX-License-Identifier: BSD-3-Clause
"""HiFi-GAN's losses (Kong 2020, section 2.4), one function a term."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from common.compiled import runs_triton

FEATURE_LOSS_SCALE = 2.0
MEL_LOSS_SCALE = 45.0


def discriminator_loss(real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> Tensor:
    """How far discriminators are from saying 1 of recordings and 0 of the generated (eq. 1).

    Args:
        real_logits: of each discriminator (B, T_logits)
        fake_logits: the same for generated audio, which must be detached from its generator

    Returns:
        () mean squares, summed over discriminators
    """
    pairs = zip(real_logits, fake_logits, strict=True)
    return sum(_mean_square(real - 1) + _mean_square(fake) for real, fake in pairs)


def adversarial_loss(fake_logits: Sequence[Tensor]) -> Tensor:
    """How far discriminators are from taking generated audio for recordings (eq. 2).

    Args:
        fake_logits: of each discriminator (B, T_logits)

    Returns:
        () mean squares, summed over discriminators
    """
    return sum(_mean_square(fake - 1) for fake in fake_logits)


def feature_loss(
    real_features: Sequence[Sequence[Tensor]], fake_features: Sequence[Sequence[Tensor]]
) -> Tensor:
    """How differently discriminators see recordings and what was generated from them (eq. 4).

    Args:
        real_features: of each discriminator, of each layer (B, C, ...); need no gradient
        fake_features: the same for generated audio

    Returns:
        () mean absolute differences, summed over layers, times their weight in the total (2)
    """
    pairs = [
        (real, fake)
        for reals, fakes in zip(real_features, fake_features, strict=True)
        for real, fake in zip(reals, fakes, strict=True)
    ]
    return FEATURE_LOSS_SCALE * sum(_mean_distance(fake, real) for real, fake in pairs)


def mel_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """How far generated audio is from the recording, as mels (eq. 3).

    Args:
        predicted: (B, n_mels, T_mel) of the generated audio, natural log of amplitude
        target: the same of the recording

    Returns:
        () mean absolute difference; its weight in the total is `MEL_LOSS_SCALE`
    """
    return F.l1_loss(predicted.float(), target.float())


def _mean_distance(fake: Tensor, real: Tensor) -> Tensor:
    if runs_triton(fake):
        from hifigan import kernels

        return kernels.mean_distance(fake, real)
    return F.l1_loss(fake.float(), real.float())


def _mean_square(errors: Tensor) -> Tensor:
    return errors.float().square().mean()
