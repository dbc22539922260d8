# SPDX-License-Identifier: BSD-3-Clause
"""On a GPU: the kernels of the alignment at the sizes of a training, without waiting."""

from __future__ import annotations

import pytest
import torch

# Which is skipped, and this with it, where there is no Triton.
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


def test_nothing_waits_for_the_gpu(cuda):
    sizes = (8, 300, 70)
    log_prob = torch.randn(sizes, device=cuda, requires_grad=True)
    text_lens, mel_lens = (lens.to(cuda) for lens in random_lengths(*sizes))
    for is_compiled in (False, True):
        with no_waiting() if is_compiled else torch.enable_grad():
            kernels.search(log_prob.detach(), text_lens, mel_lens)
            kernels.forward_sum_loss(log_prob, text_lens, mel_lens, -1.0).sum().backward()
