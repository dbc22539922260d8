# SPDX-License-Identifier: BSD-3-Clause
"""On a GPU: precision, skipped steps, update rules and alignments are what they are on a CPU."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from common.config import RunConfig
from common.distributed import Processes
from common.learner import Learner
from common.metrics import pop_peak_memory
from common.optim import UpdateRule
from common.precision import full_precision, set_tf32
from fastpitch.alignment import monotonic_alignment_search
from tests.common.test_learner import OPTIMIZERS, snapshot
from tests.common.test_optim import COUNTS, check_that_a_state_not_fused_goes_on, optimize
from tests.conftest import assert_same, golden, golden_batch
from tests.fastpitch.test_model import load

pytestmark = pytest.mark.gpu

EXACT = 1e-5  # relative error of a float32 product, which TF32 misses by far


@pytest.fixture
def precision_restored():
    """Leaves TF32 to other tests as it was found."""
    matmul = torch.get_float32_matmul_precision()
    convolution = torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = convolution


@contextlib.contextmanager
def no_waiting():
    """Region in which an operation that waits for the GPU raises an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def make_learner(optimizer):
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1)).to("cuda")
    rule = UpdateRule(
        name=optimizer,
        learning_rate=0.01,
        betas=(0.9, 0.98),
        eps=1e-9,
        weight_decay=0.01,
        max_grad_norm=1000.0,
    )
    run = RunConfig(output=Path(), epochs=1, batch_size=1, cuda=True, amp=True, ema_decay=0.9)
    learner = Learner(model, rule, run, Processes(cuda=True))
    scaler = learner.precision.state_dict()  # its first scale may be too large for this model
    learner.precision.load_state_dict(scaler | {"scale": 1024.0})
    return learner


def step(learner, clip, gradient_factor=1.0):
    def terms_of(clip):
        with learner.autocast():
            output = learner.wrapped(clip)
        output.register_hook(lambda gradient: gradient * gradient_factor)
        return {"loss": output.float().square().mean()}

    return learner.step([clip], terms_of, 0.01)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_overflow_not_a_poisoned_clip_halves_the_scale_without_waiting(cuda, optimizer):
    learner = make_learner(optimizer)
    clip = torch.randn(8, 16, device=cuda)
    poisoned = clip * torch.nan
    for _ in range(2):  # the first steps make the optimizer's state
        step(learner, clip)
    before = snapshot(learner)
    with no_waiting():
        bad = step(learner, poisoned)
    assert bad["bad_step"] == 1 and bad["scale"] == 1024
    with no_waiting():
        bad = step(learner, clip, gradient_factor=torch.inf)
    assert bad["bad_step"] == 1 and bad["scale"] == 1024, "a loss that is NaN has left it"
    assert_same(snapshot(learner), before)
    with no_waiting():
        good = step(learner, clip)
    assert good["bad_step"] == 0 and good["scale"] == 512
    weights = learner.model.state_dict()
    changed = [not torch.equal(weights[k], v) for k, v in before["state_dict"].items()]
    assert all(changed)


def test_the_peak_of_memory_is_that_since_it_was_last_asked_for(cuda):
    pop_peak_memory(cuda)
    torch.zeros(2**28, dtype=torch.uint8, device=cuda)  # a quarter of a GiB, and gone
    with no_waiting():
        before, after = pop_peak_memory(cuda), pop_peak_memory(cuda)
    assert before["gpu_memory_gib"] - after["gpu_memory_gib"] == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("weight_decay", [0.0, 1e-6])
def test_lamb_steps_as_on_a_cpu(cuda, weight_decay):
    fixture = golden("lamb")
    settings = {"lr": fixture["lr"], "weight_decay": weight_decay}
    on_cpu = optimize(fixture["params"], fixture["grads"], **settings)
    params = [param.to(cuda) for param in fixture["params"]]
    grads = [[grad.to(cuda) for grad in grads] for grads in fixture["grads"]]
    for ours, theirs in zip(optimize(params, grads, **settings), on_cpu, strict=True):
        assert_close(ours.cpu(), theirs)


def product_error(device):
    """Relative error of a float32 product."""
    factors = torch.randn(2, 256, 256, device=device)
    exact = factors[0].double() @ factors[1].double()
    return float((factors[0] @ factors[1] - exact).norm() / exact.norm())


def test_tf32_is_used_where_allowed_and_only_there(ampere, precision_restored):
    set_tf32(False, ampere)
    assert product_error(ampere) < EXACT
    set_tf32(True, ampere)
    assert product_error(ampere) > 10 * EXACT


def test_products_are_exact_in_a_region_of_full_precision(ampere, precision_restored):
    set_tf32(True, ampere)
    factors = torch.randn(2, 256, 256, device=ampere)
    exact = factors[0].double() @ factors[1].double()
    kernel = torch.randn(4, 4, 3, device=ampere)
    signal = torch.randn(1, 4, 100, device=ampere)
    with torch.autocast("cuda"):
        assert (factors[0] @ factors[1]).dtype == torch.float16
        with full_precision(factors):
            product = factors[0] @ factors[1]
            convolved = nn.functional.conv1d(signal, kernel)
    assert product.dtype == convolved.dtype == torch.float32
    assert (product - exact).norm() / exact.norm() < EXACT
    expected = nn.functional.conv1d(signal.double(), kernel.double())
    assert (convolved - expected).norm() / expected.norm() < EXACT
    assert product_error(ampere) > 10 * EXACT, "TF32 is allowed again"


def test_paths_are_those_found_on_a_cpu(cuda):
    scores = torch.randn(4, 200, 40).log_softmax(dim=2)
    text_lens, mel_lens = torch.tensor([40, 1, 25, 33]), torch.tensor([200, 9, 25, 150])
    expected = monotonic_alignment_search(scores, text_lens, mel_lens)
    found = monotonic_alignment_search(scores.to(cuda), text_lens.to(cuda), mel_lens.to(cuda))
    assert found.device.type == "cuda"
    assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("name", ["fastpitch_tiny", "fastpitch_tiny_speakers"])
def test_fastpitch_computes_what_the_public_recipe_does(cuda, precision_restored, name):
    set_tf32(False, cuda)
    fixture = golden(name)
    output = load(fixture).to(cuda)(golden_batch(fixture).to(cuda))
    expected = fixture["forward"]
    assert torch.equal(output.alignment.hard.cpu(), expected["attn_hard"][:, 0])
    mel = output.mel.transpose(1, 2).cpu()
    assert_close(mel, expected["mel_out"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_state_of_an_optimizer_that_was_not_fused_goes_on(cuda, name, kind):
    check_that_a_state_not_fused_goes_on(name, kind, cuda)
