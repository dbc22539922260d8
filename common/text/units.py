# SPDX-License-Identifier: BSD-3-Clause
"""Units of measurement in words, where they follow a number."""

from __future__ import annotations

import re

from common.text.counting import count
from common.text.tables import UNITS

_INVARIABLE = ("hertz", "billion", "million")
_MEASURE = re.compile(r"\w+(?= per | celsius| fahrenheit|$)")  # the word that has a plural
_NAMES = "|".join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True))
_NAMES = _NAMES.replace(r"sq\-", r"sq\.?\s")
_UNIT = re.compile(
    r"(?<![\d.,])(?P<number>(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?)(?<=\d)(?P<gap>\s?|-)"
    rf"(?P<unit>{_NAMES})(?![\w'/²]|\.\w)(?:\.(?=\s[a-z\d]|[,;:]))?"
)
_BARE_TEMPERATURE = re.compile(r"\b(1?\d\d)([FC])\b")
_FEET_AND_INCHES = re.compile(r"\b(\d)'\s?(\d\d?)\"")


def expand_units(text: str) -> str:
    """ "5 km" -> "five kilometers"; "a 5-km run" -> "a five-kilometer run"."""
    text = _BARE_TEMPERATURE.sub(r"\1°\2", text)
    text = _FEET_AND_INCHES.sub(r"\1 foot \2", text)
    return _UNIT.sub(_unit, text)


def is_measured(token: str) -> bool:
    """Whether a token of letters and digits is a number with its unit ("5km", "75F")."""
    return bool(_UNIT.fullmatch(token) or _BARE_TEMPERATURE.fullmatch(token))


def _unit(match: re.Match) -> str:
    number, singular = match["number"], UNITS[re.sub(r"\.?\s", "-", match["unit"])]
    words = number if "." in number else count(number)
    if match["gap"] == "-":
        return f"{words}-{singular}"
    if number == "1" or singular.endswith(_INVARIABLE):
        return f"{words} {singular}"
    return f"{words} {_MEASURE.sub(_plural, singular, count=1)}"


def _plural(match: re.Match) -> str:
    return "feet" if match[0] == "foot" else f"{match[0]}s"
