# SPDX-License-Identifier: BSD-3-Clause
"""Files that are either complete or not there, and files of tensors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends well.

    Readers never see half a file; when the block fails, what was at `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_tensors(path: Path, device: torch.device | str = "cpu") -> Any:
    """Reads what `torch.save` wrote; tensors and plain values only, no code runs.

    Raises:
        ValueError: the file holds anything else, or is damaged
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # wrong bytes make the reader fail in any way, AssertionError too
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path}: not a readable file of tensors, or damaged ({type(error).__name__}: {reason})"
        ) from error
