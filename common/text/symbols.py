# SPDX-License-Identifier: BSD-3-Clause
"""The symbol sets: what a model can read, in the order of its embedding rows."""

from __future__ import annotations

import string

from common.text.tables import words

PADDING = "_"

_VOWELS = words("AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW")
_CONSONANTS = words("B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH")
PHONEMES = tuple(
    sorted([*_CONSONANTS, *(vowel + stress for vowel in _VOWELS for stress in ("", "0", "1", "2"))])
)
ARPABET = tuple(f"@{phoneme}" for phoneme in PHONEMES)

_PINYIN = words(
    "^ A AI AN ANG AO B C CH D E EI EN ENG ER F G H I IE IN ING IU J K L M N O ONG OU P Q R S SH "
    "T U UI UN V VE VN W X Y Z ZH 1 2 3 4 5"
)
_MANDARIN_PUNCTUATION = "，。？！；：、‘’“”（）【】「」《》"  # noqa: RUF001 - full width is meant
_MANDARIN = tuple(f"#{sound}" for sound in [*_PINYIN, *_MANDARIN_PUNCTUATION])

_UPPER, _LOWER = string.ascii_uppercase, string.ascii_lowercase
_BASIC = (*"_-!'(),.:;? ", *_UPPER, *_LOWER, *ARPABET)
_EXPANDED_SIGNS = "!'\",.:;? #%&*+-/[]()_@©°½—₩€$áçéêëñöøćž"

SYMBOL_SETS = {
    "english_basic": _BASIC,
    "english_basic_lowercase": (*"_-!'\"(),.:;? ", *_LOWER, *ARPABET),
    "english_expanded": (*_EXPANDED_SIGNS, *_UPPER, *_LOWER, *ARPABET),
    "english_mandarin_basic": (*_BASIC, *_MANDARIN),
}


def symbol_set(name: str) -> tuple[str, ...]:
    """The symbols of the set `name`; a symbol's place is its id.

    Raises:
        ValueError: there is no such set.
    """
    if name not in SYMBOL_SETS:
        known = ", ".join(SYMBOL_SETS)
        raise ValueError(f"--symbol-set must be one of {known}, got {name}")
    return SYMBOL_SETS[name]
