# SPDX-License-Identifier: BSD-3-Clause
"""Reads back the DLLogger lines of a training run."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

PREFIX = "DLLL "


@dataclass(frozen=True, kw_only=True)
class TrainingLog:
    """What was logged: the settings, and every metric by step.

    Where a run was stopped and continued, the later word on a step counts.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, dict[tuple[int, ...], float]] = field(
        default_factory=lambda: defaultdict(dict)
    )

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Epochs, and the mean of a metric over the steps of each."""
        by_epoch = defaultdict(list)
        for step, value in self.metrics.get(name, {}).items():
            if step:
                by_epoch[step[0]].append(value)
        epochs = sorted(by_epoch)
        return epochs, [fmean(by_epoch[epoch]) for epoch in epochs]


def read_training_log(path: Path) -> TrainingLog:
    """Reads nvlog.json.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is no DLLogger line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such log; train.py writes it into its --output")
    log = TrainingLog()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            event = json.loads(line.removeprefix(PREFIX))
            step, data = event["step"], event["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number}: expected `DLLL {{json}}`, got {line!r}") from error
        if step == "PARAMETER":
            log.settings.update(data)
        elif event.get("type") == "LOG":
            for name, value in data.items():
                log.metrics[name][tuple(step)] = float(value)
    return log
