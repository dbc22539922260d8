# SPDX-License-Identifier: BSD-3-Clause
"""Trains WaveGlow: flags -> configs -> WaveGlowTask -> Trainer.fit()."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from torch.utils.data import DataLoader

from common.cli import FlagParser
from common.config import (
    AudioConfig,
    OptimizerConfig,
    RunConfig,
    StartConfig,
    check_as_trained,
    setup_of,
)
from common.distributed import Processes
from common.filelists import Utterance
from common.launch import (
    check_steps,
    checkpoint_to_resume,
    make_report,
    run_training,
    set_up_torch,
)
from common.recordings import read_recordings
from common.segments import make_segment_loader
from common.trainer import Trainer
from models import load_vocoder_to_train
from waveglow.arg_parser import WaveGlowConfig, WaveGlowDataConfig, WaveGlowLossConfig
from waveglow.data_function import WaveGlowDataset
from waveglow.model import WaveGlow
from waveglow.task import WaveGlowTask

# Of the fields that all trainings share, those that the public recipe sets otherwise for WaveGlow.
DEFAULTS = {
    "optimizer": "adam",
    "weight_decay": 0.0,
    "warmup_steps": 0,  # the learning rate stays as it is
    "grad_clip_thresh": 65504.0,  # the largest number of half precision
    "validation_freq": 10,
    "samples_freq": 50,
    "num_workers": 1,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting of a run, with all defaults resolved."""

    run: RunConfig
    start: StartConfig
    optimization: OptimizerConfig
    data: WaveGlowDataConfig
    audio: AudioConfig
    loss: WaveGlowLossConfig
    model: WaveGlowConfig

    def __post_init__(self) -> None:
        if self.data.segment_length % self.model.groups:
            raise ValueError(
                f"--segment-length must be a multiple of --groups {self.model.groups}, "
                f"got {self.data.segment_length}"
            )


@dataclass(frozen=True, kw_only=True)
class Start:
    """A checkpoint whose weights and settings a run begins with."""

    path: Path
    model: WaveGlow
    continues: bool  # the training that it belongs to; else only with its weights


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, or validates with `--epochs 0`."""
    parser = FlagParser(
        "Trains WaveGlow on recordings, or validates a checkpoint with --epochs 0.",
        *get_type_hints(Settings).values(),
        defaults=DEFAULTS,
        prog="python -m waveglow.train",
    )
    run_training(parser, argv, begin)


def begin(parser: FlagParser, given: Mapping[str, Any], processes: Processes) -> Trainer:
    """What is to be trained, as the flags say, and as far as its checkpoint is."""
    start = find_start(parser.build(RunConfig, given), parser.build(StartConfig, given))
    settings = resolve_settings(parser, given, start)
    trainer = make_trainer(settings, start, processes)
    if start is not None and start.continues:
        trainer.restore({"WaveGlow": start.path})
    return trainer


def find_start(run: RunConfig, start: StartConfig) -> Start | None:
    """The checkpoint that `--resume`, `--checkpoint-path` or `--init-from-checkpoint` leads to."""
    latest = checkpoint_to_resume(run, WaveGlowTask.files)
    candidates = {
        "--resume": latest["WaveGlow"] if latest else None,
        "--checkpoint-path": start.checkpoint_path,
        "--init-from-checkpoint": start.init_from_checkpoint,
    }
    for flag, path in candidates.items():
        if path is not None:
            model = load_vocoder_to_train(flag, path, WaveGlow)
            return Start(path=path, model=model, continues=flag != "--init-from-checkpoint")
    return None


def resolve_settings(parser: FlagParser, given: Mapping[str, Any], start: Start | None) -> Settings:
    """Settings from, in rising rank: defaults, the checkpoint, the command line."""
    sizes, audio = {}, {}
    if start is not None:
        sizes, audio = vars(start.model.config), vars(start.model.audio)
    settings = Settings(
        run=parser.build(RunConfig, given),
        start=parser.build(StartConfig, given),
        optimization=parser.build(OptimizerConfig, given),
        data=parser.build(WaveGlowDataConfig, given),
        audio=parser.build(AudioConfig, audio, given),
        loss=parser.build(WaveGlowLossConfig, given),
        model=parser.build(WaveGlowConfig, sizes, given),
    )
    if start is not None:
        check_as_trained(
            start.path,
            (settings.model, start.model.config),
            (settings.audio, start.model.audio),
        )
    return settings


def make_trainer(settings: Settings, start: Start | None, processes: Processes) -> Trainer:
    """Everything that a run consists of, put together; checks the data first."""
    run, audio = settings.run, settings.audio
    set_up_torch(run, processes)
    model = start.model if start else WaveGlow(settings.model, audio.hop_length, audio.win_length)
    training, validation = read_recordings(settings.data, audio, run)
    check_steps(run, len(training), processes)
    task = WaveGlowTask(
        model.to(processes.device),
        run=run,
        optimization=settings.optimization,
        loss=settings.loss,
        audio=audio,
        setup=setup_of(audio),
        processes=processes,
    )

    def loader(
        clips: Sequence[Utterance], segment_length: int | None, *, shuffle: bool
    ) -> DataLoader:
        dataset = WaveGlowDataset(clips, audio, segment_length=segment_length, seed=run.seed)
        return make_segment_loader(dataset, run, processes, shuffle=shuffle)

    return Trainer(
        task,
        run,
        loader(training, settings.data.segment_length, shuffle=True),
        loader(validation, None, shuffle=False),
        processes,
        make_report(run, settings, processes),
    )


if __name__ == "__main__":
    main()
