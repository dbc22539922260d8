# SPDX-License-Identifier: BSD-3-Clause
"""Measures how fast FastPitch's batches are made from packed features, next to plain ways.

Run from the repository's root: python -m benchmarks.loader
"""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from benchmarks.corpus import PITCH, draw_frames, make_corpus, make_unread_corpus, utterances_of
from benchmarks.pitch import cpu_name
from benchmarks.plain.data import PlainDataset
from common.buckets import Buckets
from common.cli import FlagParser, flag, flag_name
from common.config import AudioConfig, DataConfig, TextConfig
from common.distributed import Processes
from common.filelists import Utterance
from common.heap import keep_freed_memory
from common.loaders import EpochBatches, make_loader
from common.text import TextProcessor
from fastpitch.data_function import FastPitchDataset
from fastpitch.packed import open_packed

AUDIO = AudioConfig()
TEXT = TextConfig(text_cleaners=("english_cleaners_v2",), p_arpabet=1.0)


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Benchmark: on how much data, how often."""

    clips: int = flag(2000, help="clips of 1 to 10 s, generated")
    slow_clips: int = flag(256, help="of these, for ways that are slow")
    startup_clips: int = flag(13100, help="clips whose start-up is measured; LJSpeech has 13,100")
    batch_size: int = flag(32, short="-bs", help="clips per batch")
    num_workers: int = flag(2, help="processes that load data, where there are any")
    runs: int = flag(5, help="epochs that each is run; the median counts")

    def __post_init__(self) -> None:
        for name in ("clips", "slow_clips", "startup_clips", "batch_size", "runs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{flag_name(name)} must be 1 or more, got {getattr(self, name)}")
        if self.num_workers < 0:
            raise ValueError(f"--num-workers must not be negative, got {self.num_workers}")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables; returns the exit code."""
    parser = FlagParser(__doc__.splitlines()[0], BenchmarkConfig)
    benchmark = parser.build(BenchmarkConfig, parser.parse(argv))
    keep_freed_memory()  # as a training does
    text = TextProcessor(TEXT)
    with tempfile.TemporaryDirectory() as folder:
        utterances, data = make_corpus(Path(folder), benchmark.clips, AUDIO, text)
        print(describe(utterances, benchmark))
        print("| features | processes | frames/s | ratio | between epochs, ms |")
        print("|---|--:|--:|--:|--:|")
        compare(make_ways(utterances, data, text, benchmark), benchmark.runs)
    with tempfile.TemporaryDirectory() as folder:
        data = make_unread_corpus(Path(folder), benchmark.startup_clips, AUDIO)
        checked, opened = measure_startup(data)
    print(
        f"\nStart-up on {benchmark.startup_clips} clips: {checked:.2f} s for file lists, texts and "
        f"the check of the data, {opened:.2f} s for the packed files.\n"
    )
    compare_padding(benchmark)
    return 0


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to make batches."""

    name: str
    loader: DataLoader


def make_ways(
    utterances: Sequence[Utterance], data: DataConfig, text: TextProcessor, config: BenchmarkConfig
) -> list[Way]:
    """The loaders to compare, the plain one first."""
    few = utterances[: config.slow_clips]
    from_mels = dataclasses.replace(data, load_mel_from_disk=True)
    mels = [
        dataclasses.replace(each, audio=data.dataset_path / "mels" / f"{each.name}.pt")
        for each in few
    ]
    packed = open_packed(utterances, data, AUDIO)

    def loader(
        dataset: PlainDataset | FastPitchDataset, num_workers: int, in_thread: bool = False
    ) -> DataLoader:
        size = min(config.batch_size, len(dataset))
        batches = EpochBatches(len(dataset), size, Processes(cuda=False), seed=1)
        return make_loader(dataset, batches, dataset.collate, num_workers, False, in_thread)

    def dataset(clips: Sequence[Utterance], data: DataConfig, **more) -> FastPitchDataset:
        return FastPitchDataset(clips, data, AUDIO, text, **PITCH, seed=1, **more)

    most = config.num_workers
    fast = dataset(utterances, data, source=packed)
    return [
        Way(name="plain, a file per clip", loader=loader(PlainDataset(mels, text), most)),
        Way(name="a file per clip", loader=loader(dataset(mels, from_mels), most)),
        Way(name="mels computed from audio", loader=loader(dataset(few, data), most)),
        Way(name="packed, with processes", loader=loader(fast, most)),
        Way(name="packed, without a thread", loader=loader(fast, 0)),
        Way(name="packed", loader=loader(fast, most, in_thread=True)),
    ]


def compare(ways: Sequence[Way], runs: int) -> None:
    """Prints a line for each way, measured in turns after an epoch to warm up."""
    measured: dict[int, list[tuple[float, float]]] = {}
    for run in range(runs + 1):
        for index, way in enumerate(ways):
            result = measure_epoch(way.loader, run + 1)
            if run > 0:
                measured.setdefault(index, []).append(result)
    medians = [tuple(map(statistics.median, zip(*measured[i], strict=True))) for i in measured]
    for way, (rate, waited) in zip(ways, medians, strict=True):
        ratio, processes = rate / medians[0][0], way.loader.num_workers
        print(f"| {way.name} | {processes} | {rate:,.0f} | {ratio:.1f} | {1000 * waited:.0f} |")


def measure_epoch(loader: DataLoader, epoch: int) -> tuple[float, float]:
    """Frames a second, and seconds until the first batch."""
    loader.batch_sampler.epoch = epoch
    begin = time.perf_counter()
    num_frames, first = 0, None
    for batch in loader:
        first = first or time.perf_counter()
        num_frames += int(batch.mel_lens.sum())
    return num_frames / (time.perf_counter() - begin), first - begin


def measure_startup(data: DataConfig) -> tuple[float, float]:
    """Seconds to read and check the lists, and to open the packed files."""

    def seconds_of(work: Callable[[], object]) -> tuple[object, float]:
        begin = time.perf_counter()
        return work(), time.perf_counter() - begin

    utterances, checked = seconds_of(lambda: utterances_of(data, AUDIO, TextProcessor(TEXT)))
    _, opened = seconds_of(lambda: open_packed(utterances, data, AUDIO))
    return checked, opened


def compare_padding(benchmark: BenchmarkConfig) -> None:
    """Prints how much of batches is padding, by how clips come together."""
    lengths = draw_frames(benchmark.startup_clips, AUDIO)
    print(f"| batches of {len(lengths)} clips | padding, % of frames |")
    print("|---|--:|")
    limit = benchmark.batch_size * max(lengths)
    for name, size, buckets in (
        ("shuffled", benchmark.batch_size, None),
        ("--bucket", benchmark.batch_size, Buckets(lengths=lengths)),
        (
            f"--max-batch-frames {limit}, up to {4 * benchmark.batch_size} clips",
            4 * benchmark.batch_size,
            Buckets(lengths=lengths, max_frames=limit),
        ),
    ):
        batches = EpochBatches(len(lengths), size, Processes(cuda=False), seed=1, buckets=buckets)
        print(f"| {name} | {100 * padding_of(batches, lengths):.1f} |")


def padding_of(batches: EpochBatches, lengths: Sequence[int]) -> float:
    """The share of padding in the frames of an epoch."""
    frames = [[lengths[index] for _, index in batch] for batch in batches]
    return 1 - sum(map(sum, frames)) / sum(len(batch) * max(batch) for batch in frames)


def describe(utterances: Sequence[Utterance], config: BenchmarkConfig) -> str:
    """What was measured, with what, on what."""
    frames = [utterance.num_frames for utterance in utterances]
    return (
        f"{cpu_name()}, {os.cpu_count()} cores; Python {platform.python_version()}, PyTorch "
        f"{torch.__version__}, float32.\n{len(frames)} generated clips, "
        f"{min(frames)} to {max(frames)} frames, files in the system's cache; batches of "
        f"{config.batch_size} with text, mel, pitch, energy and prior; real frames without "
        f"padding; median of {config.runs} epochs after one to warm up.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
