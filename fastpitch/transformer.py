# SPDX-License-Identifier: BSD-3-Clause
"""Feed-forward transformer: self-attention and convolutions, post-norm (FastSpeech, Ren 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.layers import Dropout, FrameConv
from fastpitch.clip_layout import PackedClips, PaddedClips, lay_out


@dataclass(frozen=True, kw_only=True)
class TransformerSize:
    """Sizes of a stack of feed-forward transformer blocks."""

    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    filter_size: int
    kernel_size: int
    dropout: float
    dropatt: float
    dropemb: float


class PositionalEmbedding(nn.Module):
    """Sinusoidal positions (Vaswani 2017, section 3.5), sines first, then cosines."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        frequencies = 1 / 10000 ** (torch.arange(0.0, d_model, 2.0) / d_model)
        self.register_buffer("inv_freq", frequencies)

    def forward(self, length: int) -> Tensor:
        """(T, d_model) embeddings of the positions 0 to T - 1"""
        positions = torch.arange(length, device=self.inv_freq.device, dtype=self.inv_freq.dtype)
        angles = torch.outer(positions, self.inv_freq)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class MultiHeadAttention(nn.Module):
    """Self-attention over real data, with residual and layer norm."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.n_heads = size.n_heads
        self.dropatt = size.dropatt
        d_heads = size.n_heads * size.d_head
        self.qkv_net = nn.Linear(size.d_model, 3 * d_heads)
        self.o_net = nn.Linear(d_heads, size.d_model, bias=False)
        self.dropout = Dropout(size.dropout)
        self.layer_norm = nn.LayerNorm(size.d_model)

    def forward(self, x: Tensor, clips: PaddedClips | PackedClips) -> Tensor:
        """(B, T, d_model) -> (B, T, d_model), laid out as the clips are"""
        dropatt = self.dropatt if self.training else 0.0
        attended = self.o_net(clips.attend(self.qkv_net(x), self.n_heads, dropatt))
        return self.layer_norm(x + self.dropout(attended))


class ConvFeedForward(nn.Module):
    """Two convolutions, with residual and layer norm."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        # The name is a key of the public checkpoints.
        self.CoreNet = nn.Sequential(
            FrameConv(size.d_model, size.filter_size, size.kernel_size),
            nn.ReLU(),
            FrameConv(size.filter_size, size.d_model, size.kernel_size),
            Dropout(size.dropout),
        )
        self.layer_norm = nn.LayerNorm(size.d_model)

    def forward(self, x: Tensor, clips: PaddedClips | PackedClips) -> Tensor:
        """(B, T, d_model) -> (B, T, d_model), laid out as the clips are"""
        widen, activate, narrow, drop = self.CoreNet
        hidden = clips.silence(activate(widen(x)))
        return self.layer_norm(x + drop(narrow(hidden)))


class TransformerLayer(nn.Module):
    """Self-attention, then convolutions; padding is zero after each."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.dec_attn = MultiHeadAttention(size)
        self.pos_ff = ConvFeedForward(size)

    def forward(self, x: Tensor, clips: PaddedClips | PackedClips) -> Tensor:
        """(B, T, d_model) -> (B, T, d_model), laid out as the clips are"""
        mask = clips.mask[:, :, None]
        x = self.dec_attn(x, clips) * mask
        return self.pos_ff(x, clips) * mask


class FeedForwardTransformer(nn.Module):
    """A stack of transformer layers over embeddings with positions.

    Args:
        size: of the stack
        n_symbols: size of the alphabet if the input is symbol ids; None if it is embeddings
        padding_idx: symbol id of padding
    """

    def __init__(
        self, size: TransformerSize, n_symbols: int | None = None, padding_idx: int = 0
    ) -> None:
        super().__init__()
        if n_symbols is not None:
            self.word_emb = nn.Embedding(n_symbols, size.d_model, padding_idx=padding_idx)
        self.pos_emb = PositionalEmbedding(size.d_model)
        self.drop = Dropout(size.dropemb)
        self.reach = size.kernel_size // 2
        self.layers = nn.ModuleList(TransformerLayer(size) for _ in range(size.n_layers))

    def forward(
        self,
        embedded: Tensor,
        mask: Tensor,
        condition: Tensor | None = None,
        isolate_padding: bool = False,
    ) -> Tensor:
        """Transforms embeddings in their context.

        Args:
            embedded: (B, T, d_model)
            mask: (B, T) True = real data
            condition: (B, 1, d_model) added to every position, such as a speaker embedding
            isolate_padding: also mask between two convolutions, see `FastPitch.infer`

        Returns:
            (B, T, d_model) zero where the mask is False
        """
        x = embedded + self.pos_emb(embedded.shape[1]) * mask[:, :, None]
        if condition is not None:
            x = x + condition
        clips = lay_out(mask, self.reach, isolate_padding)
        x = self.drop(clips.pack(x))
        for layer in self.layers:
            x = layer(x, clips)
        return clips.unpack(x)
