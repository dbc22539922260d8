# SPDX-License-Identifier: BSD-3-Clause
"""FastPitch against the public recipe's numbers, and what must hold for any weights."""

from __future__ import annotations

import json

import pytest
import torch
from torch.testing import assert_close

from common.checkpoint import load_weights
from fastpitch.arg_parser import FastPitchConfig
from fastpitch.model import FastPitch
from fastpitch.pitch_transform import amplify, compose, invert, shift
from tests.conftest import golden, golden_batch

FIXTURES = ["fastpitch_tiny", "fastpitch_tiny_grads", "fastpitch_tiny_speakers"]
TOLERANCE = {"atol": 1e-4, "rtol": 0.0}


def load(fixture):
    model = FastPitch(FastPitchConfig(**fixture["config"]))
    load_weights(model, fixture["state_dict"], "fixture")
    return model.eval()


@pytest.fixture(params=FIXTURES)
def fixture(request):
    return golden(request.param)


def test_training_forward_equals_the_public_recipe(fixture):
    expected = fixture["forward"]
    output = load(fixture)(golden_batch(fixture))
    assert_close(output.mel.transpose(1, 2), expected["mel_out"], **TOLERANCE)
    assert_close(output.predicted.log_durations, expected["log_dur_pred"], **TOLERANCE)
    assert_close(output.predicted.pitch, expected["pitch_pred"][:, 0], **TOLERANCE)
    assert_close(output.target.pitch, expected["pitch_tgt"][:, 0], **TOLERANCE)
    assert_close(output.target.log_durations.expm1(), expected["attn_hard_dur"], **TOLERANCE)
    assert_close(output.alignment.soft, expected["attn_soft"][:, 0], **TOLERANCE)
    assert_close(output.alignment.log_prob, expected["attn_logprob"][:, 0], **TOLERANCE)
    assert torch.equal(output.alignment.hard, expected["attn_hard"][:, 0])
    if expected["energy_pred"] is None:
        assert output.predicted.energy is None and output.target.energy is None
    else:
        assert_close(output.predicted.energy, expected["energy_pred"], **TOLERANCE)
        assert_close(output.target.energy, expected["energy_tgt"], **TOLERANCE)


@pytest.mark.parametrize("case", ["infer", "infer_transform", "infer_forced"])
def test_inference_equals_the_public_recipe(fixture, case):
    expected = fixture[case]
    arguments = {
        "infer": {},
        "infer_transform": {"pitch_transform": compose([invert, amplify(0.5), shift(12.0)])},
        "infer_forced": {"durations": expected.get("dur_tgt")},
    }[case]
    if case == "infer_forced":
        arguments["pitch"] = expected["pitch_tgt"][:, 0]
    synthesis = load(fixture).infer(
        fixture["batch"]["text"],
        pace=expected.get("pace", 1.0),
        speaker=expected["speaker"],
        **arguments,
    )
    assert_close(synthesis.mel, expected["mel_out"], **TOLERANCE)
    assert torch.equal(synthesis.mel_lens, expected["dec_lens"])
    frames = synthesis.prosody.log_durations.expm1().clamp(0, 75)
    assert_close(frames, expected["dur_pred"], **TOLERANCE)
    assert_close(synthesis.prosody.pitch, expected["pitch_pred"][:, 0], **TOLERANCE)
    if expected["energy_pred"] is not None:
        assert_close(synthesis.prosody.energy, expected["energy_pred"], **TOLERANCE)


def test_default_model_has_the_parameters_of_public_checkpoints(shared):
    layouts = json.loads((shared / "golden" / "state_dict_layouts.json").read_text())
    expected = {name: (shape, dtype) for name, shape, dtype in layouts["fastpitch_default"]}
    state = FastPitch(FastPitchConfig()).state_dict()
    own = {k: (list(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in state.items()}
    assert own == expected
    assert list(own) == list(expected)  # optimizer states go by the order of the parameters


@pytest.mark.parametrize("name", FIXTURES)
def test_parameters_come_in_the_order_of_public_checkpoints(name):
    fixture = golden(name)
    assert list(load(fixture).state_dict()) == list(fixture["state_dict"])


def test_durations_sum_to_mel_length(fixture):
    batch = golden_batch(fixture)
    output = load(fixture)(batch)
    assert torch.equal(output.alignment.hard.sum(dim=(1, 2)).long(), batch.mel_lens)
    assert torch.equal(output.alignment.hard.sum(dim=1).sum(dim=1).long(), batch.mel_lens)


def test_isolated_texts_sound_the_same_alone_and_in_a_batch(fixture):
    model = load(fixture)
    text, lens = fixture["batch"]["text"], fixture["batch"]["text_lens"]
    transform = compose([shift(20.0)])
    together = model.infer(text, pitch_transform=transform, isolate_padding=True)
    for item, (row, length) in enumerate(zip(text, lens, strict=True)):
        alone = model.infer(row[None, :length], pitch_transform=transform)
        frames = int(alone.mel_lens[0])
        assert frames == together.mel_lens[item]
        assert_close(alone.mel[0], together.mel[item, :, :frames], atol=1e-5, rtol=0.0)


def test_texts_whose_durations_vanish_still_get_a_frame():
    model = load(golden("fastpitch_tiny"))
    torch.nn.init.zeros_(model.duration_predictor.fc.weight)
    torch.nn.init.constant_(model.duration_predictor.fc.bias, -5.0)
    synthesis = model.infer(torch.tensor([[5, 6, 7], [8, 0, 0]]))
    assert synthesis.mel_lens.tolist() == [1, 1]
    assert synthesis.mel.shape == (2, 80, 1) and synthesis.mel.isfinite().all()


def test_durations_are_rounded_half_up():
    text = torch.tensor([[5, 6, 7]])
    synthesis = load(golden("fastpitch_tiny")).infer(
        text, durations=torch.tensor([[0.5, 1.4, 2.5]])
    )
    assert synthesis.durations.tolist() == [[1, 1, 3]]


def test_twice_the_pace_takes_half_the_frames():
    text = torch.arange(1, 21)[None]
    model = load(golden("fastpitch_tiny"))
    durations = torch.full((1, 20), 8.0)
    assert int(model.infer(text, durations=durations).mel_lens) == 160
    assert int(model.infer(text, durations=durations, pace=2.0).mel_lens) == 80


def test_unknown_speakers_and_impossible_paces_are_refused():
    text = torch.tensor([[5, 6]])
    with pytest.raises(ValueError, match="speaker must lie in 0 to 3, got 4"):
        load(golden("fastpitch_tiny_speakers")).infer(text, speaker=4)
    with pytest.raises(ValueError, match="pace must be positive, got 0"):
        load(golden("fastpitch_tiny")).infer(text, pace=0)


def test_each_speaker_of_a_batch_sounds_like_himself():
    model = load(golden("fastpitch_tiny_speakers"))
    text = torch.tensor([[5, 6, 7, 8]]).expand(2, -1)
    durations = torch.full((2, 4), 3)
    both = model.infer(text, durations=durations, speaker=torch.tensor([0, 3]))
    for item, speaker in enumerate([0, 3]):
        alone = model.infer(text[:1], durations=durations[:1], speaker=speaker)
        assert_close(alone.mel[0], both.mel[item], atol=1e-5, rtol=0.0)
    assert not torch.allclose(both.mel[0], both.mel[1])
