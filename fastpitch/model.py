# SPDX-License-Identifier: BSD-3-Clause
"""FastPitch 1.1: text to mel in parallel, with durations, pitch and energy per symbol."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from common.layers import ConvReLUNorm
from common.sequences import lengths_to_mask
from fastpitch.alignment import (
    average_over_symbols,
    durations_to_alignment,
    expand,
    monotonic_alignment_search,
)
from fastpitch.arg_parser import FastPitchConfig
from fastpitch.attention import SoftAlignment
from fastpitch.pitch_transform import PitchTransform
from fastpitch.transformer import FeedForwardTransformer, TransformerSize

if TYPE_CHECKING:
    from fastpitch.data_function import Batch

MAX_DURATION_FRAMES = 75


class Prosody(NamedTuple):
    """What each symbol sounds like, predicted or true."""

    log_durations: Tensor  # (B, T_text) log(frames + 1)
    pitch: Tensor  # (B, T_text) standardised Hz, 0 where unvoiced
    energy: Tensor | None  # (B, T_text) log(1 + energy); None without energy conditioning


class Alignment(NamedTuple):
    """Which symbol each frame belongs to."""

    soft: Tensor  # (B, T_mel, T_text) sums to 1 over T_text
    hard: Tensor  # (B, T_mel, T_text) one-hot over T_text, zero in padding
    log_prob: Tensor  # (B, T_mel, T_text)


class FastPitchOutput(NamedTuple):
    """What `forward` returns."""

    mel: Tensor  # (B, n_mels, T_mel)
    predicted: Prosody
    target: Prosody
    alignment: Alignment


class Synthesis(NamedTuple):
    """What `infer` returns."""

    mel: Tensor  # (B, n_mels, T_mel) natural log of amplitude, without meaning in padding
    mel_lens: Tensor  # (B)
    prosody: Prosody  # as predicted, pitch after its transform
    durations: Tensor  # (B, T_text) frames of each symbol in `mel`


class SymbolPredictor(nn.Module):
    """Predicts one number per symbol: log duration, pitch or energy."""

    def __init__(
        self, in_channels: int, channels: int, kernel_size: int, dropout: float, n_layers: int
    ) -> None:
        super().__init__()
        sizes = [in_channels] + [channels] * n_layers
        self.layers = nn.ModuleList(
            ConvReLUNorm(size, next_size, kernel_size, dropout)
            for size, next_size in itertools.pairwise(sizes)
        )
        self.fc = nn.Linear(sizes[-1], 1)

    def forward(self, encoded: Tensor, mask: Tensor, isolate_padding: bool = False) -> Tensor:
        """(B, T_text, C), (B, T_text) -> (B, T_text) zero where the mask is False"""
        x = (encoded * mask[:, :, None]).transpose(1, 2)  # convolutions want time last
        for layer in self.layers:
            x = layer(x, mask[:, None, :] if isolate_padding else None)
        return self.fc(x.transpose(1, 2)).squeeze(2) * mask


class FastPitch(nn.Module):
    """The acoustic model (Łańcucki 2021, with the aligner of Badlani 2021).

    Args:
        config: sizes; its fields are the keys of a checkpoint's `config`
        pitch_mean: Hz, of the voiced frames of the training data
        pitch_std: Hz
    """

    def __init__(
        self, config: FastPitchConfig, pitch_mean: float = 0.0, pitch_std: float = 1.0
    ) -> None:
        super().__init__()
        self.config = config
        channels = config.symbols_embedding_dim
        self.encoder = FeedForwardTransformer(
            _encoder_size(config), config.n_symbols, config.padding_idx
        )
        if config.n_speakers > 1:
            self.speaker_emb = nn.Embedding(config.n_speakers, channels)
        self.duration_predictor = _predictor(config, "dur")
        self.decoder = FeedForwardTransformer(_decoder_size(config))
        self.pitch_predictor = _predictor(config, "pitch")
        self.pitch_emb = _embedding(channels, config.pitch_embedding_kernel_size)
        if config.energy_conditioning:
            self.energy_predictor = _predictor(config, "energy")
            self.energy_emb = _embedding(channels, config.energy_embedding_kernel_size)
        self.proj = nn.Linear(channels, config.n_mel_channels)
        self.attention = SoftAlignment(config.n_mel_channels, channels)
        self.register_buffer("pitch_mean", torch.tensor([float(pitch_mean)]))
        self.register_buffer("pitch_std", torch.tensor([float(pitch_std)]))

    def set_pitch_statistics(self, mean_hz: float, std_hz: float) -> None:
        """What standardised pitch means, from now on."""
        self.pitch_mean.fill_(mean_hz)
        self.pitch_std.fill_(std_hz)

    def forward(self, batch: Batch) -> FastPitchOutput:
        """Aligns a batch and predicts its mels from the true durations, pitch and energy."""
        text_mask = lengths_to_mask(batch.text_lens, batch.text.shape[1])
        mel_mask = lengths_to_mask(batch.mel_lens, batch.mel.shape[2])
        embedded, encoded = self._encode(batch.text, text_mask, batch.speaker)
        log_durations = self.duration_predictor(encoded, text_mask)
        pitch = self.pitch_predictor(encoded, text_mask)

        alignment, target = self._align(batch, embedded, text_mask)
        encoded = encoded + self._embed(self.pitch_emb, target.pitch)
        energy = None
        if self.config.energy_conditioning:
            energy = self.energy_predictor(encoded, text_mask)
            encoded = encoded + self._embed(self.energy_emb, target.energy)
        return FastPitchOutput(
            mel=self._decode(expand(encoded, alignment.hard), mel_mask),
            predicted=Prosody(log_durations, pitch, energy),
            target=target,
            alignment=alignment,
        )

    @torch.no_grad()
    def infer(
        self,
        text: Tensor,
        pace: float = 1.0,
        durations: Tensor | None = None,
        pitch: Tensor | None = None,
        energy: Tensor | None = None,
        pitch_transform: PitchTransform | None = None,
        speaker: int | Tensor = 0,
        isolate_padding: bool = False,
    ) -> Synthesis:
        """Speaks a batch of texts.

        Args:
            text: (B, T_text) symbol ids, padded with `config.padding_idx`
            pace: speed; 2 is twice as fast
            durations: (B, T_text) frames at pace 1, in place of the predicted
            pitch: (B, T_text) standardised Hz, in place of the predicted; no transform applies
            energy: (B, T_text) log(1 + energy), in place of the predicted
            pitch_transform: change of the predicted pitch, see `fastpitch.pitch_transform`
            speaker: id, or (B) one for each text
            isolate_padding: let every text sound as it does alone. The public recipe does not:
                there the end of a text hears whether padding follows it.

        Returns:
            The mels and what was predicted for each symbol. Every text gets at least one frame.

        Raises:
            ValueError: pace is not positive, or there is no such speaker
        """
        if not pace > 0:
            raise ValueError(f"pace must be positive, got {pace}")
        text_mask = text != self.config.padding_idx
        speaker_ids = self._speaker_ids(speaker, text)
        _, encoded = self._encode(text, text_mask, speaker_ids, isolate_padding)
        log_durations = self.duration_predictor(encoded, text_mask, isolate_padding)
        predicted_pitch = self.pitch_predictor(encoded, text_mask, isolate_padding)
        if pitch_transform is not None:
            predicted_pitch = pitch_transform(
                predicted_pitch, text_mask.sum(dim=1), self.pitch_mean, self.pitch_std
            )
        if isolate_padding:
            predicted_pitch = predicted_pitch * text_mask
        encoded = encoded + self._embed(self.pitch_emb, predicted_pitch if pitch is None else pitch)
        predicted_energy = None
        if self.config.energy_conditioning:
            predicted_energy = self.energy_predictor(encoded, text_mask, isolate_padding)
            encoded = encoded + self._embed(
                self.energy_emb, predicted_energy if energy is None else energy
            )
        if durations is None:
            durations = log_durations.expm1().clamp(0, MAX_DURATION_FRAMES)
        frames = _whole_frames(durations / pace)
        mel_lens = frames.sum(dim=1)
        hard = durations_to_alignment(frames)
        mel_mask = lengths_to_mask(mel_lens, hard.shape[1])
        return Synthesis(
            mel=self._decode(expand(encoded, hard), mel_mask, isolate_padding),
            mel_lens=mel_lens,
            prosody=Prosody(log_durations, predicted_pitch, predicted_energy),
            durations=frames,
        )

    def _encode(
        self,
        text: Tensor,
        mask: Tensor,
        speaker: Tensor | None,
        isolate_padding: bool = False,
    ) -> tuple[Tensor, Tensor]:
        condition = None
        if self.config.n_speakers > 1:
            condition = self.config.speaker_emb_weight * self.speaker_emb(speaker)[:, None, :]
        embedded = self.encoder.word_emb(text)
        return embedded, self.encoder(embedded, mask, condition, isolate_padding)

    @torch.compiler.disable  # a search in a loop, and precision that changes on the way
    def _align(
        self, batch: Batch, embedded: Tensor, text_mask: Tensor
    ) -> tuple[Alignment, Prosody]:
        """The alignment, and what it says of each symbol."""
        soft, log_prob = self.attention(batch.mel, embedded, text_mask, batch.prior)
        hard = monotonic_alignment_search(soft.log(), batch.text_lens, batch.mel_lens)
        target = Prosody(
            log_durations=hard.sum(dim=1).log1p(),
            pitch=average_over_symbols(batch.pitch, hard),
            energy=self._true_energy(batch.energy, hard),
        )
        return Alignment(soft, hard, log_prob), target

    def _decode(self, expanded: Tensor, mask: Tensor, isolate_padding: bool = False) -> Tensor:
        decoded = self.decoder(expanded, mask, isolate_padding=isolate_padding)
        return self.proj(decoded).transpose(1, 2)  # mel: time last

    def _embed(self, embedding: nn.Conv1d, values: Tensor) -> Tensor:
        return embedding(values[:, None, :]).transpose(1, 2)  # encodings: channels last

    def _true_energy(self, energy: Tensor, hard: Tensor) -> Tensor | None:
        if not self.config.energy_conditioning:
            return None
        return average_over_symbols(energy, hard).log1p()

    def _speaker_ids(self, speaker: int | Tensor, text: Tensor) -> Tensor:
        ids = torch.as_tensor(speaker)
        if ((ids < 0) | (ids >= self.config.n_speakers)).any():
            raise ValueError(
                f"speaker must lie in 0 to {self.config.n_speakers - 1}, got {speaker}"
            )
        if ids.ndim == 0:  # `full` tells a GPU a number without waiting for it
            return torch.full((text.shape[0],), int(ids), device=text.device)
        return ids.to(text.device, non_blocking=True)


def _whole_frames(durations: Tensor) -> Tensor:
    """Rounds half up; a text whose frames all vanish keeps one, on its first symbol."""
    frames = (durations + 0.5).long()
    frames[:, 0] += frames.sum(dim=1) == 0
    return frames


def _embedding(channels: int, kernel_size: int) -> nn.Conv1d:
    return nn.Conv1d(1, channels, kernel_size, padding=kernel_size // 2)


def _predictor(config: FastPitchConfig, name: str) -> SymbolPredictor:
    settings = dataclasses.asdict(config)
    return SymbolPredictor(
        config.in_fft_output_size,
        settings[f"{name}_predictor_filter_size"],
        settings[f"{name}_predictor_kernel_size"],
        settings[f"p_{name}_predictor_dropout"],
        settings[f"{name}_predictor_n_layers"],
    )


def _encoder_size(config: FastPitchConfig) -> TransformerSize:
    return TransformerSize(
        n_layers=config.in_fft_n_layers,
        n_heads=config.in_fft_n_heads,
        d_model=config.in_fft_output_size,
        d_head=config.in_fft_d_head,
        filter_size=config.in_fft_conv1d_filter_size,
        kernel_size=config.in_fft_conv1d_kernel_size,
        dropout=config.p_in_fft_dropout,
        dropatt=config.p_in_fft_dropatt,
        dropemb=config.p_in_fft_dropemb,
    )


def _decoder_size(config: FastPitchConfig) -> TransformerSize:
    return TransformerSize(
        n_layers=config.out_fft_n_layers,
        n_heads=config.out_fft_n_heads,
        d_model=config.out_fft_output_size,
        d_head=config.out_fft_d_head,
        filter_size=config.out_fft_conv1d_filter_size,
        kernel_size=config.out_fft_conv1d_kernel_size,
        dropout=config.p_out_fft_dropout,
        dropatt=config.p_out_fft_dropatt,
        dropemb=config.p_out_fft_dropemb,
    )
