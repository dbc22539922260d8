# SPDX-License-Identifier: BSD-3-Clause
"""Packed features: bitwise those of each clip's own files, or refused where they would not be."""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import shutil

import numpy as np
import pytest
import torch

import prepare_dataset
from common.audio import write_wav
from common.checks import DataCheck
from common.config import AudioConfig, DataConfig, TextConfig
from common.text import TextProcessor
from fastpitch.data_function import FastPitchDataset
from fastpitch.packed import PackedIndex, open_packed
from tests.conftest import assert_same

AUDIO = AudioConfig()
TEXT = TextProcessor(TextConfig(text_cleaners=("english_cleaners_v2",), p_arpabet=0.5))
TEXTS = ["Hello there.", "One more, please!", "Is it so?", "The end of all."]
FEATURES = ["--extract-mels", "--extract-pitch"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "wavs").mkdir()
    for index in range(len(TEXTS)):
        time = np.arange(int((0.4 + 0.1 * index) * 22050)) / 22050
        tone = sum(np.sin(2 * np.pi * (120 + 10 * index) * n * time) / n for n in (1, 2, 3))
        write_wav(folder / f"wavs/{index}.wav", 0.2 * tone, 22050)
    lines = [f"wavs/{index}.wav|{text}\n" for index, text in enumerate(TEXTS)]
    (folder / "train.txt").write_text("".join(lines[:3]))
    (folder / "val.txt").write_text("".join(lines[3:]))
    assert prepare(folder, ["train.txt", "val.txt"]) == 0
    return folder


@pytest.fixture
def folder(prepared, tmp_path):
    """A copy of the prepared corpus, to change."""
    return shutil.copytree(prepared, tmp_path / "copy")


def prepare(folder, lists, *flags):
    names = [str(folder / name) for name in lists]
    flags = ["-d", str(folder), "--wav-text-filelists", *names, "--n-workers", "1", *flags]
    return prepare_dataset.main([*flags, *FEATURES])


def settings_of(folder, **changes):
    unused = {"training_files": (folder,), "validation_files": (folder,)}
    settings = {"dataset_path": folder, "load_pitch_from_disk": True}
    return DataConfig(**unused, **settings | changes)


def utterances_in(folder, name="train.txt", are_mels=False):
    check = DataCheck(
        dataset_path=folder,
        audio=AUDIO,
        text=TEXT,
        bad_list=folder / "bad.txt",
        are_mels=are_mels,
        need_pitch=True,
    )
    return check.read([folder / name])[0]


def batch_of(utterances, data, packed):
    statistics = {"pitch_mean": 130.0, "pitch_std": 20.0}
    dataset = FastPitchDataset(utterances, data, AUDIO, TEXT, seed=1, source=packed, **statistics)
    return dataset.collate([dataset[2, index] for index in range(len(utterances))])


@pytest.mark.parametrize(
    "source",
    [
        {"load_mel_from_disk": False},
        {"load_mel_from_disk": True},
        {"load_pitch_from_disk": False},
    ],
)
def test_a_batch_is_bitwise_that_of_each_clips_own_files(folder, source):
    data = settings_of(folder, **source)
    if data.load_mel_from_disk:
        lines = (folder / "train.txt").read_text().replace("wavs/", "mels/").replace(".wav", ".pt")
        (folder / "train.txt").write_text(lines)
    utterances = utterances_in(folder, are_mels=data.load_mel_from_disk)
    packed = open_packed(utterances, data, AUDIO)
    ours, expected = (batch_of(utterances, data, each) for each in (packed, None))
    assert packed is not None
    assert_same(vars(ours), vars(expected))


def test_another_process_reads_the_files_itself(folder):
    utterances = utterances_in(folder)
    packed = open_packed(utterances, settings_of(folder), AUDIO)
    sent = pickle.dumps(packed)
    assert len(sent) < 10_000
    assert_same(packed.read(utterances[1]), pickle.loads(sent).read(utterances[1]))


def touch(path):
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


@pytest.mark.parametrize("changed", ["wavs/1.wav", "mels/1.pt", "pitch/1.pt"])
def test_a_file_that_has_changed_since_is_told_and_read(folder, caplog, changed):
    touch(folder / changed)
    assert open_packed(utterances_in(folder), settings_of(folder), AUDIO) is None
    assert "was made of other files for 1 of the clips" in caplog.text
    assert "1.wav first" in caplog.text and "clip by clip, which is slower" in caplog.text


def test_files_that_are_no_longer_there_are_not_missed(folder):
    shutil.rmtree(folder / "mels")
    assert open_packed(utterances_in(folder), settings_of(folder), AUDIO) is not None


def test_other_settings_are_told(folder, caplog):
    utterances = utterances_in(folder)
    other = dataclasses.replace(AUDIO, mel_fmax=7600.0)
    assert open_packed(utterances, settings_of(folder), other) is None
    assert "bands 0.0-8000.0 Hz, these are" in caplog.text


def test_pitch_of_another_place_is_told(folder, caplog):
    shutil.copytree(folder / "pitch", folder / "other_pitch")
    first, *others = utterances_in(folder)
    first = dataclasses.replace(first, pitch=folder / "other_pitch" / "0.pt")
    assert open_packed([first, *others], settings_of(folder), AUDIO) is None
    assert "was made of other files for 1 of the clips" in caplog.text


def test_clips_that_are_not_packed_are_told_and_packed_with_the_others_next_time(folder, caplog):
    shutil.rmtree(folder / "packed")
    assert prepare(folder, ["train.txt"]) == 0
    validation = utterances_in(folder, "val.txt")
    assert open_packed(validation, settings_of(folder), AUDIO) is None
    assert "lacks 1 of the clips" in caplog.text
    assert prepare(folder, ["val.txt"]) == 0
    everything = [*utterances_in(folder), *validation]
    packed = open_packed(everything, settings_of(folder), AUDIO)
    batches = [batch_of(everything, settings_of(folder), each) for each in (packed, None)]
    assert_same(*map(vars, batches))


def files_in(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "packed").iterdir()}


def test_what_is_up_to_date_is_not_packed_again_and_what_is_stale_is(folder):
    before = files_in(folder)
    assert prepare(folder, ["train.txt", "val.txt"]) == 0
    assert files_in(folder) == before
    touch(folder / "wavs/1.wav")
    (folder / "packed/.mel.f32.left.tmp").write_text("by one that was killed")
    assert prepare(folder, ["train.txt", "val.txt"]) == 0
    assert len(files_in(folder)) == 4 and not files_in(folder).keys() & before.keys() - {
        "index.json"
    }
    assert open_packed(utterances_in(folder), settings_of(folder), AUDIO) is not None


@pytest.mark.parametrize("damage", ["index.json", "mel"])
def test_damaged_files_are_told_and_made_again(folder, caplog, damage):
    (path,) = (folder / "packed").glob(f"{damage}*")
    path.write_bytes(path.read_bytes()[:-5])
    assert open_packed(utterances_in(folder), settings_of(folder), AUDIO) is None
    assert "index.json: cannot be used" in caplog.text
    assert prepare(folder, ["train.txt", "val.txt"]) == 0
    assert open_packed(utterances_in(folder), settings_of(folder), AUDIO) is not None


def test_files_that_go_while_they_are_opened_are_told(folder, caplog, monkeypatch):
    index = PackedIndex.read(folder)
    monkeypatch.setattr(PackedIndex, "read", lambda _: index)  # another one takes its place
    (path,) = (folder / "packed").glob("pitch*")
    path.unlink()
    assert open_packed(utterances_in(folder), settings_of(folder), AUDIO) is None
    assert "Features are read clip by clip" in caplog.text and path.name in caplog.text


def test_packing_can_be_left_out_and_the_log_says_that_clips_are_read_one_by_one(folder, caplog):
    caplog.set_level(logging.INFO)
    shutil.rmtree(folder / "packed")
    assert prepare(folder, ["train.txt"], "--no-pack") == 0
    assert not (folder / "packed").exists()
    assert open_packed(utterances_in(folder), settings_of(folder), AUDIO) is None
    assert "has made no" in caplog.text


def test_where_packed_files_cannot_be_written_the_rest_is_done(folder, caplog):
    shutil.rmtree(folder / "packed")
    (folder / "packed").write_text("in the way")
    assert prepare(folder, ["train.txt"]) == 1
    assert "--no-pack" in caplog.text
    assert torch.load(folder / "mels/0.pt").shape[0] == 80
