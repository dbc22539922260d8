# SPDX-License-Identifier: BSD-3-Clause
"""The kernel of the feature loss against PyTorch's; see tests/kernels.py."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import l1_loss
from torch.testing import assert_close

from tests.kernels import DEVICE

from hifigan import kernels  # isort: skip -- only where tests.kernels has found Triton


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1,), (2, 3, 50), (2, 8, 2000)])
def test_the_distance_and_its_gradient_are_those_of_copies_in_float32(shape, dtype):
    first, second = torch.randn(2, *shape).to(dtype)
    second.view(-1)[::5] = first.view(-1)[::5]  # some are equal
    theirs = first.clone().requires_grad_()
    expected = l1_loss(theirs.float(), second.float())
    (expected * 3).backward()
    ours = first.to(DEVICE).requires_grad_()
    distance = kernels.mean_distance(ours, second.to(DEVICE))
    (distance * 3).backward()
    assert distance.dtype == torch.float32 and ours.grad.dtype == dtype
    assert_close(distance.cpu(), expected)
    assert_close(ours.grad.cpu(), theirs.grad, rtol=0, atol=torch.finfo(dtype).eps / len(first))


def test_a_distance_that_is_not_a_number_stays_so():
    first = torch.tensor([0.0, torch.nan], device=DEVICE, requires_grad=True)
    distance = kernels.mean_distance(first, torch.zeros_like(first))
    distance.backward()
    assert distance.isnan() and first.grad[1].isnan()
