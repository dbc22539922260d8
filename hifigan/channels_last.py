# SPDX-License-Identifier: BSD-3-Clause
"""HiFi-GAN's generator laid out for speaking: channels side by side, several mels end to end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.compiling import Compile, padded_count, padded_size
from hifigan.model import OUTPUT_SLOPE, SLOPE, HiFiGAN, ResBlock1, ResBlock2, check_bands

# Frames that are spoken at once, at most, but for those that are only heard: more outgrow a CPU's
# cache, or a GPU's memory.
FRAMES_AT_ONCE = {"cpu": 1024, "cuda": 16384}


class Joints(NamedTuple):
    """Where mels that lie end to end are parted by silent frames."""

    ends: Tensor  # (J) the frame after the last of a mel
    starts: Tensor  # (J) the frame after the silence that follows

    def near(self, rate: int, reach: int) -> Tensor:
        """(2 * J * reach) the samples of silence that are heard across an edge, `rate` a frame"""
        distance = torch.arange(reach, device=self.ends.device)
        after = self.ends[:, None] * rate + distance
        before = self.starts[:, None] * rate - 1 - distance
        return torch.cat([after, before]).flatten()


class Piece(NamedTuple):
    """Frames of a long mel that are spoken at once."""

    begin: int
    end: int  # the frame after the last
    first: int  # that is heard
    last: int  # the frame after the last that is heard

    def own(self, audio: Tensor, hop_length: int) -> Tensor:
        """(T_audio) of all that it hears -> that of its own frames"""
        return audio[(self.begin - self.first) * hop_length : (self.end - self.first) * hop_length]


class ChannelsLastConv(nn.Module):
    """A convolution over the time of (B, C, 1, T) whose channels lie side by side in memory.

    That is how the hardware multiplies them; with time side by side every call has to rearrange
    what it reads and what it writes.
    """

    def __init__(self, conv: nn.Conv1d, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = _laid_out(conv.weight, dtype)
        self.bias = _frozen(conv.bias.to(dtype, copy=True))
        self.dilation = (1, conv.dilation[0])
        self.reach = conv.padding[0]  # samples that are heard on either side

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, 1, T) -> (B, C_out, 1, T)"""
        padding = (0, self.reach)
        return F.conv2d(x, self.weight, self.bias, padding=padding, dilation=self.dilation)


class ChannelsLastUpsampling(nn.Module):
    """A transposed convolution, written as a convolution that makes all samples of a frame.

    Its output channels are those of `rate` samples; side by side, they need not be moved.
    """

    def __init__(self, conv: nn.ConvTranspose1d, dtype: torch.dtype) -> None:
        super().__init__()
        self.rate, self.padding = conv.stride[0], conv.padding[0]
        kernel_size = conv.kernel_size[0]
        num_taps = -(-kernel_size // self.rate)
        self.reach = num_taps - 1  # frames that are heard on either side
        weight = F.pad(conv.weight, (0, num_taps * self.rate - kernel_size))
        # (C_in, C_out, taps * rate) -> (rate * C_out, C_in, taps), the latest frame first
        weight = weight.unflatten(2, (num_taps, self.rate)).permute(3, 1, 0, 2).flatten(0, 1)
        self.weight = _laid_out(weight.flip(2), dtype)
        self.bias = _frozen(conv.bias.repeat(self.rate).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, 1, T) -> (B, C_out, 1, T * rate)"""
        frames = F.conv2d(x, self.weight, self.bias, padding=(0, self.reach))
        samples = frames.permute(0, 2, 3, 1).unflatten(3, (self.rate, -1)).flatten(2, 3)
        samples = samples.narrow(2, self.padding, x.shape[3] * self.rate)
        return samples.permute(0, 3, 1, 2)


class ChannelsLastHiFiGAN(nn.Module):
    """Speaks as a `HiFiGAN` does, faster: its weights are rounded and laid out beforehand.

    Args:
        generator: with folded weights
        dtype: in which to compute
    """

    def __init__(self, generator: HiFiGAN, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = generator.config
        self.n_mel_channels = generator.n_mel_channels
        self.conv_pre = ChannelsLastConv(generator.conv_pre, dtype)
        self.ups = nn.ModuleList(ChannelsLastUpsampling(up, dtype) for up in generator.ups)
        self.resblocks = nn.ModuleList(
            nn.ModuleList(_Block(block, dtype) for block in blocks)
            for blocks in generator.resblocks
        )
        self.conv_post = ChannelsLastConv(generator.conv_post, dtype)
        self._compiled: Callable[[Tensor, Joints], Tensor] | None = None

    @property
    def hop_length(self) -> int:
        """Samples for each frame of the mel."""
        return self.config.hop_length

    @torch.no_grad()
    def infer(self, mel: Tensor) -> Tensor:
        """Speaks a batch of mels of the same length, as `HiFiGAN.infer`.

        Args:
            mel: (B, n_mels, T_mel) natural log of amplitude

        Returns:
            (B, T_audio) float32 in [-1, 1]; T_audio = T_mel * hop_length
        """
        check_bands(mel, self.n_mel_channels)
        return self(mel)

    @torch.no_grad()
    def infer_each(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """Speaks mels of any lengths, each as it sounds alone; long ones in pieces.

        Args:
            mels: each (n_mels, T_mel) natural log of amplitude

        Returns:
            Of each (T_audio,) float32 in [-1, 1]; T_audio = T_mel * hop_length
        """
        for mel in mels:
            check_bands(mel[None], self.n_mel_channels)
        pieces = [_pieces(mel, self._heard_frames()) for mel in mels]
        heard = [
            mel[:, piece.first : piece.last]
            for mel, of_mel in zip(mels, pieces, strict=True)
            for piece in of_mel
        ]
        waves = (wave for group in _groups(heard) for wave in self._speak_end_to_end(group))
        return [
            torch.cat([piece.own(next(waves), self.hop_length) for piece in of_mel])
            for of_mel in pieces
        ]

    def compile_sizes(self, compile_function: Compile) -> None:
        """Lets `infer_each` call a compiled function, with mels of few sizes."""
        self._compiled = compile_function(self.forward)

    def forward(self, mel: Tensor, joints: Joints | None = None) -> Tensor:
        """(B, n_mels, T_mel) -> (B, T_audio) in [-1, 1], without meaning between mels"""
        stages = self._stages()
        silence = _silence(joints, *next(stages))
        x = mel.to(self.conv_pre.weight.dtype)[:, :, None, :]
        x = silence(self.conv_pre(x.contiguous(memory_format=torch.channels_last)))
        for upsample, blocks in zip(self.ups, self.resblocks, strict=True):
            silence = _silence(joints, *next(stages))
            x = silence(upsample(F.leaky_relu(x, SLOPE, inplace=True)))
            total, *others = [block(x, silence) for block in blocks]
            for other in others:
                total += other
            x = total.div_(len(blocks))
        x = self.conv_post(F.leaky_relu(x, OUTPUT_SLOPE, inplace=True))
        return x.float().tanh().flatten(1)

    def _speak_end_to_end(self, mels: Sequence[Tensor]) -> list[Tensor]:
        if self._compiled is None and len(mels) == 1:
            return [self(mels[0][None])[0]]
        row = _EndToEnd([mel.shape[1] for mel in mels], self._gap_frames())
        if self._compiled is None:
            audio = self(row.join(mels)[None], row.joints(mels[0].device))[0]
        else:
            num_frames, num_joints = padded_size(row.num_frames + row.gap), padded_count(len(mels))
            joints = row.joints(mels[0].device, num_joints)
            # A copy, since the next call of a CUDA graph writes to the same place.
            audio = self._compiled(row.join(mels, num_frames)[None], joints)[0].clone()
        return row.split(audio, self.hop_length)

    def _gap_frames(self) -> int:
        """Frames of silence after which a mel is heard nowhere."""
        of_stages = (-(-reach // rate) for rate, reach in self._stages())
        return max(self.conv_pre.reach, *of_stages)

    def _heard_frames(self) -> int:
        """Frames on either side that change the sound of a frame, or a few more."""
        rate, frames = 1, float(self.conv_pre.reach)
        for upsample, blocks in zip(self.ups, self.resblocks, strict=True):
            frames += (upsample.reach + 1) / rate
            rate *= upsample.rate
            frames += max(block.total_reach for block in blocks) / rate
        return math.ceil(frames + self.conv_post.reach / rate)

    def _stages(self) -> Iterator[tuple[int, int]]:
        """Of each stage, samples a frame and how far what comes after the stage's input hears."""
        rate, blocks = 1, []
        for upsample, next_blocks in zip(self.ups, self.resblocks, strict=True):
            yield rate, max([upsample.reach, *(block.reach for block in blocks)])
            rate, blocks = rate * upsample.rate, next_blocks
        yield rate, max([self.conv_post.reach, *(block.reach for block in blocks)])


class _EndToEnd:
    """Mels of given lengths in one row, so many silent frames between."""

    def __init__(self, lens: Sequence[int], gap: int) -> None:
        self.gap = gap
        self.lens = lens
        self.starts = [sum(lens[:n]) + n * gap for n in range(len(lens))]
        self.num_frames = self.starts[-1] + lens[-1]

    def join(self, mels: Sequence[Tensor], num_frames: int | None = None) -> Tensor:
        """(n_mels, T) the row, as long as it is or as is asked for."""
        row = mels[0].new_zeros(mels[0].shape[0], num_frames or self.num_frames)
        for mel, start in zip(mels, self.starts, strict=True):
            row[:, start : start + mel.shape[1]] = mel
        return row

    def joints(self, device: torch.device, num_joints: int | None = None) -> Joints:
        """Those between mels; or so many, with the one after the last mel, and that repeatedly."""
        ends = [start + length for start, length in zip(self.starts, self.lens, strict=True)]
        if num_joints is None:
            ends = ends[:-1]
        else:
            ends += ends[-1:] * (num_joints - len(ends))
        after = torch.tensor(ends).to(device, non_blocking=True)
        return Joints(after, after + self.gap)

    def split(self, audio: Tensor, hop_length: int) -> list[Tensor]:
        """(T_audio,) of each mel, of (T_audio) of the row"""
        pairs = zip(self.starts, self.lens, strict=True)
        return [audio[start * hop_length : (start + n) * hop_length] for start, n in pairs]


class _Block(nn.Module):
    """A residual block of either kind: each step of one convolution or two."""

    def __init__(self, block: ResBlock1 | ResBlock2, dtype: torch.dtype) -> None:
        super().__init__()
        if isinstance(block, ResBlock1):
            steps = zip(block.convs1, block.convs2, strict=True)
        else:
            steps = ((conv,) for conv in block.convs)
        self.steps = nn.ModuleList(
            nn.ModuleList(ChannelsLastConv(conv, dtype) for conv in convs) for convs in steps
        )
        reaches = [conv.reach for convs in self.steps for conv in convs]
        self.reach, self.total_reach = max(reaches), sum(reaches)  # of one layer, of all together

    def forward(self, x: Tensor, silence: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, C, 1, T) -> (B, C, 1, T) another tensor"""
        for first, *others in self.steps:
            hidden = silence(first(F.leaky_relu(x, SLOPE)))
            for conv in others:
                hidden = silence(conv(F.leaky_relu(hidden, SLOPE, inplace=True)))
            x = hidden.add_(x)
        return x


def _silence(joints: Joints | None, rate: int, reach: int) -> Callable[[Tensor], Tensor]:
    """Puts zeros where mels are parted into what a layer makes, in place."""
    if joints is None:
        return lambda x: x
    samples = joints.near(rate, reach)
    return lambda x: x.index_fill_(3, samples, 0)


def _groups(mels: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Mels that are spoken end to end, in their order."""
    group: list[Tensor] = []
    for mel in mels:
        num_frames = sum(each.shape[1] for each in (*group, mel))
        if group and num_frames > _frames_at_once(mel):
            yield group
            group = []
        group.append(mel)
    if group:
        yield group


def _pieces(mel: Tensor, num_heard: int) -> list[Piece]:
    """Pieces of like length, no longer than is spoken at once, that hear so far on either side."""
    num_frames = mel.shape[1]
    count = max(1, math.ceil(num_frames / _frames_at_once(mel)))
    size = math.ceil(num_frames / count)
    spans = [(n * size, min((n + 1) * size, num_frames)) for n in range(count)]
    return [
        Piece(begin, end, max(0, begin - num_heard), min(num_frames, end + num_heard))
        for begin, end in spans
        if begin < end or count == 1
    ]


def _frames_at_once(mel: Tensor) -> int:
    return FRAMES_AT_ONCE.get(mel.device.type, FRAMES_AT_ONCE["cpu"])


def _laid_out(weight: Tensor, dtype: torch.dtype) -> nn.Parameter:
    """(C_out, C_in, taps) -> (C_out, C_in, 1, taps), the channels of a tap side by side"""
    weight = weight.detach()[:, :, None, :].to(dtype, copy=True)
    return _frozen(weight.contiguous(memory_format=torch.channels_last))


def _frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach(), requires_grad=False)
