# SPDX-License-Identifier: BSD-3-Clause
"""WaveGlow against the public recipe's numbers, and what must hold for any weights."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from common.checkpoint import load_weights
from common.ema import ExponentialMovingAverage
from common.weight_norm import fold_norms
from tests.conftest import DATA, golden
from waveglow.arg_parser import WaveGlowConfig
from waveglow.loss_function import waveglow_loss
from waveglow.model import InvertibleConv, WaveGlow

TOLERANCE = {"atol": 1e-5, "rtol": 0.0}
SMALL = WaveGlowConfig(
    n_mel_channels=4, flows=5, groups=8, early_every=2, early_size=2, wn_channels=8, wn_layers=2
)


def load(fixture):
    model = WaveGlow(WaveGlowConfig.from_checkpoint(fixture["config"]))
    load_weights(model, fixture["state_dict"], "fixture")
    return model.eval()


def random_waveglow():
    """A small network whose couplings and 1x1 convolutions all do something."""
    model = WaveGlow(SMALL, hop_length=32, win_length=64).eval()
    for network, conv in zip(model.WN, model.convinv, strict=True):
        nn.init.normal_(network.end.weight, std=0.1)
        nn.init.normal_(network.end.bias, std=0.1)
        conv.conv.weight.data *= 1.2
    return model


def mel_and_audio(frames=6):
    """A batch of two for `random_waveglow`"""
    return torch.randn(2, 4, frames), torch.rand(2, 32 * frames) * 1.8 - 0.9


@pytest.fixture
def fixture():
    return golden("waveglow_tiny")


def test_training_forward_equals_the_public_recipe(fixture):
    output = load(fixture)(fixture["mel"], fixture["audio"])
    assert_close(output.z, fixture["z"], **TOLERANCE)
    assert len(output.log_s) == len(output.log_det_W) == 4
    for log_s, expected in zip(output.log_s, fixture["log_s"], strict=True):
        assert_close(log_s, expected, **TOLERANCE)
    # The public loss adds the others to the first in place, and was run before they were stored.
    total, *others = fixture["log_det_W"]
    assert_close(output.log_det_W[1:], others, **TOLERANCE)
    assert_close(sum(output.log_det_W), total, **TOLERANCE)


def test_inference_without_noise_equals_the_public_recipe(fixture):
    audio = load(fixture).infer(fixture["mel"], sigma=0.0)
    assert_close(audio, fixture["infer_sigma0"], **TOLERANCE)


def test_the_published_model_has_the_parameters_of_public_checkpoints():
    layouts = json.loads((DATA / "state_dict_layouts.json").read_text())
    expected = {name: (shape, dtype) for name, shape, dtype in layouts["waveglow_256"]}
    state = WaveGlow(WaveGlowConfig(wn_channels=256)).state_dict()
    own = {k: (list(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in state.items()}
    assert own == expected
    assert list(own) == list(expected)  # optimizer states go by the order of the parameters


def test_inference_inverts_forward(fixture):
    model = load(fixture)
    z = model(fixture["mel"], fixture["audio"]).z
    assert_close(model.infer(fixture["mel"], latent=z), fixture["audio"], **TOLERANCE)


def test_inference_inverts_forward_for_audio_that_is_shorter_than_its_mel():
    model = random_waveglow()
    mel, audio = mel_and_audio()
    z = model(mel, audio[:, :-40]).z
    assert z.shape == (2, 8, 19)
    assert_close(model.infer(mel, latent=z), audio[:, :-40], **TOLERANCE)


def test_each_item_of_a_batch_is_what_it_is_alone():
    model = random_waveglow()
    mel, audio = mel_and_audio()
    both = model(mel, audio)
    parts = [model(mel[item, None], audio[item, None]) for item in range(2)]
    assert_close(both.z, torch.cat([part.z for part in parts]), **TOLERANCE)
    log_dets = zip(both.log_det_W, *(part.log_det_W for part in parts), strict=True)
    for together, first, second in log_dets:
        assert together.item() == pytest.approx((first + second).item())
    assert_close(model.infer(mel, latent=both.z), audio, **TOLERANCE)


def test_log_determinants_count_every_place():
    model = random_waveglow()
    output = model(*mel_and_audio(frames=6))
    for log_det, channels in zip(output.log_det_W, (8, 8, 6, 6, 4), strict=True):
        expected = 2 * 24 * channels * torch.tensor(1.2).log()  # batch, groups in time, scale
        assert_close(log_det, expected, atol=1e-3, rtol=0.0)


def test_folded_weight_norm_gives_the_same_audio(fixture):
    model = load(fixture)
    expected = model.infer(fixture["mel"], latent=fixture["z"])
    fold_norms(model)
    assert not any(name.endswith("weight_g") for name in model.state_dict())
    assert_close(model.infer(fixture["mel"], latent=fixture["z"]), expected, **TOLERANCE)


def test_gradients_reach_every_parameter():
    model = random_waveglow()
    waveglow_loss(model(*mel_and_audio()), sigma=1.0)["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_a_new_model_only_rotates_the_audio():
    model = WaveGlow(SMALL, hop_length=32, win_length=64)
    mel, audio = mel_and_audio()
    output = model(mel, audio)
    assert_close(output.z.square().sum(), audio.square().sum())
    assert all(torch.equal(log_s, torch.zeros_like(log_s)) for log_s in output.log_s)


@pytest.mark.parametrize("seed", range(6))
def test_an_invertible_convolution_begins_as_a_rotation(seed):
    torch.manual_seed(seed)
    weight = InvertibleConv(6).conv.weight[:, :, 0].detach()
    assert_close(weight @ weight.T, torch.eye(6), **TOLERANCE)
    assert torch.linalg.det(weight).item() == pytest.approx(1.0, abs=1e-5)


def test_the_inverse_is_computed_once():
    conv = InvertibleConv(8)
    first = conv.inverse()
    conv.undo(torch.randn(1, 8, 3))
    assert conv.inverse() is first
    assert list(conv.state_dict()) == ["conv.weight"]


def test_the_inverse_of_an_ill_conditioned_matrix_is_exact_to_the_last_digits():
    conv = InvertibleConv(8)
    scales = torch.logspace(-3, 1, 8)
    weight = InvertibleConv(8).conv.weight.detach() * scales[:, None]
    conv.conv.weight.data = weight
    expected = torch.linalg.inv(weight[:, :, 0].double())
    assert conv.inverse().dtype == torch.float32
    assert_close(conv.inverse().double(), expected, atol=0.0, rtol=1e-6)


def load_others(conv):
    conv.load_state_dict(InvertibleConv(8).state_dict())
    return conv


def assign_others(conv):
    conv.load_state_dict(InvertibleConv(8).state_dict(), assign=True)
    return conv


def train_a_step(conv):
    conv.train()
    mixed, log_det = conv(torch.randn(1, 8, 4))
    (mixed.square().sum() - log_det).backward()
    torch.optim.SGD(conv.parameters(), lr=0.01).step()
    return conv.eval()


def write_past_autograd(conv):
    conv.conv.weight.data.mul_(2.0)
    return conv


def round_and_return(conv):
    return conv.half().float()


def copy_and_train(conv):
    return train_a_step(copy.deepcopy(conv))


def average(conv):
    ema = ExponentialMovingAverage(conv, decay=0.5)
    ema.update(train_a_step(conv), bad_step=torch.tensor(0.0))
    return ema.model


@pytest.mark.parametrize(
    "change",
    [
        load_others,
        assign_others,
        train_a_step,
        write_past_autograd,
        round_and_return,
        copy_and_train,
        average,
        nn.Module.double,
        nn.Module.bfloat16,
    ],
)
def test_the_inverse_is_never_that_of_other_weights(change):
    conv = InvertibleConv(8)
    before = conv.inverse()
    conv = change(conv)
    x = torch.randn(2, 8, 5)
    mixed, _ = conv(x)
    assert_close(conv.undo(mixed), x, **TOLERANCE)
    assert conv.inverse() is not before


def test_a_copy_keeps_its_own_inverse():
    conv = InvertibleConv(8)
    expected = conv.inverse().clone()
    train_a_step(copy.deepcopy(conv))
    assert torch.equal(conv.inverse(), expected)


def test_weights_without_inverse_are_refused():
    model = random_waveglow()
    nn.init.zeros_(model.convinv[2].conv.weight)
    with pytest.raises(ValueError, match="has no inverse: take another checkpoint"):
        model.infer(torch.randn(1, 4, 2))


def test_under_autocast_the_audio_and_its_determinants_stay_precise():
    model = random_waveglow()
    mel, audio = mel_and_audio()
    precise = model(mel, audio)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(mel, audio)
        back = model.infer(mel, latent=output.z)
    loss = waveglow_loss(output, sigma=1.0)["loss"]
    tensors = [output.z, *output.log_s, *output.log_det_W, back, loss, model.convinv[0].inverse()]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert_close(output.log_det_W, precise.log_det_W)
    # Half the digits in the couplings; undone by the same couplings, they cancel.
    assert_close(output.z, precise.z, atol=0.05, rtol=0.0)
    assert_close(back, audio, atol=5e-3, rtol=0.0)


def test_weights_of_half_precision_speak():
    model = random_waveglow().bfloat16()
    mel, _ = mel_and_audio()
    audio = model.infer(mel.bfloat16(), sigma=0.1)
    assert audio.dtype == torch.float32 and audio.shape == (2, 192)
    assert audio.isfinite().all()


def test_audio_has_a_hop_for_each_frame_and_stays_in_range():
    model = random_waveglow()
    audio = model.infer(torch.randn(2, 4, 7), sigma=3.0)
    assert audio.shape == (2, 7 * model.hop_length)
    assert audio.abs().max() == 1.0
    assert not audio.requires_grad


def test_sigma_scales_all_of_the_noise():
    model = WaveGlow(SMALL, hop_length=32, win_length=64)  # rotates only: as loud as its latent
    mel = torch.randn(2, 4, 500)
    for sigma in (0.0, 0.05, 0.2):
        audio = model.infer(mel, sigma=sigma)
        each_channel = audio.unflatten(1, (-1, 8)).std(dim=(0, 1))
        assert_close(each_channel, torch.full((8,), sigma), atol=0.05 * sigma, rtol=0.0)
    assert model.sigma == 0.9
    model.sigma = 0.2
    assert model.infer(mel).std().item() == pytest.approx(0.2, rel=0.02)


def test_noise_differs_from_call_to_call_and_follows_the_seed():
    model = random_waveglow()
    mel = torch.randn(1, 4, 6)
    torch.manual_seed(7)
    first, second = model.infer(mel), model.infer(mel)
    torch.manual_seed(7)
    assert torch.equal(model.infer(mel), first)
    assert not torch.equal(first, second)


def test_audio_of_other_hops_and_windows():
    model = WaveGlow(SMALL, hop_length=512, win_length=2048)
    assert model.upsample.weight.shape == (4, 4, 2048)
    assert model.infer(torch.randn(1, 4, 3)).shape == (1, 1536)


def test_hops_and_windows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"--groups must divide --hop-length 100, .*, got 8"):
        WaveGlow(SMALL, hop_length=100)
    with pytest.raises(ValueError, match=r"at least --hop-length 256, .*, got 128"):
        WaveGlow(SMALL, hop_length=256, win_length=128)


def test_input_that_does_not_fit_is_refused():
    model = random_waveglow()
    mel, audio = mel_and_audio()
    with pytest.raises(ValueError, match=r"mels of 4 bands.* got \(2, 80, 6\)"):
        model.infer(torch.randn(2, 80, 6))
    with pytest.raises(ValueError, match=r"mels of 4 bands.* got \(4, 6\)"):
        model.forward(mel[0], audio)
    with pytest.raises(ValueError, match=r"multiple of 8 .* got 190: .* --segment-length"):
        model(mel, audio[:, :190])
    with pytest.raises(ValueError, match=r"at most 224 samples .* 6 frames, got 384"):
        model(mel, audio.repeat(1, 2))
    with pytest.raises(ValueError, match="sigma must not be negative, got -1"):
        model.infer(mel, sigma=-1.0)
    with pytest.raises(ValueError, match=r"latent of shape \(2, 8, T\), got \(2, 4, 24\)"):
        model.infer(mel, latent=torch.randn(2, 4, 24))
