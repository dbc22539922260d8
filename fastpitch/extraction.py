# SPDX-License-Identifier: BSD-3-Clause
"""Predicts the mels of recordings with their true durations, pitch and energy, and keeps them.

Clips are predicted one by one: in a batch, padding changes the last frames of a mel (by up to 0.15
with the weights at hand), and on a CPU a batch is no faster. On two cores, a process for each was a
fifth faster than one process with two threads.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from common.config import AudioConfig, DataConfig, TextConfig, setup_of
from common.filelists import Utterance
from common.files import atomic_path
from common.parallel import available_cores
from common.precision import Precision
from common.records import mel_settings, pitch_settings
from common.text import TextProcessor
from fastpitch.data_function import Batch, FastPitchDataset
from fastpitch.model import FastPitch

logger = logging.getLogger(__name__)

RECORD_FILE = "extraction.jsonl"


@dataclass(frozen=True, kw_only=True)
class ClipReader:
    """Reads clips as FastPitch trains on them, each the same whatever the others are."""

    data: DataConfig
    audio: AudioConfig
    text: TextProcessor
    pitch_mean: float  # Hz
    pitch_std: float  # Hz
    seed: int  # of the choice between letters and phonemes

    def read(self, utterance: Utterance) -> Batch:
        """A batch of one."""
        dataset = FastPitchDataset(
            [utterance],  # alone: what is random about a clip depends on its place in a dataset
            self.data,
            self.audio,
            self.text,
            pitch_mean=self.pitch_mean,
            pitch_std=self.pitch_std,
            seed=self.seed,
        )
        return dataset.collate([dataset[0, 0]])

    def facts(self, utterance: Utterance) -> dict[str, Any]:
        """All that tells one clip from another, or from what it was before, as plain values."""
        files = [utterance.audio]
        if self.data.load_pitch_from_disk:
            files.append(utterance.pitch)
        stats = [file.stat() for file in files]
        # Symbols, not the text: they change with a dictionary, too.
        symbols = self.text.encode(utterance.text, random.Random(self.seed))
        return {
            "sizes": [stat.st_size for stat in stats],
            "mtimes_ns": [stat.st_mtime_ns for stat in stats],
            "symbols": hashlib.sha256(json.dumps(symbols).encode()).hexdigest()[:16],
            "speaker": utterance.speaker,
        }


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """Makes mels: the settings of a run, as its processes need them.

    Args:
        load_generator: gives the model of a checkpoint, as `models.load_generator` does
        checkpoint: of the model
        ema: take its averaged weights
        text: settings, the checkpoint's or others
        seed: of the choice between letters and phonemes
        output: folder of the mels
    """

    load_generator: Callable[[Path, torch.device, bool], FastPitch]
    checkpoint: Path
    ema: bool
    data: DataConfig
    text: TextConfig
    seed: int
    output: Path

    def reader(self, model: FastPitch) -> ClipReader:
        """Reads clips with the audio settings and the pitch statistics of the model."""
        return ClipReader(
            data=self.data,
            audio=model.audio,
            text=TextProcessor(self.text),
            pitch_mean=float(model.pitch_mean),
            pitch_std=float(model.pitch_std),
            seed=self.seed,
        )

    def settings(self, model: FastPitch, amp: bool) -> dict[str, Any]:
        """What all mels of the run depend on, as plain values."""
        online = pitch_settings(model.audio, self.data.pitch_online_method)
        return {
            "weights": _digest(model),
            "mel": "from disk" if self.data.load_mel_from_disk else mel_settings(model.audio),
            "pitch": "from disk" if self.data.load_pitch_from_disk else online,
            "amp": amp,
            "seed": self.seed,
            **setup_of(self.text),
        }

    def plan(
        self, utterances: Sequence[Utterance], settings: Mapping[str, Any], reader: ClipReader
    ) -> list[ClipJob]:
        """A job for each clip."""
        return [
            ClipJob(
                utterance=utterance,
                target=self.output / f"{utterance.name}.npy",
                origin=Origin(settings=settings, clip=reader.facts(utterance)),
                extraction=self,
            )
            for utterance in utterances
        ]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a mel was made from, as plain values."""

    settings: Mapping[str, Any]
    clip: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ClipJob:
    """A mel to make."""

    utterance: Utterance
    target: Path
    origin: Origin
    extraction: Extraction


class ExtractionRecord:
    """What the mels in a folder were made from: `extraction.jsonl` in it, a line a mel.

    Lines are only ever added, so that stopping at any moment costs at most the mels in work; the
    last line about a mel holds.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / RECORD_FILE
        self._origins = dict(self._read())

    def jobs_left(self, jobs: Sequence[ClipJob]) -> list[ClipJob]:
        """Those whose mels are not there, or were made from something else.

        Raises:
            ValueError: a mel would take the place of a file that is not ours
        """
        if not self.path.exists():
            foreign = next((job.target for job in jobs if job.target.exists()), None)
            if foreign is not None:
                raise ValueError(
                    f"--output {foreign.parent} holds {foreign.name} but no {RECORD_FILE}, so it "
                    "was not made by this command: choose another folder"
                )
        origins = [self._origins.get(job.target.name) for job in jobs]
        num_outdated = sum(
            origin is not None and origin.settings != job.origin.settings
            for job, origin in zip(jobs, origins, strict=True)
        )
        if num_outdated:
            logger.info(
                "%d mels were made with another checkpoint or other settings: made again",
                num_outdated,
            )
        return [
            job
            for job, origin in zip(jobs, origins, strict=True)
            if origin != job.origin or not job.target.is_file()
        ]

    def begin(self) -> None:
        """Makes the file, so that mels beside it are known to be ours."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            if file.tell() > 0:
                file.write(b"\n")  # the last line may have been cut off with the machine

    def add(self, job: ClipJob) -> None:
        """Notes that a mel is complete."""
        self._origins[job.target.name] = job.origin
        line = json.dumps({"mel": job.target.name, **vars(job.origin)})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def _read(self) -> Iterator[tuple[str, Origin]]:
        if not self.path.is_file():
            return
        for line in self.path.read_bytes().splitlines():
            try:
                stored = json.loads(line)
                yield stored.pop("mel"), Origin(**stored)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # cut off: that mel is made again


def extract_here(
    jobs: Sequence[ClipJob],
    model: FastPitch,
    reader: ClipReader,
    precision: Precision,
    num_readers: int = 0,
) -> Iterator[tuple[int, int]]:
    """Makes mels in this process; yields the index of a job and the frames of its mel.

    Args:
        num_readers: processes that read clips meanwhile, at most one for each core
    """
    batches = DataLoader(
        jobs,
        batch_size=1,
        collate_fn=functools.partial(_read_job, reader),
        num_workers=min(num_readers, available_cores(), len(jobs)),
        pin_memory=precision.device.type == "cuda",
    )
    for index, batch in enumerate(batches):
        mel = predict(model, batch.to(precision.device), precision)
        _save(mel, jobs[index].target)
        yield index, mel.shape[1]


def extract_clip(job: ClipJob) -> int:
    """Makes a mel in a process of `run_parallel`; returns its frames."""
    model, reader = _open(job.extraction)
    mel = predict(model, reader.read(job.utterance), Precision(False, torch.device("cpu")))
    _save(mel, job.target)
    return mel.shape[1]


def predict(model: FastPitch, batch: Batch, precision: Precision) -> np.ndarray:
    """The mel of a clip with its true durations, pitch and energy.

    Args:
        model: in evaluation mode
        batch: of one clip

    Returns:
        (n_mels, T_mel) float32, as many frames as the recording has

    Raises:
        ValueError: it is not finite, or text and recording cannot be aligned
    """
    clip = batch.paths[0]
    try:
        with torch.inference_mode(), precision.autocast():
            mel = model(batch).mel[0].float().cpu()
    except ValueError as error:
        raise ValueError(f"{clip}: {error}") from error
    if not mel.isfinite().all():
        advice = "leave --amp out" if precision.amp else "take another checkpoint"
        raise ValueError(f"{clip}: its predicted mel holds NaN or infinity: {advice}")
    return mel.numpy()


@functools.lru_cache(maxsize=1)
def _open(extraction: Extraction) -> tuple[FastPitch, ClipReader]:
    model = extraction.load_generator(extraction.checkpoint, torch.device("cpu"), extraction.ema)
    return model, extraction.reader(model)


def _read_job(reader: ClipReader, jobs: Sequence[ClipJob]) -> Batch:
    (job,) = jobs
    return reader.read(job.utterance)


def _save(mel: np.ndarray, path: Path) -> None:
    with atomic_path(path) as unfinished, unfinished.open("wb") as file:
        np.save(file, mel)


def _digest(model: FastPitch) -> str:
    """The same for models that predict the same, whatever their files are called."""
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(model.config)).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
