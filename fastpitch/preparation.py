# SPDX-License-Identifier: BSD-3-Clause
"""Computes the features of clips and writes them beside the dataset."""

from __future__ import annotations

import functools
import io
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common.audio import MelSpectrogram, read_at_own_rate, resample
from common.config import AudioConfig
from common.filelists import Utterance
from common.files import atomic_path
from common.parallel import run_parallel, show_progress
from common.pitch import PitchStatistics, estimate_pitch
from common.records import ClipRecord, PreparationRecord, mel_settings, pitch_settings
from common.text import TextProcessor
from fastpitch.prior import InterpolatedPrior

FOLDERS: Mapping[str, str] = {"mel": "mels", "pitch": "pitch", "prior": "alignment_priors"}


@dataclass(frozen=True, kw_only=True)
class ClipJob:
    """What to make from one clip."""

    audio: Path
    key: str  # the clip's name in the record
    targets: Mapping[str, Path]  # feature -> file
    settings: Mapping[str, str]  # feature -> what it depends on besides the clip
    done: Mapping[str, str]  # features that stay as they are, with their settings
    done_pitch: tuple[float, float, int] | None
    config: AudioConfig
    f0_method: str
    num_symbols: int


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Makes the wanted features of a dataset, those that are not there yet.

    Args:
        features: among the keys of `FOLDERS`
    """

    dataset_path: Path
    config: AudioConfig
    text: TextProcessor
    features: Collection[str]
    f0_method: str = "pyin"
    num_workers: int = 1

    def plan(self, utterances: Sequence[Utterance], record: PreparationRecord) -> list[ClipJob]:
        """The jobs that are left: clips or settings that are new or have changed."""
        jobs = (self._plan_clip(utterance, record) for utterance in utterances)
        return [job for job in jobs if job.targets]

    def run(self, jobs: Sequence[ClipJob], record: PreparationRecord) -> list[ClipRecord]:
        """Does the jobs, noting each in the record as soon as its files are written."""
        for folder in {target.parent for job in jobs for target in job.targets.values()}:
            folder.mkdir(parents=True, exist_ok=True)
        results = run_parallel(prepare_clip, jobs, self.num_workers)
        clips = []
        for _, clip in show_progress(results, len(jobs), "prepared"):
            record.add(clip)
            clips.append(clip)
        return clips

    def _plan_clip(self, utterance: Utterance, record: PreparationRecord) -> ClipJob:
        num_symbols = 0
        if "prior" in self.features:
            # The same words as phonemes on every run, where --p-arpabet draws them.
            rng = random.Random(utterance.name)
            num_symbols = len(self.text.encode(utterance.text, rng))
        settings = {
            "mel": mel_settings(self.config),
            "pitch": pitch_settings(self.config, self.f0_method),
            "prior": f"{num_symbols} symbols, {self.config.sampling_rate} Hz, hop "
            f"{self.config.hop_length}",
        }
        clip = record.find(utterance.audio)
        done = {} if clip is None else clip.features
        paths = {
            feature: self.dataset_path / FOLDERS[feature] / f"{utterance.name}.pt"
            for feature in self.features
        }
        return ClipJob(
            audio=utterance.audio,
            key=record.key(utterance.audio),
            targets={
                feature: path
                for feature, path in paths.items()
                if done.get(feature) != settings[feature] or not path.is_file()
            },
            settings=settings,
            done=done,
            done_pitch=None if clip is None else clip.pitch,
            config=self.config,
            f0_method=self.f0_method,
            num_symbols=num_symbols,
        )


def prepare_clip(job: ClipJob) -> ClipRecord:
    """Makes the features of one clip and writes their files."""
    stat = job.audio.stat()
    at_own_rate, file_rate = read_at_own_rate(job.audio)
    audio = resample(at_own_rate, file_rate, job.config.sampling_rate)
    pitch_statistics = job.done_pitch
    if "mel" in job.targets:
        with torch.inference_mode():
            mel = _mel_spectrogram(job.config)(torch.from_numpy(audio)[None])[0]
        _save(mel, job.targets["mel"])
    if "pitch" in job.targets:
        pitch = estimate_pitch(audio, job.config, job.f0_method)
        _save(torch.from_numpy(pitch)[None], job.targets["pitch"])
        voiced = PitchStatistics.from_pitch(pitch)
        pitch_statistics = (voiced.mean_hz, voiced.std_hz, voiced.num_frames)
    if "prior" in job.targets:
        num_frames = len(audio) // job.config.hop_length + 1
        prior = _interpolated_prior()(num_frames, job.num_symbols)
        _save(torch.from_numpy(np.ascontiguousarray(prior)), job.targets["prior"])
    return ClipRecord(
        audio=job.key,
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        num_samples=len(at_own_rate),
        sampling_rate=file_rate,
        features={**job.done, **{feature: job.settings[feature] for feature in job.targets}},
        pitch=pitch_statistics,
    )


def pitch_statistics_of(
    utterances: Sequence[Utterance], record: PreparationRecord
) -> PitchStatistics:
    """Mean and deviation of pitch over the utterances, which were all prepared, and by speaker."""
    parts = []
    for utterance in utterances:
        clip = record.find(utterance.audio)
        if clip is None or clip.pitch is None:
            raise ValueError(f"{utterance.audio}: changed while it was prepared: run this again")
        parts.append((utterance.speaker, PitchStatistics(*clip.pitch)))
    return PitchStatistics.by_speaker(parts)


@functools.lru_cache(maxsize=1)
def _mel_spectrogram(config: AudioConfig) -> MelSpectrogram:
    return MelSpectrogram(config)


@functools.lru_cache(maxsize=1)
def _interpolated_prior() -> InterpolatedPrior:
    return InterpolatedPrior()


def _save(tensor: torch.Tensor, path: Path) -> None:
    # Saved straight to a path, the temporary name would be in the file: never the same twice.
    buffer = io.BytesIO()
    torch.save(tensor.clone(), buffer)  # a view would take its whole storage along
    with atomic_path(path) as unfinished:
        unfinished.write_bytes(buffer.getvalue())
