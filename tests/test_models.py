# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints, ours and the public recipe's, become models; everything else gets a sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from common.config import AudioConfig, TextConfig
from models import fastpitch_config, load_generator, train_setup
from tests.conftest import golden

SETUP = {
    "sampling_rate": 16000,
    "hop_length": 200,
    "win_length": 800,
    "text_cleaners": ["basic_cleaners"],
    "symbol_set": "english_basic",
    "p_arpabet": 0.5,
    "append_space_to_text": True,
    "a_setting_we_do_not_know": 3,
}


def a_checkpoint() -> dict[str, Any]:
    fixture = golden("fastpitch_tiny")
    return {"config": fixture["config"], "state_dict": fixture["state_dict"], "train_setup": SETUP}


@pytest.fixture
def saved(tmp_path):
    """Saves a checkpoint and gives its path."""

    def save(checkpoint: object) -> Path:
        path = tmp_path / "FastPitch_checkpoint_5.pt"
        torch.save(checkpoint, path)
        return path

    return save


def refusal_of(path: Path, **settings) -> str:
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: ") as refusal:
        load_generator(path, **settings)
    return str(refusal.value)


def test_a_generator_is_ready_to_speak(saved):
    checkpoint = a_checkpoint()
    generator = load_generator(saved(checkpoint))
    assert not generator.training
    assert vars(generator.config) == checkpoint["config"]
    for key, value in generator.state_dict().items():
        assert torch.equal(value, checkpoint["state_dict"][key])
    spoken = generator.infer(torch.tensor([[20, 30, 40]]))
    assert spoken.mel.shape == (1, 80, int(spoken.mel_lens[0]))


def test_a_generator_knows_the_settings_it_was_trained_with(saved):
    generator = load_generator(str(saved(a_checkpoint())))
    assert generator.audio == AudioConfig(sampling_rate=16000, hop_length=200, win_length=800)
    assert generator.text == TextConfig(
        text_cleaners=("basic_cleaners",), p_arpabet=0.5, append_space_to_text=True
    )


def test_weights_of_parallel_training_are_read(saved):
    checkpoint = a_checkpoint()
    weights = checkpoint["state_dict"]
    parallel = {f"module.{key}": value for key, value in weights.items()}
    generator = load_generator(saved(checkpoint | {"state_dict": parallel}))
    for key, value in generator.state_dict().items():
        assert torch.equal(value, weights[key])


def test_averaged_weights_are_taken_when_asked_for(saved):
    checkpoint = a_checkpoint()
    averaged = {key: value + 1 for key, value in checkpoint["state_dict"].items()}
    path = saved(checkpoint | {"ema_state_dict": averaged})
    plain, average = load_generator(path), load_generator(path, ema=True)
    assert torch.equal(average.proj.bias, plain.proj.bias + 1)


@pytest.mark.parametrize("entry", [{}, {"ema_state_dict": {}}, {"ema_state_dict": None}])
def test_averaged_weights_that_are_not_there_are_missed(saved, entry):
    path = saved(a_checkpoint() | entry)
    assert "holds no averaged weights: leave --ema out" in refusal_of(path, ema=True)


@pytest.mark.parametrize("entry", [{}, {"train_setup": None}])
def test_a_checkpoint_without_settings_is_read_as_the_public_recipe_does(saved, caplog, entry):
    checkpoint = a_checkpoint()
    del checkpoint["train_setup"]
    path = saved(checkpoint | entry)
    generator = load_generator(path)
    assert generator.audio == AudioConfig()
    assert generator.text == TextConfig(text_cleaners=("english_cleaners_v2",))
    assert f"{path} does not say its audio and text settings" in caplog.text


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such checkpoint"):
        load_generator(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("checkpoint", "complaint"),
    [
        ({"generator": {}}, "not a FastPitch checkpoint: it has no config and no state_dict"),
        ({"config": {"n_flows": 12}, "state_dict": {}}, "not a FastPitch checkpoint: its config"),
        ({"config": "large", "state_dict": {}}, "not a FastPitch checkpoint: its config has no"),
        ({"config": {1: 2}, "state_dict": {}}, "not a FastPitch checkpoint: its config has 1"),
        ({"config": {"n_symbols": "many"}, "state_dict": {}}, "its config or train_setup"),
        ({"config": {"n_symbols": -3}, "state_dict": {}}, "negative dimension -3"),
        ({"config": {"symbols_embedding_dim": 7}, "state_dict": {}}, "must be"),
        ({"config": {}, "state_dict": {}}, "do not fit the model"),
        ({"config": {}, "state_dict": None}, "expected weights as named tensors"),
        ([torch.ones(2)], "named entries"),
    ],
)
def test_a_foreign_checkpoint_is_refused(saved, checkpoint, complaint):
    assert complaint in refusal_of(saved(checkpoint))


@pytest.mark.parametrize(
    ("setup", "complaint"),
    [
        ({"sampling_rate": -1}, "--sampling-rate must be positive, got -1"),
        ({"sampling_rate": "fast"}, "its config or train_setup cannot be used"),
        ({"p_arpabet": 2.0}, "--p-arpabet must lie in [0, 1], got 2.0"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_name_of_the_file(saved, setup, complaint):
    assert complaint in refusal_of(saved(a_checkpoint() | {"train_setup": setup}))


def test_weights_of_another_size_are_listed(saved):
    checkpoint = a_checkpoint()
    checkpoint["config"] = checkpoint["config"] | {"n_symbols": 20}
    assert "encoder.word_emb.weight has shape" in refusal_of(saved(checkpoint))


def test_weights_of_a_training_that_diverged_are_refused(saved):
    checkpoint = a_checkpoint()
    checkpoint["state_dict"]["proj.bias"][3] = torch.nan
    assert "its weights hold NaN or infinity" in refusal_of(saved(checkpoint))


def test_a_config_has_the_values_of_the_checkpoint_and_defaults_for_the_rest():
    config = fastpitch_config({"config": {"n_speakers": 7}, "state_dict": {}}, "x.pt")
    assert config.n_speakers == 7
    assert config.in_fft_n_layers == 6


def test_settings_are_as_configs_hold_them():
    setup = train_setup({"train_setup": SETUP}, "x.pt")
    assert setup["text_cleaners"] == ("basic_cleaners",)
    assert setup["sampling_rate"] == 16000
