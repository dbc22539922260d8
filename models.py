# SPDX-License-Identifier: BSD-3-Clause
"""From a checkpoint, ours or the public recipe's, to a model that is ready to speak."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from common.checkpoint import load_checkpoint, load_weights
from common.compiling import Compile, compile_sequences
from common.config import AudioConfig, TextConfig, errors_naming, from_setup
from common.denoiser import Denoiser, zero_mel
from common.precision import Precision
from common.synthesizer import Vocoder
from common.weight_norm import WEIGHT_NORM, fold_norms
from common.weights import prepare_weights
from fastpitch.arg_parser import FastPitchConfig
from fastpitch.model import FastPitch
from fastpitch.stored import stored_config, train_setup
from hifigan.arg_parser import HiFiGANConfig
from hifigan.channels_last import ChannelsLastHiFiGAN
from hifigan.model import HiFiGAN, nested_keys
from hifigan.stored import audio_setup, make_hifigan
from waveglow.arg_parser import WaveGlowConfig
from waveglow.model import WaveGlow

logger = logging.getLogger(__name__)

Trained = TypeVar("Trained", HiFiGAN, WaveGlow)
Settings = TypeVar("Settings")
NeuralVocoder = HiFiGAN | WaveGlow
SpeakingVocoder = NeuralVocoder | ChannelsLastHiFiGAN
VOCODERS = {HiFiGAN: "hifigan", WaveGlow: "waveglow"}
TITLES = {HiFiGAN: "HiFi-GAN", WaveGlow: "WaveGlow"}
# The voice that comes with the recipe, as scripts/voice/build.sh packs it.
VOICE = Path(__file__).resolve().parent / "pretrained_models" / "voice"
# What a file may turn out to be, and what to do about it where another was expected.
FOREIGN = {
    "fastpitch": "a FastPitch: name it with --fastpitch",
    "hifigan": "a HiFi-GAN generator: name it with --hifigan",
    "waveglow": "a WaveGlow: name it with --waveglow",
    "discriminators": "the discriminators of a HiFi-GAN, which only training needs: the generator "
    "is in hifigan_gen_checkpoint_N.pt, or g_N in the original repository",
}


def with_shipped_voice(config: Settings, or_else: str) -> Settings:
    """The same settings; where they name no checkpoint, with the voice that comes with the recipe.

    Args:
        config: a dataclass with fields fastpitch, hifigan and waveglow
        or_else: what would do without a FastPitch, for the error

    Raises:
        ValueError: there is no such voice, or a vocoder alone is named
    """
    if config.fastpitch is not None:
        return config
    fastpitch, hifigan = VOICE / "fastpitch.pt", VOICE / "hifigan.pt"
    vocoders = [f"--{name}" for name in VOCODERS.values() if getattr(config, name) is not None]
    if vocoders or not fastpitch.is_file():
        speaks = (
            " (bash scripts/demo.sh trains one), or have a voice in pretrained_models/voice "
            "(RELEASE_DIR=pretrained_models/voice bash scripts/voice/build.sh makes one)"
        )
        if fastpitch.is_file():
            speaks = (
                f", or leave {vocoders[0]} out, and the voice in pretrained_models/voice speaks"
            )
        raise ValueError(
            f"--fastpitch is missing: name a checkpoint, FastPitch_checkpoint_N.pt{speaks}; "
            f"{or_else}"
        )
    logger.info("No checkpoint named: the voice in %s speaks", VOICE)
    trained_vocoder = hifigan if hifigan.is_file() else None
    return dataclasses.replace(config, fastpitch=fastpitch, hifigan=trained_vocoder)


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
    with errors_naming(path):
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
        vocoder = make_hifigan(checkpoint, path, config)
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


def laid_out(vocoder: NeuralVocoder, precision: Precision) -> SpeakingVocoder:
    """A folded vocoder in the form that speaks fastest in a precision, and can do nothing else."""
    if isinstance(vocoder, WaveGlow):
        prepare_weights(vocoder.WN, precision)  # the rest is as precise as the audio
        return vocoder
    dtype = precision.dtype if precision.amp else torch.float32
    fast = ChannelsLastHiFiGAN(vocoder, dtype).eval()
    fast.audio = vocoder.audio
    return fast


def compile_models(
    generator: FastPitch | None, vocoder: Vocoder | None, compile_function: Compile
) -> None:
    """Compiles what takes most of the time of speaking: FastPitch's stacks, and HiFi-GAN."""
    if generator is not None:
        parts = [generator.encoder, generator.decoder]
        parts += [generator.duration_predictor, generator.pitch_predictor]
        parts += [generator.energy_predictor] if generator.config.energy_conditioning else []
        for part in parts:
            compile_sequences(part, compile_function)
    if isinstance(vocoder, ChannelsLastHiFiGAN):
        vocoder.compile_sizes(compile_function)


@torch.no_grad()
def denoised(vocoder: SpeakingVocoder, strength: float) -> Vocoder:
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
    return stored_config(checkpoint, source)


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


def _make_waveglow(checkpoint: Mapping[str, Any], path: Path | str) -> WaveGlow:
    """The network that a checkpoint describes, without its weights."""
    with errors_naming(path):
        sizes = WaveGlowConfig.from_checkpoint(checkpoint["config"])
        setup = audio_setup(checkpoint, path)
        audio = from_setup(AudioConfig, setup, n_mel_channels=sizes.n_mel_channels)
        vocoder = WaveGlow(sizes, audio.hop_length, audio.win_length)
    vocoder.audio = audio
    return vocoder


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
