# SPDX-License-Identifier: BSD-3-Clause
"""What to speak: lines of text, or a table with a header."""

from __future__ import annotations

import csv
import io
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

COLUMNS = ("output", "text", "speaker", "pitch")
STANDARD_INPUT = "-"


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """One thing to speak."""

    text: str
    output: Path  # of the WAV file, relative to the output folder
    speaker: int
    pitch: Path | None = None  # (T_text) standardised Hz, in place of the predicted
    source: str  # "phrases.tsv:3"


def read_phrases(path: str, folder: Path, speaker: int) -> list[Phrase]:
    """The phrases of a file, in its order.

    Args:
        path: a text file with a phrase a line; a `.tsv` file whose header names columns among
            output, text, speaker and pitch; or `-`, standard input, a phrase a line
        folder: that paths of pitch files are relative to
        speaker: of phrases that name none

    Raises:
        FileNotFoundError: there is no such file
        ValueError: what is wrong with it, with all lines concerned
    """
    name = "standard input" if path == STANDARD_INPUT else path
    lines = _read_text(path).splitlines()
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
    if problems:
        raise ValueError("\n".join(problems))


def _read_text(path: str) -> str:
    raw = sys.stdin.buffer.read() if path == STANDARD_INPUT else _read_file(Path(path))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text: {error}") from error


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"--input {path}: no such file")
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
    header, *rows = csv.reader(
        io.StringIO("\n".join(lines)), delimiter="\t", quoting=csv.QUOTE_NONE
    )
    if "text" not in header:
        raise ValueError(f"{name}:1: expected a header with a column text, got: {' '.join(header)}")
    unknown = [column for column in header if column not in COLUMNS]
    if unknown:
        logger.warning("%s:1: columns not used: %s", name, ", ".join(unknown))
    filled = [(number, row) for number, row in enumerate(rows, start=2) if any(row)]
    problems = [
        f"{name}:{number}: expected {len(header)} columns as in the header, got {len(row)}"
        for number, row in filled
        if len(row) != len(header)
    ]
    if problems:
        raise ValueError("\n".join(problems))
    for index, (number, row) in enumerate(filled):
        cells = {column: cell for column, cell in zip(header, row, strict=True) if cell}
        yield _phrase(cells, index, f"{name}:{number}", folder, speaker)


def _phrase(cells: dict[str, str], index: int, source: str, folder: Path, speaker: int) -> Phrase:
    who = cells.get("speaker", str(speaker))
    if not who.isdecimal():
        raise ValueError(f"{source}: expected a speaker's number, got {who}")
    return Phrase(
        text=cells.get("text", ""),
        output=_as_wav(cells["output"]) if "output" in cells else _default_output(index),
        speaker=int(who),
        pitch=folder / cells["pitch"] if "pitch" in cells else None,
        source=source,
    )


def _default_output(index: int) -> Path:
    return Path(f"audio_{index}.wav")


def _as_wav(name: str) -> Path:
    return Path(name) if name.endswith(".wav") else Path(f"{name}.wav")
