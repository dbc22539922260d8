# SPDX-License-Identifier: BSD-3-Clause
"""The front end against what the public recipe reads, difference by difference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from common.config import TextConfig
from common.text import TextProcessor
from common.text.symbols import SYMBOL_SETS

DATA = Path(__file__).parents[2] / "data"

# Every text of text_own.json that is read otherwise: what the recipe says, what we say, and why.
# The English cleaners of both versions differ alike unless the entry names one of them.
DIFFERENCES = [
    ("main saint in", "main street in", "St. after a name and before a small letter is a street"),
    ("thirty p.m..", "thirty p.m.", "one full stop ends a sentence"),
    ("n.a.s.a. and", "nasa and", "NASA is said as a word"),
    ("ten:zero a.m.", "ten a.m.", "nobody says the zero of a full hour"),
    ("misess", "missus", "the word is missus"),
    ("call nine hundred and eleven", "call nine one one", "the emergency number"),
    (
        "one-eight hundred-five hundred and fifty five-one hundred and ninety nine",
        "one, eight hundred, five five five, oh one nine nine",
        "telephone numbers, and 0199, are read by the digit",
    ),
]


@pytest.fixture(scope="module")
def processor_for(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict], TextProcessor]:
    """The processor of a fixture's settings; fixtures were made without heteronyms."""
    heteronyms = tmp_path_factory.mktemp("text") / "heteronyms"
    heteronyms.touch()
    processors: dict[tuple, TextProcessor] = {}

    def find(record: dict) -> TextProcessor:
        settings = (record["symbol_set"], tuple(record["cleaners"]), record["p_arpabet"])
        if settings not in processors:
            processors[settings] = TextProcessor(
                TextConfig(
                    symbol_set=settings[0],
                    text_cleaners=settings[1],
                    p_arpabet=settings[2],
                    heteronyms_path=heteronyms,
                )
            )
        return processors[settings]

    return find


def test_symbol_sets_are_the_recipes():
    golden = json.loads((DATA / "symbols.json").read_text(encoding="utf-8"))
    assert {name: list(symbols) for name, symbols in SYMBOL_SETS.items()} == golden


def test_own_sentences_differ_only_where_the_table_says(processor_for):
    records = json.loads((DATA / "text_own.json").read_text(encoding="utf-8"))
    differing = 0
    for record in records:
        reading = processor_for(record).read(record["text"])
        expected = record["clean"]
        for theirs, ours, _ in DIFFERENCES:
            expected = expected.replace(theirs, ours)
        assert reading.clean == expected
        if expected == record["clean"]:
            assert reading.ids == record["ids"], record["text"]
            assert reading.arpabet == record["arpabet"]
        differing += reading.ids != record["ids"]
    assert differing == 11  # of 80: four texts, with the three settings of English cleaners


def test_every_difference_in_the_table_occurs(processor_for):
    records = json.loads((DATA / "text_own.json").read_text(encoding="utf-8"))
    for theirs, ours, reason in DIFFERENCES:
        assert any(theirs in record["clean"] for record in records), reason
        assert not any(
            theirs in processor_for(record).read(record["text"]).clean for record in records
        )
        assert any(ours in processor_for(record).read(record["text"]).clean for record in records)


def test_ljspeech_sentences_agree_on_99_percent(processor_for, shared: Path):
    records = json.loads((shared / "golden" / "text_ljspeech.json").read_text(encoding="utf-8"))
    agreeing = sum(processor_for(r).encode(r["text"]) == r["ids"] for r in records)
    assert agreeing >= 0.99 * len(records)
