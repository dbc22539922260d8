# SPDX-License-Identifier: BSD-3-Clause
"""Changes of predicted pitch, composable; `custom` is the place for one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# (pitch (B, T_text) standardised, text_lens (B), mean_hz, std_hz) -> pitch (B, T_text) standardised
PitchTransform = Callable[[Tensor, Tensor, float, float], Tensor]


def flatten(pitch: Tensor, text_lens: Tensor, mean_hz: float, std_hz: float) -> Tensor:
    """A monotone voice: every symbol at the mean."""
    return torch.zeros_like(pitch)


def invert(pitch: Tensor, text_lens: Tensor, mean_hz: float, std_hz: float) -> Tensor:
    """Rises become falls, around the mean."""
    return -pitch


def amplify(factor: float) -> PitchTransform:
    """A livelier (factor above 1) or calmer voice, around the mean."""

    def transform(pitch: Tensor, text_lens: Tensor, mean_hz: float, std_hz: float) -> Tensor:
        return pitch * factor

    return transform


def shift(hz: float) -> PitchTransform:
    """Everything higher or lower by so many Hz."""

    def transform(pitch: Tensor, text_lens: Tensor, mean_hz: float, std_hz: float) -> Tensor:
        return pitch + hz / std_hz

    return transform


def transpose(semitones: float) -> PitchTransform:
    """Everything higher or lower by so many semitones, as a singer would."""
    factor = 2 ** (semitones / 12)

    def transform(pitch: Tensor, text_lens: Tensor, mean_hz: float, std_hz: float) -> Tensor:
        return pitch * factor + (factor - 1) * mean_hz / std_hz

    return transform


def custom(pitch: Tensor, text_lens: Tensor, mean_hz: float, std_hz: float) -> Tensor:
    """For `--pitch-transform-custom`: edit this. Here pitch glides from 0.5x to 1.5x its value.

    Args:
        pitch: (B, T_text) standardised Hz
        text_lens: (B)
        mean_hz: mean of voiced pitch
        std_hz: its standard deviation

    Returns:
        (B, T_text) standardised Hz
    """
    positions = torch.arange(pitch.shape[1], device=pitch.device)
    progress = (positions / (text_lens[:, None] - 1).clamp(min=1)).clamp(max=1)
    pitch_hz = pitch * std_hz + mean_hz
    return (pitch_hz * (0.5 + progress) - mean_hz) / std_hz


def compose(transforms: Sequence[PitchTransform]) -> PitchTransform:
    """One transform that applies the given ones in their order; none of them changes nothing."""

    def transform(pitch: Tensor, text_lens: Tensor, mean_hz: float, std_hz: float) -> Tensor:
        for step in transforms:
            pitch = step(pitch, text_lens, mean_hz, std_hz)
        return pitch

    return transform
