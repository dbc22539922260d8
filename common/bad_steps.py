# SPDX-License-Identifier: BSD-3-Clause
"""Steps that were skipped because they are not finite: which clips they had, when to give up."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.distributed import Processes
from common.metrics import Metrics

logger = logging.getLogger(__name__)

BAD_STEP = "bad_step"  # metric that tells of a skipped step; tasks may leave out both
BAD_LOSSES = "bad_losses"  # and that tells why: of each micro-batch, so that it is not logged
NUM_CLIPS_NAMED = 8  # or all of one micro-batch whose loss is not finite


class TrainingFailed(RuntimeError):  # noqa: N818 -- what happened, said where it is caught
    """Training cannot go on; the last good checkpoint is as it was."""


class BadSteps:
    """Watches over the steps of a training, on all its processes alike.

    Args:
        processes: that train together
        max_in_a_row: so many end the training

    Attributes:
        in_a_row: bad steps since the last good one
    """

    def __init__(self, processes: Processes, max_in_a_row: int) -> None:
        self.processes = processes
        self.max_in_a_row = max_in_a_row
        self.in_a_row = 0
        self._unread: list[tuple[int, list[Sequence[Path]], Tensor]] = []

    def add(self, step: int, micro_batches: Sequence[Any], metrics: Metrics) -> Metrics:
        """Takes in a step whose metrics, this process's shares, are not read yet.

        Returns:
            The metrics without `bad_losses`
        """
        bad_losses = metrics.get(BAD_LOSSES, torch.zeros(len(micro_batches)))
        self._unread.append((step, [batch.paths for batch in micro_batches], bad_losses))
        return {name: value for name, value in metrics.items() if name != BAD_LOSSES}

    def read(self, rows: Sequence[dict[str, float]]) -> list[dict[str, float]]:
        """The rows of good steps, without `bad_step`; the clips of the others are warned about.

        Args:
            rows: metrics of the steps that came in since the last reading, over all processes

        Raises:
            TrainingFailed: too many in a row were bad
        """
        good = []
        for row, (step, paths, bad_losses) in zip(rows, self._unread, strict=True):
            if row.pop(BAD_STEP, 0.0) == 0:
                self.in_a_row = 0
                good.append(row)
                continue
            self.in_a_row += 1
            self._warn(step, row, paths, bad_losses)
            if self.in_a_row >= self.max_in_a_row:
                raise TrainingFailed(
                    f"{self.in_a_row} steps in a row had no finite loss and gradient "
                    f"(--max-bad-steps {self.max_in_a_row}): look at the clips named above, or "
                    "lower --learning-rate; --resume continues from the last good checkpoint"
                )
        self._unread = []
        return good

    def _warn(
        self,
        step: int,
        row: dict[str, float],
        micro_batches: list[Sequence[Path]],
        bad_losses: Tensor,
    ) -> None:
        # All processes get here, since all read the same rows; the values are at hand by now.
        own = zip(bad_losses.tolist(), micro_batches, strict=True)
        shares = self.processes.gather([(bad > 0, [*map(str, paths)]) for bad, paths in own])
        if not self.processes.is_main:
            return
        judged = [micro_batch for share in shares for micro_batch in share]
        scale = f", scale {row['scale']:g}" if "scale" in row else ""
        reason = f"its gradient is not finite (loss {row['loss']:g}{scale})"
        suspects = [paths for is_bad, paths in judged if is_bad]
        num_named = NUM_CLIPS_NAMED
        if suspects:
            # A clip that spoils its micro-batch is named; where all are bad, no clip is to blame.
            num_named = max(num_named, len(suspects[0]))
            terms = [name for name in row if name.endswith("loss") and not math.isfinite(row[name])]
            values = ", ".join(f"{name} {row[name]:g}" for name in terms)
            reason = f"its loss is not finite ({values}{scale})"
        clips = [path for paths in suspects or (paths for _, paths in judged) for path in paths]
        named = ", ".join(clips[:num_named])
        more = f" and {len(clips) - num_named} more" if len(clips) > num_named else ""
        logger.warning("Step %d was skipped: %s; clips: %s%s", step, reason, named, more)
