# SPDX-License-Identifier: BSD-3-Clause
"""WaveGlow: invertible steps between audio and noise, each told by the mel what to do."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.precision import full_precision
from common.weight_norm import weight_norm
from waveglow.arg_parser import WaveGlowConfig

DEFAULT_SIGMA = 0.9  # of the noise at inference; the full deviation, 1, sounds noisier


class WaveGlowOutput(NamedTuple):
    """What `forward` returns: the latent, and by how much each step stretched the audio."""

    z: Tensor  # (B, groups, T_audio / groups) early outputs first
    log_s: list[Tensor]  # each (B, C / 2, T_audio / groups), C the channels of that flow step
    log_det_W: list[Tensor]  # noqa: N815  each () log|det W|, summed over batch and time


class Inverse(NamedTuple):
    """The inverse of a matrix, and the values it was computed from."""

    of: Tensor  # (C, C, 1)
    matrix: Tensor  # (C, C)


class InvertibleConv(nn.Module):
    """A 1x1 convolution that mixes channels and can be undone (Prenger 2019, section 2.2).

    It begins as a random rotation. Matrix products carry it out: GPUs keep them in float32 where
    their convolutions round to fewer digits, and an inverse is only worth its precision.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 1, bias=False)
        with torch.no_grad():
            rotation = nn.init.orthogonal_(torch.empty(channels, channels))
            rotation[0] *= torch.linalg.det(rotation).sign()  # no reflection
            self.conv.weight.copy_(rotation[:, :, None])
        # Neither a buffer nor a parameter: it must not be saved, moved or rounded.
        self._inverse: Inverse | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, T) -> (B, C, T) mixed, () the log-determinant over all B * T places"""
        with full_precision(x):
            weight = self.conv.weight[:, :, 0].to(x.dtype)
            log_det = torch.linalg.slogdet(weight).logabsdet
            return weight @ x, x.shape[0] * x.shape[2] * log_det

    def undo(self, x: Tensor) -> Tensor:
        """(B, C, T) mixed -> (B, C, T)"""
        with full_precision(x):
            return self.inverse().to(x.dtype) @ x

    @torch.no_grad()
    def inverse(self) -> Tensor:
        """(C, C) the inverse of the weight, computed once and again whenever the weight changed.

        The values tell: training, loading and rounding change them without any other trace.
        """
        weight = self.conv.weight
        if self._inverse is None or not _are_same(self._inverse.of, weight):
            try:
                # On the CPU, since not every device has float64.
                matrix = torch.linalg.inv(weight[:, :, 0].cpu().double())
            except torch.linalg.LinAlgError as error:
                raise ValueError(
                    "a 1x1 convolution of this WaveGlow has no inverse: take another checkpoint"
                ) from error
            dtype = torch.promote_types(weight.dtype, torch.float32)
            self._inverse = Inverse(weight.clone(), matrix.to(weight.device, dtype))
        return self._inverse.matrix


class WaveNet(nn.Module):
    """Dilated, gated convolutions over one half of the channels, conditioned on the mel.

    Args:
        in_channels: of the half that it sees
        condition_channels: of the mel beside it
        config: its size
    """

    def __init__(self, in_channels: int, condition_channels: int, config: WaveGlowConfig) -> None:
        super().__init__()
        channels, kernel_size = config.wn_channels, config.wn_kernel_size
        self.in_layers = nn.ModuleList()
        self.res_skip_layers = nn.ModuleList()
        self.cond_layers = nn.ModuleList()
        self.start = weight_norm(nn.Conv1d(in_channels, channels, 1))
        self.end = nn.Conv1d(channels, 2 * in_channels, 1)
        # Every flow step begins as one that changes nothing, which is stable.
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)
        for layer in range(config.wn_layers):
            dilation = 2**layer
            padding = dilation * (kernel_size // 2)
            is_last = layer == config.wn_layers - 1
            dilated = nn.Conv1d(
                channels, 2 * channels, kernel_size, dilation=dilation, padding=padding
            )
            res_skip = nn.Conv1d(channels, channels if is_last else 2 * channels, 1)
            condition = nn.Conv1d(condition_channels, 2 * channels, 1)
            self.in_layers.append(weight_norm(dilated))
            self.res_skip_layers.append(weight_norm(res_skip))
            self.cond_layers.append(weight_norm(condition))

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """How to change the other half of the channels.

        Args:
            x: (B, C / 2, T)
            condition: (B, n_mels * groups, T)

        Returns:
            log_s and shift, each (B, C / 2, T)
        """
        x = self.start(x)
        output = torch.zeros_like(x)
        layers = zip(self.in_layers, self.cond_layers, self.res_skip_layers, strict=True)
        for in_layer, cond_layer, res_skip_layer in layers:
            signal, gate = (in_layer(x) + cond_layer(condition)).chunk(2, dim=1)
            gated = signal.tanh() * gate.sigmoid()
            *residual, skip = res_skip_layer(gated).split(x.shape[1], dim=1)
            output = output + skip
            if residual:  # of all layers but the last
                x = x + residual[0]
        shift, log_s = self.end(output).chunk(2, dim=1)
        return log_s, shift


class WaveGlow(nn.Module):
    """The vocoder (Prenger 2019).

    The audio that flows through it stays in float32 under autocast and with half-precision
    weights; only the mel and the coupling networks, where the work is, become less precise.

    Args:
        config: sizes
        hop_length: of the mel in samples
        win_length: of the mel in samples; audio up to this length is heard in each frame
    """

    def __init__(
        self, config: WaveGlowConfig, hop_length: int = 256, win_length: int = 1024
    ) -> None:
        super().__init__()
        if hop_length % config.groups:
            raise ValueError(
                f"--groups must divide --hop-length {hop_length}, or the audio of a frame has no "
                f"whole number of groups, got {config.groups}"
            )
        if win_length < hop_length:
            raise ValueError(
                f"--win-length must be at least --hop-length {hop_length}, or samples between "
                f"frames hear no mel, got {win_length}"
            )
        self.config = config
        self.n_mel_channels = config.n_mel_channels
        self.hop_length = hop_length
        self.sigma = DEFAULT_SIGMA
        self.upsample = nn.ConvTranspose1d(
            config.n_mel_channels, config.n_mel_channels, win_length, stride=hop_length
        )
        condition_channels = config.n_mel_channels * config.groups
        self.WN = nn.ModuleList(
            WaveNet(channels // 2, condition_channels, config) for channels in config.flow_channels
        )
        self.convinv = nn.ModuleList(InvertibleConv(channels) for channels in config.flow_channels)

    def forward(self, mel: Tensor, audio: Tensor) -> WaveGlowOutput:
        """Turns audio into what should be noise.

        Args:
            mel: (B, n_mels, T_mel) natural log of amplitude, at least as long as the audio
            audio: (B, T_audio) float32 in [-1, 1], T_audio a multiple of `config.groups`

        Raises:
            ValueError: the mel has another number of bands, or the lengths do not fit
        """
        self._check_bands(mel)
        if audio.shape[1] % self.config.groups:
            raise ValueError(
                f"expected a multiple of {self.config.groups} (--groups) samples of audio, got "
                f"{audio.shape[1]}: choose such a --segment-length"
            )
        x = _group(audio[:, None, :], self.config.groups)
        condition = self._condition(mel, x.shape[2])
        early_outputs, log_s_of_steps, log_dets = [], [], []
        for step, num_early in enumerate(self.config.early_channels):
            early, x = x.tensor_split([num_early], dim=1)
            x, log_det = self.convinv[step](x)
            kept, changed = x.chunk(2, dim=1)
            log_s, shift = self._coupling(step, kept, condition)
            x = torch.cat([kept, changed * log_s.exp() + shift], dim=1)
            early_outputs.append(early)
            log_s_of_steps.append(log_s)
            log_dets.append(log_det)
        return WaveGlowOutput(torch.cat([*early_outputs, x], dim=1), log_s_of_steps, log_dets)

    @torch.no_grad()
    def infer(
        self, mel: Tensor, sigma: float | None = None, latent: Tensor | None = None
    ) -> Tensor:
        """Speaks a mel.

        Args:
            mel: (B, n_mels, T_mel) natural log of amplitude
            sigma: standard deviation of the noise that becomes audio, in place of the attribute
                `sigma`; 0 gives the same audio each time
            latent: (B, groups, T) as `forward` returns it, in place of noise; `sigma` does not
                apply then. It may be shorter than the mel, as the audio will be.

        Returns:
            (B, T_audio) in [-1, 1], T_audio = T_mel * hop_length

        Raises:
            ValueError: the mel has another number of bands, sigma is negative, or the latent does
                not fit the mel
        """
        self._check_bands(mel)
        if latent is None:
            latent = self._noise(mel, self.sigma if sigma is None else sigma)
        if latent.shape[:2] != (mel.shape[0], self.config.groups):
            raise ValueError(
                f"expected a latent of shape ({mel.shape[0]}, {self.config.groups}, T), got "
                f"{tuple(latent.shape)}"
            )
        condition = self._condition(mel, latent.shape[2])
        early_channels = self.config.early_channels
        *early_outputs, x = latent.split([*early_channels, self.config.flow_channels[-1]], dim=1)
        for step in reversed(range(self.config.flows)):
            kept, changed = x.chunk(2, dim=1)
            log_s, shift = self._coupling(step, kept, condition)
            x = torch.cat([kept, (changed - shift) * (-log_s).exp()], dim=1)
            x = torch.cat([early_outputs[step], self.convinv[step].undo(x)], dim=1)
        return x.transpose(1, 2).flatten(1).clamp(-1, 1)

    def _coupling(self, step: int, kept: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """log_s and shift of a step, as precise as the audio that they are applied to"""
        log_s, shift = self.WN[step](kept.to(condition.dtype), condition)
        return log_s.to(kept.dtype), shift.to(kept.dtype)

    def _condition(self, mel: Tensor, num_groups: int) -> Tensor:
        """(B, n_mels, T_mel) -> (B, n_mels * groups, num_groups)"""
        num_samples = num_groups * self.config.groups
        upsampled = self.upsample(mel.to(self.upsample.weight.dtype))
        if upsampled.shape[2] < num_samples:
            raise ValueError(
                f"expected at most {upsampled.shape[2]} samples of audio with a mel of "
                f"{mel.shape[2]} frames, got {num_samples}: cut both from the same place"
            )
        return _group(upsampled[:, :, :num_samples], self.config.groups)

    def _check_bands(self, mel: Tensor) -> None:
        if mel.dim() != 3 or mel.shape[1] != self.n_mel_channels:
            raise ValueError(
                f"this WaveGlow takes mels of {self.n_mel_channels} bands, "
                f"(B, {self.n_mel_channels}, T_mel), got {tuple(mel.shape)}: take a vocoder that "
                "was trained with the audio settings of the mels"
            )

    def _noise(self, mel: Tensor, sigma: float) -> Tensor:
        if not sigma >= 0:
            raise ValueError(f"sigma must not be negative, got {sigma}")
        num_groups = mel.shape[2] * self.hop_length // self.config.groups
        dtype = torch.promote_types(mel.dtype, torch.float32)
        shape = (mel.shape[0], self.config.groups, num_groups)
        return sigma * torch.randn(shape, dtype=dtype, device=mel.device)


def _group(x: Tensor, groups: int) -> Tensor:
    """(B, C, T) -> (B, C * groups, T / groups), the samples of a group side by side"""
    return x.unflatten(2, (-1, groups)).transpose(2, 3).flatten(1, 2)


def _are_same(old: Tensor, new: Tensor) -> bool:
    is_comparable = old.device == new.device and old.dtype == new.dtype
    return is_comparable and torch.equal(old, new)
