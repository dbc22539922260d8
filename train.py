# SPDX-License-Identifier: BSD-3-Clause
"""Trains FastPitch: flags -> configs -> FastPitchTask -> Trainer.fit()."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from torch.utils.data import DataLoader

from common.buckets import Buckets
from common.checkpoint import load_checkpoint
from common.checks import DataCheck
from common.cli import FlagParser
from common.config import (
    AudioConfig,
    DataConfig,
    OptimizerConfig,
    RunConfig,
    StartConfig,
    TextConfig,
    errors_naming,
    setup_of,
)
from common.distributed import Processes
from common.filelists import Utterance
from common.files import check_folder
from common.griffin_lim import GriffinLim
from common.launch import (
    check_steps,
    checkpoint_to_resume,
    make_report,
    run_training,
    set_up_torch,
)
from common.loaders import EpochBatches, make_loader
from common.pitch import load_pitch_statistics
from common.synthesizer import Vocoder
from common.text import TextProcessor
from common.text.symbols import PADDING, symbol_set
from common.trainer import Trainer
from fastpitch.arg_parser import (
    FastPitchConfig,
    FastPitchLossConfig,
    FineTuningConfig,
    WatchingConfig,
)
from fastpitch.clip_features import FeatureSource
from fastpitch.data_function import FastPitchDataset
from fastpitch.model import FastPitch
from fastpitch.packed import open_packed
from fastpitch.preloaded import PreloadedFeatures
from fastpitch.stored import pitch_statistics, train_setup
from fastpitch.task import FastPitchTask
from fastpitch.transfer import Pretrained, freeze, transfer_weights
from models import check_same_mels, fastpitch_config, load_vocoder

logger = logging.getLogger(__name__)

# The loss depends a little on how far a text is padded (docs/differences.md). Whatever the number
# of GPUs and --batch-size, validation takes the clips in groups of this many, so that its numbers
# compare.
VALIDATION_BATCH_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting of a run, with all defaults resolved."""

    run: RunConfig
    start: StartConfig
    optimization: OptimizerConfig
    data: DataConfig
    audio: AudioConfig
    text: TextConfig
    loss: FastPitchLossConfig
    model: FastPitchConfig
    fine_tuning: FineTuningConfig
    watching: WatchingConfig


@dataclass(frozen=True, kw_only=True)
class Start:
    """A checkpoint whose weights and settings a run begins with."""

    path: Path
    contents: Mapping[str, Any]
    continues: bool  # the training that it belongs to; else only with its weights

    @functools.cached_property
    def setup(self) -> dict[str, Any]:
        """Its audio and text settings."""
        return train_setup(self.contents, self.path)

    @property
    def pitch(self) -> tuple[float, float]:
        """Mean and standard deviation in Hz."""
        return pitch_statistics(self.contents, self.path)

    def pretrained(self, symbol_set_unless_said: str) -> Pretrained:
        """Its weights, and what they are the weights of."""
        with errors_naming(self.path):
            symbols = symbol_set(self.setup.get("symbol_set", symbol_set_unless_said))
        return Pretrained(
            path=self.path,
            config=fastpitch_config(self.contents, self.path),
            weights=self.contents["state_dict"],
            symbols=symbols,
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, or validates with `--epochs 0`."""
    parser = FlagParser(
        "Trains FastPitch on a prepared dataset, or validates a checkpoint with --epochs 0.",
        *get_type_hints(Settings).values(),
    )
    run_training(parser, argv, begin)


def begin(parser: FlagParser, given: Mapping[str, Any], processes: Processes) -> Trainer:
    """What is to be trained, as the flags say, and as far as its checkpoint is."""
    start = find_start(parser.build(RunConfig, given), parser.build(StartConfig, given))
    settings = resolve_settings(parser, given, start)
    if settings.data.pitch_online_dir is not None:
        check_folder(settings.data.pitch_online_dir, "--pitch-online-dir")
    trainer = make_trainer(settings, start, processes)
    if start is not None and start.continues:
        trainer.restore({"FastPitch": start.path})
    return trainer


def find_start(run: RunConfig, start: StartConfig) -> Start | None:
    """The checkpoint that `--resume`, `--checkpoint-path` or `--init-from-checkpoint` leads to."""
    latest = checkpoint_to_resume(run, FastPitchTask.files)
    path = latest["FastPitch"] if latest else start.checkpoint_path
    continues = path is not None
    path = path or start.init_from_checkpoint
    if path is None:
        return None
    return Start(path=path, contents=load_checkpoint(path), continues=continues)


def resolve_settings(parser: FlagParser, given: Mapping[str, Any], start: Start | None) -> Settings:
    """Settings from, in rising rank: defaults, the checkpoint, the command line."""
    setup = start.setup if start else {}
    remembered = setup if start and start.continues else {}
    text = parser.build(TextConfig, setup, given)
    symbols = symbol_set(text.symbol_set)
    alphabet = {"n_symbols": len(symbols), "padding_idx": symbols.index(PADDING)}
    sizes = dataclasses.asdict(fastpitch_config(start.contents, start.path)) if start else {}
    return Settings(
        run=parser.build(RunConfig, given),
        start=parser.build(StartConfig, given),
        optimization=parser.build(OptimizerConfig, given),
        data=resolve_pitch(parser.build(DataConfig, sizes, given), start),
        audio=parser.build(AudioConfig, sizes, setup, given),
        text=text,
        loss=parser.build(FastPitchLossConfig, given),
        model=parser.build(FastPitchConfig, sizes, given, alphabet),
        fine_tuning=parser.build(FineTuningConfig, remembered, given),
        watching=parser.build(WatchingConfig, given),
    )


def resolve_pitch(data: DataConfig, start: Start | None) -> DataConfig:
    """Pitch statistics from, in falling rank: the command line, the checkpoint, the dataset."""
    if not data.dataset_path.is_dir():
        raise FileNotFoundError(f"--dataset-path {data.dataset_path}: no such folder")
    prepared = load_pitch_statistics(data.dataset_path)
    continues = start is not None and start.continues
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
    set_up_torch(run, processes)
    text = TextProcessor(settings.text)
    training, validation = read_datasets(settings, text)
    check_steps(run, len(training), processes)
    task = FastPitchTask(
        make_model(settings, start).to(processes.device),
        run=run,
        optimization=settings.optimization,
        loss=settings.loss,
        audio=settings.audio,
        vocoder=make_vocoder(settings, processes),
        setup=setup_of(settings.audio, settings.text, settings.fine_tuning),
        processes=processes,
    )

    source = find_features(settings, [*training, *validation], processes)
    num_workers = 0 if data.preload is not None else run.num_workers
    pin_memory = run.cuda and data.preload is None

    def loader(utterances: Sequence[Utterance], batch_size: int, seed: int | None) -> DataLoader:
        dataset = FastPitchDataset(
            utterances,
            data,
            settings.audio,
            text,
            pitch_mean=data.pitch_mean,
            pitch_std=data.pitch_std,
            seed=run.seed,
            source=source,
        )
        buckets = None
        if seed is not None and (data.bucket or data.max_batch_frames is not None):
            lengths = [utterance.num_frames for utterance in utterances]
            buckets = Buckets(lengths=lengths, max_frames=data.max_batch_frames)
        batches = EpochBatches(len(dataset), batch_size, processes, seed, buckets)
        in_thread = source is not None  # packed features are but copied
        return make_loader(dataset, batches, dataset.collate, num_workers, pin_memory, in_thread)

    return Trainer(
        task,
        run,
        loader(training, run.batch_size, run.seed),
        loader(validation, VALIDATION_BATCH_SIZE, None),
        processes,
        make_report(run, settings, processes),
    )


def find_features(
    settings: Settings, utterances: Sequence[Utterance], processes: Processes
) -> FeatureSource | None:
    """Where features come from, if not from each clip by itself."""
    data = settings.data
    if data.preload is not None and not settings.run.cuda:
        raise ValueError(f"--preload {data.preload} needs --cuda: leave it out, or train on a GPU")
    packed = open_packed(utterances, data, settings.audio)
    if data.preload is None:
        return packed
    if packed is None:
        raise ValueError(
            f"--preload {data.preload} needs packed features that are up to date: run "
            "prepare_dataset.py with --extract-mels --extract-pitch, without --no-pack"
        )
    return PreloadedFeatures(packed, processes.device)


def make_model(settings: Settings, start: Start | None) -> FastPitch:
    """The network with the weights that it begins with; those of a continued training follow."""
    data, frozen = settings.data, settings.fine_tuning.freeze
    if frozen and start is None:
        raise ValueError(
            f"--freeze {','.join(frozen)}: nothing is trained yet: give --init-from-checkpoint"
        )
    model = FastPitch(settings.model, data.pitch_mean, data.pitch_std)
    untrained = frozenset()
    if start is not None and start.continues:
        tell_of_thaw(frozen, start)
    elif start is not None:
        symbols = symbol_set(settings.text.symbol_set)
        try:
            pretrained = start.pretrained(settings.text.symbol_set)
            untrained = transfer_weights(model, symbols, pretrained)
        except ValueError as error:
            raise ValueError(f"--init-from-checkpoint {error}") from error
        model.set_pitch_statistics(data.pitch_mean, data.pitch_std)
    freeze(model, frozen, untrained)
    return model


def tell_of_thaw(frozen: Sequence[str], start: Start) -> None:
    """Says which parts a continued training had frozen, and this run has not."""
    thawed = [part for part in start.setup.get("freeze", ()) if part not in frozen]
    if thawed:
        logger.info("Frozen until %s, and learning from now on: %s", start.path, ", ".join(thawed))


def make_vocoder(settings: Settings, processes: Processes) -> Vocoder:
    """What TensorBoard's audio is spoken by."""
    path = settings.watching.hifigan
    if path is None:
        return GriffinLim(settings.audio)
    vocoder = load_vocoder(path, processes.device)
    check_same_mels(vocoder.audio, path, settings.audio, "this training")
    return vocoder


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


if __name__ == "__main__":
    main()
