# SPDX-License-Identifier: BSD-3-Clause
"""Pitch as other people's libraries find it keeps the contract of our own."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import prepare_dataset
from common.audio import write_wav
from common.config import F0_METHODS, AudioConfig, DataConfig
from common.pitch import HIGHEST_PITCH_HZ, LOWEST_PITCH_HZ, check_f0_method, estimate_pitch
from common.pitch_libraries import LIBRARIES
from fastpitch.clip_features import ClipFeatures

METHODS = [
    pytest.param(
        method,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(module) is None, reason=f"{package} is not installed"
        ),
    )
    for method, (module, package) in LIBRARIES.items()
]
CONFIGS = {
    "22050 Hz": AudioConfig(),
    "44100 Hz": AudioConfig(
        sampling_rate=44100, filter_length=2048, win_length=2048, hop_length=512, mel_fmax=22050.0
    ),
    "16000 Hz, hop 200": AudioConfig(sampling_rate=16000, hop_length=200),
}


def voice(frequency: np.ndarray, sampling_rate: int) -> np.ndarray:
    phase = 2 * np.pi * np.cumsum(frequency) / sampling_rate
    audio = 0.1 * sum(np.sin(n * phase + n) / n for n in range(1, 12))
    return audio.astype(np.float32)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("method", ["pyin", *METHODS])
def test_a_glide_has_the_pitch_of_each_moment(method, config):
    # Three octaves in 1.5 s: half a window, 23 ms, too early or late would be half a semitone off.
    rate, hop = config.sampling_rate, config.hop_length
    time = np.arange(round(1.5 * rate) + 77) / rate
    frequency = 100 * 2 ** (2 * time)
    audio = voice(frequency, rate)
    pitch = estimate_pitch(audio, config, method)
    assert pitch.dtype == np.float32
    assert pitch.shape == (len(audio) // hop + 1,)
    inside = slice(6, -6)
    centres = np.arange(len(pitch))[inside] * hop
    assert (pitch[inside] > 0).all()
    semitones = 12 * np.log2(pitch[inside] / frequency[centres])
    assert np.abs(semitones).max() < 0.12  # pyin's grid is a tenth
    assert np.abs(semitones.mean()) < 0.05


@pytest.mark.parametrize("method", METHODS)
def test_pitch_stops_where_the_voice_stops(method):
    config = AudioConfig()
    audio = voice(np.full(22050, 180.0), 22050)
    audio[11025:] = 0.001 * np.random.default_rng(0).normal(size=11025)
    pitch = estimate_pitch(audio, config, method)
    last = np.flatnonzero(pitch)[-1]
    assert abs(last - 11025 / 256) <= 3
    np.testing.assert_allclose(pitch[5 : last - 3], 180, rtol=0.005)


@pytest.mark.parametrize("method", METHODS)
def test_silence_is_unvoiced_and_everything_else_within_the_limits(method):
    assert not estimate_pitch(np.zeros(8000, np.float32), AudioConfig(), method).any()
    rising = voice(30 * 2 ** (np.arange(44100) / 44100 * 7), 22050)  # 30 to 3840 Hz
    pitch = estimate_pitch(rising, AudioConfig(), method)
    voiced = pitch[pitch > 0]
    assert len(voiced) > 60
    assert voiced.min() >= 0.999 * LOWEST_PITCH_HZ and voiced.max() <= 1.001 * HIGHEST_PITCH_HZ


@pytest.mark.parametrize("num_samples", [1, 255, 256, 257, 1000])
@pytest.mark.parametrize("method", METHODS)
def test_short_clips_have_a_value_for_every_frame(method, num_samples):
    for hop in (256, 1024):
        config = AudioConfig(hop_length=hop)
        pitch = estimate_pitch(np.full(num_samples, 0.1, np.float32), config, method)
        assert pitch.shape == (num_samples // hop + 1,)
        assert np.isfinite(pitch).all()


@pytest.mark.parametrize("method", METHODS)
def test_preparation_finds_pitch_by_this_method(method, tmp_path):
    (tmp_path / "wavs").mkdir()
    write_wav(tmp_path / "wavs/a.wav", voice(np.full(22050, 180.0), 22050), 22050)
    filelist = tmp_path / "list.txt"
    filelist.write_text("wavs/a.wav|Hello.\n")
    flags = ["-d", str(tmp_path), "--wav-text-filelists", str(filelist), "--extract-pitch"]
    assert prepare_dataset.main([*flags, "--f0-method", method]) == 0
    assert '"pitch": "' + method in (tmp_path / "prepared.jsonl").read_text()


def test_every_method_but_our_own_is_of_a_library():
    assert {"pyin", *LIBRARIES} == set(F0_METHODS)
    check_f0_method("pyin")


def test_a_missing_library_is_named_before_work_starts(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(LIBRARIES, "praat", ("no_such_module", "praat-parselmouth"))
    (tmp_path / "list.txt").write_text("wavs/a.wav|Hello.\n")
    flags = ["-d", str(tmp_path), "--wav-text-filelists", str(tmp_path / "list.txt")]
    assert prepare_dataset.main([*flags, "--extract-pitch", "--f0-method", "praat"]) == 2
    assert "pitch by praat needs a package that is missing here" in caplog.text
    assert "pip install praat-parselmouth" in caplog.text

    lists = {"training_files": (tmp_path / "list.txt",), "validation_files": (tmp_path / "v.txt",)}
    data = DataConfig(pitch_online_method="praat", **lists)
    with pytest.raises(ValueError, match="pip install praat-parselmouth"):
        ClipFeatures(data, AudioConfig())
    ClipFeatures(
        DataConfig(load_pitch_from_disk=True, pitch_online_method="praat", **lists), AudioConfig()
    )
