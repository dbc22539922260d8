# SPDX-License-Identifier: BSD-3-Clause
"""On a GPU: the kernels at the sizes of a training, without waiting."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from hifigan.loss_function import feature_loss
from tests.fastpitch.test_kernels import (
    SIZES,
    check_loss,
    check_paths,
    kernels,
    random_lengths,
)
from tests.gpu.test_steps import no_waiting

pytestmark = pytest.mark.gpu

LARGE = [(32, 900, 170), (3, 3000, 512), (2, 700, 600)]


@pytest.mark.parametrize("sizes", SIZES + LARGE)
def test_paths_are_those_found_on_a_cpu(sizes):
    check_paths(sizes)


@pytest.mark.parametrize("sizes", SIZES + LARGE)
def test_losses_and_gradients_are_those_of_ctc(sizes):
    check_loss(sizes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_feature_loss_is_the_one_a_cpu_computes(cuda, dtype):
    real, fake = torch.randn(2, 4, 128, 8192).to(dtype)
    ours, theirs = (fake.to(device).requires_grad_() for device in (cuda, "cpu"))
    losses = [feature_loss([[real.to(each.device)]], [[each]]) for each in (ours, theirs)]
    for loss in losses:
        loss.backward()
    assert_close(losses[0].cpu(), losses[1])
    assert_close(ours.grad.cpu(), theirs.grad)


def test_nothing_waits_for_the_gpu(cuda):
    sizes = (8, 300, 70)
    log_prob = torch.randn(sizes, device=cuda, requires_grad=True)
    text_lens, mel_lens = (lens.to(cuda) for lens in random_lengths(*sizes))
    for is_compiled in (False, True):
        with no_waiting() if is_compiled else torch.enable_grad():
            kernels.search(log_prob.detach(), text_lens, mel_lens)
            kernels.forward_sum_loss(log_prob, text_lens, mel_lens, -1.0).sum().backward()
