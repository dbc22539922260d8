# SPDX-License-Identifier: BSD-3-Clause
"""How long symbols last: what FastPitch predicts against what it hears in a recording."""

from __future__ import annotations

from pathlib import Path

import torch

from common.config import DataConfig
from common.evaluation.scores import Score
from common.filelists import Utterance
from common.text import TextProcessor
from fastpitch.extraction import ClipReader
from fastpitch.model import MAX_DURATION_FRAMES, FastPitch


class DurationErrors:
    """Compares the durations that a model predicts with those of recordings, as it aligns them.

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
    def error_seconds(self, utterance: Utterance) -> Score:
        """How far predicted durations are from those heard in a recording, a mean over symbols.

        The model predicts without having heard, at pace 1; what it hears is its own alignment.

        Raises:
            ValueError: text and recording cannot be aligned
        """
        batch = self.reader.read(utterance).to(next(self.model.parameters()).device)
        try:
            output = self.model(batch)
        except ValueError as error:
            raise ValueError(f"{utterance.audio}: {error}") from error
        predicted, heard = (
            prosody.log_durations[0].expm1().clamp(0, MAX_DURATION_FRAMES)
            for prosody in (output.predicted, output.target)
        )
        seconds_per_frame = self.model.audio.hop_length / self.model.audio.sampling_rate
        error = float((predicted - heard).abs().mean()) * seconds_per_frame
        return Score(error, len(heard))
