# SPDX-License-Identifier: BSD-3-Clause
"""File lists: which clip says what, by whom."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LINE_FORMAT = "audio|text, audio|pitch.pt|text, or either with |speaker at the end"


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One clip and its text."""

    audio: Path  # or the mel, where a list names mels
    pitch: Path | None
    text: str
    speaker: int
    source: str  # "list.txt:12"
    num_frames: int = 0  # of its mel; 0 where nobody has looked
    num_symbols: int = 0  # of its text, as read once; likewise

    @property
    def name(self) -> str:
        """What files made from this clip are called."""
        return self.audio.stem

    def with_pitch(self, dataset_path: Path) -> Utterance:
        """The same; where its line names no pitch, with the file that prepare_dataset.py writes."""
        if self.pitch is not None:
            return self
        return dataclasses.replace(self, pitch=dataset_path / "pitch" / f"{self.name}.pt")


@dataclass(frozen=True)
class Problem:
    """Something wrong with a clip or a line of a file list, and what to do about it."""

    source: str  # "list.txt:12"
    path: Path | None
    message: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        where = self.source if self.path is None else f"{self.source}: {self.path}"
        return f"{where}: {self.message}"


def read_filelist(path: Path | str, dataset_path: Path | str, n_speakers: int) -> list[Utterance]:
    """The utterances of a file list; paths in it are relative to `dataset_path`.

    A line is `wavs/x.wav|[pitch/x.pt|]text[|speaker]`; above one speaker the last column must be
    there.

    Raises:
        FileNotFoundError: there is no such list.
        ValueError: malformed lines, all of them; or a list without lines.
    """
    utterances, problems = parse_filelists([path], dataset_path, n_speakers)
    if problems:
        raise ValueError("\n".join(map(str, problems)))
    return utterances


def parse_filelists(
    paths: Iterable[Path | str],
    dataset_path: Path | str,
    n_speakers: int,
    audio_only: bool = False,
) -> tuple[list[Utterance], list[Problem]]:
    """The well-formed lines of several file lists, and a problem for each malformed one.

    Args:
        audio_only: what follows the first column does not matter and may be missing

    Raises:
        FileNotFoundError: there is no such list.
    """
    utterances: list[Utterance] = []
    problems: list[Problem] = []
    for path in map(Path, paths):
        before = len(utterances) + len(problems)
        for number, line in _read_lines(path):
            source = f"{path}:{number}"
            parsed = _parse_line(line, source, Path(dataset_path), n_speakers, audio_only)
            (utterances if isinstance(parsed, Utterance) else problems).append(parsed)
        if len(utterances) + len(problems) == before:
            problems.append(Problem(str(path), None, f"empty file list; a line is {LINE_FORMAT}"))
    return utterances, problems


def clip_identity(utterance: Utterance) -> Path:
    """The same for two utterances whose paths, however written, lead to the same file."""
    return utterance.audio.resolve()


def _read_lines(path: Path) -> list[tuple[int, bytes]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file list")
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _parse_line(
    raw_line: bytes, source: str, dataset_path: Path, n_speakers: int, audio_only: bool
) -> Utterance | Problem:
    try:
        line = raw_line.decode("utf-8").rstrip("\r")
    except UnicodeDecodeError:
        return Problem(source, None, "not UTF-8 text: save the file list as UTF-8")
    if "\0" in line:  # as in UTF-16; no path can hold it
        return Problem(source, None, "a NUL character: save the file list as UTF-8")
    audio, *columns = line.split("|")
    if not audio.strip():
        return Problem(source, None, "the first column, the audio file, is empty")
    path = dataset_path / audio.strip()
    if audio_only:
        return Utterance(audio=path, pitch=None, text="", speaker=0, source=source)
    pitch = None
    if len(columns) > 1 and columns[0].strip().endswith(".pt"):
        pitch = dataset_path / columns.pop(0).strip()
    if len(columns) not in ((1, 2) if n_speakers == 1 else (2,)):
        return Problem(source, path, _wrong_columns(line, n_speakers))
    speaker = columns[1].strip() if len(columns) == 2 else "0"
    if not speaker.isascii() or not speaker.isdigit():
        return Problem(
            source, path, f"{_wrong_columns(line, n_speakers)}; {speaker!r} is no speaker"
        )
    if int(speaker) >= n_speakers:
        known = "only speaker 0 is" if n_speakers == 1 else f"speakers 0 to {n_speakers - 1} are"
        return Problem(source, path, f"unknown speaker {speaker}: {known} known, see --n-speakers")
    return Utterance(audio=path, pitch=pitch, text=columns[0], speaker=int(speaker), source=source)


def _wrong_columns(line: str, n_speakers: int) -> str:
    rule = "needs no speaker column" if n_speakers == 1 else "needs the speaker column"
    return (
        f"wrong columns: got {line.count('|') + 1}, expected {LINE_FORMAT}; "
        f"--n-speakers {n_speakers} {rule}"
    )
