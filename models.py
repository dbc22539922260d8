# SPDX-License-Identifier: BSD-3-Clause
"""From a checkpoint, ours or the public recipe's, to a model that is ready to speak."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from common.checkpoint import load_checkpoint, load_weights
from common.config import AudioConfig, TextConfig, from_setup
from common.denoiser import Denoiser, zero_mel
from common.synthesizer import Vocoder
from common.weight_norm import WEIGHT_NORM, fold_norms
from fastpitch.arg_parser import FastPitchConfig
from fastpitch.model import FastPitch
from hifigan.arg_parser import ORIGINAL_NAMES, HiFiGANConfig, read_hifigan_json
from hifigan.model import HiFiGAN, nested_keys
from waveglow.arg_parser import WaveGlowConfig
from waveglow.model import WaveGlow

logger = logging.getLogger(__name__)

# What the public recipe's own inference assumes of a checkpoint that does not say.
ASSUMED_SETUP = {"text_cleaners": ["english_cleaners_v2"]}

Trained = TypeVar("Trained", HiFiGAN, WaveGlow)
NeuralVocoder = HiFiGAN | WaveGlow
VOCODERS = {HiFiGAN: "hifigan", WaveGlow: "waveglow"}
TITLES = {HiFiGAN: "HiFi-GAN", WaveGlow: "WaveGlow"}
# What a file may turn out to be, and what to do about it where another was expected.
FOREIGN = {
    "fastpitch": "a FastPitch: name it with --fastpitch",
    "hifigan": "a HiFi-GAN generator: name it with --hifigan",
    "waveglow": "a WaveGlow: name it with --waveglow",
    "discriminators": "the discriminators of a HiFi-GAN, which only training needs: the generator "
    "is in hifigan_gen_checkpoint_N.pt, or g_N in the original repository",
}


def load_generator(
    path: Path | str, device: torch.device | str = "cpu", ema: bool = False
) -> FastPitch:
    """Loads a FastPitch that is ready to speak; everything it needs is in its checkpoint.

    Args:
        path: checkpoint of this recipe or of the public one
        device: where to put the model
        ema: take the averaged weights

    Returns:
        The model in evaluation mode. Its attributes `audio` and `text` are the settings of its
        mels (`AudioConfig`) and of its symbols (`TextConfig`).

    Raises:
        FileNotFoundError: there is no such file
        ValueError: it is no FastPitch checkpoint, or has no averaged or no finite weights
    """
    checkpoint = load_checkpoint(path)
    config, setup = fastpitch_config(checkpoint, path), train_setup(checkpoint, path)
    with _errors_naming(path):
        generator = FastPitch(config)
        generator.audio = from_setup(AudioConfig, setup, n_mel_channels=config.n_mel_channels)
        generator.text = from_setup(TextConfig, setup)
    weights = checkpoint["state_dict"]
    if ema:
        weights = checkpoint.get("ema_state_dict")
        if not weights:
            raise ValueError(f"{path}: holds no averaged weights: leave --ema out")
    _load_finite(generator, weights, path)
    return generator.to(device).eval()


def load_vocoder(
    path: Path | str,
    device: torch.device | str = "cpu",
    config: Path | str | Mapping[str, Any] | HiFiGANConfig | None = None,
    ema: bool = False,
    fold: bool = True,
) -> NeuralVocoder:
    """Loads a vocoder that is ready to speak; what it is shows in the file.

    Args:
        path: HiFi-GAN of this recipe, of the public one or of the original repository; or WaveGlow
            of this recipe or of the public one
        device: where to put the model
        config: settings for a HiFi-GAN of the original repository, whose files hold weights alone:
            its configuration file, or what that holds. By default the `config.json` beside `path`.
        ema: take the averaged weights where there are any
        fold: compute the normalized weights once, for inference; training needs them unfolded

    Returns:
        The model in evaluation mode. Its attribute `audio` are the settings of
        the mels that it takes (`AudioConfig`).

    Raises:
        FileNotFoundError: there is no such file
        ValueError: it is no vocoder, has no finite weights, or its settings are missing or
            contradict each other
    """
    checkpoint = load_checkpoint(path)
    kind = _kind_of(checkpoint)
    if kind == "hifigan":
        vocoder = _make_hifigan(checkpoint, path, config)
        weights = _stored_weights(checkpoint, "generator", "gen_ema", path, ema)
        weights = nested_keys(weights, len(vocoder.config.resblock_kernel_sizes))
    elif kind == "waveglow":
        vocoder = _make_waveglow(checkpoint, path)
        weights = _stored_weights(checkpoint, "state_dict", "ema_state_dict", path, ema)
    else:
        found = f"but {FOREIGN[kind]}" if kind else f"it has {', '.join(map(str, checkpoint))}"
        raise ValueError(f"{path}: not a vocoder, {found}")
    if not any(name.endswith(".weight_g") for name in weights):
        if not fold:
            raise ValueError(
                f"{path}: its weights are folded, without weight_g, and cannot be trained on: name "
                "the checkpoint that training wrote"
            )
        fold_norms(vocoder)  # as the weights are already
    _load_finite(vocoder, weights, path)
    if fold:
        fold_norms(vocoder)
    return vocoder.to(device).eval()


def load_vocoder_to_train(
    flag: str,
    path: Path,
    model_class: type[Trained],
    config: Path | None = None,
) -> Trained:
    """Loads a vocoder whose training begins or goes on with its weights.

    Args:
        flag: that led to the file, for errors
        path: as for `load_vocoder`
        model_class: HiFiGAN or WaveGlow, which it must be
        config: as for `load_vocoder`
    """
    try:
        vocoder = load_vocoder(path, config=config, fold=False)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"{flag} {error}") from error
    if not isinstance(vocoder, model_class):
        expected, found = TITLES[model_class], TITLES[type(vocoder)]
        raise ValueError(
            f"{flag} {path}: a {found}, not a {expected}: train it with "
            f"{VOCODERS[type(vocoder)]}.train"
        )
    return vocoder


def vocoder_name(vocoder: NeuralVocoder) -> str:
    """How flags and metrics call it: hifigan or waveglow."""
    return VOCODERS[type(vocoder)]


@torch.no_grad()
def denoised(vocoder: NeuralVocoder, strength: float) -> Vocoder:
    """The vocoder without the hum that it adds to everything; at strength 0 as it is."""
    if strength == 0:
        return vocoder
    silence = zero_mel(vocoder.audio, next(vocoder.parameters()).device)
    noiseless = {"sigma": 0.0} if isinstance(vocoder, WaveGlow) else {}
    return Denoiser(vocoder, strength, vocoder.audio, vocoder.infer(silence, **noiseless))


def check_same_mels(
    vocoder: AudioConfig, vocoder_path: Path, generator: AudioConfig, generator_path: Path | str
) -> None:
    """Refuses a vocoder that was trained on other mels than an acoustic model makes.

    Raises:
        ValueError: which settings differ, and how
    """
    names = [f.name for f in dataclasses.fields(AudioConfig) if f.name != "max_wav_value"]
    differing = [name for name in names if vars(vocoder)[name] != vars(generator)[name]]
    if differing:
        theirs, ours = (
            ", ".join(f"{name} {vars(audio)[name]:g}" for name in differing)
            for audio in (vocoder, generator)
        )
        raise ValueError(
            f"the vocoder {vocoder_path} takes mels of {theirs}, but {generator_path} makes mels "
            f"of {ours}: take a vocoder that was trained with the same"
        )


def fastpitch_config(checkpoint: Mapping[str, Any], source: Path | str) -> FastPitchConfig:
    """The sizes of the network in a checkpoint.

    Raises:
        ValueError: it is no FastPitch checkpoint
    """
    kind = _kind_of(checkpoint)
    if kind not in ("fastpitch", None):
        raise ValueError(f"{source}: not a FastPitch checkpoint, but {FOREIGN[kind]}")
    missing = {"config", "state_dict"} - checkpoint.keys()
    if missing:
        raise ValueError(
            f"{source}: not a FastPitch checkpoint: it has no {' and no '.join(sorted(missing))}"
        )
    values = checkpoint["config"]
    if not isinstance(values, Mapping):
        raise ValueError(f"{source}: not a FastPitch checkpoint: its config has no named values")
    unknown = values.keys() - {field.name for field in dataclasses.fields(FastPitchConfig)}
    if unknown:
        raise ValueError(
            f"{source}: not a FastPitch checkpoint: its config has "
            f"{', '.join(sorted(map(str, unknown)))}"
        )
    with _errors_naming(source):
        return FastPitchConfig(**values)


def train_setup(checkpoint: Mapping[str, Any], source: Path | str) -> dict[str, Any]:
    """The audio and text settings that a checkpoint was trained with, as configs hold them."""
    setup = checkpoint.get("train_setup")
    if not isinstance(setup, Mapping):
        logger.warning(
            "%s does not say its audio and text settings: assuming those of the public recipe",
            source,
        )
        setup = ASSUMED_SETUP
    return {name: tuple(v) if isinstance(v, list) else v for name, v in setup.items()}


def pitch_statistics(checkpoint: Mapping[str, Any], source: Path | str) -> tuple[float, float]:
    """Mean and standard deviation in Hz of the pitch that a checkpoint was trained with.

    Raises:
        ValueError: it does not say
    """
    weights = checkpoint["state_dict"] if isinstance(checkpoint["state_dict"], Mapping) else {}
    values = {name.removeprefix("module."): value for name, value in weights.items()}
    try:
        return float(values["pitch_mean"]), float(values["pitch_std"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{source}: not a FastPitch checkpoint: no pitch_mean, pitch_std"
        ) from error


def _kind_of(checkpoint: Mapping[str, Any]) -> str | None:
    """Which of `FOREIGN` a file holds; None where it is none of them."""
    if "generator" in checkpoint:
        return "hifigan"
    if {"mpd", "msd"} & checkpoint.keys():
        return "discriminators"
    config = checkpoint.get("config")
    if not isinstance(config, Mapping) or "state_dict" not in checkpoint:
        return None
    if "WN_config" in config:
        return "waveglow"
    return "fastpitch" if "symbols_embedding_dim" in config else None


def _make_hifigan(checkpoint: Mapping[str, Any], path: Path | str, given: Any) -> HiFiGAN:
    """The network that a checkpoint describes, without its weights."""
    if not isinstance(checkpoint["generator"], Mapping) or not checkpoint["generator"]:
        raise ValueError(f"{path}: its generator holds no weights")
    if "config" not in checkpoint:
        settings = sizes = _original_settings(path, given)
    else:
        if given is not None:
            logger.warning("--hifigan-config has no effect: %s says its own settings", path)
        settings, sizes = _audio_setup(checkpoint, path), checkpoint["config"]
    names = {field.name for field in dataclasses.fields(HiFiGANConfig)}
    with _errors_naming(path):
        missing = names - {*sizes}
        if missing:
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        audio = from_setup(AudioConfig, settings)
        vocoder = HiFiGAN(from_setup(HiFiGANConfig, sizes), audio.n_mel_channels)
    vocoder.audio = audio
    if vocoder.hop_length != audio.hop_length:
        raise ValueError(
            f"{path}: makes {vocoder.hop_length} samples of a mel frame, but its settings say "
            f"--hop-length {audio.hop_length}"
        )
    return vocoder


def _original_settings(path: Path | str, given: Any) -> dict[str, Any]:
    """Sizes and audio settings, by our names, of a HiFi-GAN of the original repository."""
    if isinstance(given, HiFiGANConfig):
        return _audio_setup({}, path) | vars(given)
    if isinstance(given, Mapping):
        return {ORIGINAL_NAMES.get(name, name): value for name, value in given.items()}
    beside = Path(path).with_name("config.json")
    if given is None and not beside.is_file():
        raise ValueError(
            f"{path}: does not say the sizes of its network, as those of the original HiFi-GAN: "
            "put its config.json beside it, or name that with --hifigan-config"
        )
    return read_hifigan_json(given or beside)


def _make_waveglow(checkpoint: Mapping[str, Any], path: Path | str) -> WaveGlow:
    """The network that a checkpoint describes, without its weights."""
    with _errors_naming(path):
        sizes = WaveGlowConfig.from_checkpoint(checkpoint["config"])
        setup = _audio_setup(checkpoint, path)
        audio = from_setup(AudioConfig, setup, n_mel_channels=sizes.n_mel_channels)
        vocoder = WaveGlow(sizes, audio.hop_length, audio.win_length)
    vocoder.audio = audio
    return vocoder


def _audio_setup(checkpoint: Mapping[str, Any], path: Path | str) -> dict[str, Any]:
    """The audio settings that a vocoder was trained with, by our names."""
    setup = checkpoint.get("train_setup")
    if not isinstance(setup, Mapping):
        logger.warning("%s does not say its audio settings: assuming those of LJSpeech", path)
        return {}
    return {ORIGINAL_NAMES.get(name, name): value for name, value in setup.items()}


def _stored_weights(
    checkpoint: Mapping[str, Any], name: str, averaged: str, path: Path | str, ema: bool
) -> dict[str, Tensor]:
    """Weights of a vocoder; normalized ones under the public names, whoever named them."""
    if ema and not checkpoint.get(averaged):
        logger.info("%s holds no averaged weights: taking those of the last step", path)
    weights = (ema and checkpoint.get(averaged)) or checkpoint[name]
    if not isinstance(weights, Mapping) or not all(isinstance(key, str) for key in weights):
        raise ValueError(f"{path}: expected weights as named tensors")
    renamed = {}
    for key, weight in weights.items():
        for torch_name, public in WEIGHT_NORM.items():
            key = key.replace(torch_name, public)
        renamed[key] = weight
    return renamed


def _load_finite(model: nn.Module, weights: Mapping[str, Tensor], path: Path | str) -> None:
    """Puts weights into a model; refuses those of a training that diverged."""
    load_weights(model, weights, path)
    if not all(weight.isfinite().all() for weight in model.state_dict().values()):
        raise ValueError(
            f"{path}: its weights hold NaN or infinity, as when training diverges: take an earlier "
            "checkpoint"
        )


@contextmanager
def _errors_naming(source: Path | str) -> Iterator[None]:
    """Whatever sizes and settings in a checkpoint make impossible becomes a sentence."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{source}: its config or train_setup cannot be used: {error}") from error
