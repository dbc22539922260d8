# SPDX-License-Identifier: BSD-3-Clause
"""Sums of money in words."""

from __future__ import annotations

import pytest

from common.text.money import expand_money

SUMS = {
    "$1": "one dollar",
    "$1.01": "one dollar, one cent",
    "$0.99": "ninety-nine cents",
    "$3.5": "three dollars, fifty cents",
    "$0": "zero dollars",
    "$1,000,000.00": "one million dollars",
    "$1500": "fifteen hundred dollars",
    "$6.2m": "six point two million dollars",
    "£5 million": "five million pounds",
    "€3.5bn": "three point five billion euros",
    "£0.01": "one penny",
    "£3.50": "three pounds, fifty pence",
    "a $5 bill": "a five dollar bill",
    "-$5": "minus five dollars",
    "$5-10": "five to ten dollars",
    "$5-$10": "five dollars to ten dollars",
    "50¢": "fifty cents",
    "$ alone": "$ alone",
}


@pytest.mark.parametrize("text", SUMS)
def test_money_reads(text: str):
    assert expand_money(text) == SUMS[text]
