# SPDX-License-Identifier: BSD-3-Clause
"""The cleaners: from a text as written to a text as read, in lower case."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from common.text.abbreviations import expand_abbreviations
from common.text.characters import collapse_whitespace, tidy, to_ascii
from common.text.numbers import expand_numbers
from common.text.spelling import (
    expand_addresses,
    expand_roman_numerals,
    separate_letters_and_digits,
    spell_acronyms,
)

Cleaner = Callable[[str], str]

_SIGNS = (
    (re.compile(r"#(?=\d)"), "number "),
    (re.compile(r"~(?=\d)"), "about "),
    (re.compile(r"(?<=\d)\s?\*\s?(?=\d)"), " times "),
    (re.compile(r"(?<=[\d\s])>(?=[\d\s])"), " greater than "),
    (re.compile(r"(?<=[\d\s])<(?=[\d\s])"), " less than "),
)
_SIGN_WORDS = str.maketrans(
    {"&": " and ", "%": " percent", "@": " at ", "+": " plus ", "=": " equals ", "°": " degrees"}
    | {"²": " squared", "³": " cubed", "µ": "micro"}
    | dict.fromkeys("_*|\\^", " ")
)
_SPACE_BEFORE_PUNCTUATION = re.compile(r" (?=[,.;:!?])")


def basic_cleaners(text: str) -> str:
    """Lower case and single spaces."""
    return collapse_whitespace(tidy(text).lower())


def transliteration_cleaners(text: str) -> str:
    """As `basic_cleaners`, with accents and foreign letters as ASCII."""
    return collapse_whitespace(to_ascii(tidy(text)).lower())


def english_cleaners(text: str) -> str:
    """Abbreviations and numbers in words; letters are left as they are ("nasa", "mp three")."""
    return _finish(expand_numbers(_name_signs(expand_abbreviations(to_ascii(tidy(text))))))


def english_cleaners_v2(text: str) -> str:
    """As `english_cleaners`; also acronyms, codes, Roman numerals, addresses and slashes."""
    text = collapse_whitespace(to_ascii(tidy(text)))
    text = expand_addresses(text)
    text = expand_abbreviations(text)
    text = expand_roman_numerals(text)
    text = separate_letters_and_digits(text)
    text = expand_numbers(_name_signs(text)).replace("/", " ")
    text = spell_acronyms(text)
    return _SPACE_BEFORE_PUNCTUATION.sub("", _finish(text))


CLEANERS: dict[str, Cleaner] = {
    "basic_cleaners": basic_cleaners,
    "transliteration_cleaners": transliteration_cleaners,
    "english_cleaners": english_cleaners,
    "english_cleaners_v2": english_cleaners_v2,
}


def cleaners(names: Sequence[str]) -> tuple[Cleaner, ...]:
    """The cleaners called `names`, in this order.

    Raises:
        ValueError: there is no such cleaner.
    """
    for name in names:
        if name not in CLEANERS:
            known = ", ".join(CLEANERS)
            raise ValueError(f"--text-cleaners must be among {known}, got {name}")
    return tuple(CLEANERS[name] for name in names)


def _name_signs(text: str) -> str:
    for pattern, words in _SIGNS:
        text = pattern.sub(words, text)
    return text


def _finish(text: str) -> str:
    return collapse_whitespace(text.translate(_SIGN_WORDS).lower())
