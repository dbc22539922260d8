# SPDX-License-Identifier: BSD-3-Clause
"""Which speech is compared with which recording, and refusals that name the line."""

from pathlib import Path

import pytest

from common.evaluation.pairs import check_audio, read_pairs
from common.phrases import read_phrases

DATASET, SPEECH = Path("corpus"), Path("spoken")


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return path


def test_a_file_list_names_recordings_and_speech_of_the_same_name(tmp_path):
    path = write(tmp_path, "list.txt", "wavs/a.flac|pitch/a.pt|One.\nwavs/b.wav|Two.\n")
    first, second = read_pairs(path, DATASET, SPEECH)
    assert (first.text, first.reference) == ("One.", DATASET / "wavs/a.flac")
    assert (first.speech, first.name) == (SPEECH / "a.wav", "a")
    assert second.source == f"{path}:2"


def test_a_table_may_do_without_recordings(tmp_path):
    path = write(
        tmp_path,
        "list.tsv",
        'output\ttext\treference\tspeaker\na.wav\tA "quoted" word\twavs/x.wav\t3\nb\tTwo.\t\t\n',
    )
    first, second = read_pairs(path, DATASET, SPEECH)
    assert (first.text, first.speaker) == ('A "quoted" word', 3)
    assert (first.reference, second.reference) == (DATASET / "wavs/x.wav", None)
    assert second.speech == SPEECH / "b.wav"


def test_a_table_names_the_files_that_inference_writes(tmp_path):
    path = write(tmp_path, "list.tsv", "output\ttext\nme.01\tOne.\nme.02\tTwo.\n")
    found = [pair.speech for pair in read_pairs(path, DATASET, SPEECH)]
    assert found == [SPEECH / phrase.output for phrase in read_phrases(str(path), DATASET, 0)]
    assert found[0].name == "me.01.wav"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("text\nOne.\n", "its header lacks the column output"),
        ("output\ttext\na\n", r":2: expected as many columns as the header has"),
        ("output\ttext\na\tb\tc\n", r":2: expected as many columns as the header has"),
        ("output\ttext\na\t \n", r":2: expected a text and an output"),
        ("output\ttext\tspeaker\na\tOne.\tme\n", r":2: expected a speaker's number, got me"),
        ("output\ttext\na\tOne.\na.wav\tTwo.\n", r":3: spoken/a.wav: named twice"),
        ("output\ttext\n", "nothing to evaluate"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_its_line(tmp_path, content, sentence):
    path = write(tmp_path, "list.tsv", content)
    with pytest.raises(ValueError, match=sentence):
        read_pairs(path, DATASET, SPEECH)


def test_every_missing_clip_is_listed(tmp_path):
    path = write(tmp_path, "list.txt", "wavs/a.wav|One.\nwavs/b.wav|Two.\n")
    (tmp_path / "a.wav").touch()
    with pytest.raises(ValueError, match="no such audio file") as refusal:
        check_audio(read_pairs(path, tmp_path, tmp_path))
    assert len(str(refusal.value).splitlines()) == 3
    assert f"{path}:2: {tmp_path / 'b.wav'}" in str(refusal.value)
