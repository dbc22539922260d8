# SPDX-License-Identifier: BSD-3-Clause
"""Sums of money in words."""

from __future__ import annotations

import re

from common.text.counting import count_formally, decimal, formal

_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"),
    "₩": ("won", "won", "jeon", "jeon"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
}
_MAGNITUDES = {
    "k": "thousand",
    "m": "million",
    "mn": "million",
    "b": "billion",
    "bn": "billion",
    "t": "trillion",
    "tn": "trillion",
}
_DIGIT = re.compile(r"\d")
_AMOUNT = r"(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)"
_MONEY = re.compile(
    r"(?P<article>\b[Aa]n?\s)?(?:\b(?:US|CA|AU|NZ|HK|A|C))?(?P<minus>(?<![\w-])-)?"
    rf"(?P<sign>[{''.join(_CURRENCIES)}])\s?"
    rf"(?:(?P<low>{_AMOUNT})\s?[-–]\s?(?=\.?\d))?(?P<amount>{_AMOUNT})"  # noqa: RUF001
    r"(?:[\s-]?(?P<word>(?i:hundred|thousand|million|billion|trillion))\b"
    r"|(?P<letter>(?i:k|[mbt]n?))\b)?"
)
_RANGE = re.compile(r"(?<=[\dkKmMbB])\s?[-–]\s?(?=[$£€]\.?\d)")  # noqa: RUF001
_CENTS = re.compile(r"(?<!\d)(\d+)\s?¢")


def expand_money(text: str) -> str:
    """ "$3.50" -> "three dollars, fifty cents"; "a £5 note" -> "a five pound note"."""
    if not _DIGIT.search(text):
        return text
    text = _CENTS.sub(lambda m: f"{count_formally(m[1])} cent{'' if m[1] == '1' else 's'}", text)
    return _MONEY.sub(_money, _RANGE.sub(" to ", text))


def _money(match: re.Match) -> str:
    one, many, small_one, small_many = _CURRENCIES[match["sign"]]
    if match["article"]:  # "a five dollar bill"
        many, small_many = one, small_one
    start = (match["article"] or "") + ("minus " if match["minus"] else "")
    if match["low"]:
        start += f"{_amount(match['low'])} to "
    whole, _, fraction = match["amount"].replace(",", "").partition(".")
    magnitude = (match["word"] or _MAGNITUDES.get((match["letter"] or "").lower(), "")).lower()
    if magnitude or match["low"] or len(fraction) > 2:
        return f"{start}{_amount(match['amount'])} {magnitude} {many}".replace("  ", " ")
    whole, cents = whole.lstrip("0"), int(fraction.ljust(2, "0"))
    parts = []
    if whole or not cents:
        parts.append(f"{count_formally(whole)} {one if whole == '1' else many}")
    if cents:
        parts.append(f"{formal(cents)} {small_one if cents == 1 else small_many}")
    return start + ", ".join(parts)


def _amount(amount: str) -> str:
    whole, _, fraction = amount.replace(",", "").partition(".")
    return decimal(whole or "0", fraction) if fraction.strip("0") else count_formally(whole)
