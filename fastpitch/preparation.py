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

from common.audio import MelSpectrogram, resample
from common.checks import find_faults
from common.clips import read_clip
from common.config import AudioConfig
from common.filelists import Problem, Utterance
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
    source: str  # "list.txt:12"
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

    def run(
        self, jobs: Sequence[ClipJob], record: PreparationRecord
    ) -> tuple[list[ClipRecord], list[Problem]]:
        """Does the jobs, noting each in the record as soon as its files are written.

        Returns:
            What was prepared, and what is wrong with the samples of the clips that were not
        """
        for folder in {target.parent for job in jobs for target in job.targets.values()}:
            folder.mkdir(parents=True, exist_ok=True)
        results = run_parallel(prepare_clip, jobs, self.num_workers)
        clips, problems = [], {}
        for index, (clip, found) in show_progress(results, len(jobs), "prepared"):
            if clip is not None:
                record.add(clip)
                clips.append(clip)
            problems[index] = found
        return clips, [problem for index in sorted(problems) for problem in problems[index]]

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
            source=utterance.source,
            key=record.key(utterance.audio),
            targets={
                feature: path
                for feature, path in paths.items()
                if done.get(feature) != settings[feature] or not _is_written(path)
            },
            settings=settings,
            done=done,
            done_pitch=None if clip is None else clip.pitch,
            config=self.config,
            f0_method=self.f0_method,
            num_symbols=num_symbols,
        )


def _is_written(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def prepare_clip(job: ClipJob) -> tuple[ClipRecord | None, list[Problem]]:
    """Makes the features of one clip and writes their files; or says why they cannot be made."""
    stat = job.audio.stat()
    facts, at_own_rate = read_clip(job.audio, job.config)
    faults = find_faults(facts)
    if faults:
        return None, [Problem(job.source, job.audio, fault) for fault in faults]
    audio = resample(at_own_rate, facts.sampling_rate, job.config.sampling_rate)
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
    clip = ClipRecord(
        audio=job.key,
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        num_samples=facts.num_samples,
        sampling_rate=facts.sampling_rate,
        features={**job.done, **{feature: job.settings[feature] for feature in job.targets}},
        pitch=pitch_statistics,
    )
    return clip, []


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
    # Waiting for the disk would take longer than all else but pitch; what a power cut empties is
    # seen by `_is_written` and made again.
    with atomic_path(path, durable=False) as unfinished:
        unfinished.write_bytes(buffer.getvalue())
