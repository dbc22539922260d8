# SPDX-License-Identifier: BSD-3-Clause
"""A corpus for trainings that show whether and how fast they run, not how well they learn."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speech import generate_speech
from common.audio import write_wav
from common.config import AudioConfig

AUDIO = AudioConfig()
WORDS = ("train", "quiet", "station", "early", "cold", "morning", "people", "waited", "bright")
SHORTEST = 0.5  # of the longest clip
WORDS_PER_SECOND = 2.5
NUM_VOICES = 64  # different recordings, each under several names and with several texts
NUM_HELD_OUT = 2


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A folder of clips, and lists that the trainings read."""

    folder: Path

    @property
    def training_files(self) -> Path:
        """Clips to train on."""
        return self.folder / "train.txt"

    @property
    def many_files(self) -> Path:
        """These and more."""
        return self.folder / "many.txt"

    @property
    def validation_files(self) -> Path:
        """Other clips."""
        return self.folder / "val.txt"

    @property
    def phrases(self) -> Path:
        """Texts to speak."""
        return self.folder / "phrases.txt"


def make_corpus(
    folder: Path,
    *,
    num_clips: int,
    longest_seconds: float,
    num_more: int = 0,
    num_phrases: int = 0,
    phrase_length: int = 128,
) -> Corpus:
    """Writes clips of half the greatest length to all of it, and the lists.

    Args:
        num_clips: to train on
        num_more: beside them in the longer list
        phrase_length: characters
    """
    corpus = Corpus(folder=folder)
    (folder / "wavs").mkdir(parents=True)
    choice = random.Random(0)
    lengths = [longest_seconds * choice.uniform(SHORTEST, 1) for _ in range(NUM_VOICES)]
    lines = []
    for index in range(NUM_HELD_OUT + num_clips + num_more):
        voice = index % NUM_VOICES
        path = folder / f"wavs/clip{index}.wav"
        if index < NUM_VOICES:
            audio = generate_speech(lengths[voice], AUDIO.sampling_rate, seed=voice)
            write_wav(path, audio, AUDIO.sampling_rate)
        else:
            path.hardlink_to(folder / f"wavs/clip{voice}.wav")
        num_words = max(1, round(WORDS_PER_SECOND * lengths[voice]))
        lines.append(f"wavs/{path.name}|{_say(choice, num_words)}.\n")
    # The same phrase again and again: a size that is new to --compile would be timed with the rest.
    phrases = [f"{_say(choice, phrase_length)[: phrase_length - 1]}.\n"] * num_phrases
    for path, content in (
        (corpus.validation_files, lines[:NUM_HELD_OUT]),
        (corpus.training_files, lines[NUM_HELD_OUT : NUM_HELD_OUT + num_clips]),
        (corpus.many_files, lines[NUM_HELD_OUT:]),
        (corpus.phrases, phrases),
    ):
        path.write_text("".join(content), encoding="utf-8")
    return corpus


def _say(choice: random.Random, num_words: int) -> str:
    return " ".join(choice.choices(WORDS, k=num_words)).capitalize()
