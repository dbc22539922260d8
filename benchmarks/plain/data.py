# SPDX-License-Identifier: BSD-3-Clause
"""FastPitch's batches made in the plain way: each clip's files, text and prior by themselves."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.corpus import PITCH
from common.filelists import Utterance
from common.sequences import pad_sequences
from common.text import TextProcessor
from fastpitch.data_function import Batch
from fastpitch.prior import InterpolatedPrior


class PlainDataset(Dataset):
    """Utterances that name mels and pitch; an item is everything of one, unpadded.

    Args:
        utterances: whose audio is a mel
        text: cleans and encodes a text each time that it is read
    """

    def __init__(self, utterances: Sequence[Utterance], text: TextProcessor) -> None:
        self.utterances = utterances
        self.text = text
        self.prior = InterpolatedPrior()

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        utterance = self.utterances[index]
        text = torch.tensor(self.text.encode(utterance.text, random.Random(f"1 {epoch} {index}")))
        mel = torch.load(utterance.audio, weights_only=True)
        pitch_hz = torch.load(utterance.pitch, weights_only=True)[0]
        pitch = (pitch_hz - PITCH["pitch_mean"]) / PITCH["pitch_std"]
        table = self.prior.table(mel.shape[1], len(text))
        factors = (mel.shape[1] / table.shape[0], len(text) / table.shape[1])
        return {
            "text": text,
            "mel": mel,
            "pitch": torch.where(pitch_hz <= 0, 0, pitch),
            "energy": mel.norm(dim=0),
            "prior": torch.from_numpy(ndimage.zoom(table, factors, order=1)),
        }

    def collate(self, samples: Sequence[dict[str, Tensor]]) -> Batch:
        """Pads each feature."""
        columns = {name: [sample[name] for sample in samples] for name in samples[0]}
        return Batch(
            **{name: pad_sequences(column) for name, column in columns.items()},
            text_lens=torch.tensor([len(text) for text in columns["text"]]),
            mel_lens=torch.tensor([mel.shape[1] for mel in columns["mel"]]),
            speaker=torch.zeros(len(samples), dtype=torch.long),
            paths=[],
        )
