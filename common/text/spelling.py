# SPDX-License-Identifier: BSD-3-Clause
"""Letters that are said one by one, Roman numerals, codes and addresses."""

from __future__ import annotations

import re

from common.text.counting import cardinal, code
from common.text.tables import (
    ACRONYMS_SAID_AS_WORDS,
    EMPHASISED_WORDS,
    LONG_ACRONYMS_SAID_AS_LETTERS,
    NUMBERED_DIVISIONS,
    RULERS,
)
from common.text.units import is_measured

_LONG_WORD = 5  # letters; capitals this long with a vowel are a word: UNICEF, WARNING
_VOWEL = re.compile("[AEIOUY]")
_CAPITALS = re.compile(
    r"(?<![A-Za-z])(?P<letters>[a-z]?[A-Z]{2,})(?:(?P<ending>'s|s)(?![A-Za-z'])|(?![A-Za-z]))"
    r"(?P<stop>\.(?!\.))?(?P<ampersand>(?=&))?"
)
_WORD = re.compile(r"[A-Za-z][A-Za-z']+")
_SENTENCE = re.compile(r"[^.!?]+[.!?]*|[.!?]+")
_LOUD_SHARE = 0.7  # of the words in capitals: then the writer shouts
_SURE_SHARE = 0.3


def spell_acronyms(text: str) -> str:
    """ "the FBI." -> "the f.b.i."; NASA, UNESCO and words put in capitals stay words."""
    return _SENTENCE.sub(_spell_in_sentence, text)


def _spell_in_sentence(sentence: re.Match) -> str:
    words = _WORD.findall(sentence[0])
    loud = [word for word in words if word.isupper()]
    surely_words = [word for word in loud if word in EMPHASISED_WORDS or len(word) >= _LONG_WORD]
    is_shouting = (
        len(loud) >= max(2, _LOUD_SHARE * len(words))
        and len(surely_words) >= _SURE_SHARE * len(loud)  # not just a list of acronyms
    )

    def spell(match: re.Match) -> str:
        letters, ending = match["letters"], match["ending"] or ""
        can_be_a_word = (
            _VOWEL.search(letters) is not None and letters not in LONG_ACRONYMS_SAID_AS_LETTERS
        )
        if (
            letters in ACRONYMS_SAID_AS_WORDS
            or (letters in EMPHASISED_WORDS and match["ampersand"] is None)
            or (can_be_a_word and (is_shouting or len(letters) >= _LONG_WORD))
        ):
            return match[0].lower()
        spelled = ".".join(letters.lower())
        return f"{spelled}'s{match['stop'] or ''}" if ending else f"{spelled}."

    return _CAPITALS.sub(spell, sentence[0])


_MERIDIEM = re.compile(r"(?<=\d)\s?([ap])\.?\s?m\b\.?(-(?=\d))?", re.IGNORECASE)
_DEGREE = re.compile(r"\bPh\.?D\b\.?")
_HYPHENATED_CODE = re.compile(r"\b([A-Z]{1,3})-(\d{1,4})\b(?!-)")
_CODE = re.compile(r"(?<![\w'])(?=[A-Za-z0-9]*\d)(?=[0-9]*[A-Za-z])[A-Za-z0-9]+\b")
_CODE_PART = re.compile(r"[A-Za-z]+|\d+")
_NO_CODE = re.compile(r"\d+(?:st|nd|rd|th|s|x\d+)", re.IGNORECASE)


def separate_letters_and_digits(text: str) -> str:
    """ "B2B" -> "B 2 B", "A380" -> "A three eighty", "5:30pm." -> "5:30 p.m."."""
    text = _MERIDIEM.sub(lambda m: f" {m[1].lower()}.m." + (" to " if m[2] else ""), text)
    text = _DEGREE.sub("p.h.d.", text)
    text = _HYPHENATED_CODE.sub(lambda match: f"{match[1]} {code(match[2])}", text)
    return _CODE.sub(_separate, text)


def _separate(match: re.Match) -> str:
    token = match[0]
    if _NO_CODE.fullmatch(token) or is_measured(token):
        return token
    parts = _CODE_PART.findall(token)
    return " ".join(code(part) if part.isdigit() and len(part) > 2 else part for part in parts)


_ROMAN = r"(?:C{1,3}|XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})"
_NUMBERED_DIVISION = re.compile(
    rf"\b((?i:{'|'.join(NUMBERED_DIVISIONS)})\s)(?=[IVXLC]{{2}}|[VX]\b)({_ROMAN})(?!\w)"
    rf"|\b((?:{'|'.join(word.title() for word in NUMBERED_DIVISIONS)})\s)(I)(?![\w'])"
)
_NUMBERED_NAME = re.compile(
    r"\b([A-Z][A-Za-z]+\s)(?=[IVX]{2})(X{0,3}(?:IX|IV|V?I{0,3}))(?!\w)"
    rf"|\b((?:{'|'.join(RULERS)})\s)([VX])(?![\w.])"
    r"|\b((?:King|Queen|Pope|Emperor|Empress|Tsar|Czar|Kaiser)\s[A-Z][a-z]+\s)(I)(?![\w'])"
)
_ROMAN_DIGITS = {"C": 100, "L": 50, "X": 10, "V": 5, "I": 1}


def expand_roman_numerals(text: str) -> str:
    """ "Louis XIV" -> "Louis fourteen", "Chapter IV" -> "Chapter four"; only after such words."""
    return _NUMBERED_NAME.sub(_roman, _NUMBERED_DIVISION.sub(_roman, text))


def _roman(match: re.Match) -> str:
    before, numeral = (group for group in match.groups() if group is not None)
    values = [_ROMAN_DIGITS[letter] for letter in numeral]
    following = [*values[1:], 0]
    number = sum(
        -value if value < after else value for value, after in zip(values, following, strict=True)
    )
    return before + cardinal(number)


_ADDRESS = re.compile(
    r"(?<![\w.@/+-])(?:https?://(?P<page>[\w./~@-]*\w)/?|www\.[\w./~-]*\w|[\w.+-]+@[\w-]+\.[\w.-]*\w"
    r"|[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|edu|gov)\b(?:/[\w./~-]*\w)?)"
)
_ADDRESS_SIGNS = str.maketrans(
    {
        ".": " dot ",
        "@": " at ",
        "/": " slash ",
        "-": " dash ",
        "_": " underscore ",
        "~": " tilde ",
        "+": " plus ",
    }
)


def expand_addresses(text: str) -> str:
    """ "mail@example.com" -> "mail at example dot com"; the scheme of a web address is left out."""
    return _ADDRESS.sub(_address, text)


def _address(match: re.Match) -> str:
    spoken = (match["page"] or match[0]).translate(_ADDRESS_SIGNS)
    return re.sub("^www ", "w.w.w. ", spoken)
