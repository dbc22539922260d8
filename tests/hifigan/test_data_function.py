# SPDX-License-Identifier: BSD-3-Clause
"""Segments: where they are cut, how loud they are, and the mels that belong to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import soundfile
import torch

from common.audio import LOG_FLOOR
from common.config import AudioConfig
from common.filelists import Utterance
from common.segments import collate_segments
from hifigan.data_function import HiFiGANDataset, bring_to_peak

AUDIO = AudioConfig(n_mel_channels=4)
HOP = AUDIO.hop_length


def clip(folder, samples, name="clip"):
    path = folder / f"{name}.wav"
    soundfile.write(path, samples, AUDIO.sampling_rate, subtype="FLOAT")
    return Utterance(audio=path, pitch=None, text="", speaker=0, source="list.txt:1")


def dataset(clips, segment_length=4 * HOP, mels_dir=None, seed=1):
    return HiFiGANDataset(clips, AUDIO, segment_length=segment_length, mels_dir=mels_dir, seed=seed)


def ramp(num_frames):
    """Samples that say where they are."""
    return np.arange(1, num_frames * HOP + 1, dtype=np.float32) / 1e5


def test_a_segment_is_a_piece_of_the_clip(tmp_path):
    segment = dataset([clip(tmp_path, ramp(20))])[1, 0]
    step = segment.audio.diff()
    assert segment.audio.shape == (4 * HOP,)
    assert step.min() > 0 and torch.allclose(step, step[0].expand(len(step)), rtol=0.02)


def test_the_place_depends_on_epoch_and_seed_alone(tmp_path):
    clips = [clip(tmp_path, ramp(200))]
    first = [dataset(clips)[epoch, 0].audio[0].item() for epoch in range(1, 6)]
    again = [dataset(clips)[epoch, 0].audio[0].item() for epoch in range(1, 6)]
    other = [dataset(clips, seed=2)[epoch, 0].audio[0].item() for epoch in range(1, 6)]
    assert first == again and first != other and len(set(first)) == 5


def test_a_clip_shorter_than_a_segment_ends_in_silence(tmp_path):
    segment = dataset([clip(tmp_path, np.full(HOP, 0.5, np.float32))])[1, 0]
    assert segment.audio.shape == (4 * HOP,)
    assert torch.allclose(segment.audio[:HOP], torch.tensor(0.95))
    assert not segment.audio[HOP:].any()


@pytest.mark.parametrize("peak", [0.01, 0.5, 1.0])
def test_recordings_are_brought_to_one_peak(peak):
    audio = peak * torch.tensor([0.0, -1.0, 0.5])
    assert torch.allclose(bring_to_peak(audio), torch.tensor([0.0, -0.95, 0.475]))


def test_silence_stays_silence():
    assert torch.equal(bring_to_peak(torch.zeros(5)), torch.zeros(5))


def test_a_whole_clip_is_cut_to_whole_frames(tmp_path):
    whole = dataset([clip(tmp_path, ramp(3)[: 2 * HOP + 9])], segment_length=None)[1, 0]
    assert whole.audio.shape == (2 * HOP,)


def write_mel(folder, num_frames, bands_first=True):
    """Frame n is n everywhere."""
    mel = np.tile(np.arange(num_frames, dtype=np.float32), (AUDIO.n_mel_channels, 1))
    np.save(folder / "clip.npy", mel if bands_first else mel.T)


@pytest.mark.parametrize("bands_first", [True, False])
def test_in_fine_tuning_audio_and_mel_are_cut_at_the_same_place_and_keep_their_loudness(
    tmp_path, bands_first
):
    write_mel(tmp_path, 21, bands_first)
    data = dataset([clip(tmp_path, ramp(20))], mels_dir=tmp_path)
    for epoch in range(1, 8):
        segment = data[epoch, 0]
        start = round(segment.mel[0, 0].item())
        assert segment.mel.shape == (4, 4)
        assert torch.equal(segment.mel[0], torch.arange(start, start + 4).float())
        expected = torch.from_numpy(ramp(24))[start * HOP : (start + 4) * HOP]
        length = min(len(expected), (20 - start) * HOP)
        assert torch.allclose(segment.audio[:length], expected[:length])
        assert not segment.audio[length:].any()


def test_in_fine_tuning_a_short_clip_is_padded_with_the_mel_of_silence(tmp_path):
    write_mel(tmp_path, 3)
    segment = dataset([clip(tmp_path, ramp(2))], mels_dir=tmp_path)[1, 0]
    assert segment.mel[0].tolist() == pytest.approx([0, 1, 2, math.log(LOG_FLOOR)])
    assert segment.audio.shape == (4 * HOP,)


def test_a_batch_keeps_the_order(tmp_path):
    clips = [clip(tmp_path, np.full(4 * HOP, 0.5, np.float32), name) for name in "ab"]
    batch = collate_segments([dataset(clips)[1, index] for index in (1, 0)])
    assert batch.audio.shape == (2, 4 * HOP) and batch.mel is None
    assert [path.stem for path in batch.paths] == ["b", "a"]
