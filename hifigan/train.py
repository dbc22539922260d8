# SPDX-License-Identifier: BSD-3-Clause
"""Trains HiFi-GAN: flags -> configs -> HiFiGANTask -> Trainer.fit()."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from torch.utils.data import DataLoader

from common.checkpoint import load_checkpoint, load_weights
from common.cli import FlagParser
from common.config import AudioConfig, RunConfig, check_as_trained, setup_of
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
from hifigan.arg_parser import (
    VARIANTS,
    DiscriminatorConfig,
    HiFiGANCompatibleConfig,
    HiFiGANConfig,
    HiFiGANDataConfig,
    HiFiGANLossConfig,
    HiFiGANOptimizerConfig,
    HiFiGANStartConfig,
    read_hifigan_json,
)
from hifigan.data_function import HiFiGANDataset
from hifigan.discriminators import Discriminators
from hifigan.model import HiFiGAN
from hifigan.task import HiFiGANTask, discriminator_weights
from models import load_vocoder_to_train

# Of RunConfig's fields, those that the public recipe sets otherwise for HiFi-GAN.
DEFAULTS = {
    "keep_milestones": (1000, 2000, 3000, 4000, 5000, 6000),
    "validation_freq": 10,
    "samples_freq": 100,
    "num_workers": 1,
    "benchmark_epochs_num": 5,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting of a run, with all defaults resolved."""

    run: RunConfig
    start: HiFiGANStartConfig
    optimization: HiFiGANOptimizerConfig
    data: HiFiGANDataConfig
    audio: AudioConfig
    loss: HiFiGANLossConfig
    generator: HiFiGANConfig
    discriminators: DiscriminatorConfig
    compatible: HiFiGANCompatibleConfig

    def __post_init__(self) -> None:
        if self.generator.hop_length != self.audio.hop_length:
            raise ValueError(
                f"--upsample-rates multiply to {self.generator.hop_length}, which must be "
                f"--hop-length, got {self.audio.hop_length}"
            )
        if self.data.segment_size % self.audio.hop_length:
            raise ValueError(
                f"--segment-size must be a multiple of --hop-length {self.audio.hop_length}, "
                f"got {self.data.segment_size}"
            )


@dataclass(frozen=True, kw_only=True)
class Start:
    """A checkpoint that a run begins with."""

    files: Mapping[str, Path]  # by the names of HiFiGANTask.files
    generator: HiFiGAN
    discriminators: Mapping[str, Any] | None  # contents of the file, if there is one
    continues: bool  # the training that it belongs to; else only with its weights


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, or validates with `--epochs 0`."""
    parser = FlagParser(
        "Trains HiFi-GAN on recordings, or with --fine-tuning on mels that FastPitch made of them.",
        *get_type_hints(Settings).values(),
        defaults=DEFAULTS,
        prog="python -m hifigan.train",
    )
    run_training(parser, argv, begin)


def begin(parser: FlagParser, given: Mapping[str, Any], processes: Processes) -> Trainer:
    """What is to be trained, as the flags say, and as far as its checkpoint is."""
    start = find_start(parser, given)
    settings = resolve_settings(parser, given, start)
    trainer = make_trainer(settings, start, processes)
    if start is not None and start.continues:
        trainer.restore(start.files)
    return trainer


def find_start(parser: FlagParser, given: Mapping[str, Any]) -> Start | None:
    """The checkpoint that `--resume` or `--checkpoint-path-gen` leads to."""
    flags = parser.build(HiFiGANStartConfig, given)
    fine_tuning = parser.build(HiFiGANDataConfig, given).fine_tuning
    gen_name, discrim_name = HiFiGANTask.files
    files = checkpoint_to_resume(parser.build(RunConfig, given), HiFiGANTask.files)
    resumes = continues = files is not None
    if files is None:
        named = {gen_name: flags.checkpoint_path_gen, discrim_name: flags.checkpoint_path_discrim}
        files = {name: path for name, path in named.items() if path is not None}
        continues = discrim_name in files and not fine_tuning
    if not files:
        return None
    discriminators = None
    if discrim_name in files:
        discriminators = load_checkpoint(files[discrim_name])
        if not {"mpd", "msd"} <= discriminators.keys():
            raise ValueError(
                f"--checkpoint-path-discrim {files[discrim_name]}: holds no discriminators (mpd, "
                f"msd), but {', '.join(discriminators)}: name hifigan_discrim_checkpoint_N.pt"
            )
    flag = "--resume" if resumes else "--checkpoint-path-gen"
    generator = load_vocoder_to_train(flag, files[gen_name], HiFiGAN, flags.hifigan_config)
    return Start(
        files=files,
        generator=generator,
        discriminators=discriminators,
        continues=continues,
    )


def resolve_settings(parser: FlagParser, given: Mapping[str, Any], start: Start | None) -> Settings:
    """Settings from, in rising rank: defaults, the checkpoint, variant or file, other flags."""
    flags = parser.build(HiFiGANStartConfig, given)
    sizes, audio, judges = {}, {}, {}
    if start is not None:
        sizes, audio = vars(start.generator.config), vars(start.generator.audio)
        judges = (start.discriminators or {}).get("config", {})
    if start is None or "variant" in given:
        sizes = sizes | vars(VARIANTS[flags.variant])
    file = {} if flags.hifigan_config is None else read_hifigan_json(flags.hifigan_config)
    audio_config = parser.build(AudioConfig, audio, file, given)
    loss = parser.build(HiFiGANLossConfig, file, given)
    if loss.mel_fmax_loss is None:
        loss = dataclasses.replace(loss, mel_fmax_loss=audio_config.sampling_rate / 2)
    settings = Settings(
        run=parser.build(RunConfig, given),
        start=flags,
        optimization=parser.build(HiFiGANOptimizerConfig, file, given),
        data=parser.build(HiFiGANDataConfig, file, given),
        audio=audio_config,
        loss=loss,
        generator=parser.build(HiFiGANConfig, sizes, file, given),
        discriminators=parser.build(DiscriminatorConfig, judges, given),
        compatible=parser.build(HiFiGANCompatibleConfig, given),
    )
    if start is not None:
        check_as_trained(
            start.files[HiFiGANTask.files[0]],
            (settings.generator, start.generator.config),
            (settings.audio, start.generator.audio),
        )
    return settings


def make_trainer(settings: Settings, start: Start | None, processes: Processes) -> Trainer:
    """Everything that a run consists of, put together; checks the data first."""
    run, data, audio = settings.run, settings.data, settings.audio
    set_up_torch(run, processes)
    training, validation = read_recordings(data, audio, run, data.input_mels_dir)
    check_steps(run, len(training), processes)
    generator = start.generator if start else HiFiGAN(settings.generator, audio.n_mel_channels)
    discriminators = Discriminators(settings.discriminators)
    if start is not None and start.discriminators is not None:
        weights = discriminator_weights(start.discriminators)
        load_weights(discriminators, weights, start.files[HiFiGANTask.files[1]])
    task = HiFiGANTask(
        generator.to(processes.device),
        discriminators.to(processes.device),
        run=run,
        optimization=resolve_learning_rate(settings),
        audio=audio,
        mel_fmax_loss=settings.loss.mel_fmax_loss,
        setup=setup_of(audio) | {"num_mels": audio.n_mel_channels},
        processes=processes,
    )

    def loader(
        clips: Sequence[Utterance], segment_length: int | None, *, shuffle: bool
    ) -> DataLoader:
        dataset = HiFiGANDataset(
            clips,
            audio,
            segment_length=segment_length,
            mels_dir=data.input_mels_dir,
            seed=run.seed,
        )
        return make_segment_loader(dataset, run, processes, shuffle=shuffle)

    return Trainer(
        task,
        run,
        loader(training, data.segment_size, shuffle=True),
        loader(validation, None, shuffle=False),
        processes,
        make_report(run, settings, processes),
    )


def resolve_learning_rate(settings: Settings) -> HiFiGANOptimizerConfig:
    """The optimization, its learning rate as fine-tuning wants it."""
    optimization = settings.optimization
    if not settings.data.fine_tuning:
        return optimization
    rate = optimization.learning_rate * optimization.fine_tune_lr_factor
    return dataclasses.replace(optimization, learning_rate=rate)


if __name__ == "__main__":
    main()
