# SPDX-License-Identifier: BSD-3-Clause
"""Pitch by probabilistic YIN, against librosa's and against what it must hold."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys

import librosa
import numpy as np
import pytest
import soundfile

import benchmarks.pitch
import common.compiled
from common.pitch_path import TINY, find_path
from common.pyin import PyinSettings, pyin

C2_HZ, C7_HZ = librosa.note_to_hz("C2"), librosa.note_to_hz("C7")
# From librosa 1.0 on its default leaves out unlikely transitions.
EXACT = (
    {"transition_min_prob": None}
    if "transition_min_prob" in inspect.signature(librosa.pyin).parameters
    else {}
)


def settings_at(sampling_rate=22050, frame_length=1024, hop_length=256, fmin=C2_HZ, fmax=C7_HZ):
    return PyinSettings(
        sampling_rate=sampling_rate,
        frame_length=frame_length,
        hop_length=hop_length,
        fmin=fmin,
        fmax=fmax,
    )


def librosa_pyin(audio, settings):
    pitch, _, _ = librosa.pyin(
        audio,
        sr=settings.sampling_rate,
        frame_length=settings.frame_length,
        hop_length=settings.hop_length,
        fmin=settings.fmin,
        fmax=settings.fmax,
        fill_na=0.0,
        **EXACT,
    )
    return pitch


def generated_voice(sampling_rate, seconds=0.6, seed=0):
    """Glides, a leap, a creak, pauses, breath noise and digital silence."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * sampling_rate)) / sampling_rate
    part = (time / seconds * 12).astype(int)
    ends = np.array([90, 120, 240, 200, 200, 410, 410, 140, 70, 70, 900, 1000, 1000.0])
    glide = np.interp(time / seconds * 12, np.arange(13), ends)
    frequency = np.where(part == 5, 2 * glide, glide)
    phase = 2 * np.pi * np.cumsum(frequency) / sampling_rate
    voice = sum(np.sin(n * phase + n) / n for n in range(1, 6))
    loudness = np.array([1, 1, 0.5, 0, 1, 1, 0.05, 1, 1, 0, 1, 1])[part]
    breath = np.array([0.01, 0, 0.1, 0, 0, 0.3, 0.01, 0.5, 0, 0.2, 0, 0.1])[part]
    audio = 0.1 * (voice * loudness + random.normal(0, 1, len(time)) * breath)
    return audio.astype(np.float32)


def assert_same(pitch, expected):
    # One frame in a thousand may differ, hence none of the few of a test.
    assert pitch.shape == expected.shape
    np.testing.assert_array_equal(pitch > 0, expected > 0)
    np.testing.assert_allclose(pitch, expected, atol=0.1)


@pytest.mark.parametrize("hop_length", [200, 256, 512])
@pytest.mark.parametrize(("sampling_rate", "frame_length"), [(22050, 1024), (44100, 2048)])
def test_a_generated_voice_has_the_pitch_that_librosa_finds(
    sampling_rate, frame_length, hop_length
):
    settings = settings_at(sampling_rate, frame_length, hop_length)
    audio = generated_voice(sampling_rate)
    expected = librosa_pyin(audio, settings)
    assert 0.2 < (expected > 0).mean() < 0.9  # the voice tests both
    assert_same(pyin(audio, settings), expected)


@pytest.mark.parametrize(
    "settings",
    [
        settings_at(16000, 1023, 160, 80.0, 1000.0),
        settings_at(8000, 512, 25, 60.0, 400.0),
        settings_at(24000, 2000, 1024, 50.0, 3900.0),
        settings_at(22050, 339 + 2, 256),
    ],
    ids=["odd frame", "no pitch change in a hop", "wide changes", "one period in a frame"],
)
@pytest.mark.filterwarnings("ignore:.*two periods")
def test_other_settings_give_the_pitch_that_librosa_finds(settings):
    audio = generated_voice(settings.sampling_rate, seconds=0.4)
    assert_same(pyin(audio, settings), librosa_pyin(audio, settings))


def test_recorded_speech_has_the_pitch_that_librosa_finds(shared):
    clips = sorted((shared / "ljspeech_sample" / "wavs").glob("*.wav"))
    clips = sorted(clips, key=lambda clip: clip.stat().st_size)[:3]
    for clip in clips:
        audio, sampling_rate = soundfile.read(clip, dtype="float32")
        settings = settings_at(sampling_rate)
        assert_same(pyin(audio, settings), librosa_pyin(audio, settings))


@pytest.mark.parametrize("num_samples", [1, 2, 255, 256, 1000])
def test_short_audio_has_the_pitch_that_librosa_finds(num_samples):
    audio = generated_voice(22050)[:num_samples]
    pitch = pyin(audio, settings_at())
    assert pitch.shape == (num_samples // 256 + 1,)
    assert_same(pitch, librosa_pyin(audio, settings_at()))


def test_silence_is_unvoiced():
    pitch = pyin(np.zeros(22050, np.float32), settings_at())
    assert pitch.shape == (87,)
    assert not pitch.any()


def test_a_low_tone_beside_a_loud_constant_has_the_pitch_that_librosa_finds():
    # What is below the range decides between its lowest pitch and none.
    time = np.arange(8000) / 8000
    audio = (0.05 * np.sin(2 * np.pi * 99 * time) + 0.3 * (time > 0.3)).astype(np.float32)
    settings = settings_at(8000, 1023, 256, fmin=100.0)
    assert_same(pyin(audio, settings), librosa_pyin(audio, settings))


@pytest.mark.parametrize("hop_length", [256, 512])
def test_the_best_path_is_as_probable_as_that_of_a_search_over_all_transitions(hop_length):
    settings = settings_at(hop_length=hop_length, fmin=100.0, fmax=250.0)
    random = np.random.default_rng(3)
    num_frames, num_bins = 200, settings.num_bins
    heard = random.random((num_frames, num_bins)) * (random.random((num_frames, num_bins)) < 0.03)
    # In frames that are certainly voiced the path has to make do with what there is, even if it is
    # out of reach.
    certain = random.random(num_frames) < 0.4
    heard[certain] = np.eye(num_bins)[random.integers(num_bins, size=certain.sum())]
    heard[~certain] /= 1.1 * np.maximum(1, heard[~certain].sum(axis=1, keepdims=True))
    unvoiced = (1 - heard.sum(axis=1)) / num_bins
    probabilities = np.concatenate([heard, np.tile(unvoiced[:, None], num_bins)], axis=1)

    window = {"width": 2 * settings.reach + 1, "window": "triangle"}
    transitions = np.kron(
        librosa.sequence.transition_loop(2, 0.99),
        librosa.sequence.transition_local(num_bins, **window),
    )
    expected, log_probability = librosa.sequence.viterbi(
        probabilities.T, transitions, return_logp=True
    )
    scores = np.log(probabilities + TINY)
    states = find_path(scores.copy(), np.log(unvoiced + TINY), settings.reach)

    assert (transitions[expected[:-1], expected[1:]] == 0).any()
    steps = np.log(transitions[states[:-1], states[1:]] + TINY).sum() - np.log(2 * num_bins)
    total = scores[np.arange(num_frames), states].sum() + steps
    np.testing.assert_allclose(total, log_probability, atol=1e-6)


def test_pitch_is_the_same_every_time_and_leaves_the_audio_alone():
    audio = generated_voice(22050)
    before = audio.copy()
    first, second = pyin(audio, settings_at()), pyin(audio, settings_at())
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(audio, before)
    audio.flags.writeable = False
    np.testing.assert_array_equal(pyin(audio, settings_at()), first)


def test_the_length_of_a_batch_of_frames_makes_no_difference(monkeypatch):
    audio = generated_voice(22050, seconds=1.0)
    pitch = pyin(audio, settings_at())
    assert len(pitch) > 64
    monkeypatch.setattr("common.pyin.FRAMES_PER_BATCH", 7)
    np.testing.assert_array_equal(pyin(audio, settings_at()), pitch)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sampling_rate": 4000}, "cannot be found at a sampling rate of 4000 Hz"),
        ({"fmin": 3000.0}, "expected 0 < lowest < highest"),
        ({"frame_length": 338}, r"it needs 340 or more \(--filter-length\)"),
        ({"hop_length": 0}, "a hop of at least 1 sample, got 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_a_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        settings_at(**change)


@pytest.mark.parametrize(
    ("audio", "sentence"),
    [
        (np.zeros((2, 1000), np.float32), r"mono audio, \(samples,\), got shape \(2, 1000\)"),
        (np.full(1000, np.nan, np.float32), "finite audio, got NaN"),
    ],
)
def test_audio_that_has_no_pitch_is_refused_with_a_sentence(audio, sentence):
    with pytest.raises(ValueError, match=sentence):
        pyin(audio, settings_at())


def test_a_frame_too_short_for_low_pitch_is_warned_of():
    with pytest.warns(UserWarning, match="less than two periods of 65.4 Hz at 44100 Hz"):
        pyin(np.zeros(5000, np.float32), settings_at(44100, 1024))


def test_nowhere_to_keep_compiled_code_is_no_error(tmp_path):
    # Files stand where numba would make folders.
    shutil.copy(common.compiled.__file__, tmp_path / "compiled.py")
    (tmp_path / "doubled.py").write_text(
        "from compiled import compile_once\n"
        "doubled = compile_once(lambda value: 2 * value)\n"
        "assert doubled.targetoptions['nogil'] and doubled(2) == 4\n"
    )
    for name in ("__pycache__", "home"):
        (tmp_path / name).touch()
    home = str(tmp_path / "home")
    subprocess.run(
        [sys.executable, "doubled.py"],
        cwd=tmp_path,
        env={**os.environ, "HOME": home, "XDG_CACHE_HOME": home, "NUMBA_CACHE_DIR": home},
        check=True,
    )


def test_the_benchmark_finds_what_librosa_finds(capsys):
    assert benchmarks.pitch.main(["--seconds", "0.5", "--runs", "1"]) == 0
    table = capsys.readouterr().out
    assert "| --f0-method pyin |" in table
    assert "Same voicing on 100.000% of 44 frames" in table
