# SPDX-License-Identifier: BSD-3-Clause
"""HiFi-GAN's generator: upsampling in stages, each smoothed by residual blocks (Kong 2020)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.weight_norm import weight_norm
from hifigan.arg_parser import HiFiGANConfig

SLOPE = 0.1
OUTPUT_SLOPE = 0.01

FLAT_KEY = re.compile(r"(.*\bresblocks)\.(\d+)\.(convs.+)")


class ResBlock1(nn.Module):
    """Residual pairs of convolutions, the first of each pair dilated."""

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_conv(channels, kernel_size, each) for each in dilations)
        self.convs2 = nn.ModuleList(_conv(channels, kernel_size, 1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T)"""
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            hidden = F.leaky_relu(dilated(F.leaky_relu(x, SLOPE)), SLOPE, inplace=True)
            x = x + plain(hidden)
        return x


class ResBlock2(nn.Module):
    """Residual dilated convolutions."""

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_conv(channels, kernel_size, each) for each in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T)"""
        for dilated in self.convs:
            x = x + dilated(F.leaky_relu(x, SLOPE))
        return x


RESBLOCKS: Mapping[str, type[ResBlock1 | ResBlock2]] = {"1": ResBlock1, "2": ResBlock2}


class HiFiGAN(nn.Module):
    """The generator (Kong 2020, section 2.2).

    Weights start as PyTorch draws them, as in the public recipe: of a normal with a deviation of
    0.01, small generators learn markedly slower.

    Args:
        config: sizes; its fields are the keys of a checkpoint's `config`
        n_mel_channels: bands of the mel
    """

    def __init__(self, config: HiFiGANConfig, n_mel_channels: int = 80) -> None:
        super().__init__()
        self.config = config
        self.n_mel_channels = n_mel_channels
        channels = [
            config.upsample_initial_channel // 2**n for n in range(len(config.upsample_rates) + 1)
        ]
        self.conv_pre = weight_norm(nn.Conv1d(n_mel_channels, channels[0], 7, padding=3))
        self.ups = nn.ModuleList(
            _upsampling(channels[n], channels[n + 1], kernel_size, rate)
            for n, (kernel_size, rate) in enumerate(
                zip(config.upsample_kernel_sizes, config.upsample_rates, strict=True)
            )
        )
        self.resblocks = nn.ModuleList(_residual_blocks(config, size) for size in channels[1:])
        self.conv_post = weight_norm(nn.Conv1d(channels[-1], 1, 7, padding=3))

    @property
    def hop_length(self) -> int:
        """Samples for each frame of the mel."""
        return self.config.hop_length

    def forward(self, mel: Tensor) -> Tensor:
        """(B, n_mels, T_mel) -> (B, T_audio) in [-1, 1]; T_audio = T_mel * hop_length"""
        x = self.conv_pre(mel)
        for upsample, blocks in zip(self.ups, self.resblocks, strict=True):
            x = upsample(F.leaky_relu(x, SLOPE, inplace=True))
            first, *others = blocks
            total = first(x)
            for block in others:
                total = total + block(x)
            x = total / len(blocks)
        x = self.conv_post(F.leaky_relu(x, OUTPUT_SLOPE, inplace=True))
        return x.tanh().squeeze(1)

    @torch.no_grad()
    def infer(self, mel: Tensor) -> Tensor:
        """Speaks a batch of mels.

        Args:
            mel: (B, n_mels, T_mel) natural log of amplitude

        Returns:
            (B, T_audio) in [-1, 1]; T_audio = T_mel * hop_length

        Raises:
            ValueError: the mel has another number of bands than the generator was made for
        """
        check_bands(mel, self.n_mel_channels)
        return self(mel)


def check_bands(mel: Tensor, n_mel_channels: int) -> None:
    """Refuses mels, (B, n_mels, T_mel), of other bands than a generator was made for."""
    if mel.dim() != 3 or mel.shape[1] != n_mel_channels:
        raise ValueError(
            f"this HiFi-GAN takes mels of {n_mel_channels} bands, "
            f"(B, {n_mel_channels}, T_mel), got {tuple(mel.shape)}: take a vocoder that "
            "was trained with the audio settings of the mels"
        )


def nested_keys(state: Mapping[str, Tensor], num_kernels: int) -> dict[str, Tensor]:
    """Renames the residual blocks of the original HiFi-GAN, which counts them in one row.

    Args:
        state: weights of a generator; those that already name stage and kernel stay as they are
        num_kernels: residual blocks of a stage

    Returns:
        The same weights in the same order, as `HiFiGAN.load_state_dict` takes them
    """
    return {_nested_key(key, num_kernels): weight for key, weight in state.items()}


def _nested_key(key: str, num_kernels: int) -> str:
    flat = FLAT_KEY.fullmatch(key)
    if flat is None:
        return key
    stage, kernel = divmod(int(flat[2]), num_kernels)
    return f"{flat[1]}.{stage}.{kernel}.{flat[3]}"


def _residual_blocks(config: HiFiGANConfig, channels: int) -> nn.ModuleList:
    """The blocks of a stage, one for each kernel, whose outputs are averaged."""
    return nn.ModuleList(
        RESBLOCKS[config.resblock](channels, kernel_size, dilations)
        for kernel_size, dilations in zip(
            config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True
        )
    )


def _upsampling(in_channels: int, out_channels: int, kernel_size: int, rate: int) -> nn.Module:
    padding = (kernel_size - rate) // 2
    return weight_norm(
        nn.ConvTranspose1d(in_channels, out_channels, kernel_size, rate, padding=padding)
    )


def _conv(channels: int, kernel_size: int, dilation: int) -> nn.Module:
    padding = dilation * (kernel_size // 2)
    return weight_norm(
        nn.Conv1d(channels, channels, kernel_size, dilation=dilation, padding=padding)
    )
