# SPDX-License-Identifier: BSD-3-Clause
"""What to speak: lines of text, or a table with a header."""

from __future__ import annotations

import io
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

COLUMNS = ("output", "text", "mel", "speaker", "pitch")
STANDARD_INPUT = "-"


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """One thing to speak."""

    text: str
    output: Path  # of the WAV file, relative to the output folder
    speaker: int
    pitch: Path | None = None  # (T_text) standardised Hz, in place of the predicted
    mel: Path | None = None  # vocoded in place of the text
    source: str  # "phrases.tsv:3"


def read_phrases(path: str, folder: Path, speaker: int) -> list[Phrase]:
    """The phrases of a file, in its order.

    Args:
        path: a text file with a phrase a line; a `.tsv` file whose header names columns among
            output, text, mel, speaker and pitch; or `-`, standard input, a phrase a line
        folder: that paths of mels and pitch files are relative to
        speaker: of phrases that name none

    Raises:
        FileNotFoundError: there is no such file
        ValueError: what is wrong with it, with all lines concerned
    """
    name = "standard input" if path == STANDARD_INPUT else path
    # Only line ends end a line; str.splitlines would divide at form feeds and the like, too.
    lines = io.StringIO(_read_text(path, name), newline=None).read().split("\n")
    reader = _read_table if path.endswith(".tsv") else _read_lines
    phrases = list(reader(lines, name, folder, speaker))
    if not phrases:
        raise ValueError(f"{name}: nothing to speak, expected a phrase a line")
    check_outputs(phrases)
    return phrases


def one_phrase(text: str, speaker: int) -> Phrase:
    """A phrase given on the command line."""
    return Phrase(text=text, output=_default_output(0), speaker=speaker, source="--text")


def check_outputs(phrases: Sequence[Phrase]) -> None:
    """Raises a ValueError where phrases would be written outside the folder or over each other."""
    counts = Counter(phrase.output for phrase in phrases)
    problems = [
        f"{phrase.source}: output {phrase.output} must stay inside the folder that --output names"
        for phrase in phrases
        if phrase.output.is_absolute() or ".." in phrase.output.parts
    ]
    problems += [
        f"{phrase.source}: output {phrase.output} is asked for {counts[phrase.output]} times"
        for phrase in phrases
        if counts[phrase.output] > 1
    ]
    problems += [
        f"{phrase.source}: output {phrase.output} lies in a folder named as another output"
        for phrase in phrases
        if any(folder in counts for folder in phrase.output.parents)
    ]
    _refuse(problems)


def check_speakers(phrases: Sequence[Phrase], n_speakers: int) -> None:
    """Raises a ValueError where texts are to be spoken by speakers that a model has not."""
    _refuse(
        [
            f"{phrase.source}: speaker must lie in 0 to {n_speakers - 1}, got {phrase.speaker}"
            for phrase in phrases
            if phrase.mel is None and phrase.speaker >= n_speakers
        ]
    )


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise ValueError("\n".join(problems))


def _read_text(path: str, name: str) -> str:
    raw = sys.stdin.buffer.read() if path == STANDARD_INPUT else _read_file(Path(path))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: expected UTF-8 text: {error}") from error


def _read_file(path: Path) -> bytes:
    if not path.exists():
        raise FileNotFoundError(f"--input {path}: no such file")
    if path.is_dir():
        raise ValueError(f"--input {path}: expected a file, but is a folder")
    return path.read_bytes()


def _read_lines(lines: Sequence[str], name: str, folder: Path, speaker: int) -> Iterator[Phrase]:
    spoken = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    for index, (number, line) in enumerate(spoken):
        yield Phrase(
            text=line,
            output=_default_output(index),
            speaker=speaker,
            source=f"{name}:{number}",
        )


def _read_table(lines: Sequence[str], name: str, folder: Path, speaker: int) -> Iterator[Phrase]:
    header, *rows = [line.split("\t") for line in lines]
    _check_header(header, name)
    filled = [(number, row) for number, row in enumerate(rows, start=2) if any(map(str.strip, row))]
    problems = [
        f"{name}:{number}: expected {len(header)} columns as in the header, got {len(row)}"
        for number, row in filled
        if len(row) != len(header)
    ]
    _refuse(problems)
    table = [
        (
            f"{name}:{number}",
            {column: cell for column, cell in zip(header, row, strict=True) if cell},
        )
        for number, row in filled
    ]
    problems = [
        f"{source}: expected a speaker's number, got {cells['speaker']}"
        for source, cells in table
        if not cells.get("speaker", "0").isdecimal()
    ]
    _refuse(problems)
    for index, (source, cells) in enumerate(table):
        yield Phrase(
            text=cells.get("text", ""),
            output=as_wav(cells["output"]) if "output" in cells else _default_output(index),
            speaker=int(cells.get("speaker", speaker)),
            pitch=folder / cells["pitch"] if "pitch" in cells else None,
            mel=folder / cells["mel"] if "mel" in cells else None,
            source=source,
        )


def _check_header(header: Sequence[str], name: str) -> None:
    if not {"text", "mel"} & {*header}:
        raise ValueError(
            f"{name}:1: expected a header with a column text or mel, got: {' '.join(header)}"
        )
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise ValueError(f"{name}:1: the header names {', '.join(twice)} more than once")
    unknown = [column for column in header if column not in COLUMNS]
    if unknown:
        logger.warning("%s:1: columns not used: %s", name, ", ".join(unknown))


def _default_output(index: int) -> Path:
    return Path(f"audio_{index}.wav")


def as_wav(name: str) -> Path:
    """The file that an output column names, with or without its ending."""
    return Path(name) if name.endswith(".wav") else Path(f"{name}.wav")
