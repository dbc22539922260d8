# SPDX-License-Identifier: BSD-3-Clause
"""From text to symbol ids."""

from __future__ import annotations

import pickle
import random
import time
from pathlib import Path

import pytest

from common.config import DEFAULT_HETERONYMS, TextConfig
from common.text import TextProcessor
from common.text.cleaners import CLEANERS
from common.text.symbols import PHONEMES, SYMBOL_SETS

DICTIONARY = """;;; words for the tests
hello  HH AH0 L OW1
read  R EH1 D
read(2)  R IY1 D
wind  W IH1 N D
cat  K AE1 T # an animal
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "dictionary").write_text(DICTIONARY)
    (tmp_path / "heteronyms").write_text("wind\n")
    return {
        "cmudict_path": tmp_path / "dictionary",
        "heteronyms_path": tmp_path / "heteronyms",
    }


def spoken(processor: TextProcessor, ids: list[int]) -> list[str]:
    return [processor.symbols[i] for i in ids]


def test_only_words_without_doubt_become_phonemes(files):
    processor = TextProcessor(TextConfig(p_arpabet=1.0, **files))
    reading = processor.read("Hello, read the wind: cats, cat's, cats'!")
    cats = "{K AE1 T Z}"
    assert reading.arpabet == f"{{HH AH0 L OW1}}, read the wind: {cats}, {cats}, {cats}'!"
    assert spoken(processor, reading.ids)[:5] == ["@HH", "@AH0", "@L", "@OW1", ","]


def test_the_first_of_several_pronunciations_can_be_taken(files):
    config = TextConfig(p_arpabet=1.0, several_pronunciations="first", **files)
    assert TextProcessor(config).read("read the wind").arpabet == "{R EH1 D} the wind"


def test_a_prepared_text_draws_once_for_every_word_in_order_each_time_that_it_is_read(files):
    processor = TextProcessor(TextConfig(p_arpabet=0.5, **files))
    known = {"cat": "{K AE1 T}", "hello": "{HH AH0 L OW1}"}
    words = ["cat", "dog", "hello", "wind", "cat"]  # two have no phonemes, and draw all the same
    prepared = processor.prepare(" ".join(words))
    for epoch in range(20):
        rng = random.Random(f"1 {epoch} 2")
        chosen = [known.get(word, word) if rng.random() < 0.5 else word for word in words]
        rng = random.Random(f"1 {epoch} 2")
        assert prepared.encode(rng) == TextProcessor(TextConfig(**files)).encode(" ".join(chosen))


def test_each_word_draws_for_itself_and_a_seed_repeats_it(files):
    processor = TextProcessor(TextConfig(p_arpabet=0.5, **files))
    text = "hello " * 200
    reading = processor.read(text, random.Random(1))
    assert 60 < reading.arpabet.count("{") < 140
    assert reading == processor.read(text, random.Random(1))
    assert reading != processor.read(text, random.Random(2))
    with pytest.raises(ValueError, match=r"pass a random\.Random"):
        processor.read(text)


@pytest.mark.parametrize("p_arpabet", [0.0, 1.0])
def test_reading_is_a_pure_function_without_chance(files, p_arpabet: float):
    processor = TextProcessor(TextConfig(p_arpabet=p_arpabet, **files))
    text = "Hello cats, read {R EH1 D} 42 times."
    assert processor.read(text) == processor.read(text) == processor.read(text, random.Random(3))


@pytest.mark.parametrize("name", CLEANERS)
def test_phonemes_in_braces_survive_every_cleaner(name: str):
    processor = TextProcessor(TextConfig(text_cleaners=(name,)))
    reading = processor.read("Say {HH AH0  L OW1} and {AH}.")
    assert reading.clean == "say {HH AH0 L OW1} and {AH}."
    phonemes = [symbol for symbol in spoken(processor, reading.ids) if symbol.startswith("@")]
    assert phonemes == ["@HH", "@AH0", "@L", "@OW1", "@AH"]


def test_malformed_braces_are_text():
    processor = TextProcessor(TextConfig())
    reading = processor.read("a {b c} {} {HH {AH0} }{ {hh}")
    assert spoken(processor, reading.ids) == [*"a b c  hh ", "@AH0", *"  hh"]
    assert reading.dropped == "{}{}{}{{}"


def test_dropped_symbols_are_reported_in_order():
    reading = TextProcessor(TextConfig()).read('"Hi" 😀 [there]')
    assert reading.dropped == '""😀[]'


def test_padding_never_comes_from_text():
    processor = TextProcessor(TextConfig(text_cleaners=("basic_cleaners",)))
    assert processor.padding_idx == 0
    assert processor.encode("a_b") == processor.encode("ab")
    assert TextProcessor(TextConfig(symbol_set="english_expanded")).padding_idx == 20


def test_a_long_dash_is_said_as_the_symbol_set_can():
    for symbol_set, dash in (("english_basic", "-"), ("english_expanded", "—")):
        config = TextConfig(text_cleaners=("basic_cleaners",), symbol_set=symbol_set)
        processor = TextProcessor(config)
        assert spoken(processor, processor.encode("a—b")) == ["a", dash, "b"]


def test_spaces_are_put_around_the_text_on_request():
    plain = TextProcessor(TextConfig()).encode("hi")
    config = TextConfig(prepend_space_to_text=True, append_space_to_text=True)
    processor = TextProcessor(config)
    space = processor.symbols.index(" ")
    assert processor.encode(" hi ") == [space, *plain, space]


@pytest.mark.parametrize("symbol_set", SYMBOL_SETS)
def test_every_id_is_a_symbol_other_than_padding_whatever_the_text(symbol_set: str):
    rng = random.Random(7)
    pieces = [*"0123456789.,:-/$£%+x'\"() ABIVXkm½²°{}@&_~\n—😀é", *SYMBOL_SETS[symbol_set]]
    pieces += ["St. ", "5pm", "{HH AH0}", "10:00", "FBI", "\x00", "\ud800", "\ue000", "٣", "①"]
    for name in CLEANERS:
        processor = TextProcessor(TextConfig(text_cleaners=(name,), symbol_set=symbol_set))
        valid = set(range(len(processor.symbols))) - {processor.padding_idx}
        for _ in range(150):
            text = "".join(rng.choices(pieces, k=rng.randrange(30)))
            assert valid.issuperset(processor.encode(text)), text


@pytest.mark.parametrize(
    "unit", ["a", "1", "1,", "1-", "$1", "A", "a.", "St. ", "{", " ", "Main ", "1/", "é", "www."]
)
def test_ten_thousand_characters_take_no_more_than_their_share_of_time(unit: str):
    processor = TextProcessor(TextConfig(text_cleaners=("english_cleaners_v2",)))
    processor.read(unit * 100)
    started = time.perf_counter()
    processor.read((unit * 10_000)[:10_000])
    assert time.perf_counter() - started < 2.0  # 0.2 s at most here; quadratic patterns took 5 s


def test_processors_travel_to_worker_processes(files):
    processor = TextProcessor(TextConfig(p_arpabet=1.0, **files))
    copy = pickle.loads(pickle.dumps(processor))
    assert copy.read("hello cats") == processor.read("hello cats")


def test_an_unknown_symbol_set_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"--symbol-set must be one of english_basic, .*got nope"):
        TextProcessor(TextConfig(symbol_set="nope"))


def test_missing_and_malformed_dictionaries_name_file_and_line(files, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--cmudict-path must name a file, but .*absent"):
        TextProcessor(TextConfig(p_arpabet=1.0, cmudict_path=tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match="--heteronyms-path"):
        TextProcessor(TextConfig(p_arpabet=1.0, heteronyms_path=tmp_path / "absent"))
    files["cmudict_path"].write_text("cat  K AE1 T\ndog  D AO9 G\n")
    with pytest.raises(ValueError, match=r"dictionary:2: expected a word and its ARPAbet"):
        TextProcessor(TextConfig(p_arpabet=1.0, **files))


def test_heteronyms_are_sorted_words_in_lower_case():
    words = DEFAULT_HETERONYMS.read_text().split("\n")[:-1]
    assert words == sorted(set(words))
    assert all(word.isalpha() and word.islower() for word in words)
    assert {"record", "minute", "read", "lead", "wind", "tear"} <= set(words)


def test_the_package_dictionary_knows_common_words():
    processor = TextProcessor(TextConfig(p_arpabet=1.0))
    assert processor.read("world").arpabet == "{W ER1 L D}"
    assert processor.read("record").arpabet == "record"
    assert len(PHONEMES) == 84
