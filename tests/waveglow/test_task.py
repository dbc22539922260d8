# SPDX-License-Identifier: BSD-3-Clause
"""WaveGlow's steps: what they report, that batches may be divided, that silence does no harm."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from common.audio import MelSpectrogram
from common.config import AudioConfig, OptimizerConfig, RunConfig, setup_of
from common.distributed import Processes
from common.segments import AudioBatch
from common.task import Progress
from tests.waveglow.test_model import random_waveglow
from waveglow.arg_parser import WaveGlowLossConfig
from waveglow.loss_function import coupling_loss, latent_loss, mixing_loss
from waveglow.task import WaveGlowTask

AUDIO = AudioConfig(  # of `random_waveglow`
    sampling_rate=8000,
    filter_length=64,
    hop_length=32,
    win_length=64,
    mel_fmax=4000.0,
    n_mel_channels=4,
)
LEARNING_RATE = 1e-3
TERMS = ("loss", "latent_loss", "coupling_loss", "mixing_loss")


def make_task(sigma=0.7, warmup_steps=0, ema_decay=0.9):
    """In double precision, so that rounding does not hide or feign differences."""
    task = WaveGlowTask(
        random_waveglow().double(),
        run=RunConfig(output=Path(), epochs=1, batch_size=1, ema_decay=ema_decay),
        optimization=OptimizerConfig(
            optimizer="adam",
            learning_rate=LEARNING_RATE,
            weight_decay=0.0,
            warmup_steps=warmup_steps,
            grad_clip_thresh=65504.0,
        ),
        loss=WaveGlowLossConfig(sigma=sigma),
        audio=AUDIO,
        setup=setup_of(AUDIO),
        processes=Processes(cuda=False),
    )
    task.mel_spectrogram.double()
    return task


def audio_batch(audio):
    return AudioBatch(audio=audio, mel=None, paths=[Path()] * len(audio))


def speech(num_clips=4, num_samples=640):
    """(B, T_audio) tones and noise"""
    pitch_hz = torch.linspace(100, 300, num_clips).double()[:, None]
    tones = torch.sin(2 * math.pi * pitch_hz * torch.arange(num_samples) / AUDIO.sampling_rate)
    return 0.3 * tones + 0.01 * torch.randn_like(tones)


def at(step):
    return Progress(epoch=1, step=step)


def test_two_micro_batches_are_one_of_double_size():
    torch.manual_seed(7)
    whole = make_task()
    torch.manual_seed(7)
    divided = make_task()
    for step in (1, 2, 3):
        audio = speech()
        expected = whole.train_step([audio_batch(audio)], at(step))
        halves = [audio_batch(half) for half in audio.chunk(2)]
        metrics = divided.train_step(halves, at(step))
        assert (len(metrics.pop("bad_losses")), len(expected.pop("bad_losses"))) == (2, 1)
        assert_close(metrics, expected, rtol=1e-5, atol=0)
    expected = whole.learner.state_dict()
    state = divided.learner.state_dict()
    for name in ("state_dict", "ema_state_dict"):
        assert_close(state[name], expected[name], rtol=1e-5, atol=1e-12)


def test_a_step_reports_the_loss_its_parts_the_rate_and_the_gradient():
    task, audio = make_task(sigma=0.7), speech()
    with torch.no_grad():
        output = task.learner.model(MelSpectrogram(AUDIO).double()(audio), audio)
    expected = (latent_loss(output, 0.7), coupling_loss(output), mixing_loss(output))
    metrics = task.train_step([audio_batch(audio)], at(1))
    assert list(metrics) == [*TERMS, "lrate", "grad_norm", "bad_step", "bad_losses"]
    assert_close([metrics[name] for name in TERMS], [sum(expected), *expected])
    assert metrics["lrate"].item() == pytest.approx(LEARNING_RATE)
    assert metrics["grad_norm"].item() > 0


def test_the_learning_rate_is_constant_unless_it_warms_up():
    batch = [audio_batch(speech())]
    constant, warming = make_task(), make_task(warmup_steps=4)
    for step in (1, 4, 1000):
        rate = constant.train_step(batch, at(step))["lrate"].item()
        assert rate == pytest.approx(LEARNING_RATE)
        rate = warming.train_step(batch, at(step))["lrate"].item()
        assert rate == pytest.approx(LEARNING_RATE * min(step**-0.5, step / 8))


def test_evaluation_is_of_the_weights_and_of_their_average():
    task, audio = make_task(), speech(1)
    for step in (1, 2):
        task.train_step([audio_batch(speech())], at(step))
    results = task.eval_step(audio_batch(audio))
    assert list(results) == ["val", "val_ema"]
    mel = MelSpectrogram(AUDIO).double()(audio)
    models = (task.learner.model, task.learner.ema.model)
    for (metrics, weight), model in zip(results.values(), models, strict=True):
        assert weight.item() == task.num_frames(audio_batch(audio)).item() == 640 // 32
        assert list(metrics) == [*TERMS]
        with torch.no_grad():
            assert_close(metrics["latent_loss"], latent_loss(model(mel, audio), 0.7))
    assert results["val"][0]["loss"] != results["val_ema"][0]["loss"]
    assert list(make_task(ema_decay=0.0).eval_step(audio_batch(audio))) == ["val"]


def test_a_long_silence_makes_no_nan():
    task = make_task()
    silence = torch.zeros(2, 640).double()
    mixed = torch.cat([speech(1), silence[:1]])
    for step in range(1, 31):
        metrics = task.train_step([audio_batch(silence if step % 2 else mixed)], at(step))
        assert all(value.isfinite() for value in metrics.values()), metrics
    assert all(weight.isfinite().all() for weight in task.learner.model.state_dict().values())
    metrics, _ = task.eval_step(audio_batch(silence[:1]))["val"]
    assert all(value.isfinite() for value in metrics.values())


def test_samples_are_as_long_as_the_recording_and_of_the_same_noise_each_time():
    task, batch = make_task(), audio_batch(speech(1))
    state = torch.get_rng_state()
    samples = task.samples(batch)
    assert torch.equal(torch.get_rng_state(), state), "training must go on as without samples"
    assert list(samples.figures) == ["mel/recorded", "mel/generated"]
    assert list(samples.audio) == ["audio/recorded", "audio/generated"]
    assert samples.sampling_rate == 8000
    assert torch.equal(samples.audio["audio/recorded"], batch.audio[0])
    generated = samples.audio["audio/generated"]
    assert generated.shape == (640,) and generated.abs().max() <= 1
    assert torch.equal(generated, task.samples(batch).audio["audio/generated"])


def test_samples_are_noise_of_the_inference_deviation_turned_into_audio():
    task, batch = make_task(ema_decay=0.0), audio_batch(speech(1))
    task.learner.model.sigma = 0.2
    generated = task.samples(batch).audio["audio/generated"][None]
    assert generated.abs().max() < 1, "nothing may be clipped here"
    with torch.no_grad():
        z = task.learner.model(task.mel_spectrogram(batch.audio), generated).z
    assert z.std().item() == pytest.approx(0.2, rel=0.1)


def test_a_checkpoint_holds_everything_that_continuing_needs():
    task = make_task()
    task.train_step([audio_batch(speech())], at(1))
    (state,) = task.state_dict(Progress(epoch=3, step=17)).values()
    assert {"epoch", "iteration", "config", "train_setup", "state_dict", "ema_state_dict"} < {
        *state
    }
    assert (state["epoch"], state["iteration"]) == (3, 17)
    assert state["config"] == task.learner.model.config.to_checkpoint()
    assert state["train_setup"]["hop_length"] == 32

    other = make_task()
    progress = other.load_state_dict({"WaveGlow": state}, {"WaveGlow": Path("a.pt")})
    assert progress == Progress(epoch=3, step=17)
    audio = speech()
    ours, theirs = (each.train_step([audio_batch(audio)], at(18)) for each in (task, other))
    assert_close(theirs, ours, rtol=0, atol=0)
