# SPDX-License-Identifier: BSD-3-Clause
"""Means over sentences and how sure they are."""

import numpy as np
import pytest

from common.evaluation.scores import NUM_RESAMPLES, Score, summarize


def test_a_mean_weighs_sentences_by_what_counts():
    summary = summarize([Score(1.0, 1), Score(0.0, 9)])
    assert summary.mean == pytest.approx(0.1)
    assert summary.num_sentences == 2


def test_equal_scores_leave_no_doubt():
    assert summarize([Score(0.25, 4)] * 5)[:3] == (0.25, 0.25, 0.25)


def test_the_interval_of_many_sentences_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(3, 2, 400)
    summary = summarize([Score(value) for value in values])
    margin = 1.96 * values.std() / np.sqrt(len(values))
    assert summary.mean == pytest.approx(values.mean())
    assert summary.low == pytest.approx(values.mean() - margin, abs=0.1 * margin)
    assert summary.high == pytest.approx(values.mean() + margin, abs=0.1 * margin)


def test_what_cannot_be_scored_does_not_count():
    assert summarize([Score(1.0), Score(0.0, 0.0), Score(float("nan"))]).num_sentences == 1
    assert summarize([Score(0.0, 0.0)]) is None
    assert summarize([]) is None


def test_resampling_repeats_with_its_seed():
    scores = [Score(value) for value in range(7)]
    assert summarize(scores) == summarize(scores) != summarize(scores, seed=1)
    assert NUM_RESAMPLES >= 1000
