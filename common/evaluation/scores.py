# SPDX-License-Identifier: BSD-3-Clause
"""What sentences score, and what that says of all sentences: means with confidence intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

NUM_RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a score is called and read."""

    title: str
    unit: str  # as printed after the number
    scale: float = 1.0  # from the score to what is printed
    decimals: int = 2

    @property
    def label(self) -> str:
        """Title and unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def text(self, score: float) -> str:
        """A score as a person reads it."""
        return f"{self.scale * score:.{self.decimals}f}"


PERCENT = {"unit": "%", "scale": 100.0, "decimals": 1}
METRICS: Mapping[str, Metric] = {
    "wer": Metric(title="word error rate", **PERCENT),
    "words_wrong": Metric(title="words wrong", **PERCENT),
    "words_skipped": Metric(title="words skipped", **PERCENT),
    "words_added": Metric(title="words added", **PERCENT),
    "cer": Metric(title="character error rate", **PERCENT),
    "dnsmos": Metric(title="DNSMOS, overall", unit="of 5"),
    "dnsmos_signal": Metric(title="DNSMOS, signal", unit="of 5"),
    "dnsmos_background": Metric(title="DNSMOS, background", unit="of 5"),
    "dnsmos_p808": Metric(title="DNSMOS, P.808", unit="of 5"),
    "mcd": Metric(title="mel-cepstral distortion", unit="dB"),
    "f0_shift": Metric(title="log F0, mean difference", unit="semitones"),
    "f0_rmse": Metric(title="log F0, RMSE", unit="semitones"),
    "f0_correlation": Metric(title="log F0, correlation", unit=""),
    "voicing_error": Metric(title="voicing error", **PERCENT),
    "length": Metric(title="length beside the recording's", unit="%", scale=100.0, decimals=1),
    "duration_error": Metric(title="duration error", unit="ms a symbol", scale=1000.0, decimals=1),
}


WORST_BY = ("wer", "cer", "mcd")  # what is looked at first, of two sentences


def badness(values: Mapping[str, float]) -> tuple[float, ...]:
    """Greater for what should be listened to first.

    Args:
        values: of the metrics of a sentence that were measured
    """
    return tuple(values.get(name, 0.0) for name in WORST_BY)


class Score(NamedTuple):
    """What a sentence scores, and how much it counts: its words, for instance."""

    value: float
    weight: float = 1.0


class Summary(NamedTuple):
    """A mean over sentences, and within which bounds it lies with a confidence of 95 %."""

    mean: float
    low: float
    high: float
    num_sentences: int


def summarize(scores: Sequence[Score], seed: int = 0) -> Summary | None:
    """The weighted mean of scores, with its percentile bootstrap interval over sentences (Efron
    1979); None where nothing counts.

    Args:
        seed: of the resampling
    """
    counted = [score for score in scores if score.weight > 0 and np.isfinite(score.value)]
    if not counted:
        return None
    values, weights = np.array(counted, dtype=np.float64).T
    drawn = np.random.default_rng(seed).integers(len(counted), size=(NUM_RESAMPLES, len(counted)))
    means = (values * weights)[drawn].sum(axis=1) / weights[drawn].sum(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    mean = float(np.average(values, weights=weights))
    return Summary(mean, float(low), float(high), len(counted))
