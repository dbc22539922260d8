# SPDX-License-Identifier: BSD-3-Clause
"""Sizes that make no network are refused with a sentence; the original's files are read."""

from __future__ import annotations

import ast
import dataclasses
import json

import pytest

from common.cli import FlagParser
from common.config import AudioConfig, from_setup
from hifigan.arg_parser import VARIANTS, DiscriminatorConfig, HiFiGANConfig, read_hifigan_json
from tests.conftest import DATA, golden

ORIGINAL = {
    "resblock": "2",
    "num_gpus": 0,
    "batch_size": 16,
    "learning_rate": 0.0002,
    "adam_b1": 0.8,
    "adam_b2": 0.99,
    "lr_decay": 0.999,
    "seed": 1234,
    "upsample_rates": [8, 8, 4],
    "upsample_kernel_sizes": [16, 16, 8],
    "upsample_initial_channel": 256,
    "resblock_kernel_sizes": [3, 5, 7],
    "resblock_dilation_sizes": [[1, 2], [2, 6], [3, 12]],
    "segment_size": 8192,
    "num_mels": 80,
    "num_freq": 1025,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "sampling_rate": 22050,
    "fmin": 0,
    "fmax": 8000,
    "fmax_for_loss": None,
    "num_workers": 4,
    "dist_config": {"world_size": 1},
}


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "config.json"
        path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
        return path

    return write


def test_public_defaults_are_ours():
    flags = json.loads((DATA / "cli_flags.json").read_text())["hifigan_model"]
    public = {flag["flags"][0].lstrip("-"): flag.get("default") for flag in flags}
    own = {**vars(HiFiGANConfig()), "mpd_periods": DiscriminatorConfig().mpd_periods}
    for name, value in own.items():
        assert json.loads(json.dumps(value)) == ast.literal_eval(public[name]), name


def test_a_checkpoint_or_flags_make_the_same_config():
    values = golden("hifigan_original_v3_tiny")["config"]
    from_checkpoint = HiFiGANConfig(**values | {"resblock": 2})
    parser = FlagParser("test", HiFiGANConfig, DiscriminatorConfig)
    flags = [f"--{name}={json.dumps(v).strip(chr(34))}" for name, v in values.items()]
    assert parser.build(HiFiGANConfig, parser.parse(flags)) == from_checkpoint
    assert from_checkpoint == dataclasses.replace(VARIANTS["V3"], upsample_initial_channel=32)
    assert hash(from_checkpoint)  # lists became tuples, all the way down


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_have_the_hop_of_the_default_audio(variant):
    assert VARIANTS[variant].hop_length == AudioConfig().hop_length


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"upsample_rates": (8, 8)}, "must be equally many, got 2 and 4"),
        ({"upsample_rates": ()}, "--upsample-rates must be a list"),
        ({"upsample_rates": 8}, "--upsample-rates must be a list such as .*, got 8"),
        ({"upsample_rates": (8, 8, 2, 0)}, "--upsample-rates must be whole numbers above 0, got 0"),
        ({"upsample_rates": (8, 8, 2, 2.0)}, "must be whole numbers above 0, got 2.0"),
        ({"upsample_rates": (8, 8, 2, 3)}, "got a kernel of 4 for a rate of 3"),
        ({"upsample_rates": (8, 8, 2, 6)}, "got a kernel of 4 for a rate of 6"),
        ({"upsample_initial_channel": 15}, "--upsample-initial-channel must be at least 16"),
        ({"upsample_initial_channel": -1}, "--upsample-initial-channel .* got -1"),
        ({"upsample_initial_channel": "many"}, "--upsample-initial-channel .* got 'many'"),
        ({"resblock": "3"}, "--resblock must be 1 or 2, got 3"),
        ({"resblock_kernel_sizes": (3, 7)}, "must be equally many, got 2 and 3"),
        ({"resblock_kernel_sizes": (3, 7, 8)}, "--resblock-kernel-sizes must be odd .* got 8"),
        ({"resblock_dilation_sizes": ((1,), (1,), ())}, "--resblock-dilation-sizes must be a list"),
        ({"resblock_dilation_sizes": (1, 3, 5)}, "--resblock-dilation-sizes must be a list"),
        ({"resblock_dilation_sizes": ((0,), (1,), (1,))}, "--resblock-dilation-sizes .* got 0"),
    ],
)
def test_sizes_that_make_no_generator_are_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        HiFiGANConfig(**values)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"discriminator_divisor": 3}, "--discriminator-divisor must be one of 1, 2, 4, 8, got 3"),
        ({"discriminator_divisor": 16}, "got 16"),
        ({"mpd_periods": ()}, "--mpd-periods must be a list"),
        ({"mpd_periods": (2, 0)}, "--mpd-periods must be whole numbers above 0, got 0"),
    ],
)
def test_sizes_that_make_no_discriminators_are_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        DiscriminatorConfig(**values)


def test_configuration_files_of_the_original_repository_are_read(write):
    settings = read_hifigan_json(write(ORIGINAL))
    assert from_setup(HiFiGANConfig, settings) == VARIANTS["V3"]
    assert from_setup(AudioConfig, settings) == AudioConfig()
    others = settings.keys() - vars(VARIANTS["V3"]).keys() - vars(AudioConfig()).keys()
    assert {name: settings[name] for name in others} == {
        "segment_size": 8192,
        "mel_fmax_loss": None,
        "adam_betas": (0.8, 0.99),
        "lr_decay": 0.999,
    }


def test_what_a_configuration_file_leaves_out_is_left_to_the_defaults(write):
    sizes = dataclasses.asdict(VARIANTS["V1"])
    assert read_hifigan_json(write({**sizes, "adam_b1": 0.8})) == sizes


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ("[8, 8, 4]", "expected an object with named settings, got list"),
        ({**ORIGINAL, "resblock": "5"}, "--resblock must be 1 or 2"),
        ({"resblock": "1"}, "has no upsample_rates, upsample_kernel_sizes, upsample_initial"),
        ({**ORIGINAL, "hop_size": "256"}, "hop_size must be a number, got '256'"),
        ({**ORIGINAL, "fmax": None}, "fmax must be a number, got None"),
    ],
)
def test_other_files_are_refused_by_name(write, text, sentence):
    path = write(text)
    with pytest.raises(ValueError, match=sentence) as error:
        read_hifigan_json(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--hifigan-config .*none\.json: no such file"):
        read_hifigan_json(tmp_path / "none.json")
