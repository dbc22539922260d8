# SPDX-License-Identifier: BSD-3-Clause
"""Soft alignment of text and mel (Badlani 2021, "One TTS Alignment to Rule Them All")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.layers import ConvNorm
from common.precision import full_precision

TEMPERATURE = 0.0005
PRIOR_FLOOR = 1e-8


class SoftAlignment(nn.Module):
    """Scores every pair of frame and symbol by the distance of their projections."""

    def __init__(self, n_mel_channels: int, n_text_channels: int, n_att_channels: int = 80) -> None:
        super().__init__()
        self.query_proj = nn.Sequential(
            ConvNorm(n_mel_channels, 2 * n_mel_channels, 3, nonlinearity="relu"),
            nn.ReLU(),
            ConvNorm(2 * n_mel_channels, n_mel_channels),
            nn.ReLU(),
            ConvNorm(n_mel_channels, n_att_channels),
        )
        # Public checkpoints carry this layer; nothing ever used it.
        self.attn_proj = nn.Conv2d(n_att_channels, 1, 1).requires_grad_(False)
        self.key_proj = nn.Sequential(
            ConvNorm(n_text_channels, 2 * n_text_channels, 3, nonlinearity="relu"),
            nn.ReLU(),
            ConvNorm(2 * n_text_channels, n_att_channels),
        )

    def forward(
        self, mel: Tensor, embedded: Tensor, text_mask: Tensor, prior: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Aligns text and mel softly.

        Args:
            mel: (B, n_mels, T_mel)
            embedded: (B, T_text, C) symbol embeddings
            text_mask: (B, T_text) True = real data
            prior: (B, T_mel, T_text) probabilities, zero at padding

        Returns:
            soft: (B, T_mel, T_text) sums to 1 over the real symbols
            log_prob: (B, T_mel, T_text) log-probabilities plus log prior
        """
        queries = self.query_proj(mel)
        keys = self.key_proj(embedded.transpose(1, 2))  # convolutions want time last
        with full_precision(mel):
            scores = self._scores(queries.float(), keys.float())
            log_prob = scores.log_softmax(dim=2) + (prior + PRIOR_FLOOR).log()
            soft = log_prob.masked_fill(~text_mask[:, None, :], -torch.inf).softmax(dim=2)
        return soft, log_prob

    @staticmethod
    def _scores(queries: Tensor, keys: Tensor) -> Tensor:
        """-TEMPERATURE * squared distance, but for a constant per frame that a softmax ignores.

        |q - k|^2 = |q|^2 - 2 q.k + |k|^2: a matrix product, no (B, C, T_mel, T_text) tensor.
        """
        products = queries.transpose(1, 2) @ keys
        return TEMPERATURE * (2 * products - keys.square().sum(dim=1, keepdim=True))
