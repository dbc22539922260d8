# SPDX-License-Identifier: BSD-3-Clause
"""Steps that were skipped because they are not finite: which clips they had, when to give up."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from common.distributed import Processes
from common.metrics import Metrics

logger = logging.getLogger(__name__)

BAD_STEP = "bad_step"  # metric that tells of a skipped step; tasks may leave it out
NUM_CLIPS_NAMED = 8  # where the loss is finite, so that no clip is more suspect than another


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
        self._unread: list[tuple[int, list[Path], list[Tensor]]] = []

    def add(self, step: int, micro_batches: Sequence[Any], metrics: Metrics) -> None:
        """Takes in a step whose metrics, this process's shares, are not read yet."""
        paths = [path for batch in micro_batches for path in batch.paths]
        losses = [value.detach() for name, value in metrics.items() if name.endswith("loss")]
        self._unread.append((step, paths, losses))

    def read(self, rows: Sequence[dict[str, float]]) -> list[dict[str, float]]:
        """The rows of good steps, without `bad_step`; the clips of the others are warned about.

        Args:
            rows: metrics of the steps that came in since the last reading, over all processes

        Raises:
            TrainingFailed: too many in a row were bad
        """
        good = []
        for row, (step, paths, losses) in zip(rows, self._unread, strict=True):
            if row.pop(BAD_STEP, 0.0) == 0:
                self.in_a_row = 0
                good.append(row)
                continue
            self.in_a_row += 1
            self._warn(step, row, paths, losses)
            if self.in_a_row >= self.max_in_a_row:
                raise TrainingFailed(
                    f"{self.in_a_row} steps in a row had no finite loss and gradient "
                    f"(--max-bad-steps {self.max_in_a_row}): look at the clips named above, or "
                    "lower --learning-rate; --resume continues from the last good checkpoint"
                )
        self._unread = []
        return good

    def _warn(
        self, step: int, row: dict[str, float], paths: list[Path], losses: list[Tensor]
    ) -> None:
        # All processes get here, since all read the same rows; the values are at hand by now.
        is_finite = all(math.isfinite(float(loss)) for loss in losses)
        shares = self.processes.gather((is_finite, [str(path) for path in paths]))
        suspects = [path for finite, clips in shares if not finite for path in clips]
        others = [path for _, clips in shares for path in clips]
        if not self.processes.is_main:
            return
        scale = f", scale {row['scale']:g}" if "scale" in row else ""
        reason = f"its gradient is not finite (loss {row['loss']:g}{scale})"
        named = suspects or others[:NUM_CLIPS_NAMED]
        more = (
            ""
            if suspects or len(others) <= NUM_CLIPS_NAMED
            else f" and {len(others) - len(named)} more"
        )
        if suspects:
            terms = [name for name in row if name.endswith("loss") and not math.isfinite(row[name])]
            values = ", ".join(f"{name} {row[name]:g}" for name in terms)
            reason = f"its loss is not finite ({values}{scale})"
        logger.warning("Step %d was skipped: %s; clips: %s%s", step, reason, ", ".join(named), more)
