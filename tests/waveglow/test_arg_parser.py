# SPDX-License-Identifier: BSD-3-Clause
"""WaveGlow's flags, the sizes that make no network, and the names in checkpoints."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from common.cli import FlagParser
from tests.conftest import DATA, golden
from waveglow.arg_parser import WaveGlowConfig, WaveGlowDataConfig, WaveGlowLossConfig

PUBLISHED = {
    "n_mel_channels": 80,
    "n_flows": 12,
    "n_group": 8,
    "n_early_every": 4,
    "n_early_size": 2,
    "WN_config": {"n_layers": 8, "kernel_size": 3, "n_channels": 256},
}

FILES = {"training_files": (Path("a.txt"),), "validation_files": (Path("b.txt"),)}


def test_flags_and_defaults_are_those_of_the_public_recipe():
    public = json.loads((DATA / "cli_flags.json").read_text())["waveglow_model"]
    configs = (WaveGlowConfig, WaveGlowLossConfig, WaveGlowDataConfig)
    parser = FlagParser("WaveGlow", *configs)
    argv = [word for entry in public for word in (entry["flags"][0], entry["default"])]
    flags = parser.parse([*argv, "--training-files", "a.txt", "--validation-files", "b.txt"])
    assert len(flags) == len(public) + len(FILES)
    assert parser.build(WaveGlowConfig, flags) == WaveGlowConfig()
    assert parser.build(WaveGlowLossConfig, flags) == WaveGlowLossConfig()
    assert parser.build(WaveGlowDataConfig, flags) == WaveGlowDataConfig(**FILES)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"flows": 0}, "--flows must be positive, got 0"),
        ({"wn_channels": -4}, "--wn-channels must be positive, got -4"),
        ({"wn_kernel_size": 4}, "--wn-kernel-size must be odd to keep the length, got 4"),
        ({"groups": 7}, "--groups must be even, .*, got 7"),
        ({"early_size": 1}, "--early-size must be even, .*, got 1"),
        ({"flows": 17}, "--groups must exceed .* 4 x --early-size 2 .*, got 8"),
    ],
)
def test_sizes_that_make_no_network_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        WaveGlowConfig(**sizes)


def test_other_values_without_meaning_are_refused():
    with pytest.raises(ValueError, match=r"--sigma must be positive, got 0"):
        WaveGlowLossConfig(sigma=0.0)
    with pytest.raises(ValueError, match="--segment-length must be positive, got 0"):
        WaveGlowDataConfig(segment_length=0, **FILES)


def test_every_fourth_flow_step_lets_two_channels_go():
    config = WaveGlowConfig()
    assert config.early_channels == (0, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0)
    assert config.flow_channels == (8, 8, 8, 8, 6, 6, 6, 6, 4, 4, 4, 4)


def test_the_published_config_is_read_and_written():
    config = WaveGlowConfig.from_checkpoint(PUBLISHED)
    assert config == WaveGlowConfig(wn_channels=256)
    assert config.to_checkpoint() == PUBLISHED


def test_every_size_survives_a_checkpoint():
    config = WaveGlowConfig(
        n_mel_channels=8,
        flows=4,
        groups=10,
        early_every=3,
        early_size=6,
        wn_kernel_size=5,
        wn_channels=16,
        wn_layers=2,
    )
    assert not vars(config).items() & vars(WaveGlowConfig()).items()
    assert WaveGlowConfig.from_checkpoint(config.to_checkpoint()) == config
    fixture = golden("waveglow_tiny")["config"]
    assert WaveGlowConfig.from_checkpoint(fixture).to_checkpoint() == fixture


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("n_flows"), "the config of a WaveGlow: n_flows is missing"),
        (lambda c: c.update(upsample_rates=8), "the config .*: upsample_rates is unknown"),
        (lambda c: c["WN_config"].pop("n_layers"), "the WN_config .*: n_layers is missing"),
        (lambda c: c.update(WN_config=3), "expected WN_config as named values, got 3"),
        (lambda c: c.update(n_group="8"), "expected a whole number for --groups, got '8'"),
        (lambda c: c.update(n_group=7), "--groups must be even"),
    ],
)
def test_a_config_of_something_else_is_refused(change, message):
    config = copy.deepcopy(PUBLISHED)
    change(config)
    with pytest.raises(ValueError, match=message):
        WaveGlowConfig.from_checkpoint(config)


def test_a_config_without_names_is_refused():
    with pytest.raises(ValueError, match=r"expected WaveGlow's config as named values, got \[\]"):
        WaveGlowConfig.from_checkpoint([])
