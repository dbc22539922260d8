# SPDX-License-Identifier: BSD-3-Clause
"""How the cleaners read what people write."""

from __future__ import annotations

import pytest

from common.text.cleaners import CLEANERS, cleaners, english_cleaners, english_cleaners_v2

READINGS = {
    # years, counts, codes
    "1000, 1900, 1901, 94": "one thousand, nineteen hundred, nineteen oh one, ninety four",
    "2000, 2005, 2010, 3000": "two thousand, two thousand five, twenty ten, three thousand",
    "1,234,567": "one million two hundred and thirty four thousand five hundred and sixty seven",
    "1,234 and 12300": "one thousand two hundred and thirty four and twelve thousand three hundred",
    "0199, 007": "oh one nine nine, oh oh seven",
    "1112223334445556": f"{'one ' * 3}{'two ' * 3}{'three ' * 3}{'four ' * 3}{'five ' * 3}six",
    "the 1980s, the '80s, 1980's": "the nineteen eighties, the eighties, nineteen eighties",
    "3.14, 0.5, .5": "three point one four, zero point five, point five",
    "version 3.11.2": "version three point eleven point two",
    "flight 370, room 101": "flight three seventy, room one oh one",
    # ordinals, fractions, ranges
    "1st, 22nd, 101st": "first, twenty-second, one hundred and first",
    "1/2, 2 3/4, 2½": "one half, two and three quarters, two and a half",
    "1990-1995, 5-4": "nineteen ninety to nineteen ninety five, five to four",
    "24/7, 9/11, 50-50": "twenty four seven, nine eleven, fifty fifty",
    "-5 and 4x4": "minus five and four by four",
    # times and dates
    "at 10:00, 10:00 a.m., 5:30pm.": "at ten o'clock, ten a.m., five thirty p.m.",
    "23:59, 10:05, 15:00, 00:00": "twenty three:fifty nine, ten:oh five, fifteen hundred, midnight",
    "9.30am, 9.30 p.m.": "nine thirty a.m., nine thirty p.m.",
    "2024-01-15": "january fifteen, twenty twenty four",
    "12/25/2023, 31/12/1999": (
        "december twenty five, twenty twenty three, december thirty one, nineteen ninety nine"
    ),
    # telephones
    "Call 911. Dial 999.": "call nine one one. dial nine nine nine.",
    "the 911 call": "the nine one one call",
    "911 people": "nine hundred and eleven people",
    "555-0199": "five five five, oh one nine nine",
    "(555) 555-0123": "five five five, five five five, oh one two three",
    "+44 20 7946 0958": "plus four four, two oh, seven nine four six, oh nine five eight",
    # units
    "5 km, 1 km, a 10-km run": "five kilometers, one kilometer, a ten-kilometer run",
    "-5°C, 75F, 20°": "minus five degrees celsius, seventy five degrees fahrenheit, twenty degrees",
    "5 ft. tall, 180 lbs.": "five feet tall, one hundred and eighty pounds.",
    "2 GB, 10 m², 60 mph": "two gigabytes, ten square meters, sixty miles per hour",
    "50%, #1, R&D": "fifty percent, number one, r and d",
    # abbreviations
    "Mr. & Mrs. Smith, Dr. Lee Jr.": "mister and missus smith, doctor lee junior.",
    "Main St. in St. Louis": "main street in saint louis",
    "12 Main St. Boston, 42nd St.": "twelve main street boston, forty-second street.",
    "No. 5. No. Really.": "number five. no. really.",
    "eggs, etc. The end, etc. of it": "eggs, et cetera. the end, et cetera of it",
    # letters
    "NASA, NATO, UNESCO": "nasa, nato, unesco",
    "the FBI, a DVD. Two DVDs": "the f.b.i., a d.v.d. two d.v.d's",
    "the FBI.": "the f.b.i.",
    "AT&T": "a.t. and t",
    "B2B, MP3, A380, F-16": "b two b, m.p. three, a three eighty, f sixteen",
    "DO NOT ENTER THE BUILDING": "do not enter the building",
    "I am NOT here": "i am not here",
    "Louis XIV, Henry V, World War II": "louis fourteen, henry five, world war two",
    "Malcolm X said I": "malcolm x said i",
    "A/B, either/or": "a b, either or",
    "a.b@example.com": "a dot b at example dot com",
    # characters
    "Müller, Zoë, Łódź, coöperate": "mueller, zoe, lodz, cooperate",
    "“Don’t,” she said… yes—no": '"don\'t," she said... yes -- no',  # noqa: RUF001
    "one\x00two\u200b \t three ,": "one two three,",
}


@pytest.mark.parametrize("text", READINGS)
def test_english_cleaners_v2_read(text: str):
    assert english_cleaners_v2(text) == READINGS[text]


def test_english_cleaners_leave_letters_alone():
    text = "NASA B2B Louis XIV either/or 5:30pm"
    assert english_cleaners(text) == "nasa btwob louis xiv either/or five:thirtypm"


def test_basic_cleaners_keep_accents_and_digits():
    assert CLEANERS["basic_cleaners"]("  Café\n12 ") == "café 12"
    assert CLEANERS["transliteration_cleaners"]("  Café\n12 ") == "cafe 12"


@pytest.mark.parametrize("name", CLEANERS)
def test_cleaners_turn_nothing_into_nothing(name: str):
    assert CLEANERS[name]("") == ""
    assert CLEANERS[name](" \n\t") == ""


def test_cleaners_repeat_nothing_on_their_own_result():
    for reading in READINGS.values():
        assert english_cleaners_v2(reading) == reading


def test_an_unknown_cleaner_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"--text-cleaners must be among basic_cleaners.*got nope"):
        cleaners(["basic_cleaners", "nope"])
