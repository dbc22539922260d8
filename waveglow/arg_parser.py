# SPDX-License-Identifier: BSD-3-Clause
"""WaveGlow's settings: the flags, and the names that a checkpoint's `config` gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.cli import flag, flag_name
from common.config import ClipsConfig, require

# field -> the name in a checkpoint's `config`, and in the `WN_config` inside it
CHECKPOINT_NAMES = {
    "n_mel_channels": "n_mel_channels",
    "flows": "n_flows",
    "groups": "n_group",
    "early_every": "n_early_every",
    "early_size": "n_early_size",
}
WN_CHECKPOINT_NAMES = {
    "wn_layers": "n_layers",
    "wn_kernel_size": "kernel_size",
    "wn_channels": "n_channels",
}


@dataclass(frozen=True, kw_only=True)
class WaveGlowConfig:
    """WaveGlow: sizes of the network."""

    n_mel_channels: int = flag(80, help="number of mel bands")
    flows: int = flag(12, help="number of flow steps")
    groups: int = flag(8, help="samples that are the channels of one step in time")
    early_every: int = flag(4, help="flow steps between early outputs")
    early_size: int = flag(2, help="channels of an early output")
    wn_kernel_size: int = flag(3, help="coupling networks: kernel of the dilated convolutions")
    wn_channels: int = flag(512, help="coupling networks: channels")
    wn_layers: int = flag(8, help="coupling networks: number of layers")

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{flag_name(name)} must be positive, got {value}")
        if self.wn_kernel_size % 2 == 0:
            raise ValueError(
                f"--wn-kernel-size must be odd to keep the length, got {self.wn_kernel_size}"
            )
        for name in ("groups", "early_size"):
            if vars(self)[name] % 2:
                raise ValueError(
                    f"{flag_name(name)} must be even, each flow step changes one half of the "
                    f"channels, got {vars(self)[name]}"
                )
        if self.flow_channels[-1] <= 0:
            outputs = (self.flows - 1) // self.early_every
            raise ValueError(
                f"--groups must exceed what the early outputs take, {outputs} x --early-size "
                f"{self.early_size} with --flows {self.flows} and --early-every "
                f"{self.early_every}, got {self.groups}"
            )

    @property
    def flow_channels(self) -> tuple[int, ...]:
        """Channels that each flow step works on, in the order from audio to latent."""
        return tuple(
            self.groups - self.early_size * (step // self.early_every) for step in range(self.flows)
        )

    @property
    def early_channels(self) -> tuple[int, ...]:
        """Channels that leave as part of the latent before each flow step, mostly 0."""
        return tuple(
            self.early_size if step > 0 and step % self.early_every == 0 else 0
            for step in range(self.flows)
        )

    def to_checkpoint(self) -> dict[str, Any]:
        """The `config` of a checkpoint, under the public recipe's names."""
        values = {name: vars(self)[field] for field, name in CHECKPOINT_NAMES.items()}
        wn_values = {name: vars(self)[field] for field, name in WN_CHECKPOINT_NAMES.items()}
        return values | {"WN_config": wn_values}

    @classmethod
    def from_checkpoint(cls, config: Mapping[str, Any]) -> WaveGlowConfig:
        """Reads what `to_checkpoint` wrote, or the public recipe.

        Raises:
            ValueError: names are unknown or missing, or a value makes no network
        """
        if not isinstance(config, Mapping):
            raise ValueError(f"expected WaveGlow's config as named values, got {config!r}")
        _check_names(config, {*CHECKPOINT_NAMES.values(), "WN_config"}, "config")
        wn_config = config["WN_config"]
        if not isinstance(wn_config, Mapping):
            raise ValueError(f"expected WN_config as named values, got {wn_config!r}")
        _check_names(wn_config, set(WN_CHECKPOINT_NAMES.values()), "WN_config")
        values = {field: config[name] for field, name in CHECKPOINT_NAMES.items()}
        values |= {field: wn_config[name] for field, name in WN_CHECKPOINT_NAMES.items()}
        for field, value in values.items():
            if not isinstance(value, int):
                raise ValueError(f"expected a whole number for {flag_name(field)}, got {value!r}")
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class WaveGlowLossConfig:
    """Loss: what the latent is held to."""

    sigma: float = flag(1.0, help="standard deviation of the latent")

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ValueError(f"--sigma must be positive, got {self.sigma}")


@dataclass(frozen=True, kw_only=True)
class WaveGlowDataConfig(ClipsConfig):
    """Data: segments of recordings."""

    segment_length: int = flag(4000, help="samples of a segment; a multiple of --groups")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.segment_length > 0, "segment_length", "must be positive", self.segment_length)


def _check_names(values: Mapping[str, Any], expected: set[str], where: str) -> None:
    unknown, missing = values.keys() - expected, expected - values.keys()
    if unknown or missing:
        faults = [f"{name} is unknown" for name in sorted(map(str, unknown))]
        faults += [f"{name} is missing" for name in sorted(missing)]
        raise ValueError(f"not the {where} of a WaveGlow: {', '.join(faults)}")
