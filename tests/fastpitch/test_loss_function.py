# SPDX-License-Identifier: BSD-3-Clause
"""FastPitch's loss against the public recipe's numbers, and its independence of padding."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from fastpitch.arg_parser import FastPitchLossConfig
from fastpitch.loss_function import BatchCounts, FastPitchLoss, alignment_loss
from tests.conftest import golden, golden_batch
from tests.fastpitch.test_model import FIXTURES, load

SCALES = FastPitchLossConfig(dur_predictor_loss_scale=0.1, pitch_predictor_loss_scale=0.1)


@pytest.mark.parametrize("name", FIXTURES)
def test_every_term_equals_the_public_recipe(name):
    fixture = golden(name)
    batch = golden_batch(fixture)
    output = load(fixture)(batch)
    expected = fixture["losses"]
    terms = FastPitchLoss(SCALES)(output, batch, kl_weight=1.0)
    for term in terms.keys() - {"loss"}:
        assert_close(terms[term].item(), expected[term], atol=1e-4, rtol=1e-5)
    assert_close(terms["loss"].item(), expected["total"], atol=1e-4, rtol=1e-5)
    without_kl = FastPitchLoss(SCALES)(output, batch)
    assert_close(without_kl["loss"].item(), expected["loss"], atol=1e-4, rtol=1e-5)
    assert "kl_loss" not in without_kl


def test_gradients_equal_the_public_recipe():
    fixture = golden("fastpitch_tiny_grads")
    model, batch = load(fixture), golden_batch(fixture)
    FastPitchLoss(SCALES)(model(batch), batch, kl_weight=1.0)["loss"].backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert gradients.keys() == fixture["grads"].keys()
    for name, expected in fixture["grads"].items():
        assert (gradients[name] - expected).norm() <= 1e-4 * expected.norm(), name


def test_more_padding_changes_no_gradient_and_makes_none_nan():
    fixture = golden("fastpitch_tiny")
    model = load(fixture)
    gradients = []
    # One frame of padding behind the longest mel: its last frames see it, see docs/differences.md.
    for padding in (1, 9):
        batch = pad_mels(golden_batch(fixture), padding)
        model.zero_grad()
        FastPitchLoss(SCALES)(model(batch), batch, kl_weight=1.0)["loss"].backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for little, much in zip(*gradients, strict=True):
        assert little.isfinite().all()
        assert (little - much).norm() <= 1e-5 + 1e-4 * little.norm()


def pad_mels(batch, num_frames):
    return dataclasses.replace(
        batch,
        mel=F.pad(batch.mel, (0, num_frames)),
        pitch=F.pad(batch.pitch, (0, num_frames)),
        energy=F.pad(batch.energy, (0, num_frames)),
        prior=F.pad(batch.prior, (0, 0, 0, num_frames)),
    )


def test_losses_of_parts_add_up_to_the_loss_of_the_whole():
    fixture = golden("fastpitch_tiny_grads")  # equal text lengths: no padding of text in the whole
    model, whole = load(fixture), golden_batch(fixture)
    parts = [part_of(whole, slice(0, 1)), part_of(whole, slice(1, 3))]
    loss, counts = FastPitchLoss(SCALES), BatchCounts.of(parts)
    expected = loss(model(whole), whole, kl_weight=0.5)
    terms = [loss(model(part), part, counts, kl_weight=0.5) for part in parts]
    for name in expected:
        assert_close(terms[0][name] + terms[1][name], expected[name], atol=0.0, rtol=1e-5)


def part_of(batch, items):
    tensors = {k: v[items] for k, v in vars(batch).items() if isinstance(v, torch.Tensor)}
    return dataclasses.replace(batch, **tensors)


def test_alignment_loss_equals_the_sum_over_all_paths():
    log_prob = torch.randn(1, 4, 2)
    classes = torch.cat([torch.full((1, 4, 1), -1.0), log_prob], dim=2).log_softmax(2)[0]
    paths = [
        path
        for path in torch.cartesian_prod(*[torch.arange(3)] * 4).tolist()
        if [c for i, c in enumerate(path) if c and (i == 0 or c != path[i - 1])] == [1, 2]
    ]
    log_paths = torch.stack([sum(classes[t, c] for t, c in enumerate(path)) for path in paths])
    loss = alignment_loss(log_prob, torch.tensor([2]), torch.tensor([4]))
    assert_close(loss, -log_paths.logsumexp(0) / 2)


@pytest.mark.parametrize(
    ("epoch", "weight"), [(1, 0.0), (10, 0.0), (15, 0.5), (20, 1.0), (99, 1.0)]
)
def test_binarization_rises_linearly_from_its_start(epoch, weight):
    config = FastPitchLossConfig(kl_loss_start_epoch=10, kl_loss_warmup_epochs=10)
    assert config.kl_weight(epoch) == weight
