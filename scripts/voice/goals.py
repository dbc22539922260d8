# SPDX-License-Identifier: BSD-3-Clause
"""What a voice should reach, and whether it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from common.evaluation.scores import METRICS

PLAIN = "plain"  # the report of speech as it is, beside the teacher's recordings
ROUNDING = 1e-9

Means = tuple[float, float]  # of what is judged, of what it is compared with


@dataclass(frozen=True, kw_only=True)
class Goal:
    """How much worse a mean may be than another.

    Args:
        text: that says it
        metric: by its name in METRICS
        margin: by which it may be worse; below 0, by which it must be better
        report: whose speech is judged
        against: "teacher", whose recordings are in the same report; "plain", the speech as it is;
            or None, where the mean itself is a distance
        more_is_better: else less is
    """

    text: str
    metric: str
    margin: float
    report: str = PLAIN
    against: str | None = "teacher"
    more_is_better: bool = False

    def means(self, reports: Mapping[str, Any]) -> Means | None:
        """Of what is judged and what it is compared with; None where one was not measured."""
        found = _mean(reports, self.report, self.metric, "speech")
        other = {
            "teacher": _mean(reports, self.report, self.metric, "recordings"),
            PLAIN: _mean(reports, PLAIN, self.metric, "speech"),
            None: 0.0,
        }[self.against]
        return None if found is None or other is None else (found, other)

    def is_met_by(self, means: Means) -> bool:
        """Whether they are no further apart than they may be."""
        found, other = means
        worse = other - found if self.more_is_better else found - other
        return worse <= self.margin + ROUNDING

    def tell(self, means: Means) -> str:
        """The means as a person reads them."""
        metric = METRICS[self.metric]
        numbers = [metric.text(mean) for mean in means[: 1 if self.against is None else 2]]
        return f"{' against '.join(numbers)} {metric.unit}".rstrip()


def _understood(title: str, report: str) -> Goal:
    text = f"{title}: word error rate within 3 points of the speech as it is"
    return Goal(text=text, metric="wer", margin=0.03, report=report, against=PLAIN)


def _audible(text: str, metric: str, report: str, at_least: float, more: bool) -> Goal:
    return Goal(
        text=text,
        metric=metric,
        margin=-at_least,
        report=report,
        against=PLAIN,
        more_is_better=more,
    )


GOALS = (
    Goal(text="word error rate within 2 points of the teacher's", metric="wer", margin=0.02),
    Goal(
        text="DNSMOS within 0.2 of the teacher's", metric="dnsmos", margin=0.2, more_is_better=True
    ),
    Goal(text="mel-cepstral distortion below 5 dB", metric="mcd", margin=5.0, against=None),
    Goal(text="no more words skipped than of the teacher's", metric="words_skipped", margin=0.0),
    Goal(text="no more words added than to the teacher's", metric="words_added", margin=0.0),
    _audible("pace 0.7: longer by 30 points or more", "length", "pace_0.7", 0.3, more=True),
    _understood("pace 0.7", "pace_0.7"),
    _audible("pace 1.5: shorter by 25 points or more", "length", "pace_1.5", 0.25, more=False),
    _understood("pace 1.5", "pace_1.5"),
    _audible("4 semitones lower: by 3 or more", "f0_shift", "semitones_-4", 3.0, more=False),
    _understood("4 semitones lower", "semitones_-4"),
    _audible("4 semitones higher: by 3 or more", "f0_shift", "semitones_4", 3.0, more=True),
    _understood("4 semitones higher", "semitones_4"),
)


def goal_rows(reports: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Of each goal: its text, what was measured, whether it is met.

    Args:
        reports: what evaluate.py wrote as JSON, by the names of their folders
    """
    for goal in GOALS:
        means = goal.means(reports)
        if means is None:
            yield goal.text, "not measured", "no"
        else:
            yield goal.text, goal.tell(means), "yes" if goal.is_met_by(means) else "no"


def _mean(reports: Mapping[str, Any], report: str, metric: str, of: str) -> float | None:
    both = reports.get(report, {"summary": {}})["summary"].get(metric, {})
    summary = both.get(of)
    return None if summary is None else summary["mean"]
