# SPDX-License-Identifier: BSD-3-Clause
"""What prepare_dataset.py has done, so that nothing is done or checked twice."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.config import AudioConfig

RECORD_FILE = "prepared.jsonl"
PART_FILE = "prepared.{rank}.jsonl"


def mel_settings(audio: AudioConfig) -> str:
    """Everything that a mel depends on besides its clip."""
    return (
        f"{audio.sampling_rate} Hz, FFT {audio.filter_length}, hop {audio.hop_length}, window "
        f"{audio.win_length}, {audio.n_mel_channels} bands {audio.mel_fmin}-{audio.mel_fmax} Hz"
    )


def pitch_settings(audio: AudioConfig, method: str) -> str:
    """Everything that pitch depends on besides its clip."""
    return (
        f"{method}, {audio.sampling_rate} Hz, frame {audio.filter_length}, hop {audio.hop_length}"
    )


def clip_key(audio: Path, dataset_path: Path) -> str:
    """What a dataset calls a clip, whether or not it is moved as a whole."""
    folder = dataset_path.absolute().as_posix().removesuffix("/")
    return audio.absolute().as_posix().removeprefix(f"{folder}/")


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """A clip without faults, as it was when it was read, and what was made from it."""

    audio: str
    size: int
    mtime_ns: int
    num_samples: int  # at the file's own rate
    sampling_rate: int
    features: Mapping[str, str] = field(default_factory=dict)  # "mel" -> settings it was made with
    pitch: tuple[float, float, int] | None = None  # mean and std in Hz, voiced frames

    def describes(self, stat: os.stat_result) -> bool:
        """Whether the file is still the one that was read."""
        return (self.size, self.mtime_ns) == (stat.st_size, stat.st_mtime_ns)


class PreparationRecord:
    """The clips of a dataset that were read: `<dataset_path>/prepared.jsonl`, a line a clip.

    Lines are only ever added, so that stopping at any moment costs at most the last one; the last
    line about a clip holds.

    Args:
        dataset_path: of the dataset
        rank: of this process among several that prepare it; all but the first write files of their
            own, `prepared.<rank>.jsonl`, since lines from several machines would mix
    """

    def __init__(self, dataset_path: Path | str, rank: int = 0) -> None:
        self.dataset_path = Path(dataset_path)
        self.path = self.dataset_path / (PART_FILE.format(rank=rank) if rank else RECORD_FILE)
        self._clips = {clip.audio: clip for clip in self._read()}

    def find(self, audio: Path) -> ClipRecord | None:
        """What is known of this file; None where it was never read or has changed since."""
        clip = self._clips.get(self.key(audio))
        if clip is None:
            return None
        try:
            return clip if clip.describes(audio.stat()) else None
        except OSError:
            return None

    def add(self, clip: ClipRecord) -> None:
        """Keeps what was found out about a clip, on disk too."""
        if self._clips.get(clip.audio) == clip:
            return
        self._clips[clip.audio] = clip
        line = json.dumps(dataclasses.asdict(clip)).encode() + b"\n"
        with self.path.open("ab") as file:
            if self._ends_within_a_line:
                file.write(b"\n")
                self._ends_within_a_line = False
            file.write(line)

    def absorb_parts(self) -> None:
        """Takes over what other processes noted and, being interrupted, did not hand over."""
        for path in sorted(self.dataset_path.glob(PART_FILE.format(rank="[0-9]*"))):
            rank = int(path.suffixes[0].removeprefix("."))
            part = PreparationRecord(self.dataset_path, rank)
            for clip in part._clips.values():
                self.add(clip)
            part.remove()

    def remove(self) -> None:
        """Removes the file, when others hold what it says."""
        self.path.unlink(missing_ok=True)

    def key(self, audio: Path) -> str:
        """A clip's name in the record."""
        return clip_key(audio, self.dataset_path)

    def _read(self) -> list[ClipRecord]:
        self._ends_within_a_line = False
        if not self.path.is_file():
            return []
        content = self.path.read_bytes()
        self._ends_within_a_line = bool(content) and not content.endswith(b"\n")
        clips = []
        for line in content.splitlines():
            try:
                stored = json.loads(line)
                pitch = stored.pop("pitch")
                clips.append(ClipRecord(**stored, pitch=None if pitch is None else tuple(pitch)))
            except (ValueError, TypeError, KeyError):
                continue  # cut off when the machine stopped: that clip is done again
        return clips
