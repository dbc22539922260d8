# SPDX-License-Identifier: BSD-3-Clause
"""`python -m common.text`: shows how each line of standard input will be read."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from common.cli import FlagParser, flag
from common.config import TextConfig
from common.text.processor import TextProcessor


@dataclass(frozen=True, kw_only=True)
class ReadingConfig(TextConfig):
    """Text: how it is read."""

    text_cleaners: tuple[str, ...] = flag(
        ("english_cleaners_v2",), help="cleaners, applied in this order"
    )
    seed: int = flag(1234, help="seed for --p-arpabet between 0 and 1")


def main() -> None:
    parser = FlagParser(
        "Prints one JSON line for each line of standard input: how will it be read?",
        ReadingConfig,
        prog="python -m common.text",
    )
    config = parser.build(ReadingConfig, parser.parse())
    try:
        processor = TextProcessor(config)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    rng = random.Random(config.seed)
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        for line in _lines():
            reading = processor.read(line, rng)._asdict()
            if not reading["dropped"]:
                del reading["dropped"]
            print(json.dumps(reading, ensure_ascii=False))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has left; Python must not fail again when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ValueError as error:
        sys.stdout.flush()
        parser.error(str(error))


def _lines() -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"standard input, line {number}, is not UTF-8 text ({error.reason} at byte "
                f"{error.start}): convert it first, for example with iconv"
            ) from error


if __name__ == "__main__":
    main()
