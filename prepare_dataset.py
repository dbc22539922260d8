# SPDX-License-Identifier: BSD-3-Clause
"""Prepares a dataset: mels, pitch, alignment priors and pitch statistics from audio and text.

Under torchrun, on several machines that share the dataset's folder, each takes a part of the clips.
"""

from __future__ import annotations

import itertools
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import torch

from common.checks import DataCheck
from common.cli import FlagParser, flag, flag_name
from common.config import F0_METHODS, ONLY_COMPATIBLE, AudioConfig, TextConfig
from common.distributed import Processes
from common.filelists import Problem, Utterance
from common.files import check_file, check_folder
from common.parallel import available_cores, import_ahead
from common.pitch import check_f0_method, save_pitch_statistics
from common.records import PreparationRecord
from common.tb_dllogger import configure_console
from common.text import TextProcessor
from fastpitch.packing import pack_features
from fastpitch.preparation import ClipJob, Preparation, pitch_statistics_of, prepare_clip

logger = logging.getLogger("prepare_dataset")

BAD_USAGE = 2
INTERRUPTED = 130

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class PreparationConfig:
    """Preparation: what to make from which clips."""

    dataset_path: Path = flag(
        Path(), short="-d", help="folder that file lists are relative to and features go to"
    )
    wav_text_filelists: tuple[Path, ...] = flag(help="file lists, lines of audio|text[|speaker]")
    extract_mels: bool = flag(False, help="write mels/<name>.pt")
    extract_pitch: bool = flag(False, help="write pitch/<name>.pt and pitch_stats.json")
    no_pack: bool = flag(
        False,
        help="where there are mels and pitch, do not write them to packed/ as well, in files that "
        "training reads faster (LJSpeech: 2.5 GB)",
    )
    save_alignment_priors: bool = flag(False, help="write alignment_priors/<name>.pt")
    log_file: Path = flag(
        Path("preproc_log.json"), help="DLLogger file, relative to --dataset-path"
    )
    n_speakers: int = flag(1, help="number of speakers; above 1 the file lists name them")
    f0_method: str = flag(
        "pyin",
        choices=F0_METHODS,
        help="how pitch is estimated; praat and world need requirements-pitch.txt, of which "
        "praat-parselmouth is under the GPL",
    )
    batch_size: int = flag(1, short="-b", help=f"clips at a time; {ONLY_COMPATIBLE}")
    n_workers: int = flag(16, help="processes, at most one for each core")
    max_clip_seconds: float = flag(30.0, help="longer clips are refused")
    skip_bad: bool = flag(
        False, help="leave out clips with problems, list them in bad_clips.txt, and go on"
    )

    def __post_init__(self) -> None:
        if not self.wav_text_filelists:
            raise ValueError("--wav-text-filelists must name a file list, got none")
        if not self.features:
            raise ValueError(
                "nothing to do: give --extract-mels, --extract-pitch or --save-alignment-priors"
            )
        for name in ("n_speakers", "n_workers", "max_clip_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{flag_name(name)} must be positive, got {getattr(self, name)}")

    @property
    def features(self) -> tuple[str, ...]:
        """What to make of each clip, as keys of `fastpitch.preparation.FOLDERS`."""
        wanted = {
            "mel": self.extract_mels,
            "pitch": self.extract_pitch,
            "prior": self.save_alignment_priors,
        }
        return tuple(feature for feature, is_wanted in wanted.items() if is_wanted)


def main(argv: Sequence[str] | None = None) -> int:
    """Prepares a dataset as the flags say; returns the exit code."""
    configure_console()
    torch.set_num_threads(1)  # the processes share the cores, and each clip is small
    parser = FlagParser(
        __doc__,
        PreparationConfig,
        AudioConfig,
        TextConfig,
        defaults={"text_cleaners": ("english_cleaners_v2",)},
    )
    values = parser.parse(argv)
    config = parser.build(PreparationConfig, values)
    audio = parser.build(AudioConfig, values)
    text_config = parser.build(TextConfig, values)
    processes = Processes(cuda=False)
    try:
        prepare(config, audio, text_config, processes)
    except KeyboardInterrupt:
        logger.info("stopped; the same command goes on where this one was")
        return INTERRUPTED
    except (ValueError, FileNotFoundError) as error:
        logger.error("prepare_dataset.py: %s", error)
        return BAD_USAGE
    except (RuntimeError, OSError) as error:
        logger.error("prepare_dataset.py: stopped: %s", error)
        return 1
    finally:
        processes.close()
    return 0


def prepare(
    config: PreparationConfig, audio: AudioConfig, text_config: TextConfig, processes: Processes
) -> None:
    """Checks all clips, then makes what is missing; each process makes its part."""
    begun = time.monotonic()
    text = TextProcessor(text_config)
    num_workers = min(config.n_workers, max(1, available_cores() // processes.num_local))
    if num_workers > 1:
        import_ahead(prepare_clip)
    preparation = Preparation(
        dataset_path=config.dataset_path,
        config=audio,
        text=text,
        features=config.features,
        f0_method=config.f0_method,
        num_workers=num_workers,
    )
    check = _data_check(config, audio, text, num_workers)

    def plan() -> tuple[list[Utterance], list[Problem], list[ClipJob]]:
        _check_start(config)
        utterances, left_out = check.read_headers(config.wav_text_filelists)
        record = PreparationRecord(config.dataset_path)
        record.absorb_parts()
        return utterances, left_out, preparation.plan(utterances, record)

    utterances, left_out, jobs = _from_main(processes, plan)
    logger.info(
        "%d clips, %d of them to do, on %d processes",
        *(len(utterances), len(jobs), num_workers * processes.world_size),
    )
    record = PreparationRecord(config.dataset_path, processes.rank)
    own_part = preparation.run(jobs[processes.rank :: processes.world_size], record)
    parts = processes.gather(own_part)

    def conclude() -> None:
        for clip in itertools.chain.from_iterable(clips for clips, _ in parts):
            record.add(clip)
        problems = [problem for _, found in parts for problem in found]
        good = utterances
        if problems:
            written = "what the other clips need"
            good = check.leave_out([*left_out, *problems], utterances, written)
        results = {"clips": len(good), "prepared": sum(len(clips) for clips, _ in parts)}
        if config.extract_pitch:
            results |= _save_statistics(config, good, record)
        if config.extract_mels and config.extract_pitch and not config.no_pack:
            pack_features(good, config.dataset_path, audio, config.f0_method)
        results["took"] = time.monotonic() - begun
        _log(results, config.dataset_path / config.log_file)

    _from_main(processes, conclude)
    if not processes.is_main:
        record.remove()


def _data_check(
    config: PreparationConfig, audio: AudioConfig, text: TextProcessor, num_workers: int
) -> DataCheck:
    return DataCheck(
        dataset_path=config.dataset_path,
        audio=audio,
        text=text,
        bad_list=config.dataset_path / "bad_clips.txt",
        n_speakers=config.n_speakers,
        max_clip_seconds=config.max_clip_seconds,
        skip_bad=config.skip_bad,
        num_workers=num_workers,
    )


def _from_main(processes: Processes, work: Callable[[], Result]) -> Result:
    """What `work` gives on the first process, which alone does it; all stop if it cannot."""
    result = error = None
    if processes.is_main:
        try:
            result = work()
        except (ValueError, RuntimeError, OSError) as failure:
            error = failure
    result, has_failed = processes.gather((result, error is not None))[0]
    if error is not None:
        raise error
    if has_failed:
        raise RuntimeError("the first process says why")
    return result


def _save_statistics(
    config: PreparationConfig, utterances: Sequence[Utterance], record: PreparationRecord
) -> dict[str, float]:
    statistics = pitch_statistics_of(utterances, record)
    path = save_pitch_statistics(statistics, config.dataset_path)
    logger.info(
        "pitch: mean %.2f Hz, standard deviation %.2f Hz over %d voiced frames, in %s",
        *(statistics.mean_hz, statistics.std_hz, statistics.num_frames, path),
    )
    return {"pitch_mean": statistics.mean_hz, "pitch_std": statistics.std_hz}


def _check_start(config: PreparationConfig) -> None:
    if not config.dataset_path.is_dir():
        raise FileNotFoundError(f"--dataset-path {config.dataset_path}: no such folder")
    check_folder(config.dataset_path, "--dataset-path")
    check_file(config.dataset_path / config.log_file, "--log-file")
    if config.extract_pitch:
        check_f0_method(config.f0_method)


def _log(results: dict[str, float], path: Path) -> None:
    now = datetime.now()
    event = {
        "timestamp": str(now.timestamp()),
        "datetime": str(now),
        "elapsedtime": str(results["took"]),
        "type": "LOG",
        "step": [],
        "data": results,
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(f"DLLL {json.dumps(event)}\n")


if __name__ == "__main__":
    sys.exit(main())
