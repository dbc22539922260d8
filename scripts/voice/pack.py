# SPDX-License-Identifier: BSD-3-Clause
"""Packs a voice for release: averaged weights in half precision, nothing that only training needs.

Run from the repository's root: python -m scripts.voice.pack --fastpitch FILE --hifigan FILE -o DIR
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from common.checkpoint import checkpoint_size, load_checkpoint, save_checkpoint
from common.cli import FlagParser, flag
from models import load_generator, load_vocoder

logger = logging.getLogger("pack")

FASTPITCH, HIFIGAN = "fastpitch.pt", "hifigan.pt"
KEPT = ("epoch", "iteration", "config", "train_setup", "train_state")
MEGABYTE = 1e6
LARGEST_MEGABYTES = 45.0


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """Release: which models, and where to."""

    fastpitch: Path = flag(help="FastPitch checkpoint")
    hifigan: Path | None = flag(None, help="HiFi-GAN checkpoint (default: Griffin-Lim is to speak)")
    output: Path = flag(short="-o", help="folder of the release")


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the files; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = FlagParser(__doc__.splitlines()[0], PackConfig, prog="pack")
    config = parser.build(PackConfig, parser.parse(argv))
    try:
        pack(config)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return 0


def pack(config: PackConfig) -> None:
    """Writes all models, or none.

    Raises:
        ValueError: a file is no such model, they are together larger than a release may be, or the
            folder has a vocoder and none is given
    """
    if config.hifigan is None and (config.output / HIFIGAN).exists():
        raise ValueError(
            f"{config.output / HIFIGAN} is there and would speak with this FastPitch: remove it, "
            "or name its successor with --hifigan"
        )
    fastpitch = load_checkpoint(config.fastpitch)
    generator = load_generator(config.fastpitch, ema=bool(fastpitch.get("ema_state_dict")))
    packed = {FASTPITCH: _packed(fastpitch, "state_dict", generator.state_dict())}
    if config.hifigan is not None:
        vocoder = load_vocoder(config.hifigan, ema=True)
        hifigan = load_checkpoint(config.hifigan)
        packed[HIFIGAN] = _packed(hifigan, "generator", vocoder.state_dict())
    sizes = [checkpoint_size(model) / MEGABYTE for model in packed.values()]
    if sum(sizes) > LARGEST_MEGABYTES:
        raise ValueError(
            f"together {sum(sizes):.1f} MB, more than the {LARGEST_MEGABYTES:g} MB that a release "
            "may have: train smaller models"
        )
    for name, model in packed.items():
        save_checkpoint(model, config.output / name)
    logger.info("%s: %s MB", config.output, " and ".join(f"{size:.1f}" for size in sizes))


def _packed(
    checkpoint: Mapping[str, Any], name: str, weights: Mapping[str, Tensor]
) -> dict[str, Any]:
    """What a model is and its weights, which are half as large."""
    kept = {name: checkpoint[name] for name in KEPT if name in checkpoint}
    halves = {key: w.half() if w.is_floating_point() else w for key, w in weights.items()}
    return {**kept, name: halves}


if __name__ == "__main__":
    sys.exit(main())
