# SPDX-License-Identifier: BSD-3-Clause
"""What to speak: texts and tables as people write them, and what is wrong with the others."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

import pytest

from common.phrases import one_phrase, read_phrases


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Reads phrases from a file with the given content."""

    def read_content(content: str | bytes, name: str = "phrases.txt", speaker: int = 0):
        monkeypatch.chdir(tmp_path)
        raw = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(raw)
        return read_phrases(name, Path("data"), speaker)

    return read_content


@pytest.fixture
def problems_of(read):
    """The lines of the error that a table's content leads to."""

    def read_problems(content: str, name: str = "phrases.tsv") -> list[str]:
        with pytest.raises(ValueError) as refusal:
            read(content, name)
        return str(refusal.value).split("\n")

    return read_problems


def texts_of(phrases):
    return [phrase.text for phrase in phrases]


def outputs_of(phrases):
    return [phrase.output.as_posix() for phrase in phrases]


@pytest.mark.parametrize(
    "content",
    [
        "One.\nTwo.\n",
        "One.\nTwo.",
        "One.\r\nTwo.\r\n",
        "One.\rTwo.\r",
        "\ufeffOne.\nTwo.\n",
        "\nOne.\n\n  \nTwo.\n\n",
    ],
    ids=["lines", "no final newline", "CRLF", "CR", "BOM", "blank lines"],
)
def test_a_text_file_holds_a_phrase_a_line(read, content):
    phrases = read(content, speaker=3)
    assert texts_of(phrases) == ["One.", "Two."]
    assert outputs_of(phrases) == ["audio_0.wav", "audio_1.wav"]
    assert {phrase.speaker for phrase in phrases} == {3}
    assert {phrase.pitch for phrase in phrases} == {None}


def test_a_phrase_knows_its_line_blank_ones_counted(read):
    assert [p.source for p in read("\nOne.\n\nTwo.")] == ["phrases.txt:2", "phrases.txt:4"]


def test_only_line_ends_end_a_line(read):
    phrases = read("One\u2028still one.\x0cAnd\x85this.\nTwo.")
    assert len(phrases) == 2
    assert phrases[1].source == "phrases.txt:2"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_table_names_outputs_speakers_and_pitch(read, newline):
    rows = [
        "output\ttext\tspeaker\tpitch",
        'first.wav\tHello, "world".\t2\tpitch/first.pt',
        "",
        "folder/second\tGood-bye.\t\t",
    ]
    first, second = read(newline.join(rows), "phrases.tsv", speaker=1)
    assert (first.text, first.output, first.speaker) == ('Hello, "world".', Path("first.wav"), 2)
    assert first.pitch == Path("data/pitch/first.pt")
    assert first.source == "phrases.tsv:2"
    assert (second.text, second.output) == ("Good-bye.", Path("folder/second.wav"))
    assert (second.speaker, second.pitch, second.source) == (1, None, "phrases.tsv:4")


def test_a_table_may_hold_texts_alone_and_begin_with_a_bom(read):
    phrases = read("\ufefftext\nOne.\nTwo.\n", "phrases.tsv")
    assert texts_of(phrases) == ["One.", "Two."]
    assert outputs_of(phrases) == ["audio_0.wav", "audio_1.wav"]


def test_columns_that_are_not_used_are_named(read, caplog):
    caplog.set_level(logging.WARNING)
    assert texts_of(read("age\ttext\tmood\n9\tHi.\tgood\n", "phrases.tsv")) == ["Hi."]
    assert "phrases.tsv:1: columns not used: age, mood" in caplog.text


@pytest.mark.parametrize("header", ["output\tmel", "mel\toutput"])
def test_a_table_may_name_mels_alone(read, header):
    rows = ["a\tmels/a.pt"] if header.startswith("output") else ["mels/a.pt\ta"]
    (phrase,) = read("\n".join([header, *rows]), "phrases.tsv")
    assert (phrase.text, phrase.output) == ("", Path("a.wav"))
    assert phrase.mel == Path("data/mels/a.pt")


def test_rows_with_mels_and_with_texts_can_be_mixed(read):
    first, second = read("mel\ttext\n/mels/a.npy\t\n\tHi.\n", "phrases.tsv")
    assert (first.mel, first.text) == (Path("/mels/a.npy"), "")
    assert (second.mel, second.text) == (None, "Hi.")


def test_a_very_long_text_is_one_phrase(read):
    text = "word " * 40_000
    assert texts_of(read(f"text\n{text}", "phrases.tsv")) == [text]


@pytest.mark.parametrize("content", ["One.\nTwo.\n", "\ufeffOne.\r\nTwo.\r\n"])
def test_standard_input_is_read_like_a_text_file(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    phrases = read_phrases("-", Path(), 0)
    assert texts_of(phrases) == ["One.", "Two."]
    assert phrases[1].source == "standard input:2"


def test_empty_standard_input_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    with pytest.raises(ValueError, match=r"^standard input: nothing to speak"):
        read_phrases("-", Path(), 0)


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"--input gone\.txt: no such file"):
        read_phrases("gone.txt", Path(), 0)


@pytest.mark.parametrize("name", ["phrases.txt", "phrases.tsv"])
@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"], ids=["empty", "blank", "BOM only"])
def test_an_empty_file_is_refused(problems_of, name, content):
    (problem,) = problems_of(content, name)
    assert problem.startswith(f"{name}")
    assert "nothing to speak" in problem or "expected a header" in problem


def test_a_table_with_a_header_alone_is_refused(problems_of):
    assert problems_of("output\ttext\n") == [
        "phrases.tsv: nothing to speak, expected a phrase a line"
    ]


@pytest.mark.parametrize("name", ["phrases.txt", "phrases.tsv"])
def test_a_file_that_is_no_utf_8_is_refused(read, name):
    with pytest.raises(ValueError, match=rf"^{name}: expected UTF-8 text"):
        read("text\nGrüße".encode("latin-1"), name)


def test_a_table_with_nothing_to_speak_from_is_refused(problems_of):
    assert problems_of("output\tspeaker\na\t1\n") == [
        "phrases.tsv:1: expected a header with a column text or mel, got: output speaker"
    ]


def test_a_column_named_twice_is_refused(problems_of):
    (problem,) = problems_of("text\toutput\ttext\nOne.\ta\tTwo.\n")
    assert problem == "phrases.tsv:1: the header names text more than once"


def test_every_line_with_a_wrong_number_of_columns_is_listed(problems_of):
    assert problems_of("output\ttext\na\tOne.\tmore\nb\tTwo.\nThree.\n") == [
        "phrases.tsv:2: expected 2 columns as in the header, got 3",
        "phrases.tsv:4: expected 2 columns as in the header, got 1",
    ]


def test_every_speaker_that_is_no_number_is_listed(problems_of):
    assert problems_of("text\tspeaker\nOne.\tAnna\nTwo.\t0\nThree.\t-1\nFour.\t²\n") == [
        "phrases.tsv:2: expected a speaker's number, got Anna",
        "phrases.tsv:4: expected a speaker's number, got -1",
        "phrases.tsv:5: expected a speaker's number, got ²",
    ]


def test_every_output_that_is_asked_for_twice_is_listed(problems_of):
    problems = problems_of("output\ttext\na\tOne.\nb\tTwo.\n./a.wav\tThree.\n")
    assert problems == [
        "phrases.tsv:2: output a.wav is asked for 2 times",
        "phrases.tsv:4: output a.wav is asked for 2 times",
    ]


def test_a_named_output_does_not_collide_with_a_default_one(problems_of):
    problems = problems_of("output\ttext\naudio_1.wav\tOne.\n\tTwo.\n")
    assert len(problems) == 2


@pytest.mark.parametrize("output", ["../a.wav", "folder/../../a", "{tmp}/a.wav"])
def test_an_output_outside_the_folder_is_refused(problems_of, tmp_path, output):
    (problem,) = problems_of(f"output\ttext\n{output.format(tmp=tmp_path)}\tOne.\n")
    assert problem.startswith("phrases.tsv:2: output ")
    assert problem.endswith("must stay inside the folder that --output names")


def test_an_output_inside_of_another_output_is_refused(problems_of):
    (problem,) = problems_of("output\ttext\na\tOne.\na.wav/b\tTwo.\n")
    assert problem == "phrases.tsv:3: output a.wav/b.wav lies in a folder named as another output"


def test_a_phrase_from_the_command_line_knows_where_it_came_from():
    phrase = one_phrase("Hello.", speaker=2)
    assert (phrase.text, phrase.speaker, phrase.source) == ("Hello.", 2, "--text")
    assert phrase.output == Path("audio_0.wav")
