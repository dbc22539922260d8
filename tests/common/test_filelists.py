# SPDX-License-Identifier: BSD-3-Clause
"""Reading file lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.filelists import Utterance, clip_identity, parse_filelists, read_filelist


def write_list(folder: Path, content: str | bytes, name: str = "list.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_line_names_audio_and_text(tmp_path):
    path = write_list(tmp_path, "wavs/a.b.wav|Hello, you.\n")
    (utterance,) = read_filelist(path, tmp_path / "data", n_speakers=1)
    assert utterance == Utterance(
        audio=tmp_path / "data/wavs/a.b.wav",
        pitch=None,
        text="Hello, you.",
        speaker=0,
        source=f"{path}:1",
    )
    assert utterance.name == "a.b"


@pytest.mark.parametrize(
    ("line", "n_speakers", "pitch", "speaker"),
    [
        ("wavs/a.wav|Hello.", 1, None, 0),
        ("wavs/a.wav|pitch/a.pt|Hello.", 1, "pitch/a.pt", 0),
        ("wavs/a.wav|Hello.|0", 1, None, 0),
        ("wavs/a.wav|Hello.|3", 4, None, 3),
        ("wavs/a.wav|pitch/a.pt|Hello.|3", 4, "pitch/a.pt", 3),
        ("mels/a.pt|Hello.", 1, None, 0),
    ],
)
def test_columns_for_pitch_and_speaker_may_be_there(tmp_path, line, n_speakers, pitch, speaker):
    (utterance,) = read_filelist(write_list(tmp_path, line), tmp_path, n_speakers)
    assert utterance.text == "Hello."
    assert utterance.pitch == (None if pitch is None else tmp_path / pitch)
    assert utterance.speaker == speaker


def test_every_malformed_line_is_listed_with_its_number(tmp_path):
    lines = [
        "a.wav|fine|1",  # 1
        "b.wav",  # 2
        "c.wav|no speaker",  # 3
        "d.wav|text|2",  # 4
        "e.wav|text|one",  # 5
        "|text|0",  # 6
        "",
        "f.wav|pitch/f.pt|a|b|0",  # 8
        "g.wav|text|-1",  # 9
    ]
    path = write_list(tmp_path, "\n".join(lines))
    with pytest.raises(ValueError) as error:
        read_filelist(path, tmp_path, n_speakers=2)
    message = str(error.value)
    numbers = [line.removeprefix(f"{path}:").split(":")[0] for line in message.splitlines()]
    assert numbers == ["2", "3", "4", "5", "6", "8", "9"]
    assert "unknown speaker 2: speakers 0 to 1 are known" in message
    assert "the audio file, is empty" in message


def test_the_good_lines_are_had_besides_the_malformed(tmp_path):
    path = write_list(tmp_path, "a.wav|fine\nb.wav\nc.wav|fine")
    utterances, problems = parse_filelists([path], tmp_path, 1)
    assert [utterance.name for utterance in utterances] == ["a", "c"]
    assert [problem.source for problem in problems] == [f"{path}:2"]


def test_byte_order_mark_carriage_returns_and_blank_lines_do_no_harm(tmp_path):
    path = write_list(tmp_path, b"\xef\xbb\xbfa.wav|caf\xc3\xa9\r\n\r\n  \nb.wav|two\r\n")
    utterances = read_filelist(path, tmp_path, 1)
    assert [(u.audio.name, u.text) for u in utterances] == [("a.wav", "café"), ("b.wav", "two")]
    assert utterances[1].source == f"{path}:4"


def test_text_in_another_encoding_is_refused_with_its_line(tmp_path):
    path = write_list(tmp_path, b"a.wav|one\nb.wav|caf\xe9\n")
    with pytest.raises(ValueError, match=r"list\.txt:2: not UTF-8"):
        read_filelist(path, tmp_path, 1)


def test_an_empty_list_and_a_missing_one_are_errors(tmp_path):
    with pytest.raises(ValueError, match="empty file list"):
        read_filelist(write_list(tmp_path, "\n\n"), tmp_path, 1)
    with pytest.raises(FileNotFoundError, match="no such file list"):
        read_filelist(tmp_path / "nowhere.txt", tmp_path, 1)


def test_a_clip_is_known_however_its_path_is_written(tmp_path):
    (one,) = read_filelist(write_list(tmp_path, "wavs/b.wav|y"), tmp_path, 1)
    detour = write_list(tmp_path, "wavs/c.wav|z\nwavs/../wavs/b.wav|y", name="val.txt")
    other, same = read_filelist(detour, tmp_path, 1)
    assert clip_identity(same) == clip_identity(one)
    assert clip_identity(other) != clip_identity(one)
