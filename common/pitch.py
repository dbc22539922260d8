# SPDX-License-Identifier: BSD-3-Clause
"""Fundamental frequency of speech, and its statistics."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.config import F0_METHODS, AudioConfig
from common.files import atomic_path
from common.pitch_libraries import (
    LIBRARIES,
    find_with_praat,
    find_with_world,
    import_library,
)
from common.pyin import PyinSettings, pyin

# Semitones from A4, 440 Hz.
LOWEST_PITCH_HZ = 440 * 2 ** (-33 / 12)  # C2
HIGHEST_PITCH_HZ = 440 * 2 ** (27 / 12)  # C7
STATISTICS_FILE = "pitch_stats.json"


def estimate_pitch(audio: np.ndarray, config: AudioConfig, method: str = "pyin") -> np.ndarray:
    """Pitch of each mel frame.

    Args:
        audio: (T_audio,) float32 in [-1, 1] at `config.sampling_rate`
        method: one of `common.config.F0_METHODS`

    Returns:
        (T_mel,) float32 in Hz, 0 where unvoiced, with T_mel = T_audio // hop + 1
    """
    if method not in ESTIMATORS:
        raise ValueError(f"--f0-method must be one of {', '.join(F0_METHODS)}, got {method}")
    return ESTIMATORS[method](audio, config).astype(np.float32)


def check_f0_method(method: str) -> None:
    """Refuses a method whose library is missing, before work starts.

    Raises:
        ValueError: it says what to install
    """
    if method in LIBRARIES:
        import_library(method)


def _estimate_with_pyin(audio: np.ndarray, config: AudioConfig) -> np.ndarray:
    settings = PyinSettings(
        sampling_rate=config.sampling_rate,
        frame_length=config.filter_length,
        hop_length=config.hop_length,
        fmin=LOWEST_PITCH_HZ,
        fmax=HIGHEST_PITCH_HZ,
    )
    return pyin(audio, settings)


def _estimate_with_praat(audio: np.ndarray, config: AudioConfig) -> np.ndarray:
    limits = LOWEST_PITCH_HZ, HIGHEST_PITCH_HZ
    return find_with_praat(audio, config.sampling_rate, config.hop_length, *limits)


def _estimate_with_world(audio: np.ndarray, config: AudioConfig) -> np.ndarray:
    limits = LOWEST_PITCH_HZ, HIGHEST_PITCH_HZ
    return find_with_world(audio, config.sampling_rate, config.hop_length, *limits)


ESTIMATORS: Mapping[str, Callable[[np.ndarray, AudioConfig], np.ndarray]] = {
    "pyin": _estimate_with_pyin,
    "praat": _estimate_with_praat,
    "world": _estimate_with_world,
}


@dataclass(frozen=True)
class PitchStatistics:
    """Mean and standard deviation of pitch over voiced frames; both 0 without any."""

    mean_hz: float
    std_hz: float
    num_frames: int
    speakers: Mapping[int, PitchStatistics] = field(default_factory=dict)

    @classmethod
    def from_pitch(cls, pitch: np.ndarray) -> PitchStatistics:
        """Of one utterance; pitch: (T_mel,) in Hz, 0 where unvoiced."""
        voiced = pitch[pitch > 0].astype(np.float64)
        if voiced.size == 0:
            return cls(0.0, 0.0, 0)
        return cls(float(voiced.mean()), float(voiced.std()), int(voiced.size))

    @classmethod
    def merge(cls, parts: Iterable[PitchStatistics]) -> PitchStatistics:
        """Of all frames of several utterances; their `speakers` are not carried over."""
        parts = list(parts)
        num_frames = sum(part.num_frames for part in parts)
        if num_frames == 0:
            return cls(0.0, 0.0, 0)
        mean = math.fsum(part.num_frames * part.mean_hz for part in parts) / num_frames
        variance = (
            math.fsum(
                part.num_frames * (part.std_hz**2 + (part.mean_hz - mean) ** 2) for part in parts
            )
            / num_frames
        )
        return cls(mean, math.sqrt(variance), num_frames)

    @classmethod
    def by_speaker(cls, parts: Iterable[tuple[int, PitchStatistics]]) -> PitchStatistics:
        """Of a dataset, from (speaker, statistics of an utterance) pairs."""
        spoken: dict[int, list[PitchStatistics]] = {}
        for speaker, part in parts:
            spoken.setdefault(speaker, []).append(part)
        speakers = {speaker: cls.merge(spoken[speaker]) for speaker in sorted(spoken)}
        whole = cls.merge(speakers.values())
        return cls(whole.mean_hz, whole.std_hz, whole.num_frames, speakers)

    def to_json(self) -> str:
        """The contents of `pitch_stats.json`."""
        speakers = {str(speaker): _numbers(part) for speaker, part in self.speakers.items()}
        return json.dumps({**_numbers(self), "speakers": speakers}, indent=2) + "\n"


def load_pitch_statistics(dataset_path: Path | str) -> PitchStatistics | None:
    """What prepare_dataset.py found in this dataset; None where it has not run.

    Raises:
        ValueError: the file is damaged or holds no usable numbers.
    """
    path = Path(dataset_path) / STATISTICS_FILE
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        speakers = {int(k): _from_numbers(v) for k, v in stored.get("speakers", {}).items()}
        whole = _from_numbers(stored)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected mean, std and frames, got {type(error).__name__} ({error}): run "
            "prepare_dataset.py --extract-pitch again, or give --pitch-mean and --pitch-std"
        ) from error
    if whole.num_frames == 0 or not whole.std_hz > 0:
        raise ValueError(
            f"{path}: pitch does not vary over {whole.num_frames} voiced frames: give --pitch-mean "
            "and --pitch-std"
        )
    return PitchStatistics(whole.mean_hz, whole.std_hz, whole.num_frames, speakers)


def save_pitch_statistics(statistics: PitchStatistics, dataset_path: Path | str) -> Path:
    """Writes `pitch_stats.json`, whole or not at all; returns its path."""
    path = Path(dataset_path) / STATISTICS_FILE
    with atomic_path(path) as unfinished:
        unfinished.write_text(statistics.to_json(), encoding="utf-8")
    return path


def _numbers(statistics: PitchStatistics) -> dict[str, float | int]:
    return {
        "mean": statistics.mean_hz,
        "std": statistics.std_hz,
        "frames": statistics.num_frames,
    }


def _from_numbers(stored: Mapping[str, float | int]) -> PitchStatistics:
    return PitchStatistics(float(stored["mean"]), float(stored["std"]), int(stored["frames"]))
