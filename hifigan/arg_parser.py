# SPDX-License-Identifier: BSD-3-Clause
"""HiFi-GAN's settings: names are the flags and the keys of a checkpoint's `config`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from common.cli import flag, flag_name, literal_tuple
from common.config import (
    FUSED_OPTIMIZER_HELP,
    FUSED_OPTIMIZERS,
    ONLY_COMPATIBLE,
    OPTIMIZERS,
    ClipsConfig,
    require,
)
from common.files import is_file

DIVISORS = (1, 2, 4, 8)  # what the smallest layer and the groups of the discriminators allow

# The original repository's name of a setting -> ours; the sizes of the network keep their names.
ORIGINAL_NAMES = {
    "num_mels": "n_mel_channels",
    "n_fft": "filter_length",
    "hop_size": "hop_length",
    "win_size": "win_length",
    "sampling_rate": "sampling_rate",
    "fmin": "mel_fmin",
    "fmax": "mel_fmax",
    "segment_size": "segment_size",
    "fmax_for_loss": "mel_fmax_loss",
    "lr_decay": "lr_decay",
    "adam_b1": "adam_b1",
    "adam_b2": "adam_b2",
}


def _positive_numbers(name: str, values: Any) -> tuple[int, ...]:
    numbers = _as_tuple(name, values)
    for number in numbers:
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(f"{flag_name(name)} must be whole numbers above 0, got {number!r}")
    return numbers


def _as_tuple(name: str, values: Any) -> tuple[Any, ...]:
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"{flag_name(name)} must be a list such as [3,7,11], got {values!r}")
    return tuple(values)


@dataclass(frozen=True, kw_only=True)
class HiFiGANConfig:
    """HiFi-GAN: sizes of the generator."""

    upsample_rates: tuple[int, ...] = flag(
        (8, 8, 2, 2), parse=literal_tuple, help="upsampling of each stage; their product is the hop"
    )
    upsample_kernel_sizes: tuple[int, ...] = flag(
        (16, 16, 4, 4), parse=literal_tuple, help="kernel of each stage's upsampling"
    )
    upsample_initial_channel: int = flag(
        512, help="channels before the first upsampling, each of which halves them"
    )
    resblock: str = flag("1", choices=("1", "2"), help="kind of residual blocks")
    resblock_kernel_sizes: tuple[int, ...] = flag(
        (3, 7, 11), parse=literal_tuple, help="kernel of each residual block of a stage"
    )
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = flag(
        ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
        parse=literal_tuple,
        help="dilations within each residual block of a stage",
    )

    def __post_init__(self) -> None:
        # Checkpoints and JSON hold lists, and some the kind of residual blocks as a number.
        for name in ("upsample_rates", "upsample_kernel_sizes", "resblock_kernel_sizes"):
            object.__setattr__(self, name, _positive_numbers(name, getattr(self, name)))
        dilations = _as_tuple("resblock_dilation_sizes", self.resblock_dilation_sizes)
        dilations = tuple(_positive_numbers("resblock_dilation_sizes", each) for each in dilations)
        object.__setattr__(self, "resblock_dilation_sizes", dilations)
        object.__setattr__(self, "resblock", str(self.resblock))
        self._check_upsampling()
        self._check_residual_blocks()

    @property
    def hop_length(self) -> int:
        """Samples for each frame of the mel."""
        return math.prod(self.upsample_rates)

    def to_checkpoint(self) -> dict[str, Any]:
        """The `config` of a checkpoint, with lists as the public recipe has them."""
        return json.loads(json.dumps(asdict(self)))

    def _check_upsampling(self) -> None:
        rates, kernels = self.upsample_rates, self.upsample_kernel_sizes
        if len(rates) != len(kernels):
            raise ValueError(
                "--upsample-rates and --upsample-kernel-sizes must be equally many, "
                f"got {len(rates)} and {len(kernels)}"
            )
        for rate, kernel in zip(rates, kernels, strict=True):
            if kernel < rate or (kernel - rate) % 2:
                raise ValueError(
                    "--upsample-kernel-sizes must exceed --upsample-rates by 0 or an even number, "
                    f"got a kernel of {kernel} for a rate of {rate}"
                )
        (channels,) = _positive_numbers(
            "upsample_initial_channel", (self.upsample_initial_channel,)
        )
        if channels < 2 ** len(rates):
            raise ValueError(
                f"--upsample-initial-channel must be at least {2 ** len(rates)}, "
                f"for {len(rates)} stages halve it, got {channels}"
            )

    def _check_residual_blocks(self) -> None:
        kernels, dilations = self.resblock_kernel_sizes, self.resblock_dilation_sizes
        if self.resblock not in ("1", "2"):
            raise ValueError(f"--resblock must be 1 or 2, got {self.resblock}")
        if len(kernels) != len(dilations):
            raise ValueError(
                "--resblock-kernel-sizes and --resblock-dilation-sizes must be equally many, "
                f"got {len(kernels)} and {len(dilations)}"
            )
        for kernel in kernels:
            if kernel % 2 == 0:
                raise ValueError(
                    f"--resblock-kernel-sizes must be odd to keep the length, got {kernel}"
                )


VARIANTS: Mapping[str, HiFiGANConfig] = {  # Kong 2020, table 5
    "V1": HiFiGANConfig(),
    "V2": HiFiGANConfig(upsample_initial_channel=128),
    "V3": HiFiGANConfig(
        upsample_rates=(8, 8, 4),
        upsample_kernel_sizes=(16, 16, 8),
        upsample_initial_channel=256,
        resblock="2",
        resblock_kernel_sizes=(3, 5, 7),
        resblock_dilation_sizes=((1, 2), (2, 6), (3, 12)),
    ),
}


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Discriminators: sizes of the networks that train the generator."""

    mpd_periods: tuple[int, ...] = flag(
        (2, 3, 5, 7, 11), parse=literal_tuple, help="periods in samples, a discriminator for each"
    )
    discriminator_divisor: int = flag(
        1, help="channels of the discriminators are divided by this: 1 (the paper's), 2, 4 or 8"
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "mpd_periods", _positive_numbers("mpd_periods", self.mpd_periods))
        if self.discriminator_divisor not in DIVISORS:
            raise ValueError(
                f"--discriminator-divisor must be one of {', '.join(map(str, DIVISORS))}, "
                f"got {self.discriminator_divisor}"
            )


@dataclass(frozen=True, kw_only=True)
class HiFiGANStartConfig:
    """Start: which generator, and the weights to begin with."""

    variant: str = flag(
        "V1", choices=tuple(VARIANTS), help="generator of the paper; V2 and V3 are smaller"
    )
    hifigan_config: Path | None = flag(
        None, help="JSON of the original repository, in place of --variant"
    )
    checkpoint_path_gen: Path | None = flag(
        None,
        help="generator to begin with: with its discriminators training continues, alone or with "
        "--fine-tuning only the weights are taken",
    )
    checkpoint_path_discrim: Path | None = flag(
        None, help="discriminators that belong to --checkpoint-path-gen"
    )

    def __post_init__(self) -> None:
        if self.checkpoint_path_discrim is not None and self.checkpoint_path_gen is None:
            raise ValueError("--checkpoint-path-discrim needs --checkpoint-path-gen")


@dataclass(frozen=True, kw_only=True)
class HiFiGANDataConfig(ClipsConfig):
    """Data: segments of recordings, and mels to fine-tune on."""

    segment_size: int = flag(8192, help="samples of a segment; a multiple of --hop-length")
    fine_tuning: bool = flag(False, help="train on mels that FastPitch made")
    input_mels_dir: Path | None = flag(
        None, help="folder of these mels, NAME.npy for each clip; see fastpitch.extract_mels"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.segment_size > 0, "segment_size", "must be positive", self.segment_size)
        if self.fine_tuning and self.input_mels_dir is None:
            raise ValueError("--fine-tuning needs --input-mels-dir, the folder of FastPitch's mels")
        if self.input_mels_dir is not None and not self.fine_tuning:
            raise ValueError("--input-mels-dir is read with --fine-tuning only: add it")


@dataclass(frozen=True, kw_only=True)
class HiFiGANOptimizerConfig:
    """Optimization: update rule and schedule, of generator and discriminators alike."""

    optimizer: str = flag("adamw", choices=OPTIMIZERS, help="update rule")
    fused_optimizer: str = flag("auto", choices=FUSED_OPTIMIZERS, help=FUSED_OPTIMIZER_HELP)
    learning_rate: float = flag(short="-lr", help="learning rate of the first epoch")
    lr_decay: float = flag(0.9998, help="factor of the learning rate after each epoch")
    fine_tune_lr_factor: float = flag(1.0, help="factor of the learning rate with --fine-tuning")
    adam_betas: tuple[float, ...] = flag(
        (0.8, 0.99), help="decay of the averages of the gradient and its square"
    )
    weight_decay: float = flag(0.01, help="weight decay")
    grad_clip_thresh: float = flag(1000.0, help="largest gradient norm")
    warmup_steps: int = flag(1000, help=ONLY_COMPATIBLE)

    def __post_init__(self) -> None:
        for name in ("learning_rate", "lr_decay", "fine_tune_lr_factor", "grad_clip_thresh"):
            require(getattr(self, name) > 0, name, "must be positive", getattr(self, name))
        require(self.weight_decay >= 0, "weight_decay", "must not be negative", self.weight_decay)
        are_decays = len(self.adam_betas) == 2 and all(0 <= beta < 1 for beta in self.adam_betas)
        shown = " ".join(map(str, self.adam_betas))
        require(are_decays, "adam_betas", "must be two numbers in [0, 1)", shown)


@dataclass(frozen=True, kw_only=True)
class HiFiGANLossConfig:
    """Loss: what generated audio is compared by."""

    mel_fmax_loss: float | None = flag(
        None, help="highest frequency in Hz of the mels compared (default: half the sampling rate)"
    )


@dataclass(frozen=True, kw_only=True)
class HiFiGANCompatibleConfig:
    """Flags of the public recipe that are not needed here."""

    autocast_spectrogram: bool = flag(False, help=f"mels keep float32; {ONLY_COMPATIBLE}")
    no_amp_grouped_conv: bool = flag(False, help=ONLY_COMPATIBLE)
    concat_fwd: bool = flag(
        False, help=f"discriminators always see both kinds of audio at once; {ONLY_COMPATIBLE}"
    )
    disable_cudnn_benchmark: bool = flag(
        False, help=f"off unless --cudnn-benchmark; {ONLY_COMPATIBLE}"
    )
    affinity: str | None = flag(None, help=ONLY_COMPATIBLE)


def read_hifigan_json(path: Path | str) -> dict[str, Any]:
    """The settings in a configuration file of the original HiFi-GAN repository, by our names.

    Returns:
        All fields of `HiFiGANConfig`, and as far as the file has them those of `AudioConfig`,
        `segment_size` (samples), `mel_fmax_loss` (Hz or None), `adam_betas` and `lr_decay`. What
        else it says (batch size, seed, ...) is left to the command line.

    Raises:
        FileNotFoundError: there is no such file
        ValueError: it is no such file, or its sizes make no generator
    """
    path = Path(path)
    if not is_file(path):
        raise FileNotFoundError(f"--hifigan-config {path}: no such file")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--hifigan-config {path}: expected JSON: {error}") from error
    if not isinstance(stored, dict):
        raise ValueError(
            f"--hifigan-config {path}: expected an object with named settings, "
            f"got {type(stored).__name__}"
        )
    names = [field.name for field in fields(HiFiGANConfig)]
    missing = [name for name in names if name not in stored]
    if missing:
        raise ValueError(f"--hifigan-config {path}: has no {', '.join(missing)}")
    try:
        sizes = vars(HiFiGANConfig(**{name: stored[name] for name in names}))
        return sizes | _training_settings(stored)
    except ValueError as error:
        raise ValueError(f"--hifigan-config {path}: {error}") from error


def _training_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    for name in ORIGINAL_NAMES.keys() & stored.keys():
        value = stored[name]
        if not _is_number(value) and not (name == "fmax_for_loss" and value is None):
            raise ValueError(f"{name} must be a number, got {value!r}")
    settings = {ours: stored[name] for name, ours in ORIGINAL_NAMES.items() if name in stored}
    betas = settings.pop("adam_b1", None), settings.pop("adam_b2", None)
    return settings if None in betas else settings | {"adam_betas": betas}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
