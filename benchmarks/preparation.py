# SPDX-License-Identifier: BSD-3-Clause
"""Measures how fast prepare_dataset.py makes mels and pitch, next to a plain loop over files.

Run from the repository's root: python -m benchmarks.preparation [--audio FOLDER]
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import librosa
import soundfile
import torch

from benchmarks.pitch import cpu_name
from benchmarks.plain.preparation import prepare_plainly
from benchmarks.processes import PeakMemory
from benchmarks.speech import generate_speech
from common.audio import write_wav
from common.cli import FlagParser, flag, flag_name
from common.config import AudioConfig
from common.parallel import available_cores

ROOT = Path(__file__).resolve().parent.parent
DIFFERENT_CLIPS = 20  # generated; the others repeat them under names of their own
SECONDS_BETWEEN_LOOKS = 0.01


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Benchmark: on what, how often."""

    audio: Path | None = flag(None, help="folder of WAV or FLAC files (otherwise generated speech)")
    clips: int = flag(600, help="clips of the corpus; those that there are, in turn")
    seconds: float = flag(6.5, help="length of a generated clip")
    plain_clips: int = flag(6, help="clips that the plain loop is measured on")
    processes: int = flag(available_cores(), help="of either")
    runs: int = flag(3, help="times that each is run; the median counts")

    def __post_init__(self) -> None:
        for name in ("clips", "seconds", "plain_clips", "processes", "runs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{flag_name(name)} must be positive, got {getattr(self, name)}")
        if self.plain_clips > self.clips:
            raise ValueError(
                f"--plain-clips must not exceed --clips {self.clips}, got {self.plain_clips}"
            )


class Measured(NamedTuple):
    """One way to prepare a corpus, medians."""

    num_clips: int
    start_seconds: float  # until the first clip is done, or could be worked on
    seconds_per_second: float  # of audio, per second of work after that
    megabytes: float


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit code."""
    parser = FlagParser(__doc__.splitlines()[0], BenchmarkConfig)
    benchmark = parser.build(BenchmarkConfig, parser.parse(argv))
    with tempfile.TemporaryDirectory() as folder:
        try:
            corpus = Corpus.build(benchmark, Path(folder))
        except (FileNotFoundError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(describe(corpus, benchmark))
        print(
            "| mels and pitch | clips | start-up, s | s of audio per s of work | ratio "
            "| peak memory of a process, MB |"
        )
        print("|---|--:|--:|--:|--:|--:|")
        plain = repeat(lambda: run_plain(corpus, benchmark), benchmark.runs)
        print(row("plain loop over files", plain, plain), flush=True)
        ours = repeat(lambda: run_command(corpus, benchmark), benchmark.runs)
        print(row("prepare_dataset.py", ours, plain), flush=True)
        begun = time.perf_counter()
        corpus.prepare(benchmark.processes)
        print(f"\nOnce more, with nothing left to do: {time.perf_counter() - begun:.1f} s.")
    day = 24 * 3600
    print(
        f"At these rates 24 hours of speech take {day / plain.seconds_per_second / 60:.0f} and "
        f"{day / ours.seconds_per_second / 60:.1f} minutes."
    )
    return 0


@dataclass(frozen=True)
class Corpus:
    """Clips in a folder, and a file list of them."""

    folder: Path
    clips: list[Path]
    sampling_rate: int

    @classmethod
    def build(cls, benchmark: BenchmarkConfig, folder: Path) -> Corpus:
        """As many clips as wanted; those that repeat others have names of their own."""
        wavs = folder / "wavs"
        wavs.mkdir()
        originals = _find(benchmark) or _generate(benchmark, folder)
        clips = []
        for number in range(benchmark.clips):
            original = originals[number % len(originals)]
            clips.append(wavs / f"{number:05d}{original.suffix.lower()}")
            shutil.copyfile(original, clips[-1])  # a link would be the same clip
        lines = [f"wavs/{clip.name}|Nobody knew why the train was late.\n" for clip in clips]
        (folder / "list.txt").write_text("".join(lines), encoding="utf-8")
        return cls(folder, clips, soundfile.info(clips[0]).samplerate)

    def seconds(self, num_clips: int) -> float:
        """How long the first clips are together."""
        return sum(soundfile.info(clip).duration for clip in self.clips[:num_clips])

    def prepare(self, processes: int) -> float:
        """Runs prepare_dataset.py; returns the seconds until its first clip was done."""
        mels = self.folder / "mels"
        is_new = not mels.is_dir()
        command = [sys.executable, "prepare_dataset.py", "--dataset-path", str(self.folder)]
        command += ["--wav-text-filelists", str(self.folder / "list.txt"), "--extract-mels"]
        command += ["--extract-pitch", "--n-workers", str(processes)]
        command += ["--sampling-rate", str(self.sampling_rate)]
        log = self.folder / "log.txt"  # not a pipe, which helpers hold open for a while
        begun = time.perf_counter()
        first = 0.0
        with (
            log.open("w", encoding="utf-8") as output,
            subprocess.Popen(command, cwd=ROOT, stderr=output) as process,
        ):
            while is_new and process.poll() is None and not first:
                if mels.is_dir() and any(mels.glob("*.pt")):
                    first = time.perf_counter() - begun
                time.sleep(SECONDS_BETWEEN_LOOKS)
        if process.returncode != 0:
            raise RuntimeError(f"prepare_dataset.py failed:\n{log.read_text(encoding='utf-8')}")
        return first

    def forget(self) -> None:
        """Removes what was prepared."""
        for name in ("mels", "pitch", "packed"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / "prepared.jsonl").unlink(missing_ok=True)


def run_command(corpus: Corpus, benchmark: BenchmarkConfig) -> Measured:
    """prepare_dataset.py, as a user runs it: checks, features, packing, statistics."""
    corpus.forget()
    memory = PeakMemory()
    begun = time.perf_counter()
    with memory.watch():
        first = corpus.prepare(benchmark.processes)
    work = time.perf_counter() - begun - first
    seconds = corpus.seconds(benchmark.clips)
    return Measured(benchmark.clips, first, seconds / work, memory.megabytes)


def run_plain(corpus: Corpus, benchmark: BenchmarkConfig) -> Measured:
    """The plain loop on a few clips, in processes that have found pitch before."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for feature in ("mels", "pitch"):
            (folder / feature).mkdir()
        config = AudioConfig(sampling_rate=corpus.sampling_rate)
        warm_up = folder / "short.wav"
        write_wav(warm_up, torch.zeros(5000), corpus.sampling_rate)
        memory = PeakMemory()
        begun = time.perf_counter()
        context = multiprocessing.get_context("spawn")
        with (
            memory.watch(),
            ProcessPoolExecutor(
                benchmark.processes, context, _begin_worker, (warm_up, folder, config)
            ) as executor,
        ):
            list(executor.map(time.sleep, [0.2] * benchmark.processes))  # all are there
            started = time.perf_counter()
            work = [
                executor.submit(prepare_plainly, clip, folder, config)
                for clip in corpus.clips[: benchmark.plain_clips]
            ]
            for each in work:
                each.result()
            ended = time.perf_counter()
    seconds = corpus.seconds(benchmark.plain_clips)
    rate = seconds / (ended - started)
    return Measured(benchmark.plain_clips, started - begun, rate, memory.megabytes)


def _begin_worker(clip: Path, folder: Path, config: AudioConfig) -> None:
    torch.set_num_threads(1)
    prepare_plainly(clip, folder, config)


def repeat(measure: Callable[[], Measured], runs: int) -> Measured:
    """The median of each number."""
    measured = [measure() for _ in range(runs)]
    return Measured(*map(statistics.median, zip(*measured, strict=True)))


def row(name: str, measured: Measured, plain: Measured) -> str:
    """A row of the table."""
    ratio = measured.seconds_per_second / plain.seconds_per_second
    return (
        f"| {name} | {measured.num_clips:.0f} | {measured.start_seconds:.1f} "
        f"| {measured.seconds_per_second:.1f} | {ratio:.3g} | {measured.megabytes:.0f} |"
    )


def _find(benchmark: BenchmarkConfig) -> list[Path]:
    if benchmark.audio is None:
        return []
    files = sorted(f for f in benchmark.audio.glob("*") if f.suffix.lower() in (".wav", ".flac"))
    if not files:
        raise FileNotFoundError(f"--audio {benchmark.audio}: expected WAV or FLAC files, got none")
    return files


def _generate(benchmark: BenchmarkConfig, folder: Path) -> list[Path]:
    files = []
    for seed in range(min(benchmark.clips, DIFFERENT_CLIPS)):
        files.append(folder / f"generated{seed}.wav")
        write_wav(files[-1], generate_speech(benchmark.seconds, 22050, seed), 22050)
    return files


def describe(corpus: Corpus, benchmark: BenchmarkConfig) -> str:
    """What was measured, with what, on what."""
    source = "generated speech" if benchmark.audio is None else "files of --audio, in turn"
    return (
        f"{cpu_name()}, {os.cpu_count()} cores, {benchmark.processes} processes each; Python "
        f"{platform.python_version()}, torch {torch.__version__}, librosa {librosa.__version__}.\n"
        f"{corpus.seconds(benchmark.clips):.0f} s of audio ({source}), {corpus.sampling_rate} Hz. "
        f"Median of {benchmark.runs} runs. The plain loop runs on its first clips, after one short "
        "clip that compiles; rates are after start-up, which for prepare_dataset.py is the time "
        "until the first clip is done.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
