# SPDX-License-Identifier: BSD-3-Clause
"""Running means that stay on the device until read, and summaries of latencies."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from common.distributed import Processes

Metrics = dict[str, Tensor]  # on the device; each () but for `bad_losses` of `BadSteps`


def add_metrics(totals: Metrics, terms: Metrics) -> Metrics:
    """Sums by name, without gradients; a name that is new begins at 0."""
    return totals | {name: term.detach() + totals.get(name, 0) for name, term in terms.items()}


class PendingMetrics:
    """Metrics of steps that stay on the device until all are read at once.

    Args:
        processes: over which each metric is summed
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self._rows: list[Tensor] = []
        self._names: list[str] = []

    def add(self, metrics: Metrics) -> None:
        """Takes in a step; all have the same metrics."""
        self._names = list(metrics)
        self._rows.append(torch.stack([value.detach().double() for value in metrics.values()]))

    def read(
        self, more: Mapping[str, float] | None = None
    ) -> tuple[list[dict[str, float]], dict[str, float]]:
        """The steps since the last reading; one synchronization with the device.

        Args:
            more: numbers of this process, to be summed on the way

        Returns:
            The metrics of each step, and the sums of `more` over all processes
        """
        more = more or {}
        num_values = len(self._rows) * len(self._names)
        own = torch.tensor([*more.values()], dtype=torch.double)
        own = own.to(self.processes.device, non_blocking=True)
        values = self.processes.sum(torch.cat([*self._rows, own])).tolist()
        self._rows = []
        starts = range(0, num_values, len(self._names))
        rows = [values[start : start + len(self._names)] for start in starts]
        sums = dict(zip(more, values[num_values:], strict=True))
        return [dict(zip(self._names, row, strict=True)) for row in rows], sums


def pop_peak_memory(device: torch.device) -> dict[str, float]:
    """`gpu_memory_gib`, the most that tensors have had since the last call; nothing on a CPU.

    The host does not wait for the device.
    """
    if device.type != "cuda":
        return {}
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return {"gpu_memory_gib": peak / 2**30}


def free_memory(device: torch.device) -> int | None:
    """Bytes that nobody uses yet; None on a CPU, whose memory is not counted."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


class WeightedMeans:
    """Means of named values, over calls of `add` and over all processes.

    Reading costs one synchronization with the device, adding none.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self._sums: dict[str, Tensor] = {}
        self._weight = 0.0

    def add(self, values: Mapping[str, Tensor], weight: Tensor | float) -> None:
        """Takes in values, each (), that count as much as `weight` says."""
        for name, value in values.items():
            term = value.detach().double() * weight
            self._sums[name] = self._sums[name] + term if name in self._sums else term
        self._weight = self._weight + weight

    @property
    def names(self) -> list[str]:
        """Of what was added in this process."""
        return list(self._sums)

    def read(self, names: Sequence[str]) -> dict[str, float]:
        """The means as numbers.

        Args:
            names: of what was added in any process; this one may have added nothing
        """
        nothing = torch.zeros((), dtype=torch.double, device=self.processes.device)
        sums = [self._sums.get(name, nothing) for name in names]
        weight = torch.as_tensor(self._weight, dtype=torch.double, device=self.processes.device)
        *totals, weight = self.processes.sum(torch.stack([*sums, weight])).tolist()
        return {name: total / weight for name, total in zip(names, totals, strict=True)}


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


class SpeechTimes:
    """Seconds of work and amounts of speech, batch by batch."""

    def __init__(self) -> None:
        self.generator_seconds: list[float] = []
        self.vocoder_seconds: list[float] = []
        self.num_symbols = self.num_frames = self.num_samples = 0

    def add(
        self,
        generator_seconds: float,
        vocoder_seconds: float,
        *,
        num_symbols: int,
        num_frames: int,
        num_samples: int,
    ) -> None:
        """Takes in a batch."""
        self.generator_seconds.append(generator_seconds)
        self.vocoder_seconds.append(vocoder_seconds)
        self.num_symbols += num_symbols
        self.num_frames += num_frames
        self.num_samples += num_samples

    def summary(self, generator: str, vocoder: str, sampling_rate: int) -> dict[str, float]:
        """Means, speeds and percentiles under the names of the inference log.

        Latencies are seconds per batch, RTF is seconds of audio per second of work.
        """
        seconds_of_speech = self.num_samples / sampling_rate
        in_generator, in_vocoder = sum(self.generator_seconds), sum(self.vocoder_seconds)
        totals = [sum(s) for s in zip(self.generator_seconds, self.vocoder_seconds, strict=True)]
        return {
            f"avg_{generator}_latency": in_generator / len(totals),
            f"avg_{generator}_frames/s": self.num_frames / in_generator,
            f"avg_{generator}_letters/s": self.num_symbols / in_generator,
            f"avg_{generator}_RTF": seconds_of_speech / in_generator,
            f"avg_{vocoder}_latency": in_vocoder / len(totals),
            f"avg_{vocoder}_samples/s": self.num_samples / in_vocoder,
            f"avg_{vocoder}_RTF": seconds_of_speech / in_vocoder,
            "avg_latency": float(np.mean(totals)),
            **{f"{p}%_latency": float(np.percentile(totals, p)) for p in (90, 95, 99)},
            "avg_samples/s": self.num_samples / sum(totals),
            "avg_letters/s": self.num_symbols / sum(totals),
            "avg_RTF": seconds_of_speech / sum(totals),
        }
