# SPDX-License-Identifier: BSD-3-Clause
"""Features of many clips in a few memory-mapped files, in `packed`, that are fast to read."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.config import F0_METHODS, AudioConfig, DataConfig
from common.filelists import Utterance
from common.records import clip_key, mel_settings, pitch_settings
from fastpitch.clip_features import Features, HostFeatures

logger = logging.getLogger(__name__)

FOLDER = "packed"
INDEX_FILE = "index.json"
FORMAT = 1  # of the index
DTYPE = np.dtype("<f4")


class FileState(NamedTuple):
    """What tells a file from what it was before."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileState | None:
        """None where there is no such file."""
        try:
            stat = path.stat()
        except OSError:
            return None
        return cls(stat.st_size, stat.st_mtime_ns)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The files that a clip's packed features come from."""

    audio: Path
    mel: Path
    pitch: Path

    @classmethod
    def of(cls, audio: Path, dataset_path: Path) -> Sources:
        """Where prepare_dataset.py puts the features of a clip."""
        name = f"{audio.stem}.pt"
        return cls(
            audio=audio, mel=dataset_path / "mels" / name, pitch=dataset_path / "pitch" / name
        )

    def states(self) -> list[FileState | None]:
        """How the files are now."""
        return [FileState.of(self.audio), FileState.of(self.mel), FileState.of(self.pitch)]


class PackedClip(NamedTuple):
    """A clip in the packed files, and the files that it was made of, as they were then."""

    audio: str  # its name in the preparation's record
    num_frames: int
    states: list[FileState]  # of `Sources`

    def is_fresh(self, sources: Sources) -> bool:
        """Whether the files are still those; what is no longer there cannot have changed."""
        pairs = zip(self.states, sources.states(), strict=True)
        return all(now is None or now == then for then, now in pairs)


@dataclass(frozen=True, kw_only=True)
class PackedIndex:
    """What is in the packed files, clip after clip, and with which settings it was made."""

    mel: str
    pitch: str
    n_mel_channels: int
    files: Mapping[str, str]  # feature -> name; mels are (n_mels, T_mel) each, frames fastest
    clips: Sequence[PackedClip]

    @classmethod
    def read(cls, dataset_path: Path) -> PackedIndex | None:
        """The index of a dataset; None where nothing is packed.

        Raises:
            ValueError: it is damaged, or of another version
        """
        path = dataset_path / FOLDER / INDEX_FILE
        if not path.is_file():
            return None
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored.pop("format") != FORMAT:
                raise ValueError("of another version")
            clips = [
                PackedClip(audio, num_frames, [FileState(*state) for state in states])
                for audio, num_frames, *states in stored.pop("clips")
            ]
            index = cls(clips=clips, **stored)
            for feature, width in index.widths.items():
                size = (dataset_path / FOLDER / index.files[feature]).stat().st_size
                if size != index.num_frames * width * DTYPE.itemsize:
                    raise ValueError(f"{index.files[feature]} has {size} bytes")
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            raise ValueError(f"{path}: cannot be used ({error})") from error
        return index

    def as_json(self) -> str:
        """What `read` reads."""
        clips = [[clip.audio, clip.num_frames, *clip.states] for clip in self.clips]
        return json.dumps({"format": FORMAT, **vars(self), "clips": clips})

    @property
    def num_frames(self) -> int:
        """Of all clips."""
        return sum(clip.num_frames for clip in self.clips)

    @property
    def widths(self) -> dict[str, int]:
        """Numbers a frame, by feature."""
        return {"mel": self.n_mel_channels, "pitch": 1, "energy": 1}


class PackedFeatures(HostFeatures):
    """The packed features of some utterances.

    Args:
        folder: of the packed files
        index: of the files
        starts: the frame, of those in the files, that each utterance's audio begins with, and how
            many it has
    """

    def __init__(
        self, folder: Path, index: PackedIndex, starts: Mapping[Path, tuple[int, int]]
    ) -> None:
        super().__init__()
        self.n_mel_channels = index.n_mel_channels
        self.starts = starts
        self._paths = {feature: folder / name for feature, name in index.files.items()}
        self._open()

    def read(self, utterance: Utterance) -> Features:
        """The features of an utterance: parts of the files, which are not to be changed."""
        return self.at(*self.starts[utterance.audio])

    def at(self, start: int, num_frames: int) -> Features:
        """So many frames, from one on that an utterance begins with."""
        mel = self.mel[start * self.n_mel_channels : (start + num_frames) * self.n_mel_channels]
        return Features(
            mel.view(self.n_mel_channels, num_frames),
            self.pitch_hz[start : start + num_frames],
            self.energy[start : start + num_frames],
        )

    def _open(self) -> None:
        maps = {
            # Copied where it is written to, which never happens; tensors cannot be read-only.
            feature: torch.from_numpy(np.memmap(path, DTYPE, mode="c"))
            for feature, path in self._paths.items()
        }
        self.mel: Tensor = maps["mel"]  # flat
        self.pitch_hz: Tensor = maps["pitch"]
        self.energy: Tensor = maps["energy"]

    def __getstate__(self) -> dict[str, Any]:
        maps = ("mel", "pitch_hz", "energy")  # another process opens the files itself
        return {name: value for name, value in vars(self).items() if name not in maps}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


def open_packed(
    utterances: Sequence[Utterance], data: DataConfig, audio: AudioConfig
) -> PackedFeatures | None:
    """The packed features of utterances, where they are those that would be read clip by clip.

    None where nothing is packed; and with a warning, where it was packed from other clips, files or
    settings.
    """
    folder = data.dataset_path / FOLDER
    try:
        index = PackedIndex.read(data.dataset_path)
        if index is None:
            logger.info("Features are read clip by clip: prepare_dataset.py has made no %s", folder)
            return None
        _check_settings(index, data, audio)
        features = PackedFeatures(folder, index, _find_clips(index, utterances, data))
    except (ValueError, OSError) as error:  # they may be packed anew at this moment
        logger.warning(
            "Features are read clip by clip, which is slower: %s; prepare_dataset.py with "
            "--extract-mels --extract-pitch packs them again",
            error,
        )
        return None
    logger.info("Features are read from the packed files in %s", folder)
    return features


def _check_settings(index: PackedIndex, data: DataConfig, audio: AudioConfig) -> None:
    methods = F0_METHODS if data.load_pitch_from_disk else (data.pitch_online_method,)
    pairs = (
        (index.mel, [mel_settings(audio)]),
        (index.pitch, [pitch_settings(audio, method) for method in methods]),
    )
    for packed, wanted in pairs:
        if packed not in wanted:
            raise ValueError(
                f"{data.dataset_path / FOLDER} was made with {packed}, these are {wanted[0]}"
            )


def _find_clips(
    index: PackedIndex, utterances: Iterable[Utterance], data: DataConfig
) -> dict[Path, tuple[int, int]]:
    """Where each utterance's audio is in the files: first frame, number of frames."""
    packed: dict[str, tuple[int, PackedClip]] = {}
    start = 0
    for clip in index.clips:
        packed[clip.audio] = start, clip
        start += clip.num_frames
    if data.load_mel_from_disk:  # utterances are named by their mels
        packed = {f"mels/{Path(audio).stem}.pt": place for audio, place in packed.items()}
    starts, missing, changed = {}, [], []
    for utterance in utterances:
        start, clip = packed.get(clip_key(utterance.audio, data.dataset_path), (0, None))
        if clip is None:
            missing.append(utterance.audio)
            continue
        sources = Sources.of(data.dataset_path / clip.audio, data.dataset_path)
        pitch = utterance.pitch if data.load_pitch_from_disk else None
        is_own_pitch = pitch is None or pitch.absolute() == sources.pitch.absolute()
        if not is_own_pitch or not clip.is_fresh(sources):
            changed.append(utterance.audio)
        starts[utterance.audio] = start, clip.num_frames
    for clips, what in ((missing, "lacks"), (changed, "was made of other files for")):
        if clips:
            raise ValueError(
                f"{data.dataset_path / FOLDER} {what} {len(clips)} of the clips ({clips[0]} first)"
            )
    return starts
