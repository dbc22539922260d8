# SPDX-License-Identifier: BSD-3-Clause
"""FastPitch for one voice as one would write it down, formula by formula."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from common.sequences import lengths_to_mask
from fastpitch.alignment import (
    average_over_symbols,
    durations_to_alignment,
    expand,
    monotonic_alignment_search,
)
from fastpitch.arg_parser import FastPitchConfig
from fastpitch.attention import PRIOR_FLOOR, TEMPERATURE
from fastpitch.data_function import Batch
from fastpitch.model import MAX_DURATION_FRAMES, Alignment, FastPitchOutput, Prosody


class PlainFastPitch:
    """Computes what `FastPitch.forward` does, with dropout.

    Args:
        config: sizes
        state: of a `FastPitch`; copied

    Attributes:
        weights: what is trained, under the names of the state
    """

    def __init__(self, config: FastPitchConfig, state: Mapping[str, Tensor]) -> None:
        self.config = config
        self.weights = {
            name: value.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
            for name, value in state.items()
            if not name.endswith(("inv_freq", "pitch_mean", "pitch_std"))
            and not name.startswith("attention.attn_proj.")
        }
        self.frequencies = state["encoder.pos_emb.inv_freq"]

    def __call__(self, batch: Batch) -> FastPitchOutput:
        """As `FastPitch.forward`."""
        config = self.config
        text_mask = lengths_to_mask(batch.text_lens, batch.text.shape[1])
        mel_mask = lengths_to_mask(batch.mel_lens, batch.mel.shape[2])
        embedded = F.embedding(batch.text, self.weights["encoder.word_emb.weight"], 0)
        encoded = self._transform("encoder", config.in_fft_n_layers, embedded, text_mask)
        log_durations = self._predict("duration", encoded, text_mask)
        pitch = self._predict("pitch", encoded, text_mask)
        soft, log_prob = self._align(batch.mel, embedded, text_mask, batch.prior)
        hard = monotonic_alignment_search(soft.log(), batch.text_lens, batch.mel_lens)
        target = Prosody(
            log_durations=hard.sum(dim=1).log1p(),
            pitch=average_over_symbols(batch.pitch, hard),
            energy=None,
        )
        encoded = encoded + self._embed("pitch_emb", target.pitch)
        energy = None
        if config.energy_conditioning:
            energy = self._predict("energy", encoded, text_mask)
            target = target._replace(energy=average_over_symbols(batch.energy, hard).log1p())
            encoded = encoded + self._embed("energy_emb", target.energy)
        frames = expand(encoded, hard)
        decoded = self._transform("decoder", config.out_fft_n_layers, frames, mel_mask)
        return FastPitchOutput(
            mel=self._linear("proj", decoded).transpose(1, 2),
            predicted=Prosody(log_durations, pitch, energy),
            target=target,
            alignment=Alignment(soft, hard, log_prob),
        )

    def speak(self, text: Tensor, pace: float = 1.0) -> tuple[Tensor, Tensor]:
        """As `FastPitch.infer`: (B, n_mels, T_mel) mels and (B) their lengths"""
        config = self.config
        mask = text != config.padding_idx
        embedded = F.embedding(text, self.weights["encoder.word_emb.weight"], config.padding_idx)
        encoded = self._transform("encoder", config.in_fft_n_layers, embedded, mask)
        log_durations = self._predict("duration", encoded, mask)
        encoded = encoded + self._embed("pitch_emb", self._predict("pitch", encoded, mask))
        if config.energy_conditioning:
            encoded = encoded + self._embed("energy_emb", self._predict("energy", encoded, mask))
        durations = log_durations.expm1().clamp(0, MAX_DURATION_FRAMES)
        hard = durations_to_alignment((durations / pace + 0.5).long())
        mel_lens = hard.sum(dim=(1, 2)).long()
        mel_mask = lengths_to_mask(mel_lens, hard.shape[1])
        decoded = self._transform(
            "decoder", config.out_fft_n_layers, expand(encoded, hard), mel_mask
        )
        return self._linear("proj", decoded).transpose(1, 2), mel_lens

    def _transform(self, stack: str, num_layers: int, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C), (B, T) -> (B, T, C) a stack of feed-forward transformer layers"""
        sizes = vars(self.config)
        side = "in" if stack == "encoder" else "out"
        positions = torch.outer(torch.arange(float(x.shape[1])), self.frequencies)
        x = x + torch.cat([positions.sin(), positions.cos()], dim=1) * mask[:, :, None]
        x = F.dropout(x, sizes[f"p_{side}_fft_dropemb"])
        dropout, of_weights = sizes[f"p_{side}_fft_dropout"], sizes[f"p_{side}_fft_dropatt"]
        num_heads = sizes[f"{side}_fft_n_heads"]
        for index in range(num_layers):
            layer = f"{stack}.layers.{index}"
            attended = self._attend(f"{layer}.dec_attn", num_heads, x, mask, of_weights)
            x = self._norm(f"{layer}.dec_attn.layer_norm", x + F.dropout(attended, dropout))
            x = x * mask[:, :, None]
            hidden = self._convolve(f"{layer}.pos_ff.CoreNet.0", x.transpose(1, 2)).relu()
            hidden = self._convolve(f"{layer}.pos_ff.CoreNet.2", hidden)
            hidden = F.dropout(hidden, dropout).transpose(1, 2)
            x = self._norm(f"{layer}.pos_ff.layer_norm", x + hidden) * mask[:, :, None]
        return x

    def _attend(self, name: str, num_heads: int, x: Tensor, mask: Tensor, dropout: float) -> Tensor:
        """(B, T, C), (B, T) -> (B, T, C) self-attention with a (B, heads, T, T) softmax"""
        query, key, value = (
            part.unflatten(2, (num_heads, -1)).transpose(1, 2)  # (B, heads, T, d_head)
            for part in self._linear(f"{name}.qkv_net", x).chunk(3, dim=2)
        )
        scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        scores = scores.masked_fill(~mask[:, None, None, :], -torch.inf)
        heads = F.dropout(scores.softmax(dim=3), dropout) @ value
        return self._linear(f"{name}.o_net", heads.transpose(1, 2).flatten(2))

    def _predict(self, what: str, encoded: Tensor, mask: Tensor) -> Tensor:
        """(B, T_text, C), (B, T_text) -> (B, T_text) a number for each symbol"""
        short = {"duration": "dur"}.get(what, what)
        sizes = vars(self.config)
        x = encoded * mask[:, :, None]
        for index in range(sizes[f"{short}_predictor_n_layers"]):
            layer = f"{what}_predictor.layers.{index}"
            x = self._convolve(f"{layer}.conv", x.transpose(1, 2)).relu()
            x = self._norm(f"{layer}.norm", x.transpose(1, 2))
            x = F.dropout(x, sizes[f"p_{short}_predictor_dropout"])
        return self._linear(f"{what}_predictor.fc", x).squeeze(2) * mask

    def _align(
        self, mel: Tensor, embedded: Tensor, text_mask: Tensor, prior: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `SoftAlignment.forward`."""
        queries = self._convolve("attention.query_proj.0.conv", mel).relu()
        queries = self._convolve("attention.query_proj.2.conv", queries).relu()
        queries = self._convolve("attention.query_proj.4.conv", queries)
        keys = self._convolve("attention.key_proj.0.conv", embedded.transpose(1, 2)).relu()
        keys = self._convolve("attention.key_proj.2.conv", keys)
        return align(queries, keys, text_mask, prior)

    def _embed(self, name: str, values: Tensor) -> Tensor:
        return self._convolve(name, values[:, None, :]).transpose(1, 2)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def _convolve(self, name: str, x: Tensor) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        return F.conv1d(x, weight, self.weights[f"{name}.bias"], padding=weight.shape[2] // 2)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(
            x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        )


def align(queries: Tensor, keys: Tensor, text_mask: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """Soft alignment from the (B, C, T_mel, T_text) differences of all frames and symbols.

    Args:
        queries: (B, C, T_mel)
        keys: (B, C, T_text)
        text_mask: (B, T_text) True = real data
        prior: (B, T_mel, T_text)

    Returns:
        soft and log_prob, as `SoftAlignment.forward`
    """
    distances = (queries[:, :, :, None] - keys[:, :, None, :]).square().sum(dim=1)
    log_prob = (-TEMPERATURE * distances).log_softmax(dim=2) + (prior + PRIOR_FLOOR).log()
    soft = log_prob.masked_fill(~text_mask[:, None, :], -torch.inf).softmax(dim=2)
    return soft, log_prob
