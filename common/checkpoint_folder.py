# SPDX-License-Identifier: BSD-3-Clause
"""The checkpoints of a training in a folder: their names, which is the newest, which are kept."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from common.checkpoint import check_readable, save_checkpoint
from common.files import atomic_path, remove_temporaries

logger = logging.getLogger(__name__)

NUM_NEWEST_KEPT = 2
BEST_FILE = "best.json"


class Moment(NamedTuple):
    """When a checkpoint was saved; what comes later is greater."""

    epoch: int
    step: float = math.inf  # in the middle of the epoch, counted from the beginning; else infinite

    @property
    def suffix(self) -> str:
        """What it is called in the names of files."""
        return f"{self.epoch}" if self.step == math.inf else f"{self.epoch}_step_{self.step}"


@dataclass(frozen=True, kw_only=True)
class Best:
    """The saved epoch with the lowest validation loss."""

    epoch: int
    loss: float
    scope: str  # of the loss: val, or val_ema where weights are averaged


class CheckpointFolder:
    """The checkpoints of one training: for each moment a file `<name>_checkpoint_<moment>.pt`, or
    several that belong together. The moment is the epoch at whose end they were saved, or
    `<epoch>_step_<step>` in the middle of one.

    Args:
        folder: where they are
        names: of the files of a moment
        milestones: epochs whose checkpoints are never removed

    Attributes:
        best: the marked epoch, which is not removed either
    """

    def __init__(
        self, folder: Path, names: Sequence[str], milestones: Collection[int] = ()
    ) -> None:
        self.folder = folder
        self.names = names
        self.milestones = milestones
        self.best: Best | None = None
        self._saved: list[Moment] = []  # by this training, and not removed

    def paths(self, moment: Moment) -> dict[str, Path]:
        """By name, the files of a moment."""
        return {name: self.folder / f"{name}_checkpoint_{moment.suffix}.pt" for name in self.names}

    def latest(self) -> dict[str, Path] | None:
        """By name, the files of the last moment that has them all; None where there is none."""
        complete = self._complete()
        return complete[max(complete)] if complete else None

    def latest_readable(self) -> dict[str, Path] | None:
        """As `latest`, but skips moments with a file that is damaged, and says so.

        Raises:
            ValueError: there are checkpoints, and all are damaged
        """
        damages: list[ValueError] = []
        for _, paths in sorted(self._complete().items(), reverse=True):
            try:
                for path in paths.values():
                    check_readable(path)
            except ValueError as error:
                damages.append(error)
                continue
            for damage in damages:
                logger.warning("%s: using %s, saved before it", damage, _listed(paths))
            return paths
        if damages:
            raise damages[0]
        return None

    def save(self, moment: Moment, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes a checkpoint, then removes old ones that this training wrote itself.

        Args:
            states: what goes into each file, by name

        Raises:
            OSError: it cannot be written, perhaps for want of room; earlier ones are as they were
        """
        for name, path in self.paths(moment).items():
            remove_temporaries(self.folder, f"{name}_checkpoint_*.pt")
            save_checkpoint(states[name], path)
            logger.info("Saved %s", path)
        self._note(moment)
        if self.best is not None:
            self._write_best(self.best)
        self._prune()

    def state_dict(self, moment: Moment) -> dict[str, Any]:
        """What a checkpoint of this moment says of the folder, as plain values."""
        saved = sorted({*self._saved, moment})
        return {
            "saved": [[each.epoch, None if each.step == math.inf else each.step] for each in saved],
            "best": None if self.best is None else asdict(self.best),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with what an earlier part of the same training saved in this folder."""
        for epoch, step in state["saved"]:
            self._note(Moment(epoch, math.inf if step is None else step))
        self.best = None if state["best"] is None else Best(**state["best"])

    def _note(self, moment: Moment) -> None:
        if moment not in self._saved:
            self._saved.append(moment)

    def _prune(self) -> None:
        kept = {Moment(epoch) for epoch in self.milestones} | set(self._saved[-NUM_NEWEST_KEPT:])
        if self.best is not None:
            kept.add(Moment(self.best.epoch))
        for moment in [each for each in self._saved if each not in kept]:
            self._saved.remove(moment)
            for path in self.paths(moment).values():
                path.unlink(missing_ok=True)

    def _write_best(self, best: Best) -> None:
        files = [path.name for path in self.paths(Moment(best.epoch)).values()]
        with atomic_path(self.folder / BEST_FILE) as temporary:
            temporary.write_text(json.dumps(asdict(best) | {"files": files}) + "\n")

    def _complete(self) -> dict[Moment, dict[str, Path]]:
        """By moment and name, the files of the moments that have them all."""
        found = [self._find(name) for name in self.names]
        complete = set.intersection(*map(set, found))
        return {
            moment: {name: files[moment] for name, files in zip(self.names, found, strict=True)}
            for moment in complete
        }

    def _find(self, name: str) -> dict[Moment, Path]:
        pattern = re.compile(re.escape(name) + r"_checkpoint_(\d+)(?:_step_(\d+))?\.pt")
        return {
            Moment(int(match[1]), int(match[2]) if match[2] else math.inf): path
            for path in self.folder.glob("*.pt")
            if (match := pattern.fullmatch(path.name))
        }


def _listed(paths: Mapping[str, Path]) -> str:
    return " and ".join(map(str, paths.values()))
