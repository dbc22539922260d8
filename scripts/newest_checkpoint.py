# SPDX-License-Identifier: BSD-3-Clause
"""Prints the newest checkpoint of a training.

Run from the repository's root: python -m scripts.newest_checkpoint --folder FOLDER --names NAME ...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.checkpoint_folder import CheckpointFolder
from common.cli import FlagParser, flag


@dataclass(frozen=True, kw_only=True)
class NewestConfig:
    """Newest checkpoint: of which training."""

    folder: Path = flag(help="its --output")
    names: tuple[str, ...] = flag(
        help="what the files of a checkpoint are called, the one to be printed first: FastPitch, "
        "or hifigan_gen hifigan_discrim"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the path; returns the exit code."""
    parser = FlagParser(__doc__.splitlines()[0], NewestConfig, prog="newest_checkpoint")
    config = parser.build(NewestConfig, parser.parse(argv))
    try:
        paths = CheckpointFolder(config.folder, config.names).latest_readable()
    except ValueError as error:
        parser.error(str(error))
    if paths is None:
        parser.error(
            f"--folder {config.folder}: holds no checkpoint of {' and '.join(config.names)}"
        )
    print(paths[config.names[0]])
    return 0


if __name__ == "__main__":
    sys.exit(main())
