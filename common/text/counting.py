# SPDX-License-Identifier: BSD-3-Clause
"""One number in words: as a count, a year, a code, an ordinal or digit by digit."""

from __future__ import annotations

import re

from common.text.tables import words

_LONGEST_COUNT = 15  # digits; a longer number is read digit by digit
_SMALL = words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_TENS = words("twenty thirty forty fifty sixty seventy eighty ninety")
_SCALES = words("thousand million billion trillion")
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_LAST_WORD = re.compile(r"\w+$")


def cardinal(number: int) -> str:
    """1234 -> "one thousand two hundred and thirty four"."""
    return formal(number).replace(",", "").replace("-", " ")


def formal(number: int) -> str:
    """1234 -> "one thousand, two hundred and thirty-four", as sums of money are written out."""
    if number < 1000:
        return _below_thousand(number)
    rest, last = divmod(number, 1000)
    groups = [_below_thousand(last)] if last else []
    for scale in _SCALES:
        rest, group = divmod(rest, 1000)
        if group:
            groups.insert(0, f"{_below_thousand(group)} {scale}")
    if 0 < last < 100:
        return f"{', '.join(groups[:-1])} and {groups[-1]}"
    return ", ".join(groups)


def _below_thousand(number: int) -> str:
    if number >= 100:
        hundreds, rest = divmod(number, 100)
        return f"{_SMALL[hundreds]} hundred" + (f" and {_below_thousand(rest)}" if rest else "")
    if number < 20:
        return _SMALL[number]
    tens, ones = divmod(number, 10)
    return _TENS[tens - 2] + (f"-{_SMALL[ones]}" if ones else "")


def ordinal(digits: str) -> str:
    """ "21" -> "twenty-first"."""
    digits = digits.replace(",", "")
    if len(digits) > _LONGEST_COUNT:
        return _LAST_WORD.sub(_ordinal_word, digit_by_digit(digits, "zero"))
    return _LAST_WORD.sub(_ordinal_word, formal(int(digits)).replace(",", ""))


def _ordinal_word(match: re.Match) -> str:
    word = match[0]
    if word.endswith("y"):
        return word[:-1] + "ieth"
    return _ORDINALS.get(word, word + "th")


def digit_by_digit(digits: str, zero: str = "oh") -> str:
    """ "0199" -> "oh one nine nine"."""
    return " ".join(zero if digit == "0" else cardinal(int(digit)) for digit in digits)


def count(digits: str) -> str:
    """A number that counts or measures: "1250" -> "one thousand two hundred and fifty".

    Whole hundreds below ten thousand are read as such ("fifteen hundred"); a leading zero means
    that the digits matter, not the value ("0199").
    """
    digits = digits.replace(",", "")
    if len(digits) > _LONGEST_COUNT or (len(digits) > 1 and digits[0] == "0"):
        return digit_by_digit(digits)
    return _hundreds(digits) or cardinal(int(digits))


def count_formally(digits: str) -> str:
    """As `count`, with the commas and hyphens of writing: "one thousand, two hundred and ten"."""
    digits = digits.replace(",", "").lstrip("0") or "0"
    if len(digits) > _LONGEST_COUNT:
        return digit_by_digit(digits)
    return _hundreds(digits) or formal(int(digits))


def count_or_year(digits: str) -> str:
    """A bare number; four digits up to 2999 are read as a year: "1994", "2005", "1901"."""
    if len(digits) != 4 or not "1010" <= digits < "3000":
        return count(digits)
    if digits[:3] == "200":
        return f"two thousand {cardinal(int(digits[3]))}" if digits[3] != "0" else "two thousand"
    return _in_pairs(digits)


def code(digits: str) -> str:
    """A number that names a thing: "380" -> "three eighty", "101" -> "one oh one"."""
    if len(digits) <= 2 or digits[0] == "0":
        return count(digits)
    if len(digits) == 3:
        return _in_pairs(digits)
    return count_or_year(digits) if len(digits) == 4 else digit_by_digit(digits)


def decimal(whole: str, fraction: str) -> str:
    """ "3", "14" -> "three point one four"; without a whole part "point one four"."""
    return f"{count(whole) if whole else ''} point {digit_by_digit(fraction, 'zero')}".strip()


def plural(words: str) -> str:
    """Several of a number: "nineteen eighty" -> "nineteen eighties"."""
    if words.endswith("y"):
        return words[:-1] + "ies"
    return words + ("es" if words.endswith("x") else "s")


def _hundreds(digits: str) -> str | None:
    if len(digits) == 4 and digits.endswith("00") and digits[1] != "0":
        return f"{cardinal(int(digits[:2]))} hundred"
    return None


def _in_pairs(digits: str) -> str:
    if digits.endswith("000"):
        return cardinal(int(digits))
    first, last = cardinal(int(digits[:-2])), digits[-2:]
    return f"{first} hundred" if last == "00" else f"{first} {count(last)}"
