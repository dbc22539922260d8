# SPDX-License-Identifier: BSD-3-Clause
"""The kernels of the alignment against what a CPU computes; see tests/kernels.py."""

from __future__ import annotations

import json

import pytest
import torch
from torch.testing import assert_close

from fastpitch.alignment import monotonic_alignment_search
from fastpitch.loss_function import BLANK_LOG_PROB, alignment_loss
from tests.conftest import golden
from tests.kernels import DEVICE

import benchmarks.gpu.kernels as kernels_benchmark  # isort: skip
from fastpitch import kernels  # isort: skip -- only where tests.kernels has found Triton

SIZES = [(1, 1, 1), (4, 9, 1), (3, 30, 12), (2, 60, 31), (2, 40, 32), (2, 33, 33)]


def random_lengths(batch_size, num_frames, num_symbols):
    """Lengths of which the longest are as given, and every text fits its frames."""
    text_lens = torch.randint(1, num_symbols + 1, (batch_size,))
    text_lens[0] = num_symbols
    mel_lens = torch.stack([torch.randint(int(n), num_frames + 1, ()) for n in text_lens])
    mel_lens[-1] = num_frames
    return text_lens, mel_lens


def check_paths(sizes):
    """Many scores are equal, and some are -inf, as those of a saturated softmax."""
    scores = torch.randn(sizes).round().log_softmax(dim=2)
    scores[scores < -3] = -torch.inf
    lens = random_lengths(*sizes)
    found = kernels.search(scores.to(DEVICE), *(each.to(DEVICE) for each in lens))
    assert torch.equal(found.cpu(), monotonic_alignment_search(scores, *lens))


def check_loss(sizes):
    """The losses of PyTorch's CTC in double precision, and their gradients."""
    log_prob = torch.randn(sizes)
    text_lens, mel_lens = random_lengths(*sizes)
    factors = torch.rand(len(log_prob))
    exact = log_prob.double().requires_grad_()
    expected = torch.stack(
        [
            ctc_loss(exact[item : item + 1], text_lens[item : item + 1], mel_lens[item : item + 1])
            for item in range(len(log_prob))
        ]
    )
    (expected @ factors.double()).backward()
    ours = log_prob.to(DEVICE).requires_grad_()
    losses = losses_of(ours, text_lens, mel_lens)
    (losses @ factors.to(DEVICE)).backward()
    assert_close(losses.detach().cpu().double(), expected.detach(), rtol=1e-5, atol=1e-5)
    # Log-probabilities are as large as the loss: what rounds them changes what they stand for.
    rounding = torch.finfo(torch.float32).eps * float(expected.detach().max())
    error = (ours.grad.cpu() - exact.grad).norm() / exact.grad.norm()
    assert error <= max(1e-3, 30 * rounding)


def ctc_loss(log_prob, text_lens, mel_lens):
    classes = torch.nn.functional.pad(log_prob, (1, 0), value=BLANK_LOG_PROB)
    log_classes = classes[:, :, : int(text_lens) + 1].log_softmax(dim=2).transpose(0, 1)
    targets = torch.arange(1, int(text_lens) + 1)[None]
    return torch.nn.functional.ctc_loss(
        log_classes, targets, mel_lens, text_lens, reduction="sum", zero_infinity=True
    )


def losses_of(log_prob, text_lens, mel_lens):
    lens = text_lens.to(DEVICE), mel_lens.to(DEVICE)
    return kernels.forward_sum_loss(log_prob.to(DEVICE), *lens, BLANK_LOG_PROB)


@pytest.mark.parametrize("sizes", SIZES)
def test_paths_are_those_found_on_a_cpu(sizes):
    check_paths(sizes)


def test_paths_equal_the_public_recipe():
    for case in golden("alignment")["mas"]:
        scores = case["log_attn"][None].to(DEVICE)
        lens = (torch.tensor([size], device=DEVICE) for size in reversed(scores.shape[1:]))
        assert torch.equal(kernels.search(scores, *lens)[0].cpu(), case["path"].float())


@pytest.mark.parametrize("sizes", SIZES)
def test_losses_and_gradients_are_those_of_ctc(sizes):
    check_loss(sizes)


def test_the_alignment_loss_is_the_one_a_cpu_computes():
    log_prob, lens = torch.randn(3, 20, 7), (torch.tensor([7, 3, 5]), torch.tensor([20, 14, 9]))
    losses = losses_of(log_prob, *lens).cpu()
    assert_close((losses / lens[0]).sum(), alignment_loss(log_prob, *lens))


def test_fewer_frames_than_symbols_go_to_the_last_symbol_without_a_loss():
    log_prob, lens = torch.randn(2, 6, 4), (torch.tensor([4, 2]), torch.tensor([3, 6]))
    paths = kernels.search(log_prob.to(DEVICE), *(each.to(DEVICE) for each in lens)).cpu()
    assert torch.equal(paths[0].sum(dim=0), torch.tensor([0.0, 0.0, 0.0, 3.0]))
    log_prob.requires_grad_()
    losses = losses_of(log_prob, *lens)
    losses.sum().backward()
    assert losses[0] == 0 and losses[1] > 0
    assert (log_prob.grad[0] == 0).all() and log_prob.grad[1].isfinite().all()


def test_a_loss_that_is_not_a_number_stays_so_and_spoils_no_other():
    log_prob = torch.randn(2, 6, 4)
    log_prob[0, 3, 1] = torch.nan
    losses = losses_of(log_prob, torch.tensor([4, 2]), torch.tensor([6, 6]))
    assert losses[0].isnan() and losses[1].isfinite()


def test_the_benchmark_of_the_kernels_measures_each(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels_benchmark, "RUNS", 1)
    path = tmp_path / "kernels.json"
    kernels_benchmark.main(str(path), DEVICE.type, "1", "50")
    numbers = json.loads(path.read_text())
    assert len(numbers) == 6 and all(number > 0 for number in numbers.values())
