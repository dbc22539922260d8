# SPDX-License-Identifier: BSD-3-Clause
"""The average of a model's weights."""

from __future__ import annotations

import torch
from torch import nn

from common.ema import ExponentialMovingAverage

TAKEN, SKIPPED = torch.tensor(0.0), torch.tensor(1.0)  # as a step's `bad_step` says


def model_with_buffers() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_the_average_follows_the_formula():
    model, decay = model_with_buffers(), 0.9
    average = ExponentialMovingAverage(model, decay)
    expected = [parameter.detach().double().clone() for parameter in model.parameters()]
    for _ in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update(model, TAKEN)
        expected = [
            decay * e + (1 - decay) * p.detach().double()
            for e, p in zip(expected, model.parameters(), strict=True)
        ]
    for averaged, e in zip(average.model.parameters(), expected, strict=True):
        torch.testing.assert_close(averaged.double(), e, rtol=1e-6, atol=1e-6)


def test_buffers_are_those_of_the_model():
    model = model_with_buffers()
    average = ExponentialMovingAverage(model, 0.99)
    model(torch.randn(8, 3) * 5 + 1)
    average.update(model, TAKEN)
    assert model[1].num_batches_tracked == 1
    for averaged, buffer in zip(average.model.buffers(), model.buffers(), strict=True):
        assert torch.equal(averaged, buffer)


def test_the_average_shares_nothing_with_the_model_and_is_not_trained():
    model = model_with_buffers()
    average = ExponentialMovingAverage(model, 0.99)
    before = average.model[0].weight.clone()
    with torch.no_grad():
        model[0].weight.add_(1)
    assert torch.equal(average.model[0].weight, before)
    assert not average.model.training
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_its_state_has_the_names_of_the_model():
    model = model_with_buffers()
    state = ExponentialMovingAverage(model, 0.5).state_dict()
    assert state.keys() == model.state_dict().keys()


def test_decay_0_keeps_no_average_and_has_nothing_to_do():
    model = model_with_buffers()
    average = ExponentialMovingAverage(model, 0.0)
    average.update(model, TAKEN)
    assert average.model is None
    assert average.state_dict() == {}


def test_a_skipped_step_leaves_the_average_as_it_was():
    model = model_with_buffers()
    average = ExponentialMovingAverage(model, 0.5)
    with torch.no_grad():
        model[0].weight.add_(1)
    average.update(model, TAKEN)
    before = {name: value.clone() for name, value in average.state_dict().items()}
    model(torch.randn(8, 3) * torch.nan)  # spoils the running means
    average.update(model, SKIPPED)
    for name, value in average.state_dict().items():
        assert torch.equal(value, before[name]), name
