# SPDX-License-Identifier: BSD-3-Clause
"""Pitch and its statistics."""

from __future__ import annotations

import json

import numpy as np
import pytest

from common.config import AudioConfig
from common.pitch import (
    STATISTICS_FILE,
    PitchStatistics,
    estimate_pitch,
    load_pitch_statistics,
    save_pitch_statistics,
)

AT_44100 = AudioConfig(
    sampling_rate=44100, filter_length=2048, win_length=2048, hop_length=512, mel_fmax=22050.0
)


@pytest.mark.parametrize("config", [AudioConfig(), AT_44100], ids=["22050 Hz", "44100 Hz"])
@pytest.mark.parametrize("frequency", [110.0, 220.0, 517.0])
def test_a_tone_has_its_own_frequency_at_any_sampling_rate(config, frequency):
    time = np.arange(config.sampling_rate // 2) / config.sampling_rate
    tone = sum(np.sin(2 * np.pi * n * frequency * time) / n for n in (1, 2, 3)) * 0.2
    pitch = estimate_pitch(tone.astype(np.float32), config)
    assert pitch.dtype == np.float32
    assert pitch.shape == (len(tone) // config.hop_length + 1,)
    np.testing.assert_allclose(pitch[5:-5], frequency, rtol=0.01)


def test_silence_and_noise_are_unvoiced():
    noise = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    assert not estimate_pitch(np.zeros(8000, np.float32), AudioConfig()).any()
    assert (estimate_pitch(noise, AudioConfig()) == 0).mean() > 0.8


@pytest.mark.parametrize("num_samples", [1, 255, 256, 1000])
def test_clips_shorter_than_a_window_have_a_value_for_every_frame(num_samples):
    audio = np.full(num_samples, 0.1, np.float32)
    pitch = estimate_pitch(audio, AudioConfig())
    assert pitch.shape == (num_samples // 256 + 1,)
    assert np.isfinite(pitch).all()


def test_an_unknown_method_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match="must be one of pyin, praat, world, got crepe"):
        estimate_pitch(np.zeros(1000, np.float32), AudioConfig(), method="crepe")


def test_merged_statistics_equal_those_of_all_voiced_frames():
    random = np.random.default_rng(0)
    clips = [random.uniform(80, 300, n) * (random.random(n) > 0.3) for n in (5, 100, 31)]
    clips.append(np.zeros(7))
    merged = PitchStatistics.merge(map(PitchStatistics.from_pitch, clips))
    voiced = np.concatenate(clips)
    voiced = voiced[voiced > 0]
    assert merged.num_frames == voiced.size
    assert merged.mean_hz == pytest.approx(voiced.mean(), rel=1e-12)
    assert merged.std_hz == pytest.approx(voiced.std(), rel=1e-12)


def test_speakers_have_statistics_of_their_own(tmp_path):
    low, high = np.array([100.0, 120.0, 0.0]), np.array([200.0, 0.0, 240.0])
    parts = [(1, PitchStatistics.from_pitch(high)), (0, PitchStatistics.from_pitch(low))]
    statistics = PitchStatistics.by_speaker(parts)
    save_pitch_statistics(statistics, tmp_path)
    assert load_pitch_statistics(tmp_path) == statistics
    stored = json.loads((tmp_path / STATISTICS_FILE).read_text())
    assert stored["speakers"]["0"] == {"mean": 110.0, "std": 10.0, "frames": 2}
    assert stored["speakers"]["1"] == {"mean": 220.0, "std": 20.0, "frames": 2}
    assert (stored["mean"], stored["frames"]) == (165.0, 4)


def test_a_dataset_that_was_not_prepared_has_no_statistics(tmp_path):
    assert load_pitch_statistics(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"mean": 1, "std": "x", "frames": 2}'])
def test_damaged_statistics_are_refused_with_a_sentence(tmp_path, content):
    (tmp_path / STATISTICS_FILE).write_text(content)
    with pytest.raises(ValueError, match=rf"{STATISTICS_FILE}: expected mean, std and frames"):
        load_pitch_statistics(tmp_path)


def test_statistics_without_voiced_frames_are_refused_when_loaded(tmp_path):
    save_pitch_statistics(PitchStatistics.from_pitch(np.zeros(10)), tmp_path)
    with pytest.raises(ValueError, match="--pitch-mean"):
        load_pitch_statistics(tmp_path)
