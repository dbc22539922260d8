# SPDX-License-Identifier: BSD-3-Clause
"""What a FastPitch checkpoint, ours or the public recipe's, says besides its weights."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.config import errors_naming
from fastpitch.arg_parser import FastPitchConfig

logger = logging.getLogger(__name__)

# What the public recipe's own inference assumes of a checkpoint that does not say.
ASSUMED_SETUP = {"text_cleaners": ["english_cleaners_v2"]}


def stored_config(checkpoint: Mapping[str, Any], source: Path | str) -> FastPitchConfig:
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
    with errors_naming(source):
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
