# SPDX-License-Identifier: BSD-3-Clause
"""The generator against the public recipe's numbers, and what must hold for any weights."""

from __future__ import annotations

import json

import pytest
import torch
from torch.testing import assert_close

from common.weight_norm import fold_norms
from hifigan.arg_parser import VARIANTS, HiFiGANConfig
from hifigan.model import HiFiGAN, nested_keys
from tests.conftest import DATA, golden

TOLERANCE = {"atol": 1e-5, "rtol": 0.0}
LAYOUTS = json.loads((DATA / "state_dict_layouts.json").read_text())
SMALL = {
    "1": HiFiGANConfig(
        upsample_rates=(4, 3),
        upsample_kernel_sizes=(8, 3),
        upsample_initial_channel=8,
        resblock_kernel_sizes=(3, 5),
        resblock_dilation_sizes=((1, 3), (2,)),
    ),
    "2": HiFiGANConfig(
        upsample_rates=(4, 3),
        upsample_kernel_sizes=(4, 5),
        upsample_initial_channel=8,
        resblock="2",
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1, 2, 4),),
    ),
}


def load(fixture):
    config = HiFiGANConfig(**fixture["config"])
    state = fixture["state_dict"] if "state_dict" in fixture else fixture["checkpoint"]["generator"]
    model = HiFiGAN(config)
    model.load_state_dict(nested_keys(state, len(config.resblock_kernel_sizes)))
    return model.eval()


@pytest.fixture(params=SMALL)
def small(request):
    return HiFiGAN(SMALL[request.param], n_mel_channels=5)


@pytest.mark.parametrize("name", ["hifigan_tiny", "hifigan_original_v3_tiny"])
def test_audio_equals_the_public_recipe(name):
    fixture = golden(name)
    model = load(fixture)
    expected = fixture["audio"][:, 0]
    assert_close(model(fixture["mel"]), expected, **TOLERANCE)
    fold_norms(model)
    assert_close(model.infer(fixture["mel"]), expected, **TOLERANCE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_have_the_parameters_of_public_checkpoints(variant):
    expected = [tuple(entry) for entry in LAYOUTS[f"hifigan_generator_{variant.lower()}"]]
    assert layout(HiFiGAN(VARIANTS[variant])) == [(k, tuple(shape), d) for k, shape, d in expected]


def layout(model):
    return [
        (name, tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for name, value in model.state_dict().items()
    ]


def test_names_of_the_original_are_nested_and_nested_ones_stay():
    original = golden("hifigan_original_v3_tiny")["checkpoint"]["generator"]
    nested = nested_keys(original, 3)
    assert list(nested) == [name for name, *_ in LAYOUTS["hifigan_generator_v3"]]
    assert nested["resblocks.1.2.convs.0.bias"] is original["resblocks.5.convs.0.bias"]
    assert list(nested_keys(nested, 3)) == list(nested)
    pairs = nested_keys({"module.resblocks.4.convs2.1.bias": torch.zeros(1)}, 3)
    assert list(pairs) == ["module.resblocks.1.1.convs2.1.bias"]


@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_every_frame_gives_a_hop_of_audio(small, num_frames):
    assert small.hop_length == 12
    audio = small.infer(torch.randn(3, 5, num_frames))
    assert audio.shape == (3, 12 * num_frames)
    assert audio.abs().max() <= 1


def test_an_item_does_not_depend_on_its_neighbours(small):
    mel = torch.randn(3, 5, 9)
    together = small.infer(mel)
    for item in range(3):
        assert_close(small.infer(mel[item : item + 1])[0], together[item], **TOLERANCE)


def test_gradients_reach_every_parameter_and_leave_the_mel_as_it_was(small):
    mel = torch.randn(2, 5, 9)
    before = mel.clone()
    small(mel).square().sum().backward()
    assert torch.equal(mel, before)
    for name, parameter in small.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_gradients_are_those_of_finite_differences(small):
    small = small.double()
    mel = torch.randn(1, 5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(small, (mel,))


def test_infer_keeps_no_graph(small):
    assert not small.infer(torch.randn(1, 5, 2)).requires_grad


@pytest.mark.parametrize("shape", [(1, 40, 9), (80, 9)])
def test_mels_of_another_shape_are_refused_with_both_numbers(shape):
    model = HiFiGAN(SMALL["2"])
    with pytest.raises(ValueError, match=r"takes mels of 80 bands.* got \(") as error:
        model.infer(torch.zeros(shape))
    assert str(shape) in str(error.value)


def test_weights_start_as_spread_as_in_the_public_recipe():
    fixture = golden("hifigan_tiny")  # its directions are as they were drawn
    own = HiFiGAN(HiFiGANConfig(**fixture["config"])).state_dict()
    large = [k for k, v in own.items() if k.endswith("weight_v") and v.numel() > 500]
    assert len(large) > 20
    for name in large:
        spread = fixture["state_dict"][name].std().item()
        assert own[name].std().item() == pytest.approx(spread, rel=0.15), name
