# SPDX-License-Identifier: BSD-3-Clause
"""What the Trainer asks of a model that is to be trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from common.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where training is, counted from 1."""

    epoch: int
    step: int  # optimizer steps since the beginning


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What a model makes of a few clips, to look at and listen to."""

    figures: Mapping[str, Figure] = field(default_factory=dict)
    audio: Mapping[str, Tensor] = field(default_factory=dict)  # (T_audio,) in [-1, 1]
    sampling_rate: int = 0


class Task(Protocol):
    """A model and how it learns; the Trainer calls, the Task computes."""

    files: Sequence[str]  # names of a checkpoint's files; the last is needed only to continue

    def train_step(self, micro_batches: Sequence[Any], progress: Progress) -> Metrics:
        """One optimizer step; this process's share of the means over the global batch.

        Where the step may be skipped, `bad_step` among them says so: its shares add up to 1; and
        `bad_losses`, (micro-batches), is 1 where this process's loss was not finite, else 0.
        """

    def eval_step(self, batch: Any) -> dict[str, tuple[Metrics, Tensor]]:
        """For each scope (val, val_ema): means over a batch, and how much they weigh."""

    def num_frames(self, batch: Any) -> Tensor:
        """() frames of work in a batch, for the throughput."""

    def samples(self, batch: Any) -> Samples:
        """Pictures and audio of a validation batch."""

    def state_dict(self, progress: Progress) -> dict[str, dict[str, Any]]:
        """What each file of a checkpoint holds, by name: tensors and plain values."""

    def load_state_dict(
        self, states: Mapping[str, Mapping[str, Any]], sources: Mapping[str, Path]
    ) -> Progress:
        """Restores `state_dict`, says how far it was; errors name the sources."""
