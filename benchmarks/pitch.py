# SPDX-License-Identifier: BSD-3-Clause
"""Measures how fast pitch is found, next to librosa's pyin, and whether both find the same.

Run from the repository's root: python -m benchmarks.pitch [--audio FOLDER]
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import librosa
import numba
import numpy as np
import scipy

from benchmarks.speech import generate_speech
from common.audio import read_audio
from common.cli import FlagParser, flag
from common.config import F0_METHODS, AudioConfig
from common.pitch import HIGHEST_PITCH_HZ, LOWEST_PITCH_HZ, estimate_pitch
from common.pitch_libraries import LIBRARIES

# From librosa 1.0 on its default leaves out unlikely transitions.
EXACT = (
    {"transition_min_prob": None}
    if "transition_min_prob" in inspect.signature(librosa.pyin).parameters
    else {}
)
SECONDS_PER_CLIP = 6.0


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Benchmark: on what, how often."""

    audio: Path | None = flag(None, help="folder of WAV or FLAC files (otherwise generated speech)")
    seconds: float = flag(30.0, help="length of the generated speech")
    runs: int = flag(3, help="times that each is run; the median counts")

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise ValueError(f"--runs must be 1 or more, got {self.runs}")
        if self.seconds <= 0:
            raise ValueError(f"--seconds must be positive, got {self.seconds:g}")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit code."""
    parser = FlagParser(__doc__.splitlines()[0], BenchmarkConfig, AudioConfig)
    values = parser.parse(argv)
    benchmark = parser.build(BenchmarkConfig, values)
    config = parser.build(AudioConfig, values)
    try:
        clips = load_clips(benchmark, config.sampling_rate)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1

    def librosa_pitch(clip: np.ndarray) -> np.ndarray:
        return find_with_librosa(clip, config)

    seconds = sum(map(len, clips)) / config.sampling_rate
    print(describe(clips, seconds, benchmark, config))
    print("| pitch by | first call, s | s of audio per s of work | ratio |")
    print("|---|--:|--:|--:|")
    expected, first_call, slow = measure(librosa_pitch, clips, benchmark.runs)
    print(f"| librosa's pyin | {first_call:.2f} | {seconds / slow:.2f} | 1 |", flush=True)
    found = []
    for method in installed_methods():
        estimate = functools.partial(estimate_pitch, config=config, method=method)
        pitch, first_call, fast = measure(estimate, clips, benchmark.runs)
        print(f"| --f0-method {method} | {first_call:.2f} | {seconds / fast:.0f} ", end="")
        print(f"| {slow / fast:.0f} |", flush=True)
        found = found or pitch  # pyin's, which comes first
    print()
    print(compare(np.concatenate(found), np.concatenate(expected)))
    return 0


def installed_methods() -> list[str]:
    """What `--f0-method` can do here: our pyin, then others whose libraries are there."""
    return [
        method
        for method in F0_METHODS
        if method not in LIBRARIES or importlib.util.find_spec(LIBRARIES[method][0])
    ]


def load_clips(benchmark: BenchmarkConfig, sampling_rate: int) -> list[np.ndarray]:
    """The clips to measure on, each (T_audio,) float32 in [-1, 1]."""
    if benchmark.audio is None:
        num_clips = max(1, round(benchmark.seconds / SECONDS_PER_CLIP))
        seconds = benchmark.seconds / num_clips
        return [generate_speech(seconds, sampling_rate, seed) for seed in range(num_clips)]
    files = sorted(f for f in benchmark.audio.glob("*") if f.suffix.lower() in (".wav", ".flac"))
    if not files:
        raise FileNotFoundError(f"--audio {benchmark.audio}: expected WAV or FLAC files, got none")
    return [read_audio(file, sampling_rate) for file in files]


def find_with_librosa(audio: np.ndarray, config: AudioConfig) -> np.ndarray:
    """What `estimate_pitch` gave before: (T_mel,) in Hz, 0 where unvoiced."""
    pitch, _, _ = librosa.pyin(
        audio,
        fmin=LOWEST_PITCH_HZ,
        fmax=HIGHEST_PITCH_HZ,
        sr=config.sampling_rate,
        frame_length=config.filter_length,
        hop_length=config.hop_length,
        fill_na=0.0,
        **EXACT,
    )
    return pitch


def measure(
    function: Callable[[np.ndarray], np.ndarray], clips: Sequence[np.ndarray], runs: int
) -> tuple[list[np.ndarray], float, float]:
    """Results for the clips, seconds of the first call, median seconds of all clips after it."""
    begin = time.process_time()
    function(clips[0][:1000])
    first_call = time.process_time() - begin
    took = []
    for _ in range(runs):
        begin = time.process_time()
        pitch = [function(clip) for clip in clips]
        took.append(time.process_time() - begin)
    return pitch, first_call, statistics.median(took)


def compare(found: np.ndarray, expected: np.ndarray) -> str:
    """Where both agree, in a sentence."""
    both = (found > 0) & (expected > 0)
    voicing = ((found > 0) == (expected > 0)).mean()
    near = (np.abs(found - expected)[both] <= 0.1).mean() if both.any() else 1.0
    return (
        f"Same voicing on {voicing:.3%} of {len(found)} frames; within 0.1 Hz on {near:.3%} of "
        f"{both.sum()} frames that both call voiced."
    )


def describe(
    clips: Sequence[np.ndarray], seconds: float, benchmark: BenchmarkConfig, config: AudioConfig
) -> str:
    """What was measured, with what, on what."""
    source = "generated speech" if benchmark.audio is None else f"{len(clips)} files"
    return (
        f"{cpu_name()}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"librosa {librosa.__version__}, numpy {np.__version__}, scipy {scipy.__version__}, "
        f"numba {numba.__version__}.\n"
        f"{seconds:.0f} s of audio ({source}), {config.sampling_rate} Hz, frame "
        f"{config.filter_length}, hop {config.hop_length}. Work is CPU time, hence that of one "
        f"core; median of {benchmark.runs} runs after the first call, which loads or compiles.\n"
    )


def cpu_name() -> str:
    """As the system calls it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
