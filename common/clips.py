# SPDX-License-Identifier: BSD-3-Clause
"""Reads clips to see whether they can be used: the facts that `common.checks` judges by."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common.audio import read_at_own_rate, read_header, resampled_length
from common.checkpoint import load_tensors
from common.config import F0_METHODS, AudioConfig
from common.filelists import Utterance
from common.files import is_file
from common.parallel import run_parallel
from common.records import ClipRecord, PreparationRecord, pitch_settings

logger = logging.getLogger(__name__)

# Starting processes takes as long as reading this many clips.
CLIPS_WORTH_PROCESSES = 500


@dataclass(frozen=True, kw_only=True)
class ClipFacts:
    """What reading a clip has shown."""

    num_frames: int = 0
    seconds: float = 0.0
    num_samples: int = 0  # at the file's own rate
    sampling_rate: int | None = None  # the file's own; None for a mel
    peak: float | None = None  # of full scale; None where the samples were not read
    faults: tuple[str, ...] = ()

    @classmethod
    def from_length(cls, num_samples: int, file_rate: int, config: AudioConfig) -> ClipFacts:
        """What the length of a clip, at its own rate, says."""
        resampled = resampled_length(num_samples, file_rate, config.sampling_rate)
        return cls(
            num_frames=resampled // config.hop_length + 1,
            seconds=num_samples / file_rate,
            num_samples=num_samples,
            sampling_rate=file_rate,
        )


@dataclass(frozen=True, kw_only=True)
class _Examination:
    audio: Path
    pitch: Path | None
    config: AudioConfig
    is_mel: bool
    headers_only: bool
    known: ClipFacts | None


def examine_clips(
    utterances: Sequence[Utterance],
    config: AudioConfig,
    *,
    are_mels: bool = False,
    need_pitch: bool = False,
    headers_only: bool = False,
    record: PreparationRecord | None = None,
    num_workers: int = 1,
) -> list[ClipFacts]:
    """Facts about each utterance's audio (or mel) and, if needed, its pitch file.

    Args:
        are_mels: what the utterances call audio are mels.
        headers_only: whoever reads the samples later sees what they show, with `read_clip`.
        record: audio that it knows, unchanged, is not read again.
    """
    examinations = []
    for utterance in utterances:
        clip = None if record is None or are_mels else record.find(utterance.audio)
        known = None
        if clip is not None:
            known = ClipFacts.from_length(clip.num_samples, clip.sampling_rate, config)
        pitch = utterance.pitch if need_pitch else None
        if clip is not None and pitch is not None and _is_prepared(pitch, clip, config):
            pitch = None
        examinations.append(
            _Examination(
                audio=utterance.audio,
                pitch=pitch,
                config=config,
                is_mel=are_mels,
                headers_only=headers_only,
                known=known,
            )
        )
    unknown = sum(each.known is None for each in examinations)
    workers = 1
    if unknown >= CLIPS_WORTH_PROCESSES and not headers_only:
        workers = num_workers
        logger.info("reading %d clips to check them", unknown)
    results = dict(run_parallel(_examine, examinations, workers))
    return [results[index] for index in range(len(examinations))]


def _is_prepared(pitch: Path, clip: ClipRecord, config: AudioConfig) -> bool:
    settings = {pitch_settings(config, method) for method in F0_METHODS}
    return clip.features.get("pitch") in settings and pitch.is_file()


def _examine(examination: _Examination) -> ClipFacts:
    facts = examination.known
    if facts is None:
        facts = _examine_file(examination)
    if examination.pitch is None or facts.faults:
        return facts
    fault = _find_pitch_fault(examination.pitch, facts.num_frames)
    return facts if fault is None else dataclasses.replace(facts, faults=(fault,))


def _examine_file(examination: _Examination) -> ClipFacts:
    path, config = examination.audio, examination.config
    if examination.is_mel:
        return _examine_mel(path, config)
    if path.suffix == ".pt":
        fault = "a file of tensors, expected audio: mels are read with --load-mel-from-disk"
        return ClipFacts(faults=(fault,))
    if not examination.headers_only:
        return read_clip(path, config)[0]
    try:
        return ClipFacts.from_length(*read_header(path), config)
    except (FileNotFoundError, ValueError) as error:
        return _fault(path, error)


def read_clip(path: Path, config: AudioConfig) -> tuple[ClipFacts, np.ndarray]:
    """What reading a clip shows, and (T_audio,) its samples at its own rate; none after a fault."""
    try:
        audio, file_rate = read_at_own_rate(path)
    except (FileNotFoundError, ValueError) as error:
        return _fault(path, error), np.zeros(0, np.float32)
    facts = ClipFacts.from_length(len(audio), file_rate, config)
    return dataclasses.replace(facts, peak=float(np.abs(audio).max())), audio


def _fault(path: Path, error: Exception) -> ClipFacts:
    return ClipFacts(faults=(str(error).removeprefix(f"{path}: "),))


def _examine_mel(path: Path, config: AudioConfig) -> ClipFacts:
    if path.suffix != ".pt":
        fault = "expected a mel, mels/x.pt: audio is read without --load-mel-from-disk"
        return ClipFacts(faults=(fault,))
    mel = _load_tensor(path)
    if isinstance(mel, str):
        return ClipFacts(faults=(mel,))
    if mel.ndim != 2 or mel.shape[0] != config.n_mel_channels or mel.shape[1] == 0:
        fault = f"expected a mel of shape ({config.n_mel_channels}, frames), got {_shape(mel)}"
        return ClipFacts(faults=(f"{fault}: prepare it again",))
    num_frames = mel.shape[1]
    seconds = num_frames * config.hop_length / config.sampling_rate
    return ClipFacts(num_frames=num_frames, seconds=seconds)


def _find_pitch_fault(path: Path, num_frames: int) -> str | None:
    pitch = _load_tensor(path)
    if isinstance(pitch, str):
        return f"pitch file {path}: {pitch}"
    if tuple(pitch.shape) == (1, num_frames):
        return None
    return (
        f"pitch file {path}: expected shape (1, {num_frames}), as the clip has frames, got "
        f"{_shape(pitch)}: run prepare_dataset.py --extract-pitch with the same settings"
    )


def _load_tensor(path: Path) -> torch.Tensor | str:
    """The tensor, unread until it is used; or what is wrong with the file."""
    if not is_file(path):
        return "no such file: make it with prepare_dataset.py"
    try:
        tensor = load_tensors(path, mmap=True)
    except ValueError:
        return "not a tensor that prepare_dataset.py wrote, or damaged: make it again"
    if not isinstance(tensor, torch.Tensor):
        return f"expected a tensor, got {type(tensor).__name__}: make it with prepare_dataset.py"
    return tensor


def _shape(tensor: torch.Tensor) -> str:
    return str(tuple(tensor.shape))
