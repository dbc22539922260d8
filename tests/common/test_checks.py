# SPDX-License-Identifier: BSD-3-Clause
"""Checking a dataset before work starts."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from common.checks import BadDataset, DataCheck, check_utterances
from common.config import AudioConfig, TextConfig
from common.filelists import read_filelist
from common.records import ClipRecord, PreparationRecord
from common.text import TextProcessor

AUDIO = AudioConfig()
TEXT = TextProcessor(TextConfig())


def write_clip(path: Path, audio: np.ndarray | None = None, sampling_rate: int = 22050) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if audio is None:
        audio = 0.3 * np.sin(np.arange(sampling_rate // 2) / 20)
    soundfile.write(path, audio, sampling_rate, subtype="FLOAT")


def write_corpus(folder: Path, lines: list[str], name: str = "list.txt") -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def data_check(folder: Path, **settings) -> DataCheck:
    defaults = {
        "dataset_path": folder,
        "audio": AUDIO,
        "text": TEXT,
        "bad_list": folder / "bad.txt",
    }
    return DataCheck(**{**defaults, **settings})


@pytest.fixture
def bad_corpus(tmp_path) -> Path:
    """A list with one good line, its first, and every kind of problem."""
    tone = 0.3 * np.sin(np.arange(11025) / 20)
    clips = {
        "good": tone,
        "stereo": np.stack([tone, tone], axis=1),
        "nan": np.where(np.arange(11025) == 5000, np.nan, tone),
        "empty": np.zeros(0),
        "silent": np.zeros(11025),
        "long": 0.3 * np.sin(np.arange(22050 * 3) / 20),
        "short": tone[:1024],
        "twice": tone,
        "dots": tone,
        "speaker": tone,
        "foreign": tone,
    }
    for name, audio in clips.items():
        write_clip(tmp_path / f"wavs/{name}.wav", audio)
    write_clip(tmp_path / "other/twice.wav")
    write_clip(tmp_path / "wavs/fast.wav", sampling_rate=44100)
    (tmp_path / "wavs/garbage.wav").write_bytes(b"this is no audio")
    (tmp_path / "wavs/void.wav").write_bytes(b"")
    lines = [
        "wavs/good.wav|A good clip.",
        "wavs/missing.wav|Not there.",
        "wavs/garbage.wav|No audio.",
        "wavs/void.wav|No bytes.",
        "wavs/stereo.wav|Two channels.",
        "wavs/nan.wav|Not a number.",
        "wavs/empty.wav|No samples.",
        "wavs/silent.wav|No sound.",
        "wavs/long.wav|Too long.",
        "wavs/short.wav|Far more symbols than there are frames in it.",
        "wavs/twice.wav|The first time.",
        "wavs/twice.wav|The second time.",
        "other/twice.wav|Of the same name.",
        "wavs/dots.wav|...",
        "wavs/speaker.wav|Somebody.|7",
        "wavs/only_audio.wav",
        "wavs/foreign.wav|Good \u6f22 and bad.",
        "wavs/fast.wav|Another rate.",
    ]
    return write_corpus(tmp_path, lines)


EXPECTED = {
    2: "no such audio file",
    3: "expected WAV or FLAC audio",
    4: "expected WAV or FLAC audio",
    5: "expected one channel, got 2",
    6: "NaN or infinite samples, from 0.227 s on",
    7: "no samples",
    8: "silent",
    9: "3.0 s long, the limit is 2 s",
    10: "5 frames for 45 symbols",
    12: "repeats the clip of",
    13: "its features would overwrite those of",
    14: "nothing to say in the text '...'",
    15: "unknown speaker 7",
    16: "wrong columns: got 1",
}
WARNINGS = {
    17: "\u6f22 is not in the symbol set, will be dropped here: spell",
    18: "recorded at 44100 Hz, resampled to 22050 Hz",
}


def test_one_pass_lists_every_problem_with_file_and_line(bad_corpus, caplog):
    check = data_check(bad_corpus.parent, max_clip_seconds=2.0)
    with caplog.at_level(logging.WARNING), pytest.raises(BadDataset) as error:
        check.read([bad_corpus])
    lines = str(error.value).splitlines()
    assert lines[0] == "14 problems in the data, nothing was written:"
    assert "--skip-bad" in lines[-1]
    listed = {int(line.split(":")[1]): line for line in lines[1:-1]}
    assert sorted(listed) == sorted(EXPECTED)
    for number, message in EXPECTED.items():
        assert message in listed[number]
    warned = {int(record.getMessage().split(":")[1]): record for record in caplog.records}
    assert sorted(warned) == sorted(WARNINGS)
    for number, message in WARNINGS.items():
        assert message in warned[number].getMessage()
    assert not check.bad_list.exists()


def test_skip_bad_leaves_those_clips_out_and_lists_them(bad_corpus, caplog):
    check = data_check(bad_corpus.parent, max_clip_seconds=2.0, skip_bad=True)
    with caplog.at_level(logging.WARNING):
        utterances, validation = check.read([bad_corpus])
    assert [utterance.name for utterance in utterances] == ["good", "twice", "foreign", "fast"]
    assert validation == []
    listed = check.bad_list.read_text(encoding="utf-8").splitlines()
    assert len(listed) == len(EXPECTED)
    assert any("14 lines are left out" in record.getMessage() for record in caplog.records)


def test_a_good_dataset_has_no_problems(tmp_path):
    for name in "abc":
        write_clip(tmp_path / f"{name}.wav")
    training = write_corpus(tmp_path, ["a.wav|Hello.", "b.wav|I."])
    validation = write_corpus(tmp_path, ["c.wav|Bye."], name="val.txt")
    both = data_check(tmp_path).read([training], [validation])
    assert [[u.name for u in each] for each in both] == [["a", "b"], ["c"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["a.wav", "b.wav", "c.wav", "list.txt", "val.txt"]
    )


def test_a_clip_in_training_and_validation_is_a_problem(tmp_path):
    for name in "ab":
        write_clip(tmp_path / f"{name}.wav")
    training = write_corpus(tmp_path, ["a.wav|Hello."])
    validation = write_corpus(tmp_path, ["b.wav|Bye.", "./a.wav|Hello."], name="val.txt")
    with pytest.raises(BadDataset, match=r"val\.txt:2: .* also in training, at .*list\.txt:1"):
        data_check(tmp_path).read([training], [validation])
    _, left = data_check(tmp_path, skip_bad=True).read([training], [validation])
    assert [utterance.name for utterance in left] == ["b"]


def test_skipping_everything_is_an_error(tmp_path):
    write_clip(tmp_path / "a.wav")
    training = write_corpus(tmp_path, ["a.wav|Hello."])
    with pytest.raises(BadDataset):
        data_check(tmp_path, skip_bad=True).read([write_corpus(tmp_path, ["x.wav|x"], "bad.lst")])
    with pytest.raises(ValueError, match="no clip of the validation lists"):
        data_check(tmp_path, skip_bad=True).read([training], [write_corpus(tmp_path, ["x"], "v")])


@pytest.mark.parametrize(
    ("pitch", "message"),
    [
        (None, "no such file"),
        (torch.zeros(1, 44), None),
        (torch.zeros(1, 43), r"expected shape \(1, 44\), as the clip has frames, got \(1, 43\)"),
        ({"pitch": 1}, "expected a tensor, got dict"),
        (b"garbage", "not a tensor"),
    ],
)
def test_pitch_files_must_fit_where_they_are_needed(tmp_path, pitch, message):
    write_clip(tmp_path / "wavs/a.wav")
    (tmp_path / "pitch").mkdir()
    if isinstance(pitch, bytes):
        (tmp_path / "pitch/a.pt").write_bytes(pitch)
    elif pitch is not None:
        torch.save(pitch, tmp_path / "pitch/a.pt")
    for line in ("wavs/a.wav|Hello.", "wavs/a.wav|pitch/a.pt|Hello."):
        check = data_check(tmp_path, need_pitch=True)
        filelist = write_corpus(tmp_path, [line])
        if message is None:
            ((utterance,), _) = check.read([filelist])
            assert utterance.pitch == tmp_path / "pitch/a.pt"
            continue
        with pytest.raises(BadDataset, match=message):
            check.read([filelist])


def test_mels_in_place_of_audio_are_checked_too(tmp_path):
    torch.save(torch.zeros(80, 30), tmp_path / "a.pt")
    torch.save(torch.zeros(40, 30), tmp_path / "b.pt")
    (tmp_path / "c.pt").write_bytes(b"")
    filelist = write_corpus(tmp_path, ["a.pt|Hello.", "b.pt|Hello.", "c.pt|Hello.", "d.pt|Hello."])
    with pytest.raises(BadDataset) as error:
        data_check(tmp_path, are_mels=True).read([filelist])
    assert [problem.source for problem in error.value.problems] == [
        f"{filelist}:{n}" for n in (2, 3, 4)
    ]
    assert "got (40, 30)" in str(error.value)


def test_prepared_clips_are_read_again_only_when_they_changed(tmp_path):
    audio = tmp_path / "a.wav"
    write_clip(audio)
    utterances = read_filelist(write_corpus(tmp_path, ["a.wav|Hello."]), tmp_path, 1)
    stat = audio.stat()
    # Rightly half a second long: what the record says instead shows that the file was not read.
    PreparationRecord(tmp_path).add(
        ClipRecord(
            audio="a.wav",
            size=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            num_samples=22050 * 50,
            sampling_rate=22050,
        )
    )
    (problem,), _ = check_utterances(utterances, AUDIO, TEXT, record=PreparationRecord(tmp_path))
    assert problem.message.startswith("50.0 s long")
    write_clip(audio, 0.3 * np.sin(np.arange(9000) / 20))
    assert not check_utterances(utterances, AUDIO, TEXT, record=PreparationRecord(tmp_path))[0]


def test_a_record_whose_last_line_was_cut_off_keeps_the_others(tmp_path):
    for name in "abc":
        write_clip(tmp_path / f"{name}.wav")

    def clip_record(name: str) -> ClipRecord:
        stat = (tmp_path / f"{name}.wav").stat()
        return ClipRecord(
            audio=f"{name}.wav",
            size=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            num_samples=11025,
            sampling_rate=22050,
            features={"mel": "settings"},
            pitch=(100.0, 20.0, 30),
        )

    record = PreparationRecord(tmp_path)
    for name in "ab":
        record.add(clip_record(name))
    record.path.write_bytes(record.path.read_bytes()[:-20])
    again = PreparationRecord(tmp_path)
    assert again.find(tmp_path / "a.wav") == clip_record("a")
    assert again.find(tmp_path / "b.wav") is None
    again.add(clip_record("c"))
    assert PreparationRecord(tmp_path).find(tmp_path / "c.wav") == clip_record("c")


def test_a_symbol_dropped_from_many_lines_is_one_warning_with_their_places(tmp_path):
    for i in range(30):
        write_clip(tmp_path / f"{i}.wav")
    lines = [f"{i}.wav|Just {chr(0x6F22) if i % 3 else 'a'} word." for i in range(30)]
    filelist = write_corpus(tmp_path, lines)
    (problem,), _ = check_utterances(read_filelist(filelist, tmp_path, 1), AUDIO, TEXT)
    assert problem.severity == "warning"
    assert problem.source == f"{filelist}:2"
    assert f"here and at {filelist}:3, {filelist}:5" in problem.message
    all_but_first = problem.message.count(str(filelist))
    assert all_but_first == 19

    write_corpus(tmp_path, [f"{i}.wav|Just \u6f22 word." for i in range(30)])
    (problem,), _ = check_utterances(read_filelist(filelist, tmp_path, 1), AUDIO, TEXT)
    assert problem.message.count(str(filelist)) == 20
    assert "and 9 more lines" in problem.message


def test_warnings_leave_nothing_out(tmp_path, caplog):
    write_clip(tmp_path / "a.wav")
    filelist = write_corpus(tmp_path, ["a.wav|Just \u6f22 word."])
    with caplog.at_level(logging.WARNING):
        training, _ = data_check(tmp_path).read([filelist])
    assert [utterance.source for utterance in training] == [f"{filelist}:1"]
    assert f"{filelist}:1" in caplog.text
    assert not (tmp_path / "bad.txt").exists()


def test_where_skipping_leaves_no_clip_nothing_is_written(tmp_path):
    write_clip(tmp_path / "a.wav")
    training = write_corpus(tmp_path, ["a.wav|Hello."], "training.txt")
    validation = write_corpus(tmp_path, ["absent.wav|Hello."], "validation.txt")
    for lists in [([training], [validation]), ([validation], [])]:
        with pytest.raises(BadDataset, match=r"absent\.wav(.|\n)*would leave no clip of the"):
            data_check(tmp_path, skip_bad=True).read(*lists)
    assert not (tmp_path / "bad.txt").exists()


def test_mels_and_audio_in_each_others_place_are_told_apart(tmp_path):
    write_clip(tmp_path / "a.wav")
    torch.save(torch.zeros(80, 30), tmp_path / "a.pt")
    stat = (tmp_path / "a.wav").stat()
    PreparationRecord(tmp_path).add(
        ClipRecord(
            audio="a.wav",
            size=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            num_samples=11025,
            sampling_rate=22050,
        )
    )
    for name, are_mels, message in [
        ("a.wav", True, "expected a mel"),
        ("a.pt", False, "expected audio"),
    ]:
        filelist = write_corpus(tmp_path, [f"{name}|Hello."])
        with pytest.raises(BadDataset, match=f":1: .*{message}.*--load-mel-from-disk"):
            data_check(tmp_path, are_mels=are_mels).read([filelist])


def test_lines_that_name_no_possible_file_are_problems_among_others(tmp_path):
    lines = ["What was said, at some length. " * 20 + "|a.wav", "a\0.wav|Hello.", "b.wav|Hello."]
    filelist = write_corpus(tmp_path, lines)
    with pytest.raises(BadDataset) as error:
        data_check(tmp_path).read([filelist])
    assert {problem.source for problem in error.value.problems} == {
        f"{filelist}:{n}" for n in (1, 2, 3)
    }


def test_a_pitch_file_of_any_bytes_is_a_problem_of_its_clip(tmp_path):
    write_clip(tmp_path / "a.wav")
    (tmp_path / "pitch").mkdir()
    filelist = write_corpus(tmp_path, ["a.wav|pitch/a.pt|Hello."])
    for content in (b"RIFF", b"corrupt", b"\x80\x02.", (tmp_path / "a.wav").read_bytes()):
        (tmp_path / "pitch/a.pt").write_bytes(content)
        with pytest.raises(BadDataset, match=r"pitch file .*make it again"):
            data_check(tmp_path, need_pitch=True).read([filelist])
