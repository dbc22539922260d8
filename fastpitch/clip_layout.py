# SPDX-License-Identifier: BSD-3-Clause
"""How the clips of a batch lie in memory: padded to one length, or one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def lay_out(mask: Tensor, reach: int, isolate_padding: bool) -> PaddedClips | PackedClips:
    """The way to compute that suits the device.

    A CPU knows the lengths and computes nothing for padding; a GPU would have to wait for them.

    Args:
        mask: (B, T) True = real data
        reach: frames to both sides that a convolution sees
        isolate_padding: mask between two convolutions, too, see `FastPitch.infer`
    """
    if mask.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return PaddedClips(mask, isolate_padding)
    lens = mask.sum(dim=1).tolist()
    packed = PackedClips(lens, mask.shape[1], reach, isolate_padding)
    return packed if packed.mask.numel() < mask.numel() else PaddedClips(mask, isolate_padding)


class PaddedClips:
    """Clips as a batch has them.

    Args:
        mask: (B, T) True = real data
        isolate_padding: as in `lay_out`
    """

    def __init__(self, mask: Tensor, isolate_padding: bool) -> None:
        self.mask = mask
        self.isolate_padding = isolate_padding

    def pack(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)"""
        return x

    def unpack(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)"""
        return x

    def silence(self, hidden: Tensor) -> Tensor:
        """(B, T, C) what a convolution may see, of what a ReLU has made of the one before."""
        return hidden * self.mask[:, :, None] if self.isolate_padding else hidden

    def attend(self, query_key_value: Tensor, num_heads: int, dropout: float) -> Tensor:
        """Self-attention.

        Args:
            query_key_value: (B, T, 3 * heads * d_head)
            dropout: of attention weights

        Returns:
            (B, T, heads * d_head)
        """
        query, key, value = _by_head(query_key_value, num_heads)
        mask = self.mask[:, None, None, :]
        heads = F.scaled_dot_product_attention(query, key, value, mask, dropout_p=dropout)
        return heads.transpose(1, 2).flatten(2)


class PackedClips:
    """Clips in one row, with so many zeros between that no convolution sees two of them.

    The results are those of `PaddedClips`, whose convolutions see a little of the padding: the
    zeros that the first one made a value of, unless the clip is the longest.

    Args:
        lens: of the clips
        padded_len: T
        reach: as in `lay_out`
        isolate_padding: as in `lay_out`
    """

    def __init__(
        self, lens: Sequence[int], padded_len: int, reach: int, isolate_padding: bool
    ) -> None:
        self.lens = lens
        self.padded_len = padded_len
        self.gap = 2 * reach
        self.sizes = list(itertools.chain.from_iterable((length, self.gap) for length in lens))
        is_real = torch.tensor([True, False]).repeat(len(lens))
        self.mask = is_real.repeat_interleave(torch.tensor(self.sizes))[None]
        seen = [0 if isolate_padding else min(reach, padded_len - length) for length in lens]
        is_seen = torch.cat(
            [
                torch.arange(length + self.gap) < length + more
                for length, more in zip(lens, seen, strict=True)
            ]
        )
        self.silent = (~is_seen).nonzero().squeeze(1)

    def pack(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (1, N, C)"""
        clips = zip(x.unbind(), self.lens, strict=True)
        return self._join([clip[:length] for clip, length in clips])

    def unpack(self, x: Tensor) -> Tensor:
        """(1, N, C) -> (B, T, C)"""
        return torch.stack(
            [F.pad(clip, (0, 0, 0, self.padded_len - len(clip))) for clip in self._split(x)]
        )

    def silence(self, hidden: Tensor) -> Tensor:
        """As of `PaddedClips`, in place."""
        # Behind autograd's back: of what has become 0, the ReLU before gives no gradient anyway.
        hidden.data.index_fill_(1, self.silent, 0.0)
        return hidden

    def attend(self, query_key_value: Tensor, num_heads: int, dropout: float) -> Tensor:
        """As of `PaddedClips`, with (1, N, ...); zeros between the clips."""
        return self._join(
            [
                _attend_alone(clip[None], num_heads, dropout).squeeze(0)
                for clip in self._split(query_key_value)
            ]
        )

    def _split(self, x: Tensor) -> Sequence[Tensor]:
        return x.squeeze(0).split(self.sizes)[::2]

    def _join(self, clips: Sequence[Tensor]) -> Tensor:
        zeros = clips[0].new_zeros(self.gap, clips[0].shape[1])
        return torch.cat([part for clip in clips for part in (clip, zeros)])[None]


def _attend_alone(query_key_value: Tensor, num_heads: int, dropout: float) -> Tensor:
    query, key, value = _by_head(query_key_value, num_heads)
    heads = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    return heads.transpose(1, 2).flatten(2)


def _by_head(query_key_value: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, 3 * heads * d_head) -> three of (B, heads, T, d_head)"""
    return query_key_value.unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
