# SPDX-License-Identifier: BSD-3-Clause
"""Trains FastPitch: flags -> configs -> FastPitchTask -> Trainer.fit()."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch.utils.data import DataLoader

from common.checkpoint import CheckpointFolder, load_checkpoint, load_weights
from common.checks import DataCheck
from common.cli import FlagParser
from common.config import AudioConfig, DataConfig, OptimizerConfig, RunConfig, TextConfig, setup_of
from common.distributed import Processes
from common.filelists import Utterance
from common.files import check_file, check_folder
from common.loaders import EpochBatches, make_loader
from common.pitch import load_pitch_statistics
from common.tb_dllogger import FileLogger, NullLogger, TrainingLogger, configure_console
from common.text import TextProcessor
from common.text.symbols import PADDING, symbol_set
from common.trainer import Trainer
from fastpitch.arg_parser import FastPitchConfig, FastPitchLossConfig
from fastpitch.data_function import FastPitchDataset, collate
from fastpitch.model import FastPitch
from fastpitch.task import FastPitchTask
from models import fastpitch_config, pitch_statistics, train_setup

logger = logging.getLogger(__name__)

# The loss depends a little on how far a text is padded (docs/differences.md). Whatever the number
# of GPUs and --batch-size, validation takes the clips in groups of this many, so that its numbers
# compare.
VALIDATION_BATCH_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting of a run, with all defaults resolved."""

    run: RunConfig
    optimization: OptimizerConfig
    data: DataConfig
    audio: AudioConfig
    text: TextConfig
    loss: FastPitchLossConfig
    model: FastPitchConfig

    def flat(self) -> dict[str, Any]:
        """By flag name, as the log shows them."""
        groups = (vars(group) for group in vars(self).values())
        return {name: value for group in groups for name, value in group.items()}

    @property
    def clips_per_step(self) -> int:
        """On one process."""
        return self.run.batch_size * self.run.grad_accumulation


@dataclass(frozen=True, kw_only=True)
class Start:
    """A checkpoint whose weights and settings a run begins with."""

    path: Path
    contents: Mapping[str, Any]

    @property
    def setup(self) -> dict[str, Any]:
        """Its audio and text settings."""
        return train_setup(self.contents, self.path)

    @property
    def pitch(self) -> tuple[float, float]:
        """Mean and standard deviation in Hz."""
        return pitch_statistics(self.contents, self.path)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, or validates with `--epochs 0`."""
    configure_console()
    parser = FlagParser(
        "Trains FastPitch on a prepared dataset, or validates a checkpoint with --epochs 0.",
        *get_type_hints(Settings).values(),
    )
    given = parser.parse(argv)
    try:
        processes = Processes(cuda=parser.build(RunConfig, given).cuda)
        start = find_start(parser.build(RunConfig, given))
        settings = resolve_settings(parser, given, start)
        check_paths(settings.run, settings.data)
        trainer = make_trainer(settings, start, processes)
        trainer.restore()
    except (ValueError, OSError) as error:
        parser.error(str(error))
    try:
        trainer.fit()
    except KeyboardInterrupt:
        logger.warning("Interrupted: the same command with --resume continues")
        sys.exit(130)
    except OSError as error:
        logger.error("train.py: stopped: %s", error)
        sys.exit(1)
    finally:
        trainer.report.close()
        processes.close()


def find_start(run: RunConfig) -> Start | None:
    """The checkpoint that `--resume`, `--checkpoint-path` or `--init-from-checkpoint` leads to."""
    latest = CheckpointFolder(run.output, FastPitchTask.name).latest()
    path = run.init_from_checkpoint or run.checkpoint_path
    if run.resume and path is None:
        path = latest
    elif latest is not None and run.epochs > 0:
        raise ValueError(
            f"--output {run.output} holds {latest.name} of an earlier training: "
            "continue it with --resume, or choose another folder"
        )
    return Start(path=path, contents=load_checkpoint(path)) if path is not None else None


def check_paths(run: RunConfig, data: DataConfig) -> None:
    """Refuses paths that cannot be written, before any work is done."""
    check_folder(run.output, "--output")
    if run.log_file is not None:
        check_file(run.log_file, "--log-file")
    if data.pitch_online_dir is not None:
        check_folder(data.pitch_online_dir, "--pitch-online-dir")


def resolve_settings(parser: FlagParser, given: Mapping[str, Any], start: Start | None) -> Settings:
    """Settings from, in rising rank: defaults, the checkpoint, the command line."""
    setup = start.setup if start else {}
    text = parser.build(TextConfig, setup, given)
    symbols = symbol_set(text.symbol_set)
    alphabet = {"n_symbols": len(symbols), "padding_idx": symbols.index(PADDING)}
    sizes = dataclasses.asdict(fastpitch_config(start.contents, start.path)) if start else {}
    run = parser.build(RunConfig, given)
    return Settings(
        run=run,
        optimization=parser.build(OptimizerConfig, given),
        data=resolve_pitch(parser.build(DataConfig, sizes, given), run, start),
        audio=parser.build(AudioConfig, sizes, setup, given),
        text=text,
        loss=parser.build(FastPitchLossConfig, given),
        model=parser.build(FastPitchConfig, sizes, given, alphabet),
    )


def resolve_pitch(data: DataConfig, run: RunConfig, start: Start | None) -> DataConfig:
    """Pitch statistics from, in falling rank: the command line, the checkpoint, the dataset."""
    if not data.dataset_path.is_dir():
        raise FileNotFoundError(f"--dataset-path {data.dataset_path}: no such folder")
    prepared = load_pitch_statistics(data.dataset_path)
    continues = start is not None and run.init_from_checkpoint is None
    if data.pitch_mean is not None:
        if continues and not _same_pitch(start.pitch, (data.pitch_mean, data.pitch_std)):
            raise ValueError(
                f"--pitch-mean {data.pitch_mean:g} and --pitch-std {data.pitch_std:g} differ from "
                f"{start.pitch[0]:g} and {start.pitch[1]:g} in {start.path}: leave them out"
            )
        return data
    if start is not None:
        mean, std = start.pitch
        own = prepared and (prepared.mean_hz, prepared.std_hz)
        if own and not continues and not _same_pitch(start.pitch, own):
            logger.info(
                "Pitch mean %.2f Hz and deviation %.2f Hz are those of %s; the dataset's own are "
                "%.2f and %.2f: --pitch-mean and --pitch-std choose",
                *(mean, std, start.path, *own),
            )
    elif prepared is not None:
        mean, std = prepared.mean_hz, prepared.std_hz
    else:
        raise ValueError(
            f"no pitch statistics in --dataset-path {data.dataset_path}: run prepare_dataset.py "
            "--extract-pitch, or give --pitch-mean and --pitch-std (LJSpeech: 214.72203, 65.72038)"
        )
    return dataclasses.replace(data, pitch_mean=mean, pitch_std=std)


def _same_pitch(stored: tuple[float, float], given: tuple[float, float]) -> bool:
    """Whether statistics are equal but for being stored in single precision."""
    return all(math.isclose(*pair, rel_tol=1e-6) for pair in zip(stored, given, strict=True))


def make_trainer(settings: Settings, start: Start | None, processes: Processes) -> Trainer:
    """Everything that a run consists of, put together; checks the data first."""
    run, data = settings.run, settings.data
    torch.manual_seed(run.seed + processes.rank)
    torch.backends.cudnn.benchmark = run.cudnn_benchmark
    text = TextProcessor(settings.text)
    training, validation = read_datasets(settings, text)
    if run.epochs > 0 and len(training) < settings.clips_per_step * processes.world_size:
        raise ValueError(
            f"{len(training)} training clips do not fill one step of --batch-size "
            f"{run.batch_size} x --grad-accumulation {run.grad_accumulation} x "
            f"{processes.world_size} processes: lower --batch-size or --grad-accumulation"
        )
    model = FastPitch(settings.model, data.pitch_mean, data.pitch_std)
    if run.init_from_checkpoint is not None:
        load_weights(model, start.contents["state_dict"], start.path)
        model.set_pitch_statistics(data.pitch_mean, data.pitch_std)
    task = FastPitchTask(
        model.to(processes.device),
        run=run,
        optimization=settings.optimization,
        loss=settings.loss,
        audio=settings.audio,
        setup=setup_of(settings.audio, settings.text),
        processes=processes,
    )

    batch_samples = functools.partial(collate, padding_idx=settings.model.padding_idx)

    def loader(utterances: Sequence[Utterance], batch_size: int, seed: int | None) -> DataLoader:
        dataset = FastPitchDataset(
            utterances,
            data,
            settings.audio,
            text,
            pitch_mean=data.pitch_mean,
            pitch_std=data.pitch_std,
            seed=run.seed,
        )
        batches = EpochBatches(len(dataset), batch_size, processes, seed)
        return make_loader(dataset, batches, batch_samples, run.num_workers, pin_memory=run.cuda)

    return Trainer(
        task,
        run,
        loader(training, run.batch_size, run.seed),
        loader(validation, VALIDATION_BATCH_SIZE, None),
        processes,
        make_report(settings, processes),
    )


def read_datasets(
    settings: Settings, text: TextProcessor
) -> tuple[list[Utterance], list[Utterance]]:
    """What to train and to validate on, without problems; nothing to train on in no epochs."""
    run, data = settings.run, settings.data
    check = DataCheck(
        dataset_path=data.dataset_path,
        audio=settings.audio,
        text=text,
        bad_list=run.output / "skipped_clips.txt",
        n_speakers=data.n_speakers,
        max_clip_seconds=data.max_clip_seconds,
        are_mels=data.load_mel_from_disk,
        need_pitch=data.load_pitch_from_disk,
        skip_bad=data.skip_bad,
        num_workers=run.num_workers,
    )
    if run.epochs == 0:
        validation, _ = check.read(data.validation_files)
        return [], validation
    return check.read(data.training_files, data.validation_files)


def make_report(settings: Settings, processes: Processes) -> TrainingLogger:
    """Where this process reports to, told every setting."""
    report = (
        FileLogger(settings.run.output, settings.run.log_file)
        if processes.is_main
        else NullLogger()
    )
    report.parameters(settings.flat())
    return report


if __name__ == "__main__":
    main()
