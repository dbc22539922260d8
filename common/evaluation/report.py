# SPDX-License-Identifier: BSD-3-Clause
"""What an evaluation found: as a table, as JSON, as a page to listen to."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.evaluation.pairs import Pair
from common.evaluation.scores import METRICS, Score, Summary, badness, summarize
from common.files import atomic_path

Summaries = tuple[Summary, Summary | None]  # of the speech, of the recordings

SUMMARY_HEADER = ("", "speech", "95 % interval", "recordings", "95 % interval")


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """What was measured of a sentence."""

    pair: Pair
    scores: Mapping[str, Score]  # of the speech, by the names of METRICS
    reference_scores: Mapping[str, Score]  # of the recording, what can be measured of it alone
    heard: str | None  # what the recogniser understood


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that the reports show."""

    sentences: Sequence[Sentence]
    settings: Mapping[str, str]
    times_real_time: float | None  # seconds of speech per second, where this command spoke

    def worst_first(self) -> list[Sentence]:
        """The sentences as one should listen to them."""
        return sorted(self.sentences, key=lambda each: badness(_numbers(each.scores)), reverse=True)

    def scores_of(self, name: str) -> tuple[list[Score], list[Score]]:
        """What counts of a metric, of the speech and of the recordings."""
        groups = (
            [sentence.scores for sentence in self.sentences],
            [sentence.reference_scores for sentence in self.sentences],
        )
        speech, recordings = (
            [scores[name] for scores in group if name in scores and scores[name].weight > 0]
            for group in groups
        )
        return speech, recordings

    @functools.cached_property
    def summaries(self) -> dict[str, Summaries]:
        """For each metric that was measured, of the speech and of the recordings."""
        both = {name: map(summarize, self.scores_of(name)) for name in METRICS}
        return {
            name: (speech, recordings)
            for name, (speech, recordings) in both.items()
            if speech is not None
        }


def table(evaluation: Evaluation) -> str:
    """The summary, for a terminal."""
    rows = [SUMMARY_HEADER, *summary_rows(evaluation.summaries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    if evaluation.times_real_time is not None:
        lines.append(f"\nSpoken {evaluation.times_real_time:.1f} times as fast as it sounds")
    return "\n".join(lines)


def summary_rows(summaries: Mapping[str, Summaries]) -> list[tuple[str, ...]]:
    """Of each metric: its name with the unit; mean and interval, of the speech and recordings."""
    rows = []
    for name, (speech, recordings) in summaries.items():
        metric = METRICS[name]
        cells = []
        for summary in (speech, recordings):
            if summary is None:
                cells += ["", ""]
                continue
            low, high = metric.text(summary.low), metric.text(summary.high)
            cells += [metric.text(summary.mean), f"{low} to {high}"]
        rows.append((metric.label, *cells))
    return rows


def write_json(evaluation: Evaluation, path: Path) -> None:
    """All numbers, unrounded, in the units of `METRICS` before scaling."""
    summaries = {
        name: {"speech": speech._asdict(), "recordings": recordings and recordings._asdict()}
        for name, (speech, recordings) in evaluation.summaries.items()
    }
    contents = {
        "settings": evaluation.settings,
        "times_real_time": evaluation.times_real_time,
        "summary": summaries,
        "sentences": [_sentence(sentence) for sentence in evaluation.sentences],
    }
    with atomic_path(path) as unfinished:
        text = json.dumps(contents, indent=1, ensure_ascii=False)
        unfinished.write_text(f"{text}\n", encoding="utf-8")


def _sentence(sentence: Sentence) -> dict[str, Any]:
    pair = dataclasses.asdict(sentence.pair)
    return {
        **{name: str(value) if isinstance(value, Path) else value for name, value in pair.items()},
        "heard": sentence.heard,
        "scores": _numbers(sentence.scores),
        "reference_scores": _numbers(sentence.reference_scores),
    }


def _numbers(scores: Mapping[str, Score]) -> dict[str, float]:
    return {name: score.value for name, score in scores.items() if score.weight > 0}
