# SPDX-License-Identifier: BSD-3-Clause
"""Abbreviations that stand for a word: titles, companies, streets, months, references."""

from __future__ import annotations

import re

from common.text.tables import (
    ABBREVIATIONS,
    ABBREVIATIONS_BEFORE_NUMBERS,
    CAPITALISED_ABBREVIATIONS,
)

_ABBREVIATION = re.compile(
    rf"\b(?P<any>(?i:{'|'.join(ABBREVIATIONS)}))\."
    rf"|\b(?P<capitalised>{'|'.join(CAPITALISED_ABBREVIATIONS)})\."
    r"|\b(?P<title>(?:Mr|MR|Mrs|MRS|Ms|Dr|St)(?=\s[A-Z])|[JS]r\b(?=\s[A-Z]|[,;]|$))"
    rf"|\b(?P<reference>(?i:{'|'.join(ABBREVIATIONS_BEFORE_NUMBERS)}))\.\s?(?=\d)"
)
_STREET = re.compile(
    r"(?P<ordinal>\d(?:st|nd|rd|th)\s)?(?P<name>\b[A-Z][a-z']+\s)?"
    r"\b(?P<word>St|Dr)\.(?P<capital_follows>(?=\s[A-Z]))?"
)
_HOUSE_NUMBER = re.compile(r"\b\d+\s(?:[A-Z][a-z']+\s){1,2}$")
_LONGEST_ADDRESS = 60  # characters searched for a house number
_WAYS = {"St": "street", "Dr": "drive"}
_END = re.compile(r"[\"']*\s*$")
_NEW_SENTENCE = re.compile(r"\s+[\"'(]?[A-Z]")


def expand_abbreviations(text: str) -> str:
    """ "Mr. Smith" -> "mister Smith"; "Main St." -> "Main street", "St. Paul" -> "saint Paul".

    The full stop goes with the abbreviation, but not the one that also ends the text.
    """
    text = _STREET.sub(_street, text)
    return _ABBREVIATION.sub(_abbreviation, text)


def _street(match: re.Match) -> str:
    capital_follows = match["capital_follows"] is not None
    start = max(0, match.start("word") - _LONGEST_ADDRESS)
    has_number = match["ordinal"] or _HOUSE_NUMBER.search(match.string[start : match.start("word")])
    if not has_number and (capital_follows or not match["name"]):
        return match[0]
    return f"{match['ordinal'] or ''}{match['name'] or ''}{_WAYS[match['word']]}{_stop(match)}"


def _abbreviation(match: re.Match) -> str:
    if match["reference"]:
        return ABBREVIATIONS_BEFORE_NUMBERS[match["reference"].lower()] + " "
    if match["title"]:
        return ABBREVIATIONS[match["title"].lower()]
    if match["capitalised"]:
        return CAPITALISED_ABBREVIATIONS[match["capitalised"]] + _stop(match)
    word = match["any"].lower()
    if word == "etc" and _NEW_SENTENCE.match(match.string, match.end()):
        return "et cetera."
    return ABBREVIATIONS[word] + _stop(match)


def _stop(match: re.Match) -> str:
    return "." if _END.match(match.string, match.end()) else ""
