# SPDX-License-Identifier: BSD-3-Clause
"""prepare_dataset.py from flags to files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import prepare_dataset
from common.audio import MelSpectrogram, read_audio, write_wav
from common.config import AudioConfig, TextConfig
from common.pitch import PitchStatistics, estimate_pitch, load_pitch_statistics
from common.text import TextProcessor
from fastpitch.prior import InterpolatedPrior

ROOT = Path(prepare_dataset.__file__).parent
ALL_FEATURES = ("--extract-mels", "--extract-pitch", "--save-alignment-priors")
FOLDERS = ("mels", "pitch", "alignment_priors")
HARDLY_ANY_WORK = ("--extract-mels",)


def make_corpus(folder: Path, num_clips: int = 3, seconds: float = 0.6, speakers: int = 1) -> Path:
    """Buzzing tones at 120, 130, 140 Hz and so on; returns the file list."""
    (folder / "wavs").mkdir(parents=True)
    time_ = np.arange(int(seconds * 22050)) / 22050
    lines = []
    for i in range(num_clips):
        tone = sum(np.sin(2 * np.pi * (120 + 10 * i) * n * time_) / n for n in (1, 2, 3)) * 0.2
        write_wav(folder / f"wavs/{i}.wav", tone, 22050)
        speaker = f"|{i % speakers}" if speakers > 1 else ""
        lines.append(f"wavs/{i}.wav|This is number {i}.{speaker}\n")
    filelist = folder / "list.txt"
    filelist.write_text("".join(lines))
    return filelist


def prepare(filelist: Path, *flags: str, num_workers: int = 1) -> int:
    return prepare_dataset.main(
        [
            *("--dataset-path", str(filelist.parent), "--wav-text-filelists", str(filelist)),
            *("--n-workers", str(num_workers), *flags),
        ]
    )


def features_of(folder: Path) -> dict[str, bytes]:
    """Every feature and its bytes, and the statistics."""
    paths = [path for name in FOLDERS for path in (folder / name).glob("*")]
    paths += folder.glob("pitch_stats.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def times_of(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in features_of(folder)}


def test_features_are_those_of_the_clips(tmp_path):
    filelist = make_corpus(tmp_path, num_clips=2)
    assert prepare(filelist, *ALL_FEATURES) == 0
    config = AudioConfig()
    text = TextProcessor(TextConfig(text_cleaners=("english_cleaners_v2",)))
    pitches = []
    for i in range(2):
        audio = read_audio(tmp_path / f"wavs/{i}.wav", 22050)
        mel, pitch, prior = (
            torch.load(tmp_path / folder / f"{i}.pt", weights_only=True) for folder in FOLDERS
        )
        expected_mel = MelSpectrogram(config)(torch.from_numpy(audio)[None])[0]
        torch.testing.assert_close(mel, expected_mel, rtol=0, atol=0)
        expected_pitch = estimate_pitch(audio, config)
        torch.testing.assert_close(pitch, torch.from_numpy(expected_pitch)[None], rtol=0, atol=0)
        num_symbols = len(text.encode(f"This is number {i}."))
        expected_prior = InterpolatedPrior()(mel.shape[1], num_symbols)
        torch.testing.assert_close(prior, torch.from_numpy(expected_prior), rtol=0, atol=0)
        pitches.append(expected_pitch)
    statistics = load_pitch_statistics(tmp_path)
    expected = PitchStatistics.from_pitch(np.concatenate(pitches))
    assert statistics.num_frames == expected.num_frames
    assert statistics.mean_hz == pytest.approx(expected.mean_hz, rel=1e-9)
    assert statistics.std_hz == pytest.approx(expected.std_hz, rel=1e-9)


def test_two_workers_write_the_same_bytes_as_one(tmp_path):
    one = make_corpus(tmp_path / "one")
    two = make_corpus(tmp_path / "two")
    assert prepare(one, *ALL_FEATURES, num_workers=1) == 0
    assert prepare(two, *ALL_FEATURES, num_workers=2) == 0
    assert features_of(one.parent) == features_of(two.parent)
    assert len(features_of(one.parent)) == 10


def test_speakers_get_statistics_of_their_own(tmp_path):
    filelist = make_corpus(tmp_path, num_clips=4, speakers=2)
    assert prepare(filelist, "--extract-pitch", "--n-speakers", "2") == 0
    statistics = load_pitch_statistics(tmp_path)
    assert statistics.speakers[0].mean_hz == pytest.approx(130, rel=0.02)  # 120 and 140 Hz
    assert statistics.speakers[1].mean_hz == pytest.approx(140, rel=0.02)  # 130 and 150 Hz
    assert statistics.mean_hz == pytest.approx(135, rel=0.02)


def test_unchanged_work_is_skipped_and_changed_work_done_again(tmp_path):
    filelist = make_corpus(tmp_path)
    assert prepare(filelist, *ALL_FEATURES) == 0
    first = times_of(tmp_path)
    assert prepare(filelist, *ALL_FEATURES) == 0
    again = times_of(tmp_path)
    assert {name for name in first if first[name] != again[name]} == {"pitch_stats.json"}

    audio = read_audio(tmp_path / "wavs/1.wav", 22050)
    write_wav(tmp_path / "wavs/1.wav", audio[:-300], 22050)
    (tmp_path / "mels/2.pt").unlink()
    (tmp_path / "pitch/2.pt").write_bytes(b"")  # as after a power cut
    assert prepare(filelist, *ALL_FEATURES) == 0
    third = times_of(tmp_path)
    changed = {name for name in first if first[name] != third[name]} - {"pitch_stats.json"}
    of_changed_clip = {"mels/1.pt", "pitch/1.pt", "alignment_priors/1.pt"}
    assert changed == of_changed_clip | {"mels/2.pt", "pitch/2.pt"}
    num_frames = (len(audio) - 300) // 256 + 1
    assert torch.load(tmp_path / "mels/1.pt", weights_only=True).shape == (80, num_frames)


def test_other_settings_do_the_work_again_that_depends_on_them(tmp_path):
    filelist = make_corpus(tmp_path)
    assert prepare(filelist, "--extract-mels", "--extract-pitch") == 0
    before = features_of(tmp_path)
    first = times_of(tmp_path)
    assert prepare(filelist, *ALL_FEATURES, "--n-mel-channels", "40") == 0
    second = times_of(tmp_path)
    assert {name for name in first if first[name] == second[name]} == {
        f"pitch/{i}.pt" for i in range(3)
    }
    assert torch.load(tmp_path / "mels/0.pt", weights_only=True).shape[0] == 40
    assert prepare(filelist, *ALL_FEATURES) == 0
    after = features_of(tmp_path)
    assert all(after[name] == content for name, content in before.items())


def test_files_that_were_there_stay(tmp_path):
    filelist = make_corpus(tmp_path, num_clips=1)
    others = [tmp_path / "mels/other.pt", tmp_path / "notes.txt", tmp_path / "pitch/.keep"]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    assert prepare(filelist, *ALL_FEATURES) == 0
    assert [path.read_text() for path in others] == ["mine"] * 3


def test_bad_input_is_listed_with_exit_code_2_and_nothing_written(tmp_path, caplog):
    filelist = make_corpus(tmp_path)
    write_wav(tmp_path / "wavs/1.wav", np.zeros(5000), 22050)
    (tmp_path / "wavs/2.wav").unlink()
    before = sorted(tmp_path.rglob("*"))
    assert prepare(filelist, *ALL_FEATURES) == 2
    assert "2 problems in the data, nothing was written" in caplog.text
    assert "list.txt:2" in caplog.text and "list.txt:3" in caplog.text
    assert sorted(tmp_path.rglob("*")) == before


def test_samples_are_read_once(tmp_path, monkeypatch):
    filelist = make_corpus(tmp_path)
    read, reads = soundfile.SoundFile.read, []

    def counted_read(file, *args, **kwargs):
        reads.append(Path(file.name).name)
        return read(file, *args, **kwargs)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted_read)
    assert prepare(filelist, *ALL_FEATURES) == 0
    assert sorted(reads) == ["0.wav", "1.wav", "2.wav"]
    assert prepare(filelist, *ALL_FEATURES) == 0
    assert len(reads) == 3


def test_bad_samples_are_listed_together_when_the_other_clips_are_prepared(tmp_path, caplog):
    filelist = make_corpus(tmp_path, num_clips=4)
    write_wav(tmp_path / "wavs/1.wav", np.zeros(12000), 22050)
    soundfile.write(tmp_path / "wavs/3.wav", np.full(12000, np.nan), 22050, subtype="FLOAT")
    assert prepare(filelist, "--extract-mels", "--extract-pitch") == 2
    assert "2 problems in the data, what the other clips need was written:" in caplog.text
    assert caplog.text.index("list.txt:2: ") < caplog.text.index("list.txt:4: ")
    assert "silent" in caplog.text and "NaN" in caplog.text
    assert not (tmp_path / "pitch_stats.json").exists()
    first = times_of(tmp_path)
    assert set(first) == {f"{folder}/{i}.pt" for folder in ("mels", "pitch") for i in (0, 2)}

    assert prepare(filelist, "--extract-mels", "--extract-pitch", "--skip-bad") == 0
    second, lines = times_of(tmp_path), (tmp_path / "bad_clips.txt").read_text().splitlines()
    assert {name: second[name] for name in first} == first
    assert ["silent" in lines[0], "NaN" in lines[1], len(lines)] == [True, True, 2]
    (event,) = (tmp_path / "preproc_log.json").read_text().splitlines()
    assert json.loads(event.removeprefix("DLLL "))["data"]["clips"] == 2


def test_clips_that_are_skipped_at_once_and_later_are_in_one_list(tmp_path):
    filelist = make_corpus(tmp_path)
    (tmp_path / "wavs/0.wav").unlink()
    write_wav(tmp_path / "wavs/2.wav", np.zeros(12000), 22050)
    assert prepare(filelist, "--extract-pitch", "--skip-bad") == 0
    first, second = (tmp_path / "bad_clips.txt").read_text().splitlines()
    assert "list.txt:1: " in first and "list.txt:3: " in second
    assert load_pitch_statistics(tmp_path).mean_hz == pytest.approx(130, rel=0.02)


def test_skip_bad_prepares_the_rest(tmp_path):
    filelist = make_corpus(tmp_path)
    (tmp_path / "wavs/1.wav").write_bytes(b"garbage")
    assert prepare(filelist, *ALL_FEATURES, "--skip-bad") == 0
    assert sorted(path.name for path in (tmp_path / "mels").iterdir()) == ["0.pt", "2.pt"]
    (line,) = (tmp_path / "bad_clips.txt").read_text().splitlines()
    assert "list.txt:2" in line


def test_missing_lists_and_folders_are_sentences_with_exit_code_2(tmp_path, caplog):
    assert prepare(tmp_path / "none.txt", *ALL_FEATURES) == 2
    assert "none.txt: no such file list" in caplog.text
    assert prepare(tmp_path / "nowhere/none.txt", *ALL_FEATURES) == 2
    assert "--dataset-path" in caplog.text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "nothing to do: give --extract-mels"),
        (["--extract-mels", "--n-workers", "0"], "--n-workers must be positive, got 0"),
        (["--extract-mels", "--speed", "9"], "unrecognized arguments: --speed"),
        (["--extract-mels", "--symbol-set", "runes"], "runes"),
    ],
)
def test_impossible_flags_are_refused_with_exit_code_2(tmp_path, capfd, caplog, flags, message):
    filelist = make_corpus(tmp_path, num_clips=1)
    try:
        code = prepare(filelist, *flags)
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    assert message in capfd.readouterr().err + caplog.text
    assert not (tmp_path / "mels").exists()


def test_44100_hz_is_a_matter_of_settings(tmp_path):
    filelist = make_corpus(tmp_path, num_clips=1)
    flags = "--sampling-rate 44100 --filter-length 2048 --hop-length 512 --win-length 2048"
    assert prepare(filelist, *ALL_FEATURES[:2], *flags.split(), "--mel_fmax", "22050") == 0
    num_frames = int(0.6 * 44100) // 512 + 1
    assert torch.load(tmp_path / "mels/0.pt", weights_only=True).shape == (80, num_frames)
    pitch = torch.load(tmp_path / "pitch/0.pt", weights_only=True)
    assert pitch.shape == (1, num_frames)
    assert pitch[pitch > 0].mean() == pytest.approx(120, rel=0.02)


def test_a_line_in_the_log_tells_what_was_done(tmp_path):
    filelist = make_corpus(tmp_path, num_clips=2)
    assert prepare(filelist, *HARDLY_ANY_WORK) == 0
    (line,) = (tmp_path / "preproc_log.json").read_text().splitlines()
    event = json.loads(line.removeprefix("DLLL "))
    assert event["type"] == "LOG"
    assert event["data"]["clips"] == event["data"]["prepared"] == 2


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_is_continued(tmp_path, how):
    filelist = make_corpus(tmp_path, num_clips=30, seconds=20)  # a second of work
    command = [sys.executable, "prepare_dataset.py", "--dataset-path", str(tmp_path)]
    command += ["--wav-text-filelists", str(filelist), "--extract-pitch", "--n-workers", "2"]
    record = tmp_path / "prepared.jsonl"
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        give_up = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < give_up:
            if record.is_file() and record.stat().st_size:
                break
            time.sleep(0.01)
        process.send_signal(how)
        begun = time.monotonic()
        _, errors = process.communicate(timeout=30)
    assert time.monotonic() - begun < 5
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in errors
    done = record.read_text().count("\n")
    assert 1 <= done < 30
    assert not (tmp_path / "pitch_stats.json").exists()
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "pitch").glob("*.pt")}
    recorded = [json.loads(line)["audio"] for line in record.read_text().splitlines()]

    assert prepare(filelist, "--extract-pitch") == 0
    assert len(list((tmp_path / "pitch").glob("*.pt"))) == 30
    for audio in recorded:
        path = tmp_path / "pitch" / f"{Path(audio).stem}.pt"
        assert path.stat().st_mtime_ns == finished[path]
    assert load_pitch_statistics(tmp_path).num_frames > 30 * 1700
