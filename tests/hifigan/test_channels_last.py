# SPDX-License-Identifier: BSD-3-Clause
"""The generator that is laid out for speaking says what the plain one says."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from common.weight_norm import fold_norms
from hifigan import channels_last
from hifigan.arg_parser import VARIANTS, HiFiGANConfig
from hifigan.channels_last import ChannelsLastHiFiGAN
from hifigan.model import HiFiGAN, nested_keys
from tests.conftest import golden
from tests.hifigan import test_model

TOLERANCE = {"atol": 1e-6, "rtol": 1e-5}
SMALL = test_model.SMALL | {
    "2": dataclasses.replace(
        test_model.SMALL["2"],
        resblock_kernel_sizes=(3, 11),
        resblock_dilation_sizes=((1, 2, 4), (5,)),
    ),
}


@pytest.fixture(params=SMALL)
def plain(request):
    model = HiFiGAN(SMALL[request.param], n_mel_channels=5).eval()
    fold_norms(model)
    return model


@pytest.mark.parametrize("name", ["hifigan_tiny", "hifigan_original_v3_tiny"])
def test_audio_equals_the_public_recipe(name):
    fixture = golden(name)
    config = HiFiGANConfig(**fixture["config"])
    state = fixture["state_dict"] if "state_dict" in fixture else fixture["checkpoint"]["generator"]
    model = HiFiGAN(config)
    model.load_state_dict(nested_keys(state, len(config.resblock_kernel_sizes)))
    fold_norms(model)
    audio = ChannelsLastHiFiGAN(model).infer(fixture["mel"])
    assert_close(audio, fixture["audio"][:, 0], atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("shape", [(1, 5, 1), (3, 5, 1), (3, 5, 2), (2, 5, 9)])
def test_a_batch_sounds_as_with_the_plain_generator(plain, shape):
    mel = torch.randn(shape)
    audio = ChannelsLastHiFiGAN(plain).infer(mel)
    assert audio.shape == (shape[0], 12 * shape[2])
    assert_close(audio, plain.infer(mel), **TOLERANCE)


def test_the_full_size_sounds_as_with_the_plain_generator():
    plain = HiFiGAN(VARIANTS["V2"]).eval()
    fold_norms(plain)
    mel = torch.randn(2, 80, 5)
    assert_close(ChannelsLastHiFiGAN(plain).infer(mel), plain.infer(mel), **TOLERANCE)


@pytest.mark.parametrize("at_once", [1, 12, 1000])
def test_each_of_several_mels_sounds_as_it_does_alone(plain, monkeypatch, at_once):
    monkeypatch.setitem(channels_last.FRAMES_AT_ONCE, "cpu", at_once)
    mels = [torch.randn(5, num_frames) for num_frames in (9, 1, 2, 30, 1, 5)]
    mels.append(10 * torch.randn(5, 70))  # loud, so that the farthest frames are heard, too
    fast, lens = ChannelsLastHiFiGAN(plain), []
    fast.register_forward_pre_hook(lambda _, inputs: lens.append(inputs[0].shape[2]))
    waves = fast.infer_each(mels)
    for wave, mel in zip(waves, mels, strict=True):
        assert_close(wave, plain.infer(mel[None])[0], **TOLERANCE)
    assert max(lens) <= (at_once + 40 if at_once < 70 else 180)  # long mels were divided


def test_no_mels_give_no_audio(plain):
    assert ChannelsLastHiFiGAN(plain).infer_each([]) == []


def test_half_precision_is_close(plain):
    mel = torch.randn(2, 5, 40)
    expected = plain.infer(mel)
    audio = ChannelsLastHiFiGAN(plain, torch.bfloat16).infer(mel)
    assert audio.dtype == torch.float32
    assert 0 < (audio - expected).abs().max() < 0.02 * expected.abs().max()


def test_the_plain_generator_and_the_mel_stay_as_they_were(plain):
    mel = torch.randn(2, 5, 4)
    state = {name: value.clone() for name, value in plain.state_dict().items()}
    before = mel.clone()
    fast = ChannelsLastHiFiGAN(plain)
    fast.infer(mel)
    fast.infer_each(list(mel))
    assert torch.equal(mel, before)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, state[name])


def test_mels_of_another_shape_are_refused_with_both_numbers(plain):
    fast = ChannelsLastHiFiGAN(plain)
    with pytest.raises(ValueError, match=r"takes mels of 5 bands.* got \(1, 7, 3\)"):
        fast.infer(torch.zeros(1, 7, 3))
    with pytest.raises(ValueError, match=r"takes mels of 5 bands.* got \(1, 7, 3\)"):
        fast.infer_each([torch.zeros(7, 3)])
