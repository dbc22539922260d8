# SPDX-License-Identifier: BSD-3-Clause
"""Writes the mels that HiFi-GAN is fine-tuned on: flags -> checked clips -> a mel for each."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.checks import DataCheck
from common.cli import FlagParser, flag, flag_name
from common.config import ONLY_COMPATIBLE, DataConfig, TextConfig
from common.distributed import Processes
from common.filelists import Utterance
from common.files import check_folder
from common.parallel import available_cores, run_parallel, show_progress
from common.precision import Precision
from common.tb_dllogger import configure_console
from fastpitch.extraction import (
    ClipReader,
    Extraction,
    ExtractionRecord,
    extract_clip,
    extract_here,
)
from models import load_generator

logger = logging.getLogger(__name__)

INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class ExtractionConfig:
    """Extraction: from which clips, with which model."""

    fastpitch: Path = flag(help="FastPitch checkpoint")
    output: Path = flag(short="-o", help="folder of the mels, <clip name>.npy")
    dataset_path: Path = flag(Path(), short="-d", help="folder that file lists are relative to")
    input_files: tuple[Path, ...] = flag(help="file lists of the clips")
    load_mel_from_disk: bool = flag(False, help="the file lists name mels (.pt), not audio")
    load_pitch_from_disk: bool = flag(False, help="read pitch that prepare_dataset.py extracted")
    batch_size: int = flag(16, short="-bs", help=f"clips at a time; {ONLY_COMPATIBLE}")
    num_workers: int = flag(
        16, help="processes, at most one for each core: they predict or, for a GPU, read clips"
    )
    cuda: bool = flag(False, help="run on a GPU")
    amp: bool = flag(False, help="mixed precision")
    ema: bool = flag(False, help="use the averaged weights")
    skip_bad: bool = flag(False, help="leave out clips with problems instead of stopping")
    max_clip_seconds: float = flag(30.0, help="longer clips are refused")
    seed: int = flag(1234, help="seed of the choice between letters and phonemes")

    def __post_init__(self) -> None:
        if not self.input_files:
            raise ValueError("--input-files must name a file list, got none")
        if not self.max_clip_seconds > 0:
            raise ValueError(f"--max-clip-seconds must be positive, got {self.max_clip_seconds}")
        for name in ("num_workers", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"{flag_name(name)} must not be negative, got {getattr(self, name)}"
                )

    @property
    def data(self) -> DataConfig:
        """Where the features of clips come from."""
        return DataConfig(
            dataset_path=self.dataset_path,
            training_files=self.input_files,
            validation_files=self.input_files,
            load_mel_from_disk=self.load_mel_from_disk,
            load_pitch_from_disk=self.load_pitch_from_disk,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the mels that are missing; returns the exit code."""
    configure_console()
    parser = FlagParser(
        "Writes the mels that a trained FastPitch predicts with the true durations, pitch and "
        "energy of recordings, to fine-tune HiFi-GAN on.",
        ExtractionConfig,
        TextConfig,
        from_checkpoint=(TextConfig,),
        prog="python -m fastpitch.extract_mels",
    )
    given = parser.parse(argv)
    config = parser.build(ExtractionConfig, given)
    try:
        extract(config, parser, given)
    except KeyboardInterrupt:
        logger.warning("Interrupted: the same command goes on where this one was")
        return INTERRUPTED
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    except (RuntimeError, OSError) as error:
        logger.error("%s: stopped: %s", parser.prog, error)
        return 1
    return 0


def extract(config: ExtractionConfig, parser: FlagParser, given: Mapping[str, Any]) -> None:
    """Checks all clips, then makes the mels that are missing.

    Args:
        parser: that read the flags
        given: the flags; those of the text outrank the checkpoint's settings
    """
    check_folders(config)
    precision = Precision(config.amp, Processes(config.cuda).device)
    if not config.cuda:
        torch.set_num_threads(1)  # the processes share the cores, and results are the same on any
    model = load_generator(config.fastpitch, precision.device, config.ema)
    extraction = Extraction(
        load_generator=load_generator,
        checkpoint=config.fastpitch,
        ema=config.ema,
        data=config.data,
        text=parser.build(TextConfig, vars(model.text), given),
        seed=config.seed,
        output=config.output,
    )
    reader = extraction.reader(model)
    reader.text.check_alphabet(model.config.n_symbols)
    utterances = read_utterances(config, reader, model.config.n_speakers)
    settings = extraction.settings(model, config.amp)
    logger.info("Settings: %s", json.dumps(settings))
    record = ExtractionRecord(config.output)
    jobs = record.jobs_left(extraction.plan(utterances, settings, reader))
    logger.info("%d clips, %d of them to do", len(utterances), len(jobs))
    record.begin()
    if config.cuda:
        results = extract_here(jobs, model, reader, precision, config.num_workers)
    elif min(config.num_workers, available_cores(), len(jobs)) > 1:
        results = run_parallel(extract_clip, jobs, config.num_workers)
    else:
        results = extract_here(jobs, model, reader, precision)
    begun, num_frames = time.monotonic(), 0
    for index, frames in show_progress(results, len(jobs), "extracted"):
        record.add(jobs[index])
        num_frames += frames
    seconds = max(time.monotonic() - begun, 1e-6)
    logger.info("%d frames, %.0f frames/s", num_frames, num_frames / seconds)
    logger.info("Mels of all %d clips are in %s", len(utterances), config.output)


def check_folders(config: ExtractionConfig) -> None:
    """Refuses folders that are not there or cannot be written."""
    if not config.dataset_path.is_dir():
        raise FileNotFoundError(f"--dataset-path {config.dataset_path}: no such folder")
    check_folder(config.output, "--output")


def read_utterances(
    config: ExtractionConfig, reader: ClipReader, n_speakers: int
) -> list[Utterance]:
    """The clips, without problems."""
    check = DataCheck(
        dataset_path=config.dataset_path,
        audio=reader.audio,
        text=reader.text,
        bad_list=config.output / "skipped_clips.txt",
        n_speakers=n_speakers,
        max_clip_seconds=config.max_clip_seconds,
        are_mels=config.load_mel_from_disk,
        need_pitch=config.load_pitch_from_disk,
        skip_bad=config.skip_bad,
        num_workers=config.num_workers,
    )
    utterances, _ = check.read(config.input_files)
    return utterances


if __name__ == "__main__":
    sys.exit(main())
