# SPDX-License-Identifier: BSD-3-Clause
"""Every number in a text as a careful reader says it."""

from __future__ import annotations

import re

from common.text.counting import (
    cardinal,
    code,
    count,
    count_or_year,
    decimal,
    digit_by_digit,
    ordinal,
    plural,
)
from common.text.times import expand_dates, expand_times
from common.text.units import expand_units

_DIGIT = re.compile(r"\d")
_TELEPHONE = re.compile(
    r"(?<![\w.+(-])(?:"
    r"(?:\+?\d{1,3}[ .-])?(?:\(\d{3,5}\) ?|\d{3}[ .-])\d{3,4}[ .-]\d{4}"  # (555) 555-0199
    r"|\d+(?:-\d+){2,}"  # 1-800-555-0199 and other numbers in three groups or more
    r"|\d\d[1-9]-\d{4}"  # 555-0199
    r"|\+\d{1,3}(?: \(?\d{1,5}\)?){2,6}"  # +44 20 7946 0958
    r")(?![\w-])"
)
_EMERGENCY = re.compile(
    r"(?P<verb>\b(?:call|dial|phone|ring)(?:s|ed|ing)?\s)(?P<number>911|999|112|988)\b(?![,.]?\d)"
    r"|(?<![\d,.-])911(?![\d-]|[,.]\d)(?=\s(?:call|dispatch|operator|service|is\b|was\b)|(?!\s\w))",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"\b((?:boeing|airbus|flight|route|highway|interstate|room|suite|area code)\s)(\d{3})\b",
    re.IGNORECASE,
)
_VERSION = re.compile(r"(?<![\d.])\d+(?:\.\d+){2,}(?!\d)")
_RANGE = re.compile(r"(?<![\w.,:/-])(\d+(?:[.,:]\d+)*)-(?=(\d+(?:[.,:]\d+)*)(?![\d-]))")
_SHORT_YEAR = re.compile(r"(?<!\w)'(?=\d\d\b(?!'))")
_MINUS = re.compile(r"(?<![\w.,)%-])-(?=\.?\d)")
_SEVERAL = re.compile(r"(?<![\w.,])(?:'(?=\d\ds\b))?(\d+)'?s\b")
_ORDINAL = re.compile(r"(?<![\d,])(\d+(?:,\d{3})*)(?:st|nd|rd|th)\b", re.IGNORECASE)
_BY = re.compile(r"(?<=\d)\s?x\s?(?=\d)", re.IGNORECASE)
_FRACTION = re.compile(r"(?<![\w/.,])(?:(\d+)[ -])?(\d\d?)/(\d{1,3})(?![\w/])")
_NUMBER = re.compile(
    r"(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.(?P<fraction>\d+))?|(?<!\w)\.(?P<bare>\d+)"
)
_DENOMINATORS = {"2": "half", "4": "quarter"}
_SPOKEN_DENOMINATORS = {*map(str, range(2, 11)), "12", "16", "20", "32", "64", "100"}


def expand_numbers(text: str) -> str:
    """Replaces every digit by words; what a number means is judged by its shape and neighbours."""
    if not _DIGIT.search(text):  # as in most texts: a quarter of the time that cleaning takes
        return text
    text = expand_dates(text)
    text = _TELEPHONE.sub(_telephone, text)
    text = _EMERGENCY.sub(_emergency, text)
    text = _NAMED.sub(lambda match: match[1] + code(match[2]), text)
    text = _VERSION.sub(lambda match: " point ".join(map(code, match[0].split("."))), text)
    text = _RANGE.sub(_range, text)
    text = _SHORT_YEAR.sub("", text)
    text = _MINUS.sub("minus ", text)
    text = expand_times(text)
    text = expand_units(text)
    text = _SEVERAL.sub(lambda match: _several(match[0], match[1]), text)
    text = _ORDINAL.sub(lambda match: ordinal(match[1]), text)
    text = _BY.sub(" by ", text)
    text = _FRACTION.sub(_fraction, text)
    return _NUMBER.sub(_number, text)


def _telephone(match: re.Match) -> str:
    groups = re.findall(r"\d+", match[0])
    words = [
        count(group) if re.fullmatch("[1-9]00", group) else digit_by_digit(group)
        for group in groups
    ]
    separator = " " if all(len(group) == 1 for group in groups) else ", "
    return ("plus " if match[0].startswith("+") else "") + separator.join(words)


def _several(written: str, digits: str) -> str:
    words = code(digits) if len(digits) == 3 else count_or_year(digits)
    if written.endswith("'s") and not digits.endswith("0"):
        return f"{words}'s"  # the possessive, 1984's; but 1980's are years
    return plural(words.removeprefix("one "))


def _emergency(match: re.Match) -> str:
    return (match["verb"] or "") + digit_by_digit(match["number"] or "911")


def _range(match: re.Match) -> str:
    is_idiom = match[1] == match[2]  # 50-50, 20-20
    return f"{match[1]} " if is_idiom else f"{match[1]} to "


def _fraction(match: re.Match) -> str:
    whole, numerator, denominator = match[1], int(match[2]), match[3]
    if denominator not in _SPOKEN_DENOMINATORS or not 0 < numerator < int(denominator):
        return match[0]
    part = _DENOMINATORS.get(denominator) or ordinal(denominator).removeprefix("one ")
    if numerator > 1:
        part = "halves" if part == "half" else part + "s"
    if not whole:
        return f"{cardinal(numerator)} {part}"
    return f"{count(whole)} and {'a' if numerator == 1 else cardinal(numerator)} {part}"


def _number(match: re.Match) -> str:
    whole, fraction = match["whole"], match["fraction"] or match["bare"]
    if fraction:
        return decimal(whole or "", fraction)
    return count(whole) if "," in whole else count_or_year(whole)
