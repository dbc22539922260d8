# SPDX-License-Identifier: BSD-3-Clause
"""Running means that stay on the device until read, and summaries of latencies."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from common.distributed import Processes


class WeightedMeans:
    """Means of named values, over calls of `add` and over all processes.

    Reading costs one synchronization with the device, adding none.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self._sums: dict[str, Tensor] = {}
        self._weight = 0.0

    def add(self, values: Mapping[str, Tensor], weight: Tensor | float = 1.0) -> None:
        """Takes in values, each (), that count as much as `weight` says."""
        for name, value in values.items():
            term = value.detach().double() * weight
            self._sums[name] = self._sums[name] + term if name in self._sums else term
        self._weight = self._weight + weight

    def read(self) -> dict[str, float]:
        """The means as numbers; empty if nothing was added."""
        if not self._sums:
            return {}
        sums = list(self._sums.values())
        weight = torch.as_tensor(self._weight, dtype=torch.double, device=sums[0].device)
        *totals, weight = self.processes.sum(torch.stack([*sums, weight])).tolist()
        return {name: total / weight for name, total in zip(self._sums, totals, strict=True)}


class Stopwatch:
    """Seconds since it was made.

    Args:
        device: whose pending work is waited for, at the beginning and at each reading; by default
            none is
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device
        self.start = self._now()

    @property
    def seconds(self) -> float:
        """Elapsed so far."""
        return self._now() - self.start

    def _now(self) -> float:
        if self.device is not None and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def latency_summary(seconds: Sequence[float]) -> dict[str, float]:
    """Mean and percentiles of latencies under the names of the inference log."""
    percentiles = {f"{p}%_latency": float(np.percentile(seconds, p)) for p in (90, 95, 99)}
    return {"avg_latency": float(np.mean(seconds)), **percentiles}
