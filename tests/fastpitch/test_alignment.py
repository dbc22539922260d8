# SPDX-License-Identifier: BSD-3-Clause
"""Monotonic alignment search and durations, against slow obvious versions."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.testing import assert_close

from fastpitch.alignment import (
    average_over_symbols,
    durations_to_alignment,
    expand,
    monotonic_alignment_search,
)
from tests.conftest import golden


def search_one(scores):
    lens = torch.tensor([scores.shape[1]]), torch.tensor([scores.shape[0]])
    return monotonic_alignment_search(scores[None], *lens)[0]


def test_paths_equal_the_public_recipe():
    for case in golden("alignment")["mas"]:
        assert torch.equal(search_one(case["log_attn"]), case["path"].float())


@pytest.mark.parametrize(("num_frames", "num_symbols"), [(1, 1), (5, 1), (3, 3), (7, 3), (8, 4)])
def test_no_monotonic_path_is_more_probable(num_frames, num_symbols):
    scores = torch.randn(num_frames, num_symbols)
    best = max(
        sum(scores[frame, symbol] for frame, symbol in enumerate(path))
        for path in itertools.product(range(num_symbols), repeat=num_frames)
        if path[0] == 0
        and path[-1] == num_symbols - 1
        and all(0 <= b - a <= 1 for a, b in itertools.pairwise(path))
    )
    path = search_one(scores)
    assert_close((path * scores).sum(), best)
    assert torch.equal(path.sum(dim=1), torch.ones(num_frames))


def test_each_item_of_a_batch_is_aligned_within_its_lengths():
    scores = torch.randn(3, 30, 12)
    text_lens, mel_lens = torch.tensor([12, 1, 5]), torch.tensor([30, 9, 5])
    hard = monotonic_alignment_search(scores, text_lens, mel_lens)
    for item, (symbols, frames) in enumerate(zip(text_lens, mel_lens, strict=True)):
        assert torch.equal(
            hard[item, :frames, :symbols], search_one(scores[item, :frames, :symbols])
        )
        assert hard[item].sum() == frames


def test_fewer_frames_than_symbols_are_refused():
    with pytest.raises(ValueError, match="cannot align 4 symbols with 3 frames"):
        search_one(torch.randn(3, 4))


def test_pitch_is_averaged_over_voiced_frames_as_in_the_public_recipe():
    case = golden("alignment")["average_pitch"]
    hard = durations_to_alignment(case["durations"])
    hard = torch.nn.functional.pad(hard, (0, 0, 0, case["pitch"].shape[2] - hard.shape[1]))
    average = average_over_symbols(case["pitch"][:, 0], hard)
    assert_close(average, case["out"][:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pace", [0.7, 1.0, 1.6])
def test_expansion_equals_the_public_recipe(pace):
    case = golden("alignment")["regulate_len"]
    frames = (case["durations"] / pace + 0.5).long()
    expanded = expand(case["enc_out"], durations_to_alignment(frames))
    expected = case["out"][str(pace)] if str(pace) in case["out"] else case["out"][pace]
    assert torch.equal(expanded, expected["expanded"])
    assert torch.equal(frames.sum(dim=1), expected["lens"])
