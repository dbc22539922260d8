# SPDX-License-Identifier: BSD-3-Clause
"""Synthesis as one would write it down: padded batches through both models, in float32."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.plain.model import PlainFastPitch
from common.sequences import pad_sequences
from common.synthesizer import Controls, SymbolSequence
from fastpitch.model import FastPitch
from hifigan.model import HiFiGAN


class PlainSynthesizer:
    """Has the two methods of `Synthesizer` that are measured.

    Args:
        generator: whose weights are copied
        vocoder: as it is trained, its norms computed at each call
    """

    def __init__(self, generator: FastPitch, vocoder: HiFiGAN) -> None:
        dropouts = {name: 0.0 for name in vars(generator.config) if name.startswith("p_")}
        config = dataclasses.replace(generator.config, **dropouts)
        self.generator = PlainFastPitch(config, generator.state_dict())
        self.vocoder = vocoder

    @torch.no_grad()
    def generate(self, phrases: Sequence[SymbolSequence], controls: Controls) -> list[Tensor]:
        """Mels of several texts, each (n_mels, T_mel)."""
        text = pad_sequences([torch.tensor(phrase.ids) for phrase in phrases])
        mels, mel_lens = self.generator.speak(text, controls.pace)
        return [mel[:, :mel_len] for mel, mel_len in zip(mels, mel_lens, strict=True)]

    @torch.no_grad()
    def vocode(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """Audio of several mels, each (T_audio,), whose ends hear that padding follows."""
        audio = self.vocoder.infer(pad_sequences(mels))
        lens = [mel.shape[1] * self.vocoder.hop_length for mel in mels]
        return [wave[:num_samples] for wave, num_samples in zip(audio, lens, strict=True)]
