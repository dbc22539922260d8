# SPDX-License-Identifier: BSD-3-Clause
"""From a checkpoint, ours or the public recipe's, to a model that is ready to speak."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from common.checkpoint import load_checkpoint, load_weights
from common.config import AudioConfig, TextConfig, from_setup
from fastpitch.arg_parser import FastPitchConfig
from fastpitch.model import FastPitch

logger = logging.getLogger(__name__)

# What the public recipe's own inference assumes of a checkpoint that does not say.
ASSUMED_SETUP = {"text_cleaners": ["english_cleaners_v2"]}


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
    load_weights(generator, weights, path)
    if not all(weight.isfinite().all() for weight in generator.state_dict().values()):
        raise ValueError(
            f"{path}: its weights hold NaN or infinity, as when training diverges: take an earlier "
            "checkpoint"
        )
    return generator.to(device).eval()


def fastpitch_config(checkpoint: Mapping[str, Any], source: Path | str) -> FastPitchConfig:
    """The sizes of the network in a checkpoint.

    Raises:
        ValueError: it is no FastPitch checkpoint
    """
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


@contextmanager
def _errors_naming(source: Path | str) -> Iterator[None]:
    """Whatever sizes and settings in a checkpoint make impossible becomes a sentence."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{source}: its config or train_setup cannot be used: {error}") from error
