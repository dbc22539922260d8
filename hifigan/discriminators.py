# SPDX-License-Identifier: BSD-3-Clause
"""HiFi-GAN's discriminators, which tell recordings from generated audio (Kong 2020, 2.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from common.weight_norm import spectral_norm, weight_norm
from hifigan.arg_parser import DiscriminatorConfig

SLOPE = 0.1
NUM_SCALES = 3


class Layer(NamedTuple):
    """A convolution of the paper's discriminators."""

    channels: int
    kernel_size: int
    stride: int
    groups: int = 1


# MelGAN's, in one dimension (Kong 2020, appendix A)
SCALE_LAYERS = (
    Layer(128, 15, 1),
    Layer(128, 41, 2, groups=4),
    Layer(256, 41, 2, groups=16),
    Layer(512, 41, 4, groups=16),
    Layer(1024, 41, 4, groups=16),
    Layer(1024, 41, 1, groups=16),
    Layer(1024, 5, 1),
)
# Along the time of a period; each column of a period's samples is seen alone.
PERIOD_LAYERS = (
    Layer(32, 5, 3),
    Layer(128, 5, 3),
    Layer(512, 5, 3),
    Layer(1024, 5, 3),
    Layer(1024, 5, 1),
)
OUTPUT_KERNEL_SIZE = 3


class Judgement(NamedTuple):
    """What several discriminators of one kind think of audio."""

    logits: list[Tensor]  # of each (B, T_logits) towards 1 where it sounds recorded, else 0
    features: list[list[Tensor]]  # of each, of each layer (B, C, ...)


class Judgements(NamedTuple):
    """What all discriminators think of audio."""

    mpd: Judgement
    msd: Judgement


class PeriodDiscriminator(nn.Module):
    """Sees audio as rows of one period each, and compares only equal places of the rows.

    Args:
        period: samples
        divisor: of the paper's channels
    """

    def __init__(self, period: int, divisor: int = 1) -> None:
        super().__init__()
        self.period = period
        self.convs = nn.ModuleList(
            weight_norm(_period_conv(in_channels, layer))
            for in_channels, layer in _with_inputs(PERIOD_LAYERS, divisor)
        )
        output = Layer(1, OUTPUT_KERNEL_SIZE, 1)
        self.conv_post = weight_norm(_period_conv(PERIOD_LAYERS[-1].channels // divisor, output))

    def forward(self, audio: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, T_audio) -> logits (B, T_logits), features of each layer (B, C, T, period)"""
        missing = -audio.shape[1] % self.period
        if missing:
            # A reflection is shorter than what it reflects.
            mode = "reflect" if missing < audio.shape[1] else "constant"
            audio = F.pad(audio, (0, missing), mode=mode)
        return _judge(self, audio.unflatten(1, (-1, self.period))[:, None])


class ScaleDiscriminator(nn.Module):
    """Sees audio as it is.

    Args:
        normalize: weight norm or spectral norm
        divisor: of the paper's channels
    """

    def __init__(self, normalize: Callable[[nn.Conv1d], nn.Module], divisor: int = 1) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            normalize(_scale_conv(in_channels, layer))
            for in_channels, layer in _with_inputs(SCALE_LAYERS, divisor)
        )
        output = Layer(1, OUTPUT_KERNEL_SIZE, 1)
        self.conv_post = normalize(_scale_conv(SCALE_LAYERS[-1].channels // divisor, output))

    def forward(self, audio: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, T_audio) -> logits (B, T_logits), features of each layer (B, C, T)"""
        return _judge(self, audio[:, None])


class MultiPeriodDiscriminator(nn.Module):
    """One discriminator for each period."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            PeriodDiscriminator(period, config.discriminator_divisor)
            for period in config.mpd_periods
        )

    def forward(self, audio: Tensor) -> Judgement:
        """Judges audio (B, T_audio)."""
        judged = [discriminator(audio) for discriminator in self.discriminators]
        return Judgement([logits for logits, _ in judged], [features for _, features in judged])


class MultiScaleDiscriminator(nn.Module):
    """One discriminator for the audio, others for its averages at half and a quarter of the rate.

    The first is spectrally normalized (Kong 2020, section 2.3).
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        norms = [spectral_norm] + [weight_norm] * (NUM_SCALES - 1)
        self.discriminators = nn.ModuleList(
            ScaleDiscriminator(norm, config.discriminator_divisor) for norm in norms
        )

    def forward(self, audio: Tensor) -> Judgement:
        """Judges audio (B, T_audio) of at least 4 samples."""
        judgement = Judgement([], [])
        for scale, discriminator in enumerate(self.discriminators):
            if scale:
                audio = F.avg_pool1d(audio, kernel_size=4, stride=2, padding=1)
            logits, features = discriminator(audio)
            judgement.logits.append(logits)
            judgement.features.append(features)
        return judgement


class Discriminators(nn.Module):
    """All that a generator is trained against."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.mpd = MultiPeriodDiscriminator(config)
        self.msd = MultiScaleDiscriminator(config)

    def forward(self, audio: Tensor) -> Judgements:
        """Judges audio (B, T_audio) in [-1, 1]."""
        return Judgements(mpd=self.mpd(audio), msd=self.msd(audio))


def _judge(
    discriminator: PeriodDiscriminator | ScaleDiscriminator, x: Tensor
) -> tuple[Tensor, list[Tensor]]:
    features = []
    for conv in discriminator.convs:
        x = F.leaky_relu(conv(x), SLOPE, inplace=True)
        features.append(x)
    x = discriminator.conv_post(x)
    return x.flatten(1), [*features, x]


def _with_inputs(layers: tuple[Layer, ...], divisor: int) -> Iterable[tuple[int, Layer]]:
    """Layers with their channels divided, each after the number of its input channels."""
    in_channels = 1
    for layer in layers:
        layer = layer._replace(channels=layer.channels // divisor)
        yield in_channels, layer
        in_channels = layer.channels


def _period_conv(in_channels: int, layer: Layer) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        layer.channels,
        (layer.kernel_size, 1),
        stride=(layer.stride, 1),
        padding=(layer.kernel_size // 2, 0),
    )


def _scale_conv(in_channels: int, layer: Layer) -> nn.Conv1d:
    return nn.Conv1d(
        in_channels,
        layer.channels,
        layer.kernel_size,
        stride=layer.stride,
        padding=layer.kernel_size // 2,
        groups=layer.groups,
    )
