# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints, ours and the public recipe's, become models; everything else gets a sentence."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from common.config import AudioConfig, TextConfig
from common.griffin_lim import GriffinLim
from common.precision import Precision
from common.synthesizer import speak_each
from hifigan.arg_parser import HiFiGANConfig
from hifigan.model import HiFiGAN
from models import (
    check_same_mels,
    denoised,
    fastpitch_config,
    laid_out,
    load_generator,
    load_vocoder,
    train_setup,
    vocoder_name,
)
from tests.conftest import golden
from waveglow.arg_parser import WaveGlowConfig
from waveglow.model import WaveGlow

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
        ({"weights": {}}, "not a FastPitch checkpoint: it has no config and no state_dict"),
        ({"generator": {}}, "but a HiFi-GAN generator: name it with --hifigan"),
        ({"config": {"WN_config": {}}, "state_dict": {}}, "but a WaveGlow: name it with --wave"),
        ({"mpd": {}, "msd": {}}, "but the discriminators of a HiFi-GAN"),
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


def a_hifigan() -> dict[str, Any]:
    fixture = golden("hifigan_tiny")
    setup = {"num_mels": 80, "hop_length": 256, "mel_fmax": 7600.0, "mel_fmax_loss": None}
    return {
        "generator": fixture["state_dict"],
        "gen_ema": None,
        "config": fixture["config"],
        "train_setup": setup,
        "train_state": {"epoch": 1},
    }


def a_waveglow() -> dict[str, Any]:
    fixture = golden("waveglow_tiny")
    return {"config": fixture["config"], "state_dict": fixture["state_dict"]}


def vocoder_refusal_of(path: Path, **settings) -> str:
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: ") as refusal:
        load_vocoder(path, **settings)
    return str(refusal.value)


def assert_is_golden_hifigan(vocoder: HiFiGAN) -> None:
    fixture = golden("hifigan_tiny")
    expected = fixture["audio"].squeeze(1)
    torch.testing.assert_close(vocoder.infer(fixture["mel"]), expected, rtol=0, atol=1e-4)


def folded(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights as after torch's `remove_weight_norm`, which multiplies them out."""
    products = {}
    for name, weight in weights.items():
        if name.endswith("weight_v"):
            length = weights[name[:-1] + "g"]
            products[name[:-2]] = length * weight / weight.flatten(1).norm(dim=1)[:, None, None]
        elif not name.endswith("weight_g"):
            products[name] = weight
    return products


def renamed(weights: dict[str, torch.Tensor], old: str, new: str) -> dict[str, torch.Tensor]:
    return {re.sub(old, new, name): weight for name, weight in weights.items()}


def with_torchs_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    lengths_renamed = renamed(weights, "weight_g$", "parametrizations.weight.original0")
    return renamed(lengths_renamed, "weight_v$", "parametrizations.weight.original1")


def flat(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Residual blocks numbered in one row, three to a stage."""

    def number(match: re.Match) -> str:
        return f"resblocks.{3 * int(match[1]) + int(match[2])}."

    return {re.sub(r"resblocks\.(\d)\.(\d)\.", number, k): v for k, v in weights.items()}


def test_a_hifigan_is_ready_to_speak(saved):
    vocoder = load_vocoder(saved(a_hifigan()))
    assert isinstance(vocoder, HiFiGAN)
    assert vocoder_name(vocoder) == "hifigan"
    assert not vocoder.training
    assert vocoder.audio == AudioConfig(mel_fmax=7600.0)
    assert not any(name.endswith("weight_g") for name in vocoder.state_dict())
    assert_is_golden_hifigan(vocoder)


@pytest.mark.parametrize(
    "dialect",
    [
        lambda weights: {f"module.{name}": weight for name, weight in weights.items()},
        flat,
        lambda weights: {f"module.{name}": weight for name, weight in flat(weights).items()},
        folded,
        lambda weights: folded(flat(weights)),
        with_torchs_names,
    ],
    ids=["parallel", "flat", "flat and parallel", "folded", "flat and folded", "torch's names"],
)
def test_a_hifigan_is_read_whoever_named_its_weights(saved, dialect):
    checkpoint = a_hifigan()
    foreign = dialect(checkpoint["generator"])
    assert foreign.keys() != checkpoint["generator"].keys()
    assert_is_golden_hifigan(load_vocoder(saved(checkpoint | {"generator": foreign})))


@pytest.mark.parametrize("make", [a_hifigan, a_waveglow])
def test_a_vocoder_to_train_on_keeps_its_norms(saved, make):
    checkpoint = make()
    vocoder = load_vocoder(saved(checkpoint), fold=False)
    weights = checkpoint["generator" if "generator" in checkpoint else "state_dict"]
    assert vocoder.state_dict().keys() == weights.keys()
    for name, weight in vocoder.state_dict().items():
        assert torch.equal(weight, weights[name])


def test_folded_weights_cannot_be_trained_on(saved):
    checkpoint = a_hifigan()
    path = saved(checkpoint | {"generator": folded(checkpoint["generator"])})
    assert "its weights are folded, without weight_g" in vocoder_refusal_of(path, fold=False)


def test_a_hifigan_of_half_precision_is_read_as_float32(saved):
    checkpoint = a_hifigan()
    halves = {name: weight.half() for name, weight in checkpoint["generator"].items()}
    vocoder = load_vocoder(saved(checkpoint | {"generator": halves}))
    assert {weight.dtype for weight in vocoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("config", ["beside", "named", "mapping", "sizes"])
def test_an_original_hifigan_is_read_with_its_config(tmp_path, config, caplog):
    fixture = golden("hifigan_original_v3_tiny")
    settings = fixture["config"] | {"num_mels": 80, "hop_size": 256, "fmax": 7600, "lr": 2e-4}
    path = tmp_path / "g_02500000"
    torch.save(fixture["checkpoint"], path)
    if config in ("beside", "named"):
        name = "config.json" if config == "beside" else "other.json"
        (tmp_path / name).write_text(json.dumps(settings))
    given = {
        "beside": None,
        "named": str(tmp_path / "other.json"),
        "mapping": settings,
        "sizes": HiFiGANConfig(**fixture["config"]),
    }[config]
    vocoder = load_vocoder(path, config=given)
    expected = fixture["audio"].squeeze(1)
    torch.testing.assert_close(vocoder.infer(fixture["mel"]), expected, rtol=0, atol=1e-4)
    says_audio = config != "sizes"
    assert vocoder.audio == AudioConfig(mel_fmax=7600.0 if says_audio else 8000.0)
    assert ("does not say its audio settings" in caplog.text) != says_audio


def test_an_original_hifigan_without_config_is_refused(tmp_path):
    torch.save(golden("hifigan_original_v3_tiny")["checkpoint"], tmp_path / "g_1")
    complaint = vocoder_refusal_of(tmp_path / "g_1")
    assert "put its config.json beside it, or name that with --hifigan-config" in complaint


def test_an_original_hifigan_with_another_config_is_refused(tmp_path):
    fixture = golden("hifigan_original_v3_tiny")
    torch.save(fixture["checkpoint"], tmp_path / "g_1")
    sizes = golden("hifigan_tiny")["config"]
    assert "do not fit the model" in vocoder_refusal_of(tmp_path / "g_1", config=sizes)
    hop = fixture["config"] | {"hop_size": 512}
    complaint = vocoder_refusal_of(tmp_path / "g_1", config=hop)
    assert "makes 256 samples of a mel frame, but its settings say --hop-length 512" in complaint
    with pytest.raises(FileNotFoundError, match=r"--hifigan-config .*none\.json: no such file"):
        load_vocoder(tmp_path / "g_1", config=tmp_path / "none.json")


def test_a_config_that_is_not_needed_is_named(saved, caplog):
    path = saved(a_hifigan())
    assert_is_golden_hifigan(load_vocoder(path, config=HiFiGANConfig()))
    assert f"--hifigan-config has no effect: {path} says its own settings" in caplog.text


def test_a_hifigan_without_settings_is_assumed_to_be_of_ljspeech(saved, caplog):
    checkpoint = a_hifigan()
    del checkpoint["train_setup"]
    path = saved(checkpoint)
    assert load_vocoder(path).audio == AudioConfig()
    assert f"{path} does not say its audio settings: assuming those of LJSpeech" in caplog.text


def test_a_waveglow_is_ready_to_speak(saved):
    vocoder = load_vocoder(saved(a_waveglow()))
    assert isinstance(vocoder, WaveGlow)
    assert vocoder_name(vocoder) == "waveglow"
    assert not vocoder.training
    assert vocoder.audio == AudioConfig(n_mel_channels=8)
    fixture = golden("waveglow_tiny")
    audio = vocoder.infer(fixture["mel"], sigma=0.0)
    torch.testing.assert_close(audio, fixture["infer_sigma0"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("dialect", [folded, with_torchs_names])
def test_a_waveglow_is_read_whoever_named_its_weights(saved, dialect):
    checkpoint = a_waveglow()
    path = saved(checkpoint | {"state_dict": dialect(checkpoint["state_dict"])})
    fixture = golden("waveglow_tiny")
    audio = load_vocoder(path).infer(fixture["mel"], sigma=0.0)
    torch.testing.assert_close(audio, fixture["infer_sigma0"], rtol=0, atol=1e-4)


def test_a_waveglow_of_half_precision_is_read_as_float32(saved):
    checkpoint = a_waveglow()
    halves = {f"module.{k}": weight.half() for k, weight in checkpoint["state_dict"].items()}
    vocoder = load_vocoder(saved(checkpoint | {"state_dict": halves}))
    assert {weight.dtype for weight in vocoder.parameters()} == {torch.float32}
    fixture = golden("waveglow_tiny")
    audio = vocoder.infer(fixture["mel"], sigma=0.0)
    torch.testing.assert_close(audio, fixture["infer_sigma0"], rtol=0, atol=1e-2)


def test_a_waveglow_has_the_mels_that_it_was_trained_with(saved):
    config = WaveGlowConfig(flows=2, wn_channels=8, wn_layers=1, n_mel_channels=20)
    model = WaveGlow(config, hop_length=512, win_length=2048)
    setup = {"hop_length": 512, "win_length": 2048, "filter_length": 2048, "sampling_rate": 44100}
    checkpoint = {"config": config.to_checkpoint(), "state_dict": model.state_dict()}
    vocoder = load_vocoder(saved(checkpoint | {"train_setup": setup}))
    assert vocoder.audio == AudioConfig(n_mel_channels=20, **setup)
    assert vocoder.infer(torch.zeros(1, 20, 3)).shape == (1, 3 * 512)


@pytest.mark.parametrize(
    ("make", "weights", "averaged"),
    [(a_hifigan, "generator", "gen_ema"), (a_waveglow, "state_dict", "ema_state_dict")],
)
def test_averaged_weights_of_a_vocoder_are_taken_where_there_are_any(
    saved, caplog, make, weights, averaged
):
    caplog.set_level(logging.INFO)
    plain = load_vocoder(saved(make()))
    average = {name: 1.5 * weight for name, weight in make()[weights].items()}
    path = saved(make() | {averaged: average})
    assert load_vocoder(path, ema=True).state_dict().keys() == plain.state_dict().keys()
    for name, weight in load_vocoder(path).state_dict().items():
        assert torch.equal(weight, plain.state_dict()[name])
    biases = [name for name in plain.state_dict() if name.endswith("bias")]
    for name, weight in load_vocoder(path, ema=True).state_dict().items():
        if name in biases:
            assert torch.equal(weight, 1.5 * plain.state_dict()[name])
    assert biases
    assert "no averaged weights" not in caplog.text
    without = load_vocoder(saved(make()), ema=True)
    assert torch.equal(without.state_dict()[biases[0]], plain.state_dict()[biases[0]])
    assert "holds no averaged weights: taking those of the last step" in caplog.text


HIFIGAN_SIZES = {"config": golden("hifigan_tiny")["config"]}


@pytest.mark.parametrize(
    ("checkpoint", "complaint"),
    [
        ({"generator": {}}, "its generator holds no weights"),
        ({"generator": None}, "its generator holds no weights"),
        (HIFIGAN_SIZES | {"generator": {}}, "its generator holds no weights"),
        (HIFIGAN_SIZES | {"generator": {"a": torch.ones(1)}}, "a is unknown"),
        (HIFIGAN_SIZES | {"generator": {1: torch.ones(1)}}, "expected weights as named tensors"),
        (HIFIGAN_SIZES | {"generator": {"a": "b"}}, "expected weights as named tensors"),
        ({"generator": {"a": torch.ones(1)}, "config": {}}, "it has no resblock"),
        ({"generator": {"a": torch.ones(1)}, "config": None}, "cannot be used"),
        (
            {"mpd": {}, "msd": {}},
            "not a vocoder, but the discriminators of a HiFi-GAN, which only training needs: the "
            "generator is in hifigan_gen_checkpoint_N.pt",
        ),
        ({"weights": {}, "epoch": 1}, "not a vocoder, it has weights, epoch"),
        ({"config": {}, "state_dict": {}}, "not a vocoder, it has config, state_dict"),
        ({"config": {"WN_config": {}}, "state_dict": {}}, "n_flows is missing"),
        (a_waveglow() | {"state_dict": {}}, "do not fit the model"),
        (a_waveglow() | {"train_setup": {"win_length": 512}}, "upsample.weight has shape"),
        (a_waveglow() | {"train_setup": {"hop_length": 300}}, "--groups must divide --hop-length"),
        ({}, "named entries"),
        ([torch.ones(2)], "named entries"),
    ],
)
def test_what_is_no_vocoder_is_refused(saved, checkpoint, complaint):
    assert complaint in vocoder_refusal_of(saved(checkpoint))


def test_a_fastpitch_is_no_vocoder(saved):
    complaint = vocoder_refusal_of(saved(a_checkpoint()))
    assert "not a vocoder, but a FastPitch: name it with --fastpitch" in complaint


def test_a_file_that_is_empty_is_no_vocoder(tmp_path):
    (tmp_path / "x.pt").touch()
    assert "not a readable checkpoint" in vocoder_refusal_of(tmp_path / "x.pt")
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such checkpoint"):
        load_vocoder(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("setup", "complaint"),
    [
        (
            {"hop_length": 512},
            "makes 256 samples of a mel frame, but its settings say --hop-length",
        ),
        ({"n_mel_channels": 40}, "conv_pre.weight_v has shape (32, 80, 7), the model (32, 40, 7)"),
        ({"sampling_rate": "fast"}, "its config or train_setup cannot be used"),
        ({"mel_fmax": 20000.0}, "--mel-fmax must not exceed half the sampling rate"),
    ],
)
def test_settings_that_do_not_fit_a_hifigan_are_refused(saved, setup, complaint):
    assert complaint in vocoder_refusal_of(saved(a_hifigan() | {"train_setup": setup}))


@pytest.mark.parametrize("make", [a_hifigan, a_waveglow])
def test_vocoders_of_a_training_that_diverged_are_refused(saved, make):
    checkpoint = make()
    weights = checkpoint["generator" if "generator" in checkpoint else "state_dict"]
    next(iter(weights.values()))[0] = torch.inf
    assert "its weights hold NaN or infinity" in vocoder_refusal_of(saved(checkpoint))


def test_no_denoising_is_the_vocoder_itself(saved):
    vocoder = load_vocoder(saved(a_hifigan()))
    assert denoised(vocoder, 0.0) is vocoder


@pytest.mark.parametrize("strength", ["0.01", "0.1"])
def test_a_denoised_hifigan_is_that_of_the_public_recipe(saved, strength):
    vocoder = denoised(load_vocoder(saved(a_hifigan())), float(strength))
    fixture = golden("hifigan_tiny")
    expected = fixture["denoised"][strength].squeeze(1)
    torch.testing.assert_close(vocoder.infer(fixture["mel"]), expected, rtol=0, atol=1e-4)


def test_the_hum_of_a_waveglow_is_what_it_makes_without_noise(saved):
    path = saved(a_waveglow())
    mel = golden("waveglow_tiny")["mel"]

    def audio(noise_before: int) -> torch.Tensor:
        torch.manual_seed(noise_before)
        vocoder = denoised(load_vocoder(path), 0.5)
        torch.manual_seed(0)
        return vocoder.infer(mel)

    assert torch.equal(audio(1), audio(2))
    torch.manual_seed(0)
    assert not torch.allclose(audio(1), load_vocoder(path).infer(mel), atol=1e-5)


def test_vocoders_of_other_mels_are_told_apart():
    ours, theirs = AudioConfig(max_wav_value=1.0), AudioConfig(hop_length=300, mel_fmin=50.0)
    check_same_mels(AudioConfig(), Path("v.pt"), ours, Path("f.pt"))
    with pytest.raises(ValueError) as refusal:
        check_same_mels(theirs, Path("v.pt"), ours, Path("f.pt"))
    assert str(refusal.value).startswith(
        "the vocoder v.pt takes mels of hop_length 300, mel_fmin 50, but f.pt makes mels of "
        "hop_length 256, mel_fmin 0: "
    )


@pytest.mark.parametrize("name", ["hifigan", "waveglow", "griffin_lim"])
def test_each_of_several_mels_sounds_as_it_does_alone(saved, name):
    if name == "griffin_lim":
        vocoder = GriffinLim(AudioConfig(), iterations=2)
    else:
        vocoder = load_vocoder(saved(a_hifigan() if name == "hifigan" else a_waveglow()))
        vocoder = laid_out(vocoder, Precision(False, torch.device("cpu")))
    if name == "waveglow":
        vocoder.sigma = 0.0  # noise differs from call to call
    num_bands = 80 if name == "griffin_lim" else vocoder.n_mel_channels
    mels = [torch.randn(num_bands, num_frames) - 4 for num_frames in (9, 4, 12, 9)]
    for wave, mel in zip(speak_each(vocoder, mels), mels, strict=True):
        torch.testing.assert_close(wave, vocoder.infer(mel[None])[0], atol=1e-5, rtol=1e-4)
