# SPDX-License-Identifier: BSD-3-Clause
"""What a HiFi-GAN checkpoint, ours, public or original, says besides its weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from common.config import AudioConfig, errors_naming, from_setup
from hifigan.arg_parser import ORIGINAL_NAMES, HiFiGANConfig, read_hifigan_json
from hifigan.model import HiFiGAN

logger = logging.getLogger(__name__)


def make_hifigan(checkpoint: Mapping[str, Any], path: Path | str, given: Any) -> HiFiGAN:
    """The network that a checkpoint describes, without its weights, and with its `audio`.

    Args:
        given: settings of an original one; by default its configuration file

    Raises:
        ValueError: settings are missing, impossible, or contradict each other
    """
    if not isinstance(checkpoint["generator"], Mapping) or not checkpoint["generator"]:
        raise ValueError(f"{path}: its generator holds no weights")
    if "config" not in checkpoint:
        settings = sizes = _original_settings(path, given)
    else:
        if given is not None:
            logger.warning("--hifigan-config has no effect: %s says its own settings", path)
        settings, sizes = audio_setup(checkpoint, path), checkpoint["config"]
    names = {field.name for field in fields(HiFiGANConfig)}
    with errors_naming(path):
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
        return audio_setup({}, path) | vars(given)
    if isinstance(given, Mapping):
        return {ORIGINAL_NAMES.get(name, name): value for name, value in given.items()}
    beside = Path(path).with_name("config.json")
    if given is None and not beside.is_file():
        raise ValueError(
            f"{path}: does not say the sizes of its network, as those of the original HiFi-GAN: "
            "put its config.json beside it, or name that with --hifigan-config"
        )
    return read_hifigan_json(given or beside)


def audio_setup(checkpoint: Mapping[str, Any], path: Path | str) -> dict[str, Any]:
    """The audio settings that a vocoder was trained with, by our names."""
    setup = checkpoint.get("train_setup")
    if not isinstance(setup, Mapping):
        logger.warning("%s does not say its audio settings: assuming those of LJSpeech", path)
        return {}
    return {ORIGINAL_NAMES.get(name, name): value for name, value in setup.items()}
