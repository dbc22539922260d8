# SPDX-License-Identifier: BSD-3-Clause
"""WaveGlow's loss: the negative log-likelihood of the audio, a term for each kind of layer."""

from __future__ import annotations

import torch
from torch import Tensor

from waveglow.model import WaveGlowOutput


def waveglow_loss(output: WaveGlowOutput, sigma: float) -> dict[str, Tensor]:
    """How improbable the audio is, per sample and up to a constant (Prenger 2019, section 2).

    Args:
        output: of `WaveGlow.forward`
        sigma: standard deviation that the latent is held to

    Returns:
        The three terms below and their sum `loss`, each ()
    """
    terms = {
        "latent_loss": latent_loss(output, sigma),
        "coupling_loss": coupling_loss(output),
        "mixing_loss": mixing_loss(output),
    }
    return {"loss": sum(terms.values())} | terms


def latent_loss(output: WaveGlowOutput, sigma: float) -> Tensor:
    """() distance of the latent from zero, in deviations: z.z / (2 sigma^2), per sample"""
    return output.z.square().mean() / (2 * sigma**2)


def coupling_loss(output: WaveGlowOutput) -> Tensor:
    """() minus the log-determinants of the affine couplings, their log_s, per sample"""
    return -torch.stack([log_s.sum() for log_s in output.log_s]).sum() / output.z.numel()


def mixing_loss(output: WaveGlowOutput) -> Tensor:
    """() minus the log-determinants of the invertible 1x1 convolutions, per sample"""
    return -torch.stack(output.log_det_W).sum() / output.z.numel()
