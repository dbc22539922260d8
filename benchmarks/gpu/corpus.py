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
NUM_VOICES = 16  # different recordings, each under several names and with several texts
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
    def validation_files(self) -> Path:
        """Other clips."""
        return self.folder / "val.txt"

    @property
    def phrases(self) -> Path:
        """Texts to speak."""
        return self.folder / "phrases.txt"


def make_corpus(
    folder: Path, *, num_clips: int, num_phrases: int, longest_seconds: float
) -> Corpus:
    """Writes clips of half the greatest length to all of it, and the lists."""
    corpus = Corpus(folder=folder)
    (folder / "wavs").mkdir(parents=True)
    choice = random.Random(0)
    lengths = [longest_seconds * choice.uniform(SHORTEST, 1) for _ in range(NUM_VOICES)]
    voices = [
        generate_speech(seconds, AUDIO.sampling_rate, seed) for seed, seconds in enumerate(lengths)
    ]
    lines, texts = [], []
    for index in range(num_clips + NUM_HELD_OUT):
        audio, seconds = voices[index % NUM_VOICES], lengths[index % NUM_VOICES]
        write_wav(folder / f"wavs/clip{index}.wav", audio, AUDIO.sampling_rate)
        words = choice.choices(WORDS, k=max(1, round(WORDS_PER_SECOND * seconds)))
        texts.append(f"{' '.join(words).capitalize()}.\n")
        lines.append(f"wavs/clip{index}.wav|{texts[-1]}")
    for path, content in (
        (corpus.validation_files, lines[:NUM_HELD_OUT]),
        (corpus.training_files, lines[NUM_HELD_OUT:]),
        (corpus.phrases, texts[:num_phrases]),
    ):
        path.write_text("".join(content), encoding="utf-8")
    return corpus
