# SPDX-License-Identifier: BSD-3-Clause
"""Normalized convolutions against their formulas, and the names in their checkpoints."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from common.weight_norm import fold_norms, spectral_norm, weight_norm

NAMES = {
    weight_norm: ["bias", "weight_g", "weight_v"],
    spectral_norm: ["bias", "weight_orig", "weight_u", "weight_v"],
}


@pytest.mark.parametrize("normalize", NAMES)
def test_checkpoints_use_the_public_names(normalize):
    model = nn.Sequential(normalize(nn.Conv1d(2, 3, 5)))
    assert list(model.state_dict()) == [f"0.{name}" for name in NAMES[normalize]]


@pytest.mark.parametrize("normalize", NAMES)
def test_what_was_saved_is_loaded_strictly(normalize):
    saved = nn.Sequential(normalize(nn.Conv1d(2, 3, 5))).eval()
    loaded = nn.Sequential(normalize(nn.Conv1d(2, 3, 5))).eval()
    loaded.load_state_dict(saved.state_dict(), strict=True)
    audio = torch.randn(2, 2, 20)
    assert torch.equal(loaded(audio), saved(audio))


@pytest.mark.parametrize("normalize", NAMES)
def test_a_missing_weight_is_an_error(normalize):
    model = normalize(nn.Conv1d(2, 3, 5))
    state = model.state_dict()
    del state["weight_v"]
    with pytest.raises(RuntimeError, match=r"Missing key"):
        model.load_state_dict(state)


@pytest.mark.parametrize("normalize", NAMES)
def test_folded_weights_give_the_same_audio(normalize):
    model = nn.Sequential(normalize(nn.ConvTranspose1d(2, 3, 5)), nn.Conv1d(3, 1, 3)).eval()
    audio = torch.randn(2, 2, 20)
    expected = model(audio)
    fold_norms(model)
    assert list(model.state_dict())[:2] == ["0.bias", "0.weight"]
    torch.testing.assert_close(model(audio), expected)


def test_weight_norm_follows_its_formula():
    conv = weight_norm(nn.Conv1d(2, 3, 5))
    state = conv.state_dict()
    direction = state["weight_v"] / state["weight_v"].flatten(1).norm(dim=1)[:, None, None]
    torch.testing.assert_close(conv.weight, state["weight_g"] * direction)


def test_spectral_norm_makes_the_largest_singular_value_one():
    conv = spectral_norm(nn.Conv1d(2, 3, 5)).train()
    for _ in range(50):
        conv(torch.randn(1, 2, 20))
    assert torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-4)


def test_spectral_norm_is_estimated_in_full_precision_under_autocast():
    conv = spectral_norm(nn.Conv1d(2, 3, 5)).train()
    other = copy.deepcopy(conv)
    with torch.autocast("cpu", torch.bfloat16):
        weight = conv.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, other.weight)


@pytest.mark.parametrize("normalize", NAMES)
def test_a_copy_keeps_the_names(normalize):
    assert list(copy.deepcopy(normalize(nn.Conv1d(2, 3, 5))).state_dict()) == NAMES[normalize]
