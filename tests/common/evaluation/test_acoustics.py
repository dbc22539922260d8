# SPDX-License-Identifier: BSD-3-Clause
"""Distances of clips whose difference is known."""

import numpy as np
import pytest
import scipy.signal

from common.audio import write_wav
from common.config import AudioConfig
from common.evaluation.acoustics import DB_PER_NEPER, AcousticDistance, _compare_pitch, mel_cepstra

AUDIO = AudioConfig()
RATE = AUDIO.sampling_rate
FORMANTS = ((700, 1200, 2600), (300, 2200, 3000), (500, 900, 2500), (400, 1800, 2400))  # Hz
SYLLABLE = RATE // 4


def sing(formants, factor=1.0, seconds_of_silence=0.0):
    """Vowels whose pitch glides, as buzz through resonances; `factor` changes the pitch alone."""
    num_samples = SYLLABLE * len(formants)
    pitch = factor * np.linspace(150, 250, num_samples)
    phase = np.cumsum(pitch) / RATE
    buzz = sum(np.cos(2 * np.pi * n * phase) for n in range(1, 30)) / 30
    vowels = []
    for syllable, resonances in zip(np.split(buzz, len(formants)), formants, strict=True):
        for hz in resonances:
            radius, angle = np.exp(-np.pi * 120 / RATE), 2 * np.pi * hz / RATE
            poles = [1, -2 * radius * np.cos(angle), radius**2]
            syllable = scipy.signal.lfilter([1 - radius], poles, syllable)
        vowels.append(syllable / np.abs(syllable).max())
    silence = np.zeros(round(seconds_of_silence * RATE))
    noise = np.random.default_rng(0).normal(0, 1e-3, num_samples)
    return np.concatenate([silence, 0.3 * np.concatenate(vowels) + noise, silence])


@pytest.fixture
def distance(tmp_path):
    compare = AcousticDistance(AUDIO)

    def between(speech, reference):
        for name, samples in (("speech", speech), ("reference", reference)):
            write_wav(tmp_path / f"{name}.wav", samples, RATE)
        scores = compare(tmp_path / "speech.wav", tmp_path / "reference.wav")
        return {name: score.value for name, score in scores.items()}

    return between


def test_a_clip_is_at_no_distance_from_itself(distance):
    scores = distance(sing(FORMANTS), sing(FORMANTS))
    assert scores == {
        "mcd": 0,
        "f0_shift": 0,
        "f0_rmse": 0,
        "f0_correlation": pytest.approx(1),
        "voicing_error": 0,
        "length": 1,
    }


@pytest.mark.parametrize("semitones", [1, -1])
def test_a_clip_a_semitone_away_in_pitch_is_told_to_be_and_where(distance, semitones):
    scores = distance(sing(FORMANTS, factor=2 ** (semitones / 12)), sing(FORMANTS))
    assert scores["f0_shift"] == pytest.approx(semitones, abs=0.1)
    assert scores["f0_rmse"] == pytest.approx(1, abs=0.1)
    assert scores["f0_correlation"] > 0.98
    assert scores["mcd"] < 3


def test_level_and_silence_around_a_clip_make_no_distance(distance):
    scores = distance(0.5 * sing(FORMANTS, seconds_of_silence=0.4), sing(FORMANTS))
    assert scores["mcd"] < 1.2
    assert scores["f0_rmse"] < 0.1
    assert scores["voicing_error"] < 0.05


def test_other_vowels_are_far_and_slower_ones_are_near(distance):
    slow = sing([vowel for vowel in FORMANTS for _ in range(2)])
    other = sing(FORMANTS[::-1])
    near, far = distance(slow, sing(FORMANTS)), distance(other, sing(FORMANTS))
    assert near["mcd"] < 0.5 * far["mcd"]
    assert far["mcd"] > 5
    assert near["length"] == pytest.approx(2, abs=0.05)
    assert far["length"] == pytest.approx(1, abs=0.05)


def test_distortion_is_the_root_mean_square_difference_of_envelopes_in_decibels():
    bands = (np.arange(80) + 0.5) / 80
    envelope = 0.3 * np.cos(2 * np.pi * bands) + 0.2 * np.cos(7 * np.pi * bands)  # nepers
    flat = np.full((80, 1), -4.0)
    difference = mel_cepstra(flat + 1.7 + envelope[:, None]) - mel_cepstra(flat)
    distortion = DB_PER_NEPER * np.sqrt(np.square(difference).sum() / 2)
    assert distortion == pytest.approx(20 * np.log10(np.e) * np.sqrt((envelope**2).mean()))


def test_clips_without_a_voice_have_no_score_of_pitch(tmp_path):
    write_wav(tmp_path / "silence.wav", np.zeros(RATE), RATE)
    scores = AcousticDistance(AUDIO)(tmp_path / "silence.wav", tmp_path / "silence.wav")
    assert {scores[name].weight for name in ("f0_shift", "f0_rmse", "f0_correlation")} == {0}
    assert scores["mcd"].value == 0


@pytest.mark.filterwarnings("error")
def test_a_monotone_has_no_correlation_of_pitch():
    pitch = np.stack([np.full(7, 123.4), np.linspace(100, 200, 7)])
    for each in (pitch, pitch[::-1]):
        assert _compare_pitch(each)["f0_correlation"].weight == 0
