# SPDX-License-Identifier: BSD-3-Clause
"""Splitting a corpus into file lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.filelists import read_filelist
from scripts.make_filelists import Clip, main, read_metadata, split

SHARED = Path(__file__).resolve().parents[2] / "shared"


def make_clips(number: int) -> list[Clip]:
    return [Clip(f"LJ{i:03}", f"wavs/LJ{i:03}.wav", f"Text {i}.") for i in range(number)]


def write_metadata(folder: Path, lines: list[str]) -> Path:
    (folder / "wavs").mkdir(parents=True)
    (folder / "metadata.csv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def test_every_clip_goes_to_exactly_one_part_in_its_order():
    clips = make_clips(50)
    parts = split(clips, num_test=7, num_validation=3)
    assert {part: len(each) for part, each in parts.items()} == {"train": 40, "val": 3, "test": 7}
    assert sorted(clip for each in parts.values() for clip in each) == clips
    assert all(each == sorted(each) for each in parts.values())


def test_the_split_is_the_same_on_every_machine():
    parts = split(make_clips(20), num_test=3, num_validation=2)
    # The names with the lowest SHA-256, by `printf LJ000 | sha256sum` and so on.
    assert [clip.name for clip in parts["test"]] == ["LJ006", "LJ009", "LJ010"]
    assert [clip.name for clip in parts["val"]] == ["LJ012", "LJ017"]


def test_a_clip_added_later_leaves_the_others_where_they_are():
    before = split(make_clips(200), num_test=20, num_validation=10)
    after = split(make_clips(201), num_test=20, num_validation=10)
    for part in ("test", "val"):
        assert len(set(before[part]) - set(after[part])) <= 1


def test_lists_have_the_names_and_columns_of_the_public_recipe(tmp_path):
    lines = [f"LJ{i:03}|Dr. {i}|Doctor {i}" for i in range(10)]
    corpus = write_metadata(tmp_path / "corpus", lines)
    (corpus / "wavs/LJ005.flac").touch()
    output = tmp_path / "lists"
    flags = ["--prefix", "ljs", "--training_suffix", "_v3", "--test", "2", "--validation", "3"]
    assert main(["--dataset-path", str(corpus), "--output", str(output), *flags]) == 0
    assert sorted(path.name for path in output.iterdir()) == [
        "ljs_audio_pitch_text_test.txt",
        "ljs_audio_pitch_text_train_v3.txt",
        "ljs_audio_pitch_text_val.txt",
        "ljs_audio_text_test.txt",
        "ljs_audio_text_train_v3.txt",
        "ljs_audio_text_val.txt",
    ]
    everything = []
    for part, number in (("train_v3", 5), ("val", 3), ("test", 2)):
        plain = read_filelist(output / f"ljs_audio_text_{part}.txt", corpus, 1)
        pitched = read_filelist(output / f"ljs_audio_pitch_text_{part}.txt", corpus, 1)
        assert len(plain) == len(pitched) == number
        assert [u.audio for u in plain] == [u.audio for u in pitched]
        assert all(u.pitch == corpus / f"pitch/{u.name}.pt" for u in pitched)
        everything += plain
    assert sorted(u.text for u in everything) == [f"Doctor {i}" for i in range(10)]
    assert corpus / "wavs/LJ005.flac" in [u.audio for u in everything]


def test_the_text_as_written_can_be_chosen(tmp_path):
    corpus = write_metadata(tmp_path / "corpus", ["a|Dr. Who|Doctor Who", "b|Only this"])
    assert [clip.text for clip in read_metadata(corpus, 2)] == ["Dr. Who", "Only this"]
    assert [clip.text for clip in read_metadata(corpus, 3)] == ["Doctor Who", "Only this"]


def test_a_corpus_too_small_for_the_split_is_refused_with_a_sentence(tmp_path, capsys):
    corpus = write_metadata(tmp_path / "corpus", ["a|one", "b|two", "c|three"])
    with pytest.raises(SystemExit) as exit_:
        main(["-d", str(corpus), "-o", str(tmp_path / "lists"), "--test", "2", "--validation", "1"])
    assert exit_.value.code == 2
    assert "3 clips do not suffice for --test 2, --validation 1" in capsys.readouterr().err
    assert not (tmp_path / "lists").exists()


def test_every_bad_line_of_the_metadata_is_listed(tmp_path):
    corpus = write_metadata(tmp_path / "corpus", ["a|one", "no text", "a|again"])
    with pytest.raises(ValueError) as error:
        read_metadata(corpus)
    assert "metadata.csv:2: expected name|text" in str(error.value)
    assert "metadata.csv:3: the name a came before" in str(error.value)
    with pytest.raises(FileNotFoundError, match="laid out like LJSpeech"):
        read_metadata(tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared, which has LJSpeech's metadata")
def test_real_metadata_is_read_whole():
    clips = read_metadata(SHARED / "ljspeech_sample")
    assert len(clips) == 24
    assert clips[1] == Clip("LJ001-0002", "wavs/LJ001-0002.wav", "in being comparatively modern.")
