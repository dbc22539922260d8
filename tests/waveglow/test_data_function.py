# SPDX-License-Identifier: BSD-3-Clause
"""Segments of recordings: from anywhere in a clip, the same in every process, never louder."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from common.config import AudioConfig
from common.filelists import Utterance
from common.segments import collate_segments
from waveglow.data_function import WaveGlowDataset

RATE = 22050
LONG, SHORT = 9000, 1500  # samples


@pytest.fixture
def clips(tmp_path):
    """A long and a short clip in which no sample occurs twice."""
    rng = np.random.default_rng(0)
    utterances = []
    for name, num_samples in (("long", LONG), ("short", SHORT)):
        samples = rng.permutation(np.linspace(-0.3, 0.3, num_samples))
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, samples, RATE, subtype="FLOAT")
        utterances.append(Utterance(audio=path, pitch=None, text="", speaker=0, source="a.txt:1"))
    return utterances


def dataset(clips, segment_length=2000, seed=1):
    return WaveGlowDataset(clips, AudioConfig(), segment_length=segment_length, seed=seed)


def samples_of(clip):
    return torch.from_numpy(soundfile.read(clip.audio, dtype="float32")[0])


def test_a_segment_is_a_piece_of_its_clip_as_loud_as_it_was(clips):
    whole = samples_of(clips[0])
    starts = []
    for epoch in range(20):
        segment = dataset(clips)[epoch, 0]
        assert segment.audio.shape == (2000,) and segment.mel is None
        start = int((whole == segment.audio[0]).nonzero())
        assert torch.equal(segment.audio, whole[start : start + 2000])
        assert segment.path == clips[0].audio
        starts.append(start)
    assert min(starts) < 2000 and max(starts) > LONG - 4000, "segments must come from everywhere"


def test_where_a_segment_begins_depends_on_seed_epoch_and_index_alone(clips):
    first, second = dataset(clips), dataset(clips)
    second[7, 1], second[8, 0]  # whatever was read before
    assert torch.equal(first[3, 0].audio, second[3, 0].audio)
    assert not torch.equal(first[3, 0].audio, first[4, 0].audio)
    assert not torch.equal(first[3, 0].audio, dataset(clips, seed=2)[3, 0].audio)


def test_a_clip_shorter_than_a_segment_ends_in_silence(clips):
    segment = dataset(clips)[0, 1]
    assert torch.equal(segment.audio[:SHORT], samples_of(clips[1]))
    assert torch.equal(segment.audio[SHORT:], torch.zeros(2000 - SHORT))


def test_long_and_short_clips_make_a_batch(clips):
    data = dataset(clips)
    batch = collate_segments([data[0, 0], data[0, 1]])
    assert batch.audio.shape == (2, 2000) and batch.mel is None
    assert batch.paths == [clip.audio for clip in clips]


def test_a_whole_clip_is_cut_to_whole_hops(clips):
    data = dataset(clips, segment_length=None)
    for index, num_hops in enumerate((LONG // 256, SHORT // 256)):
        audio = data[0, index].audio
        assert torch.equal(audio, samples_of(clips[index])[: num_hops * 256])
    assert len(data) == 2
