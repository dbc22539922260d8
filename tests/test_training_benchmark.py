# SPDX-License-Identifier: BSD-3-Clause
"""The training step against its plain form: the same numbers, in less memory."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from torch.testing import assert_close

import benchmarks.training
from benchmarks.memory import peak_bytes
from benchmarks.plain.model import PlainFastPitch
from benchmarks.training import (
    PROGRESS,
    align_and_back,
    align_plainly,
    make_batch,
    make_plain_step,
    make_task,
)
from common.sequences import lengths_to_mask
from fastpitch.arg_parser import FastPitchConfig
from fastpitch.attention import SoftAlignment
from fastpitch.model import FastPitch

TINY = {
    "symbols_embedding_dim": 16,
    "in_fft_n_layers": 2,
    "in_fft_n_heads": 2,
    "in_fft_d_head": 8,
    "in_fft_conv1d_filter_size": 24,
    "in_fft_output_size": 16,
    "out_fft_n_layers": 1,
    "out_fft_n_heads": 1,
    "out_fft_d_head": 12,
    "out_fft_conv1d_filter_size": 32,
    "out_fft_output_size": 16,
}
ROUNDING = {"atol": 2e-5, "rtol": 2e-4}


def without_dropout(**changes) -> FastPitchConfig:
    config = FastPitchConfig(**TINY, energy_conditioning=True, **changes)
    return dataclasses.replace(
        config, **{name: 0.0 for name in vars(config) if name.startswith("p_")}
    )


def shortened(batch, frames, symbols):
    """The batch with a part of each clip, so that tests are quick."""
    mel_lens = (batch.mel_lens * frames // batch.mel_lens.max()).clamp(min=1)
    text_lens = (batch.text_lens * symbols // batch.text_lens.max()).clamp(min=1)
    text_mask, mel_mask = lengths_to_mask(text_lens, symbols), lengths_to_mask(mel_lens, frames)
    return dataclasses.replace(
        batch,
        text=batch.text[:, :symbols] * text_mask,
        text_lens=text_lens,
        mel=batch.mel[:, :, :frames] * mel_mask[:, None, :],
        mel_lens=mel_lens,
        pitch=batch.pitch[:, :frames] * mel_mask,
        energy=batch.energy[:, :frames] * mel_mask,
        prior=batch.prior[:, :frames, :symbols] * mel_mask[:, :, None] * text_mask[:, None, :],
    )


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_outputs_losses_and_gradients_are_those_of_the_plain_form(kernel_size):
    config = without_dropout(
        in_fft_conv1d_kernel_size=kernel_size, out_fft_conv1d_kernel_size=kernel_size
    )
    model = FastPitch(config).train()
    batch = shortened(make_batch(config, 4), 90, 20)
    plain, loss = PlainFastPitch(config, model.state_dict()), make_task(model).loss
    output, expected = model(batch), plain(batch)
    assert_close(output, expected, **ROUNDING)
    terms, expected_terms = (loss(o, batch, kl_weight=0.5) for o in (output, expected))
    assert_close(terms, expected_terms, **ROUNDING)
    terms["loss"].backward()
    expected_terms["loss"].backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert_close(grads, {name: w.grad for name, w in plain.weights.items()}, **ROUNDING)


def test_steps_lead_to_the_weights_and_averages_of_the_plain_form():
    config = without_dropout()
    model = FastPitch(config)
    batch = shortened(make_batch(config, 3), 60, 15)
    task = make_task(model)
    plain_step = make_plain_step(model, task)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    for _ in range(3):
        loss = task.train_step([batch], PROGRESS)["loss"]
        assert_close(loss, plain_step(batch), **ROUNDING)
    state, average = model.state_dict(), task.learner.ema.state_dict()
    for name, weight in plain_step.model.weights.items():
        if name.endswith("qkv_net.bias"):
            continue  # a softmax ignores that of keys: its gradient is rounding, which LAMB scales
        assert_close(state[name], weight.detach(), **ROUNDING)
        assert_close(average[name], plain_step.averages[name], **ROUNDING)
        assert not torch.allclose(state[name], before[name], **ROUNDING), name


def test_the_aligner_takes_at_most_half_of_the_memory_of_its_plain_form():
    config = without_dropout()
    batch = shortened(make_batch(config, 4), 200, 40)
    aligner = SoftAlignment(config.n_mel_channels, config.symbols_embedding_dim)
    plain, ours = (
        peak_bytes(functools.partial(align, aligner, batch))
        for align in (align_plainly, align_and_back)
    )
    num_pairs = batch.prior.numel()
    assert plain > 2 * 4 * config.n_mel_channels * num_pairs
    assert ours < plain / 2


def test_the_benchmark_prints_its_tables(capsys):
    flags = [
        part for name, size in TINY.items() for part in (f"--{name.replace('_', '-')}", str(size))
    ]
    assert benchmarks.training.main(["--clips", "1", "--runs", "1", *flags]) == 0
    printed = capsys.readouterr().out
    for row in ("plain, float32", "train.py, float32", "train.py, bf16", "fastpitch/attention.py"):
        assert f"| {row} |" in printed
    with pytest.raises(SystemExit):
        benchmarks.training.main(["--clips", "17"])
