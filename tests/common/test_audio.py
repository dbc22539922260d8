# SPDX-License-Identifier: BSD-3-Clause
"""Waveforms and mel spectrograms."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from common.audio import LOG_FLOOR, MelSpectrogram, read_audio, resampled_length, write_wav
from common.config import AudioConfig

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def sine(frequency: float, seconds: float, sampling_rate: int) -> np.ndarray:
    time = np.arange(int(seconds * sampling_rate)) / sampling_rate
    return (0.5 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def test_pcm_samples_survive_writing_and_reading(tmp_path):
    samples = np.array([-32768, -1, 0, 1, 12345, 32767], dtype=np.float32) / 32768
    write_wav(tmp_path / "a.wav", samples, 22050)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", 22050), samples)
    assert soundfile.info(tmp_path / "a.wav").subtype == "PCM_16"


def test_too_loud_audio_is_clipped_not_wrapped(tmp_path):
    write_wav(tmp_path / "a.wav", torch.tensor([1.0, 1.7, -1.7]), 22050)
    read = read_audio(tmp_path / "a.wav", 22050)
    np.testing.assert_array_equal(read, np.array([32767, 32767, -32768], np.float32) / 32768)


def test_silence_stays_silent(tmp_path):
    write_wav(tmp_path / "a.wav", np.zeros(100), 22050)
    assert not read_audio(tmp_path / "a.wav", 22050).any()


def test_audio_with_nan_or_channels_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="NaN"):
        write_wav(tmp_path / "a.wav", np.array([0.0, np.nan]), 22050)
    with pytest.raises(ValueError, match="T_audio"):
        write_wav(tmp_path / "a.wav", np.zeros((2, 10)), 22050)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file_format", ["WAV", "FLAC"])
def test_wav_and_flac_are_read_alike(tmp_path, file_format):
    audio = sine(440, 0.1, 22050)
    soundfile.write(tmp_path / "a", audio, 22050, format=file_format, subtype="PCM_16")
    np.testing.assert_allclose(read_audio(tmp_path / "a", 22050), audio, atol=1 / 32768)


@pytest.mark.parametrize("file_rate", [16000, 44100, 48000])
def test_another_rate_is_resampled_and_keeps_its_frequency(tmp_path, file_rate):
    write_wav(tmp_path / "a.wav", sine(440, 0.5, file_rate), file_rate)
    audio = read_audio(tmp_path / "a.wav", 22050)
    expected = sine(440, 0.5, 22050)
    assert audio.dtype == np.float32
    assert len(audio) == resampled_length(int(0.5 * file_rate), file_rate, 22050) == 11025
    np.testing.assert_allclose(audio[500:-500], expected[500:-500], atol=2e-3)


@pytest.mark.parametrize("num_samples", [1, 999, 12345, 22049])
@pytest.mark.parametrize("file_rate", [8000, 44100, 48000])
def test_resampled_length_foretells_what_is_read(tmp_path, num_samples, file_rate):
    write_wav(tmp_path / "a.wav", np.full(num_samples, 0.1), file_rate)
    expected = resampled_length(num_samples, file_rate, 22050)
    assert len(read_audio(tmp_path / "a.wav", 22050)) == expected


def test_audio_that_cannot_be_written_is_an_os_error_naming_the_file(tmp_path):
    with pytest.raises(OSError, match=r"folder\.wav: cannot be written"):
        (tmp_path / "folder.wav").mkdir()
        write_wav(tmp_path / "folder.wav", np.zeros(10), 22050)


def test_unusable_audio_is_refused_with_a_sentence_naming_the_file(tmp_path):
    bad = {
        "stereo": (np.zeros((100, 2)), "one channel, got 2"),
        "empty": (np.zeros(0), "no samples"),
        "nan": (np.array([0.0, np.nan]), "NaN"),
        "infinite": (np.array([0.0, np.inf]), "infinite"),
        "unscaled": (np.array([0.0, 20000.0]), "peak of 20000"),
    }
    for name, (audio, message) in bad.items():
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, audio, 22050, subtype="FLOAT")
        with pytest.raises(ValueError, match=rf"{name}\.wav: .*{message}"):
            read_audio(path, 22050)
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(ValueError, match=r"text\.wav: expected WAV or FLAC"):
        read_audio(tmp_path / "text.wav", 22050)
    with pytest.raises(FileNotFoundError, match=r"missing\.wav"):
        read_audio(tmp_path / "missing.wav", 22050)


@pytest.mark.parametrize("num_samples", [0, 1, 100, 255, 256, 511, 513, 1000, 22050])
def test_number_of_frames_follows_from_number_of_samples(num_samples):
    audio = torch.rand(2, num_samples) - 0.5
    config = AudioConfig()
    centred = MelSpectrogram(config)(audio)
    same = MelSpectrogram(config, padding="same")(audio)
    assert centred.shape == (2, 80, num_samples // 256 + 1)
    assert same.shape == (2, 80, num_samples // 256)
    assert centred.isfinite().all() and same.isfinite().all()


@pytest.mark.parametrize("padding", ["center", "same"])
def test_mel_equals_the_textbook_formula(padding):
    config = AudioConfig(filter_length=512, win_length=512, hop_length=128, n_mel_channels=20)
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, 2000)
    pad = 256 if padding == "center" else 192
    padded = np.pad(audio, pad, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    frames = [padded[i : i + 512] * window for i in range(0, len(padded) - 511, 128)]
    module = MelSpectrogram(config, padding=padding)
    amplitude = module.filters.numpy() @ np.abs(np.fft.rfft(frames, axis=1)).T
    mel = module(torch.from_numpy(audio).float()[None])[0]
    np.testing.assert_allclose(mel, np.log(np.maximum(amplitude, 1e-5)), atol=1e-4)


def test_a_clip_gives_the_same_mel_alone_and_in_a_batch():
    audio = torch.rand(3, 5000, generator=torch.Generator().manual_seed(0)) - 0.5
    module = MelSpectrogram(AudioConfig())
    torch.testing.assert_close(module(audio)[1:2], module(audio[1:2]), atol=1e-6, rtol=0)


def test_silence_gives_the_floor():
    mel = MelSpectrogram(AudioConfig())(torch.zeros(1, 3000))
    torch.testing.assert_close(mel, torch.full_like(mel, np.log(LOG_FLOOR)))


@pytest.mark.parametrize("padding", ["center", "same"])
def test_gradients_are_finite_in_silence(padding):
    audio = torch.zeros(1, 3000, requires_grad=True)
    MelSpectrogram(AudioConfig(), padding=padding)(audio).sum().backward()
    assert audio.grad.isfinite().all()


def test_mel_filters_stay_out_of_checkpoints():
    assert not MelSpectrogram(AudioConfig()).state_dict()


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared, which has the clips")
@pytest.mark.parametrize(
    ("key", "padding", "changes"),
    [
        ("fastpitch_mel", "center", {}),
        ("hifigan_mel", "same", {}),
        ("hifigan_mel_fmax_none", "same", {"mel_fmax": 11025.0}),
    ],
)
def test_mels_match_the_public_recipe(key, padding, changes):
    module = MelSpectrogram(dataclasses.replace(AudioConfig(), **changes), padding=padding)
    for name, golden in torch.load(SHARED / "golden/mels.pt", weights_only=True).items():
        audio = read_audio(SHARED / f"ljspeech_sample/wavs/{name}.wav", 22050)
        mel = module(torch.from_numpy(audio)[None])[0]
        torch.testing.assert_close(mel, golden[key].float(), atol=5e-3, rtol=0)


@pytest.mark.parametrize("padding", ["center", "same"])
def test_a_mel_is_as_precise_under_autocast(padding):
    mel, audio = MelSpectrogram(AudioConfig(), padding), 0.3 * torch.randn(2, 4096)
    expected = mel(audio)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mel(audio), expected)
