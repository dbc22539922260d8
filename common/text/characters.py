# SPDX-License-Identifier: BSD-3-Clause
"""Characters beyond ASCII: typography, accents, signs."""

from __future__ import annotations

import re
import unicodedata

from common.text.tables import words

# What typesetters use where a keyboard has an ASCII sign.
_TYPOGRAPHY = str.maketrans(
    dict.fromkeys("‘’‚‛′ʼ`´", "'")  # noqa: RUF001
    | dict.fromkeys("“”„‟″«»", '"')
    | dict.fromkeys("‐‑‒–−", "-")  # noqa: RUF001
    | dict.fromkeys("\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\ufe0e\ufe0f", "")
    | {"…": "..."}
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_WHITESPACE = re.compile(r"\s+")

_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_MICRO = re.compile("μ(?=[a-zA-Z])")
_GREEK_LETTER = re.compile(r"(?<![\u0370-\u03ff])[\u0391-\u03c9](?![\u0370-\u03ff])")
_VULGAR_FRACTION = re.compile(r"(?<=\d)(?=[¼½¾⅐-⅞])")
_DIAERESIS = re.compile("(?<=[Oo])ö")  # coöperate, not Köln
_LETTERS = dict(
    zip(
        "äöüÄÖÜßæÆœŒøØłŁđĐðÐþÞıħ",
        words("ae oe ue Ae Oe Ue ss ae Ae oe Oe o O l L d D d D th Th i h"),
        strict=True,
    )
)
_SIGNS = {
    "—": " -- ",
    "―": " -- ",
    "º": "°",
    "×": " times ",  # noqa: RUF001
    "÷": " divided by ",
    "±": " plus or minus ",
    "≈": " about ",
    "≤": " at most ",
    "≥": " at least ",
    "≠": " is not ",
    "∞": " infinity ",
    "√": " root ",
    "§": " section ",
    "№": " number ",
    "•": " ",
    "·": " ",
    "⁄": "/",  # noqa: RUF001
}
_KEPT = frozenset("°µ²³™℠")  # read with the number before them, or not at all


def tidy(text: str) -> str:
    """Typographic quotes, hyphens and dots as ASCII, control characters as spaces."""
    text = unicodedata.normalize("NFC", text).translate(_TYPOGRAPHY)
    return _CONTROL.sub(" ", text)


def collapse_whitespace(text: str) -> str:
    """One space for any whitespace, none around the text."""
    return _WHITESPACE.sub(" ", text).strip()


def to_ascii(text: str) -> str:
    """Letters and signs with a reading in English as ASCII ("Zoë" -> "Zoe", "ü" -> "ue", "½").

    What has none (emoji, other scripts) stays, so that the processor can report it.
    """
    if text.isascii():
        return text
    text = _MICRO.sub("µ", text)
    text = _GREEK_LETTER.sub(
        lambda match: f" {unicodedata.name(match[0]).split()[3].lower()} ", text
    )
    text = _VULGAR_FRACTION.sub(" ", text)
    return _NOT_ASCII.sub(_ascii, _DIAERESIS.sub("o", text))


def _ascii(match: re.Match) -> str:
    character = match[0]
    if character in _KEPT:
        return character
    known = _LETTERS.get(character) or _SIGNS.get(character)
    if known:
        return known
    parts = unicodedata.normalize("NFKD", character)
    plain = "".join(_SIGNS.get(part, part) for part in parts if not unicodedata.combining(part))
    return plain if plain.isascii() else character
