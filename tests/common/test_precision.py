# SPDX-License-Identifier: BSD-3-Clause
"""A training step's precision: off, it is plain PyTorch; TF32 and where it must not be."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from common.precision import Precision, full_precision, set_tf32

CPU = torch.device("cpu")
GOOD = torch.tensor(0.0)  # as a finite loss is


@pytest.mark.parametrize("max_grad_norm", [0.01, 1000.0], ids=["clipped", "unclipped"])
def test_a_step_without_amp_is_that_of_plain_pytorch(max_grad_norm):
    model, inputs = nn.Linear(4, 3), torch.randn(8, 4)
    plain = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    plain_optimizer = torch.optim.Adam(plain.parameters(), lr=0.1)
    precision = Precision(amp=False, device=CPU)
    for _ in range(3):
        optimizer.zero_grad()
        with precision.autocast():
            loss = model(inputs).square().mean()
        assert loss.dtype == torch.float32
        precision.backward(loss)
        stepped = precision.step(optimizer, model.parameters(), max_grad_norm, GOOD)

        plain_optimizer.zero_grad()
        plain(inputs).square().mean().backward()
        plain_norm = nn.utils.clip_grad_norm_(plain.parameters(), max_grad_norm)
        plain_optimizer.step()
        assert torch.equal(stepped["grad_norm"], plain_norm)
        assert stepped["bad_step"] == 0 and "scale" not in stepped
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_amp_without_a_gpu_is_refused():
    with pytest.raises(ValueError, match=r"^--amp needs a GPU: add --cuda"):
        Precision(amp=True, device=CPU)


def test_bf16_is_computed_on_a_cpu_and_needs_no_scale():
    precision = Precision(amp=True, device=CPU, dtype="bf16")
    model = nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    with precision.autocast():
        outputs = model(torch.randn(8, 4))
    assert outputs.dtype == torch.bfloat16
    precision.backward(outputs.float().square().mean())
    assert model.weight.grad.dtype == torch.float32
    assert "scale" not in precision.step(optimizer, model.parameters(), 1000.0, GOOD)
    assert precision.state_dict() == {}


def test_nothing_is_saved_without_amp_and_a_state_with_amp_is_no_obstacle():
    precision = Precision(amp=False, device=CPU)
    assert precision.state_dict() == {}
    precision.load_state_dict({"scale": 1024.0, "growth_factor": 2.0, "_growth_tracker": 3})
    assert precision.state_dict() == {}


def test_products_are_exact_in_a_region_of_full_precision():
    inputs = torch.randn(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (inputs @ inputs).dtype == torch.bfloat16
        with full_precision(inputs):
            assert (inputs @ inputs).dtype == torch.float32


@pytest.fixture
def tf32_restored():
    """Leaves TF32 to other tests as it was found."""
    before = tf32()
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def tf32():
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


def test_tf32_is_allowed_or_not_on_gpus_alone(tf32_restored):
    gpu = torch.device("cuda")  # none is needed to say what it may do
    set_tf32(True, gpu)
    assert tf32() == ("high", True)
    set_tf32(False, CPU)
    assert tf32() == ("high", True)
    set_tf32(False, gpu)
    assert tf32() == ("highest", False)


@pytest.mark.parametrize("allowed", [True, False])
def test_a_region_of_full_precision_is_without_tf32_and_leaves_it_as_it_was(tf32_restored, allowed):
    set_tf32(allowed, torch.device("cuda"))
    before = tf32()
    with full_precision(torch.zeros(1)):
        assert tf32() == ("highest", False)
    assert tf32() == before
    with pytest.raises(KeyError), full_precision(torch.zeros(1)):
        raise KeyError
    assert tf32() == before
