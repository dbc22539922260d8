# SPDX-License-Identifier: BSD-3-Clause
"""What is compared: sentences as they were synthesised, and as somebody recorded them."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.filelists import parse_filelists
from common.files import is_file
from common.phrases import as_wav

COLUMNS = ("output", "text", "reference", "speaker")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A sentence, how it was synthesised, and how a person said it."""

    text: str
    speech: Path
    reference: Path | None
    speaker: int
    source: str  # "list.txt:12"

    @property
    def name(self) -> str:
        """What the sentence is called in reports."""
        return self.speech.stem


def read_pairs(path: Path, dataset_path: Path, speech: Path, n_speakers: int = 1) -> list[Pair]:
    """The pairs of a list, in its order.

    Args:
        path: a file list, whose recordings are the references and which name the speech,
            `<name>.wav`; or a `.tsv` file whose header names columns among output (the speech),
            text, reference and speaker
        dataset_path: folder that references are relative to
        speech: folder of the synthesised audio
        n_speakers: above 1 a file list names them

    Raises:
        FileNotFoundError: there is no such list
        ValueError: what is wrong with it, with all lines concerned
    """
    if not path.is_file():
        raise FileNotFoundError(f"--input {path}: no such file")
    if path.suffix == ".tsv":
        pairs = list(_read_table(path, dataset_path, speech))
    else:
        utterances, problems = parse_filelists([path], dataset_path, n_speakers)
        if problems:
            raise ValueError("\n".join(map(str, problems)))
        pairs = [
            Pair(
                text=utterance.text,
                speech=speech / f"{utterance.name}.wav",
                reference=utterance.audio,
                speaker=utterance.speaker,
                source=utterance.source,
            )
            for utterance in utterances
        ]
    if not pairs:
        raise ValueError(f"--input {path}: nothing to evaluate, expected a sentence a line")
    counts = Counter(pair.speech for pair in pairs)
    twice = [
        f"{pair.source}: {pair.speech}: named twice" for pair in pairs if counts[pair.speech] > 1
    ]
    if twice:
        raise ValueError("\n".join(twice))
    return pairs


def check_audio(pairs: Sequence[Pair]) -> None:
    """Raises a ValueError that lists every file that is missing."""
    missing = [
        f"{pair.source}: {path}: no such audio file"
        for pair in pairs
        for path in (pair.speech, pair.reference)
        if path is not None and not is_file(path)
    ]
    if missing:
        raise ValueError("\n".join(missing))


def _read_table(path: Path, dataset_path: Path, speech: Path) -> Iterator[Pair]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        lacking = {"output", "text"} - {*(reader.fieldnames or ())}
        if lacking:
            raise ValueError(f"{path}:1: its header lacks the column {', '.join(sorted(lacking))}")
        for number, row in enumerate(reader, start=2):
            source = f"{path}:{number}"
            if None in row or None in row.values():
                raise ValueError(f"{source}: expected as many columns as the header has")
            if not row["text"].strip() or not row["output"].strip():
                raise ValueError(f"{source}: expected a text and an output")
            reference = row.get("reference")
            yield Pair(
                text=row["text"],
                speech=speech / as_wav(row["output"]),
                reference=dataset_path / reference if reference else None,
                speaker=_speaker(row.get("speaker") or "0", source),
                source=source,
            )


def _speaker(cell: str, source: str) -> int:
    if not cell.isdecimal():
        raise ValueError(f"{source}: expected a speaker's number, got {cell}")
    return int(cell)
