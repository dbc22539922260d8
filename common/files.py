# SPDX-License-Identifier: BSD-3-Clause
"""Files that are either complete or not there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".{name}.{unique}.tmp"


def is_file(path: Path) -> bool:
    """Whether it is one; False, too, for a name that is too long to be any file's."""
    try:
        return path.is_file()
    except OSError:
        return False


def check_folder(folder: Path, flag: str) -> None:
    """Refuses a folder that cannot be made or written to; changes nothing.

    Args:
        folder: that is there or is to be made
        flag: that named it

    Raises:
        ValueError: a file is in the way, or the user may not write there
    """
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise ValueError(f"{flag} {folder} must be a folder, but {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{flag} {folder} cannot be written: {existing} allows no new files")


def check_file(path: Path, flag: str) -> None:
    """Refuses a file that cannot be written; changes nothing.

    Raises:
        ValueError: a folder has its name, or its own folder is refused
    """
    if path.is_dir():
        raise ValueError(f"{flag} {path} must be a file, but is a folder")
    check_folder(path.parent, flag)


@contextmanager
def atomic_path(path: Path, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends well.

    Readers never see half a file; when the block fails, what was at `path` stays as it was.

    Args:
        durable: wait until the file is on disk. Without, a power cut may leave it empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(TEMPORARY.format(name=path.name, unique=uuid.uuid4().hex))
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path, names: str) -> None:
    """Removes what `atomic_path` left of files when its process was killed.

    Args:
        names: pattern of the files that were being written, which nobody is writing now
    """
    for leftover in folder.glob(TEMPORARY.format(name=names, unique="*")):
        leftover.unlink(missing_ok=True)
