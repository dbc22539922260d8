# SPDX-License-Identifier: BSD-3-Clause
"""Has the voice of the demo, which is CC0, read a text into a corpus, on all cores.

Run from the repository's root: python -m scripts.voice.make_corpus --texts FILE --output FOLDER
"""

from __future__ import annotations

import functools
import hashlib
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from common.cli import FlagParser, flag
from common.config import TextConfig
from common.parallel import run_parallel, show_progress
from common.text import TextProcessor
from scripts.demo.make_corpus import (
    Sentence,
    Voice,
    load_voice,
    sentences_left,
    speak_clips,
    write_metadata,
)
from scripts.make_filelists import EXTENSIONS

logger = logging.getLogger("make_corpus")

SHORTEST, LONGEST = 15, 180  # characters of a sentence: between one second and about twelve
CHARACTERS_PER_SECOND = 17.8  # of this voice
READABLE = re.compile(r"[A-Za-z0-9 ,.;:!?'\"$%&()-]+")
FEWEST_WORDS = 3
NUM_NAMED = 5  # in an error


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Corpus: what is read, and how much of it."""

    texts: Path = flag(
        help="a sentence a line, or lines of name|text as in LJSpeech's metadata.csv"
    )
    output: Path = flag(short="-o", help="folder of the corpus")
    hours: float = flag(3.0, help="of speech, as estimated from the number of letters")
    n_workers: int = flag(16, help="processes, at most one for each core")

    def __post_init__(self) -> None:
        for name in ("hours", "n_workers"):
            if not getattr(self, name) > 0:
                raise ValueError(f"--{name.replace('_', '-')} must be positive")


def main(argv: Sequence[str] | None = None) -> int:
    """Speaks what is missing; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = FlagParser(__doc__.splitlines()[0], CorpusConfig, prog="make_corpus")
    config = parser.build(CorpusConfig, parser.parse(argv))
    try:
        speak(config)
    except ModuleNotFoundError as error:
        parser.error(f"{error.name} is not installed: pip install -r requirements-demo.txt")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        logger.info("stopped; the same command continues where this one ended")
        return 130
    return 0


def speak(config: CorpusConfig) -> None:
    """Speaks the sentences that are missing, and tells how long all are."""
    sentences = list(choose(read_texts(config.texts), config.hours))
    if not sentences:
        raise ValueError(
            f"--texts {config.texts}: expected English sentences of {FEWEST_WORDS} words or more "
            f"and {SHORTEST} to {LONGEST} characters, got none"
        )
    left = sentences_left(sentences, _voice(), config.output)
    jobs = [(sentence, config.output) for sentence in left]
    for _ in show_progress(run_parallel(speak_clip, jobs, config.n_workers), len(jobs), "spoken"):
        pass
    write_metadata(sentences, config.output)
    infos = [soundfile.info(config.output / "wavs" / f"{each.name}.wav") for each in sentences]
    hours = sum(info.duration for info in infos) / 3600
    logger.info(
        "%s: %d clips, %.2f hours, %d of them new", config.output, len(infos), hours, len(left)
    )


def read_texts(path: Path) -> list[tuple[str, str]]:
    """(name, text) of each line; lines without a name are numbered.

    Raises:
        FileNotFoundError: there is no such file
        ValueError: it holds nothing, or gives two texts one name
    """
    if not path.is_file():
        raise FileNotFoundError(f"--texts {path}: no such file")
    texts = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        name, bar, rest = line.partition("|")
        if bar:
            file = Path(name)
            name = file.stem if file.suffix in EXTENSIONS else file.name
            texts.append((name, rest.rpartition("|")[2].strip()))
        elif line.strip():
            texts.append((f"line-{number:06d}", line.strip()))
    if not texts:
        raise ValueError(f"--texts {path}: expected a sentence a line, got none")
    counts = Counter(name for name, _ in texts)
    twice = [name for name in counts if counts[name] > 1]
    if twice:
        raise ValueError(
            f"--texts {path}: each name must be there once, since clips are called by it, but "
            f"{', '.join(twice[:NUM_NAMED])} {'is' if len(twice) == 1 else 'are'} there again"
        )
    return texts


def choose(texts: Iterable[tuple[str, str]], hours: float) -> Iterator[Sentence]:
    """Sentences of a good length in ordinary letters, each once, of that many hours together.

    The order is that of the texts' SHA-256: the same whatever other texts there are.
    """
    reader = TextProcessor(TextConfig(text_cleaners=("english_cleaners_v2",)))
    unique = {text: name for name, text in texts if is_readable(text)}
    seconds = 0.0
    for text in sorted(unique, key=lambda text: hashlib.sha256(text.encode()).digest()):
        if seconds >= 3600 * hours:
            return
        seconds += len(text) / CHARACTERS_PER_SECOND
        # The voice reads numbers in its own way; it is given what the recipe will read.
        yield Sentence(name=unique[text], text=text, spoken=reader.read(text).clean)


def is_readable(text: str) -> bool:
    """Whether a text makes a clip to learn from."""
    return (
        SHORTEST <= len(text) <= LONGEST
        and len(text.split()) >= FEWEST_WORDS
        and READABLE.fullmatch(text) is not None
    )


def speak_clip(job: tuple[Sentence, Path]) -> None:
    """Speaks a sentence into a corpus."""
    sentence, output = job
    speak_clips([sentence], _voice(), output)


@functools.cache
def _voice() -> Voice:
    return load_voice()


if __name__ == "__main__":
    sys.exit(main())
