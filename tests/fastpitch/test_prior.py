# SPDX-License-Identifier: BSD-3-Clause
"""The prior over alignments."""

from __future__ import annotations

from math import comb, exp, lgamma
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from fastpitch.prior import InterpolatedPrior, beta_binomial_prior

PRIORS = Path(__file__).resolve().parents[1] / "data" / "alignment.pt"


def table_size(key: str) -> tuple[int, int]:
    num_frames, num_symbols = map(int, key.split("x"))
    return num_frames, num_symbols


@pytest.mark.parametrize(
    ("kind", "compute"),
    [
        ("prior_exact", beta_binomial_prior),
        ("prior_interpolated", InterpolatedPrior()),
    ],
)
def test_priors_equal_those_of_the_public_recipe(kind, compute):
    for key, golden in torch.load(PRIORS, weights_only=True)[kind].items():
        prior = compute(*table_size(key))
        assert prior.dtype == np.float32
        np.testing.assert_allclose(prior, golden.numpy(), atol=1e-6, rtol=0)


def test_the_prior_is_the_beta_binomial_formula():
    def beta(a: float, b: float) -> float:
        return exp(lgamma(a) + lgamma(b) - lgamma(a + b))

    num_frames, num_symbols, scaling = 7, 4, 0.5
    prior = beta_binomial_prior(num_frames, num_symbols, scaling)
    for frame in range(1, num_frames + 1):
        a, b = scaling * frame, scaling * (num_frames + 1 - frame)
        for symbol in range(num_symbols):
            ways = comb(num_symbols, symbol)
            expected = ways * beta(symbol + a, num_symbols - symbol + b) / beta(a, b)
            assert prior[frame - 1, symbol] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 30), (2, 2), (49, 9), (50, 10), (149, 29), (877, 163)]
)
def test_the_stretched_prior_has_the_exact_size_and_follows_the_diagonal(size):
    prior = InterpolatedPrior()(*size)
    assert prior.shape == size
    assert (prior >= 0).all()
    likeliest = prior.argmax(axis=0)
    assert (np.diff(likeliest) >= 0).all()


def test_the_prior_does_not_depend_on_what_was_asked_before():
    fresh, used = InterpolatedPrior(), InterpolatedPrior(max_tables=2)
    sizes = [(120, 30), (300, 60), (500, 90), (130, 31)]
    for size in sizes + sizes:
        np.testing.assert_array_equal(used(*size), InterpolatedPrior()(*size))
    np.testing.assert_array_equal(used(120, 30), fresh(120, 30))
    assert len(used._tables) == 2


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (49, 9), (460, 54), (277, 9), (877, 163)])
def test_the_stretched_prior_is_bitwise_what_zoom_makes_of_its_table(size):
    priors = InterpolatedPrior()
    table = priors.table(*size)
    factors = [own / stretched for own, stretched in zip(size, table.shape, strict=True)]
    np.testing.assert_array_equal(priors(*size), ndimage.zoom(table, factors, order=1))


def test_a_prior_goes_into_its_place_in_a_batch_with_zeros_behind_it():
    priors = InterpolatedPrior()
    padded = np.full((130, 40), np.nan, dtype=np.float32)
    priors.fill(padded, 120, 30)
    np.testing.assert_array_equal(padded[:120, :30], priors(120, 30))
    padded[:120, :30] = 0
    assert not padded.any()


def test_an_empty_utterance_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match="0 symbols"):
        InterpolatedPrior()(10, 0)


@pytest.mark.parametrize(("num_frames", "num_symbols"), [(1, 1), (5, 3), (80, 600), (900, 100)])
def test_the_prior_is_scipys_beta_binomial_distribution(num_frames, num_symbols):
    frame = np.arange(1, num_frames + 1)[:, None]
    expected = stats.betabinom.pmf(
        np.arange(num_symbols), num_symbols, frame, num_frames + 1 - frame
    )
    prior = beta_binomial_prior(num_frames, num_symbols)
    np.testing.assert_allclose(prior, expected, rtol=1e-5, atol=1e-30)
