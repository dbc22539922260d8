# SPDX-License-Identifier: BSD-3-Clause
"""The batch that needs the most memory, which is tried before training begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from common.checks import DataCheck
from common.config import AudioConfig, DataConfig, TextConfig
from common.distributed import Processes
from common.loaders import EpochBatches, largest_batch, make_loader
from common.text import TextProcessor
from fastpitch.data_function import FastPitchDataset

RATE = 22050
AUDIO = AudioConfig()
# Read out, the number is the longest text by far.
CLIPS = {"longest": (1.5, "Oh."), "number": (1.4, "1234567890"), "letters": (0.5, "Nothing much.")}


@pytest.fixture
def dataset(tmp_path) -> FastPitchDataset:
    (tmp_path / "wavs").mkdir()
    lines = []
    for name, (seconds, text) in CLIPS.items():
        tone = 0.3 * np.sin(np.arange(int(seconds * RATE)) / 20)
        subtype = "DOUBLE" if name == "letters" else "PCM_16"  # the largest file, not the longest
        soundfile.write(tmp_path / "wavs" / f"{name}.wav", tone, RATE, subtype=subtype)
        lines.append(f"wavs/{name}.wav|{text}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    text = TextProcessor(TextConfig(text_cleaners=("english_cleaners_v2",)))
    check = DataCheck(dataset_path=tmp_path, audio=AUDIO, text=text, bad_list=Path("unused"))
    utterances, _ = check.read([tmp_path / "list.txt"])
    data = DataConfig(
        dataset_path=tmp_path, training_files=(tmp_path,), validation_files=(tmp_path,)
    )
    return FastPitchDataset(utterances, data, AUDIO, text, pitch_mean=100.0, pitch_std=20.0, seed=1)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_largest_batch_has_the_longest_clip_and_the_text_with_most_symbols(dataset, batch_size):
    batches = EpochBatches(len(dataset), batch_size, Processes(cuda=False), seed=1)
    batch = largest_batch(make_loader(dataset, batches, dataset.collate, 0, pin_memory=False))
    names = [path.stem for path in batch.paths]
    assert names == ["longest", "number", "longest", "longest", "longest"][:batch_size]
    assert batch.mel.shape[2] == max(sample.features.mel.shape[1] for sample in all_of(dataset))
    if batch_size > 1:
        assert batch.text.shape[1] == max(len(sample.text) for sample in all_of(dataset))


def test_the_data_check_knows_how_long_clips_and_texts_are(dataset):
    for utterance, sample in zip(dataset.utterances, all_of(dataset), strict=True):
        assert utterance.num_frames == sample.features.mel.shape[1]
        assert utterance.num_symbols == len(sample.text)


def all_of(dataset):
    return [dataset[1, index] for index in range(len(dataset))]
