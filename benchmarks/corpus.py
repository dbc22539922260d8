# SPDX-License-Identifier: BSD-3-Clause
"""A prepared dataset like LJSpeech in its lengths, with noise for features."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from common.audio import write_wav
from common.checks import DataCheck
from common.config import AudioConfig, DataConfig
from common.filelists import Utterance
from common.records import RECORD_FILE, ClipRecord, mel_settings, pitch_settings
from common.text import TextProcessor
from fastpitch.packed import FOLDER, INDEX_FILE, FileState, PackedClip, PackedIndex, Sources
from fastpitch.packing import pack_features

PITCH = {"pitch_mean": 214.7, "pitch_std": 65.7}
CHARACTERS_PER_SECOND = 15
WORDS = (
    "the of and to in a that was he it with as his on be at by had not are but from or have an "
    "they which one you were all her she there would their we him been has when who will more no "
    "if out so said what up its about into than them can only other new some could time these two "
    "may then do first any my now such like our over man me even most made after also did many "
    "before must through years where much your way well down should because each just those people"
)


def draw_frames(num_clips: int, audio: AudioConfig, seed: int = 0) -> list[int]:
    """Lengths of 1 to 10 s, 6.5 on average, most of them longer, as LJSpeech's are."""
    random = np.random.default_rng(seed)
    seconds = 1.0 + 9.0 * random.beta(2.2, 1.4, num_clips)
    return [int(each * audio.sampling_rate) // audio.hop_length + 1 for each in seconds]


def make_corpus(
    folder: Path, num_clips: int, audio: AudioConfig, text: TextProcessor
) -> tuple[list[Utterance], DataConfig]:
    """Audio, mels, pitch, and these packed; noise, as prepare_dataset.py would leave them."""
    noise = torch.Generator().manual_seed(0)
    frames = draw_frames(num_clips, audio)
    data = _write_lists(folder, frames, audio)
    samples = 0.1 * torch.randn(max(frames) * audio.hop_length, generator=noise).numpy()
    records = []
    for clip, num_frames in zip(_clips(folder, num_clips), frames, strict=True):
        num_samples = (num_frames - 1) * audio.hop_length
        write_wav(clip.audio, samples[:num_samples], audio.sampling_rate)
        mel = torch.randn(audio.n_mel_channels, num_frames, generator=noise) - 5
        torch.save(mel, clip.mel)
        torch.save(200 + 20 * torch.randn(1, num_frames, generator=noise), clip.pitch)
        records.append(_record_of(clip, num_samples, audio))
    _write_records(folder, records)
    utterances = utterances_of(data, audio, text)
    pack_features(utterances, folder, audio, "pyin")
    return utterances, data


def make_unread_corpus(folder: Path, num_clips: int, audio: AudioConfig) -> DataConfig:
    """A prepared dataset of which all is there that is read before the first batch."""
    frames = draw_frames(num_clips, audio)
    data = _write_lists(folder, frames, audio)
    records, packed = [], []
    for clip, num_frames in zip(_clips(folder, num_clips), frames, strict=True):
        for path in (clip.audio, clip.mel, clip.pitch):
            path.touch()
        records.append(_record_of(clip, (num_frames - 1) * audio.hop_length, audio))
        states = [FileState.of(path) for path in (clip.audio, clip.mel, clip.pitch)]
        packed.append(PackedClip(f"wavs/{clip.audio.name}", num_frames, states))
    _write_records(folder, records)
    index = PackedIndex(
        mel=mel_settings(audio),
        pitch=pitch_settings(audio, "pyin"),
        n_mel_channels=audio.n_mel_channels,
        files={"mel": "mel.f32", "pitch": "pitch.f32", "energy": "energy.f32"},
        clips=packed,
    )
    (folder / FOLDER).mkdir()
    for feature, width in index.widths.items():
        with (folder / FOLDER / index.files[feature]).open("wb") as file:
            file.truncate(4 * width * index.num_frames)  # takes no room
    (folder / FOLDER / INDEX_FILE).write_text(index.as_json(), encoding="utf-8")
    return data


def utterances_of(data: DataConfig, audio: AudioConfig, text: TextProcessor) -> list[Utterance]:
    """As a training reads and checks them."""
    check = DataCheck(
        dataset_path=data.dataset_path,
        audio=audio,
        text=text,
        bad_list=data.dataset_path / "bad.txt",
        need_pitch=True,
    )
    return check.read(data.training_files)[0]


def _clips(folder: Path, num_clips: int) -> list[Sources]:
    for name in ("wavs", "mels", "pitch"):
        (folder / name).mkdir()
    return [Sources.of(folder / "wavs" / f"{i}.wav", folder) for i in range(num_clips)]


def _write_lists(folder: Path, frames: Sequence[int], audio: AudioConfig) -> DataConfig:
    random, vocabulary = np.random.default_rng(1), WORDS.split()
    lines = []
    for index, num_frames in enumerate(frames):
        seconds = num_frames * audio.hop_length / audio.sampling_rate
        words = random.choice(vocabulary, max(1, round(CHARACTERS_PER_SECOND * seconds / 4.7)))
        lines.append(f"wavs/{index}.wav|{' '.join(words).capitalize()}.\n")
    filelist = folder / "list.txt"
    filelist.write_text("".join(lines))
    return DataConfig(
        dataset_path=folder,
        training_files=(filelist,),
        validation_files=(filelist,),
        load_pitch_from_disk=True,
    )


def _record_of(clip: Sources, num_samples: int, audio: AudioConfig) -> ClipRecord:
    stat = clip.audio.stat()
    return ClipRecord(
        audio=f"wavs/{clip.audio.name}",
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        num_samples=num_samples,
        sampling_rate=audio.sampling_rate,
        features={"mel": mel_settings(audio), "pitch": pitch_settings(audio, "pyin")},
        pitch=(200.0, 20.0, 100),
    )


def _write_records(folder: Path, records: Sequence[ClipRecord]) -> None:
    lines = [json.dumps(dataclasses.asdict(record)) for record in records]
    (folder / RECORD_FILE).write_text("\n".join(lines) + "\n")
