# SPDX-License-Identifier: BSD-3-Clause
"""Splits a corpus laid out like LJSpeech into file lists to train, validate and test on."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from common.cli import FlagParser, flag
from common.files import atomic_path

logger = logging.getLogger("make_filelists")

METADATA = "metadata.csv"
EXTENSIONS = (".wav", ".flac")


class Clip(NamedTuple):
    """A line of metadata.csv."""

    name: str
    audio: str  # relative to the dataset
    text: str


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Split: which clips go where."""

    dataset_path: Path = flag(
        short="-d", help="folder with metadata.csv, lines of name|text[|normalised text], and wavs/"
    )
    output: Path = flag(Path("filelists"), short="-o", help="folder for the file lists")
    prefix: str = flag("ljs", help="how the names of the file lists begin")
    test: int = flag(500, help="number of test clips")
    validation: int = flag(100, help="number of validation clips")
    training_suffix: str = flag("", help="how the names of the training lists end: _v3")
    text_column: int = flag(3, help="column of the text, the last one where a line has fewer")

    def __post_init__(self) -> None:
        for name in ("test", "validation"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must not be negative, got {getattr(self, name)}")
        if self.text_column < 2:
            raise ValueError(f"--text-column must be 2 or more, got {self.text_column}")


def main(argv: Sequence[str] | None = None) -> int:
    """Writes six file lists; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = FlagParser(__doc__, SplitConfig)
    config = parser.build(SplitConfig, parser.parse(argv))
    try:
        clips = read_metadata(config.dataset_path, config.text_column)
        parts = split(clips, config.test, config.validation)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    for path, number in write_filelists(parts, config).items():
        logger.info("%s: %d clips", path, number)
    return 0


def read_metadata(dataset_path: Path, text_column: int = 3) -> list[Clip]:
    """The clips of a corpus in the order of its metadata.csv.

    Raises:
        FileNotFoundError: there is no metadata.csv.
        ValueError: lines that name no text, all of them, or names that come twice.
    """
    path = dataset_path / METADATA
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a corpus laid out like LJSpeech, no such file")
    clips: dict[str, Clip] = {}
    problems = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        name, *columns = line.rstrip("\r").split("|")
        if not columns:
            problems.append(f"{path}:{number}: expected name|text, got {line!r}")
        elif name in clips:
            problems.append(f"{path}:{number}: the name {name} came before")
        else:
            text = columns[min(text_column - 2, len(columns) - 1)]
            clips[name] = Clip(name, _audio_of(dataset_path, name), text)
    if problems:
        raise ValueError("\n".join(problems))
    return list(clips.values())


def split(clips: Sequence[Clip], num_test: int, num_validation: int) -> dict[str, list[Clip]]:
    """Training, validation and test clips, each in the order given.

    Which clip goes where depends on the names alone, by their SHA-256: the same on every machine,
    and a clip added later moves at most one other between two parts.
    """
    if len(clips) <= num_test + num_validation:
        raise ValueError(
            f"{len(clips)} clips do not suffice for --test {num_test}, --validation "
            f"{num_validation} and any to train on: lower these numbers"
        )
    shuffled = sorted(clips, key=lambda clip: hashlib.sha256(clip.name.encode()).digest())
    test = set(shuffled[:num_test])
    validation = set(shuffled[num_test : num_test + num_validation])
    return {
        "train": [clip for clip in clips if clip not in test and clip not in validation],
        "val": [clip for clip in clips if clip in validation],
        "test": [clip for clip in clips if clip in test],
    }


def write_filelists(parts: Mapping[str, Sequence[Clip]], config: SplitConfig) -> dict[Path, int]:
    """Writes each part with and without a pitch column; the number of clips by path."""
    written = {}
    for part, clips in parts.items():
        suffix = config.training_suffix if part == "train" else ""
        for kind, pitch in (("audio_text", ""), ("audio_pitch_text", "pitch/{}.pt|")):
            path = config.output / f"{config.prefix}_{kind}_{part}{suffix}.txt"
            lines = (f"{clip.audio}|{pitch.format(clip.name)}{clip.text}\n" for clip in clips)
            with atomic_path(path) as unfinished:
                unfinished.write_text("".join(lines), encoding="utf-8", newline="\n")
            written[path] = len(clips)
    return written


def _audio_of(dataset_path: Path, name: str) -> str:
    """Of the files that there are; preparation tells of those that are not."""
    for extension in EXTENSIONS:
        if (dataset_path / "wavs" / f"{name}{extension}").is_file():
            return f"wavs/{name}{extension}"
    return f"wavs/{name}{EXTENSIONS[0]}"


if __name__ == "__main__":
    sys.exit(main())
