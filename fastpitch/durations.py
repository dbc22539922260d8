# SPDX-License-Identifier: BSD-3-Clause
"""How long symbols last: as FastPitch predicts, and as it hears them in a recording."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from common.config import DataConfig
from common.filelists import Utterance
from common.text import TextProcessor
from fastpitch.extraction import ClipReader
from fastpitch.model import FastPitch


class Durations(NamedTuple):
    """Frames of each symbol of a text."""

    predicted: Tensor  # (T_text) at pace 1
    heard: Tensor  # (T_text) in the recording


class DurationReader:
    """Aligns recordings with their texts, and predicts their durations.

    Args:
        model: as `models.load_generator` gives it
        dataset_path: folder of the recordings
        seed: of the choice between letters and phonemes
    """

    def __init__(self, model: FastPitch, dataset_path: Path, seed: int) -> None:
        self.model = model
        lists = {"training_files": (Path(),), "validation_files": (Path(),)}  # are not read
        self.reader = ClipReader(
            data=DataConfig(dataset_path=dataset_path, **lists),
            audio=model.audio,
            text=TextProcessor(model.text),
            pitch_mean=float(model.pitch_mean),
            pitch_std=float(model.pitch_std),
            seed=seed,
        )

    @torch.inference_mode()
    def read(self, utterance: Utterance) -> Durations:
        """The durations of a recording's symbols.

        Raises:
            ValueError: text and recording cannot be aligned
        """
        batch = self.reader.read(utterance).to(next(self.model.parameters()).device)
        try:
            output = self.model(batch)
        except ValueError as error:
            raise ValueError(f"{utterance.audio}: {error}") from error
        return Durations(
            predicted=output.predicted.log_durations[0].expm1().clamp(min=0).cpu(),
            heard=output.target.log_durations[0].expm1().cpu(),
        )
