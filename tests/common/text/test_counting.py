# SPDX-License-Identifier: BSD-3-Clause
"""Single numbers in words."""

from __future__ import annotations

import pytest

from common.text.counting import cardinal, code, count, count_or_year, formal, ordinal

VALUES = {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7}
VALUES |= {"eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13}
VALUES |= {"fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18}
VALUES |= {"nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60}
VALUES |= {"seventy": 70, "eighty": 80, "ninety": 90}
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}


def value_of(words: str) -> int:
    """The number that the words of a cardinal mean."""
    total = group = 0
    for word in words.replace(" and ", " ").split():
        if word == "hundred":
            group *= 100
        elif word in SCALES:
            total, group = total + group * SCALES[word], 0
        else:
            group += VALUES[word]
    return total + group


def test_cardinals_mean_their_number():
    numbers = [*range(2500), *(7919**power % 10**15 for power in range(1, 400))]
    assert [value_of(cardinal(number)) for number in numbers] == numbers


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (101, "one hundred and one"),
        (1005, "one thousand and five"),
        (1234, "one thousand, two hundred and thirty-four"),
        (1_000_001, "one million and one"),
        (1_000_100, "one million, one hundred"),
        (10**14, "one hundred trillion"),
    ],
)
def test_formal_numbers_have_commas_hyphens_and_and(number: int, words: str):
    assert formal(number) == words


def test_ordinals_follow_the_last_word():
    ordinals = [ordinal(str(number)) for number in (1, 2, 3, 5, 8, 9, 12, 20, 21)]
    assert (
        " ".join(ordinals) == "first second third fifth eighth ninth twelfth twentieth twenty-first"
    )
    assert ordinal("1,900") == "one thousand nine hundredth"
    assert ordinal("1" * 20).endswith("one first")


def test_the_same_digits_count_date_and_name():
    assert count("1250") == "one thousand two hundred and fifty"
    assert count_or_year("1250") == "twelve fifty"
    assert code("380") == "three eighty"
    assert count("1500") == count_or_year("1500") == "fifteen hundred"
