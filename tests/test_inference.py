# SPDX-License-Identifier: BSD-3-Clause
"""From the command line to audio: the public recipe's mels, files as asked for, and refusals."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

import inference
from common.phrases import Phrase, one_phrase, read_phrases
from common.precision import Precision
from common.synthesizer import Controls, load_pitch, read_texts
from common.text import TextProcessor
from inference import (
    InferenceConfig,
    Models,
    main,
    make_synthesizer,
    output_path,
    pitch_transform,
)
from models import denoised, load_generator, load_vocoder
from tests.conftest import golden
from waveglow.arg_parser import WaveGlowConfig
from waveglow.model import WaveGlow

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A FastPitch that speaks quickly, though no language."""
    path = tmp_path_factory.mktemp("checkpoint") / "FastPitch_checkpoint_1.pt"
    fixture = golden("fastpitch_tiny")
    setup = {"text_cleaners": ["english_cleaners_v2"], "symbol_set": "english_basic"}
    torch.save(
        {
            "config": fixture["config"],
            "state_dict": fixture["state_dict"],
            "train_setup": setup,
        },
        path,
    )
    return path


@pytest.fixture(scope="session")
def hifigan(tmp_path_factory) -> Path:
    """A HiFi-GAN that makes noise of mels."""
    path = tmp_path_factory.mktemp("hifigan") / "hifigan_gen_checkpoint_1.pt"
    fixture = golden("hifigan_tiny")
    setup = {"sampling_rate": 22050, "num_mels": 80, "mel_fmax": 8000.0}
    torch.save(
        {"generator": fixture["state_dict"], "config": fixture["config"], "train_setup": setup},
        path,
    )
    return path


@pytest.fixture(scope="session")
def waveglow(tmp_path_factory) -> Path:
    """A WaveGlow that makes other noise of mels."""
    path = tmp_path_factory.mktemp("waveglow") / "WaveGlow_checkpoint_1.pt"
    torch.manual_seed(3)
    config = WaveGlowConfig(flows=2, wn_channels=8, wn_layers=2)
    model = WaveGlow(config)
    for network in model.WN:
        torch.nn.init.normal_(network.end.weight, std=0.01)
    torch.save({"config": config.to_checkpoint(), "state_dict": model.state_dict()}, path)
    return path


@pytest.fixture
def speak(checkpoint, tmp_path, monkeypatch):
    """Runs `inference.py` in an empty folder and gives its output folder."""
    monkeypatch.chdir(tmp_path)

    def run(*flags: str, fastpitch: Path | None = checkpoint, output: str = "out") -> Path:
        named = [] if fastpitch is None else ["--fastpitch", fastpitch]
        main([*map(str, (*named, "--output", output, *flags))])
        return tmp_path / output

    return run


@pytest.fixture
def refusal(speak, capsys):
    """The sentence that `inference.py` ends with, having written nothing."""

    def run(*flags: str, **settings) -> str:
        with pytest.raises(SystemExit) as end:
            speak(*flags, **settings)
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        assert not Path("out").exists()
        return error.rpartition("error: ")[2]

    return run


def audio_of(path: Path) -> np.ndarray:
    """The audio of a file that any player reads."""
    info = soundfile.info(path)
    assert (info.format, info.subtype) == ("WAV", "PCM_16")
    assert (info.channels, info.samplerate) == (1, 22050)
    return soundfile.read(path)[0]


def config_of(**settings) -> InferenceConfig:
    return InferenceConfig(**{"text": "Hello."} | settings)


@pytest.fixture
def cli(shared) -> Path:
    """A checkpoint of the public recipe, phrases, and the mels that it speaks them with."""
    folder = shared / "golden" / "cli"
    if not folder.is_dir():
        pytest.skip("needs ../shared/golden/cli, which is not part of the project")
    return folder


def expected_mels(cli: Path) -> dict[str, Tensor]:
    mels = torch.load(cli / "expected_mels.pt", weights_only=True)
    assert len(mels) == 4
    return mels


def test_files_hold_the_mels_of_the_public_recipe_and_their_audio(cli, speak):
    output = speak(
        *("--input", cli / "phrases.tsv", "--save-mels", "--batch-size", "2"),
        fastpitch=cli / "FastPitch_checkpoint_7.pt",
    )
    for name, mel in expected_mels(cli).items():
        ours = torch.from_numpy(np.load(output / f"{name}.npy"))
        torch.testing.assert_close(ours, mel, rtol=0, atol=1e-3)
        assert len(audio_of(output / f"{name}.wav")) == 256 * len(mel)
    assert len(list(output.glob("*.wav"))) == 4


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_mels_are_those_of_the_public_recipe_at_any_batch_size(cli, batch_size):
    generator = load_generator(cli / "FastPitch_checkpoint_7.pt")
    text = TextProcessor(generator.text)
    phrases = read_phrases(str(cli / "phrases.tsv"), Path(), speaker=0)
    sequences = read_texts(phrases, text, seed=1234)
    models = Models(generator=generator, vocoder=None, vocoder_name="none", audio=generator.audio)
    synthesizer = make_synthesizer(models, text, Precision(False, torch.device("cpu")))
    expected = expected_mels(cli)
    for start in range(0, len(phrases), batch_size):
        batch = slice(start, start + batch_size)
        mels = synthesizer.generate(sequences[batch], Controls())
        for phrase, mel in zip(phrases[batch], mels, strict=True):
            torch.testing.assert_close(mel.T, expected[phrase.output.stem], rtol=0, atol=1e-3)


def test_phrases_get_their_own_names_whatever_their_length(speak, tmp_path):
    texts = {"b": "Short.", "a": "This one is a good deal longer.", "sub/c": "Not so short."}
    rows = [f"{name}\t{text}" for name, text in texts.items()]
    (tmp_path / "phrases.tsv").write_text("\n".join(["output\ttext", *rows]))
    together = speak("-i", "phrases.tsv", "--save-mels", "--batch-size", "2")
    for name, text in texts.items():
        alone = speak("--text", text, "-o", "alone.wav", "--save-mels").parent
        ours, theirs = np.load(together / f"{name}.npy"), np.load(alone / "alone.npy")
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
        assert len(audio_of(together / f"{name}.wav")) == 256 * len(theirs)


def test_lines_of_a_text_are_numbered_in_their_order(speak, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "phrases.txt").write_text("A long first line, to begin with.\n\nTwo.\n")
    output = speak("-i", "phrases.txt")
    assert "Wrote 2 WAV files, out/audio_0.wav to out/audio_1.wav" in caplog.text
    lengths = [len(audio_of(output / f"audio_{n}.wav")) for n in (0, 1)]
    assert lengths[0] > lengths[1] > 0
    assert len(list(output.glob("*.wav"))) == 2


def test_standard_input_is_spoken(speak, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"One.\nTwo.\n")))
    assert len(list(speak("-i", "-").glob("*.wav"))) == 2


def test_one_symbol_is_spoken_and_the_file_to_play_is_named(speak, caplog):
    caplog.set_level(logging.INFO)
    assert len(audio_of(speak("--text", "a") / "audio_0.wav")) >= 256
    assert "Wrote out/audio_0.wav" in caplog.text
    assert "avg_" not in caplog.text


def test_ten_thousand_characters_are_spoken(speak):
    text = ("The quick brown fox jumps over the lazy dog, again. " * 200)[:10_000]
    output = speak("--text", text, "--save-mels", "--pace", "8")
    mel = np.load(output / "audio_0.npy")
    assert len(mel) > 100
    assert np.isfinite(mel).all()
    assert len(audio_of(output / "audio_0.wav")) == 256 * len(mel)


def test_latencies_are_logged(speak, caplog):
    caplog.set_level(logging.INFO)
    output = speak("--text", "Hello.", "--repeats", "3", "--warmup-steps", "1")
    assert "avg_fastpitch_latency" in caplog.text
    (line,) = (output / "nvlog_infer.json").read_text().splitlines()
    event = json.loads(line.removeprefix("DLLL "))
    assert event["step"] == []
    data = event["data"]
    assert {"avg_fastpitch_latency", "avg_fastpitch_frames/s", "avg_latency"} <= data.keys()
    assert {"avg_RTF", "90%_latency", "95%_latency", "99%_latency"} <= data.keys()
    assert all(value > 0 for value in data.values())
    assert data["avg_latency"] <= data["99%_latency"] * 1.001
    seconds = len(audio_of(output / "audio_0.wav")) / 22050
    assert data["avg_RTF"] == pytest.approx(seconds / data["avg_latency"])


def test_pace_and_speaker_pitch_change_what_is_spoken(speak):
    plain = np.load(speak("--text", "Hello you.", "--save-mels") / "audio_0.npy")
    slow = np.load(speak("--text", "Hello you.", "--save-mels", "--pace", "0.5") / "audio_0.npy")
    high = np.load(
        speak("--text", "Hello you.", "--save-mels", "--pitch-transform-shift", "90")
        / "audio_0.npy"
    )
    assert 1.5 < len(slow) / len(plain) < 2.5
    assert high.shape == plain.shape
    assert not np.allclose(high, plain)


def test_pitch_of_some_phrases_can_be_given(speak, tmp_path):
    num_symbols = len("hello.")
    torch.save(torch.full((1, num_symbols), 2.0), tmp_path / "high.pt")
    rows = ["text\tpitch", "Hello.\t", "Hello.\thigh.pt"]
    (tmp_path / "phrases.tsv").write_text("\n".join(rows))
    output = speak("-i", "phrases.tsv", "--save-mels")
    free, given = (np.load(output / f"audio_{n}.npy") for n in (0, 1))
    assert free.shape == given.shape
    assert not np.allclose(free, given)


def test_flags_without_effect_are_named(speak, caplog):
    speak("--text", "Hello.", "--torchscript", "--l2-promote")
    assert "--torchscript has no effect" in caplog.text
    assert "--l2-promote has no effect" in caplog.text


def test_symbols_that_are_dropped_are_named(speak, caplog):
    speak("--text", "Hello ☃.")
    assert "--text: symbols without a sound: ☃" in caplog.text


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 half an archive"])
def test_a_file_that_is_no_checkpoint_is_refused(refusal, tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    assert "x.pt: not a readable" in refusal("--text", "Hi.", fastpitch=tmp_path / "x.pt")


def test_the_checkpoint_of_another_model_is_refused(refusal, tmp_path):
    torch.save({"generator": {"conv_pre.bias": torch.zeros(3)}}, tmp_path / "x.pt")
    complaint = refusal("--text", "Hi.", fastpitch=tmp_path / "x.pt")
    assert "x.pt: not a FastPitch checkpoint, but a HiFi-GAN generator: name it" in complaint


def test_a_missing_checkpoint_is_refused(refusal, tmp_path):
    assert "none.pt: no such checkpoint" in refusal("--text", "Hi.", fastpitch=tmp_path / "none.pt")


def test_a_checkpoint_must_be_named_where_no_voice_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("models.VOICE", tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["--text", "Hi."])
    assert end.value.code == 2
    assert "--fastpitch is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([], "give --text 'one phrase', or --input FILE"),
        (["--text", "Hi.", "--input", "x"], "give --text 'one phrase', or --input FILE"),
        (["--text", "Hi.", "--colour", "red"], "unrecognized arguments: --colour red"),
        (["--text", ""], "--text: nothing to say in ''"),
        (["--text", "☃"], "--text: nothing to say in '☃'"),
        (["--text", "Привет мир"], "--text: nothing to say in 'Привет мир'"),
        (["--input", "none.txt"], "--input none.txt: no such file"),
        (
            ["--text", "Hi.", "--pitch-transform-semitones=-1e5"],
            "--pitch-transform-semitones must lie within 120 semitones, got -100000",
        ),
        (["--text", "Hi.", "--pace", "0"], "--pace must be positive, got 0.0"),
        (["--text", "Hi.", "--pace", "nan"], "--pace must be positive"),
        (["--text", "Hi.", "--pitch-transform-shift", "nan"], "--pitch-transform-shift must be"),
        (["--text", "Hi.", "--pitch-transform-amplify", "inf"], "--pitch-transform-amplify must"),
        (["--text", "Hi.", "--batch-size", "0"], "--batch-size must be positive, got 0"),
        (["--text", "Hi.", "--fade-out", "-1"], "--fade-out must not be negative, got -1"),
        (["--text", "Hi.", "--speaker", "1"], "--text: speaker must lie in 0 to 0, got 1"),
        (["--text", "Hi.", "--sampling-rate", "16000"], "--sampling-rate 16000 differs"),
        (["--text", "Hi.", "--ema"], "holds no averaged weights"),
        (["--text", "Hi.", "--hifigan", "x.pt"], "x.pt: no such checkpoint"),
        (["--text", "Hi.", "--hifigan", "x", "--waveglow", "y"], "exclude each other"),
        (["--text", "Hi.", "--hifigan-config", "x"], "--hifigan-config has no use without"),
        (["--text", "Hi.", "--denoising-strength", "-1"], "--denoising-strength must not be"),
        (["--text", "Hi.", "--denoising-strength", "nan"], "--denoising-strength must not be"),
        (["--text", "Hi.", "--waveglow-sigma-infer", "-1"], "--waveglow-sigma-infer must not be"),
        (["--text", "Hi.", "--report-mel-loss"], "--report-mel-loss cannot be used"),
        (["--text", "Hi.", "--checkpoint-format", "ts"], "TorchScript files cannot be read"),
        (["--text", "Hi.", "--amp"], "--amp needs a GPU"),
        (["--text", "Hi.", "--compile"], "--compile needs a GPU"),
        (["--text", "Hi.", "--text-cleaners", "russian"], "russian"),
        (["--text", "Hi.", "--symbol-set", "klingon"], "klingon"),
        (
            ["--text", "Hi.", "--symbol-set", "english_expanded"],
            "symbols, the model in --fastpitch 148",
        ),
        (["--text", "Hi.", "--p-arpabet", "1.5"], "--p-arpabet must lie in [0, 1], got 1.5"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_that_cannot_be_followed_are_refused(refusal, flags, complaint):
    assert complaint in refusal(*flags)


@pytest.mark.parametrize("name", ["phrases.txt", "phrases.tsv"])
def test_an_empty_input_is_refused(refusal, tmp_path, name):
    (tmp_path / name).touch()
    assert name in refusal("--input", name)


def test_every_phrase_with_nothing_to_say_is_listed(refusal, tmp_path):
    (tmp_path / "phrases.txt").write_text("☃\nHello.\n☂\n")
    complaint = refusal("--input", "phrases.txt")
    assert "phrases.txt:1: nothing to say" in complaint
    assert "phrases.txt:3: nothing to say" in complaint


def test_every_unknown_speaker_is_listed(refusal, tmp_path):
    (tmp_path / "phrases.tsv").write_text("text\tspeaker\nOne.\t5\nTwo.\t0\nThree.\t9\n")
    complaint = refusal("--input", "phrases.tsv")
    assert "phrases.tsv:2: speaker must lie in 0 to 0, got 5" in complaint
    assert "phrases.tsv:4: speaker must lie in 0 to 0, got 9" in complaint


@pytest.mark.parametrize("flags", [["--input", "phrases.txt"], ["--text", "Hi."]])
def test_an_output_that_is_a_file_is_refused(checkpoint, tmp_path, monkeypatch, capsys, flags):
    monkeypatch.chdir(tmp_path)
    Path("phrases.txt").write_text("Hello.\n")
    Path("out").write_text("precious")
    with pytest.raises(SystemExit) as end:
        main(["--fastpitch", str(checkpoint), "--output", "out", *flags])
    assert end.value.code == 2
    assert "--output out must be a folder" in capsys.readouterr().err
    assert Path("out").read_text() == "precious"


def test_only_wav_files_are_written():
    with pytest.raises(ValueError, match=r"^--output a\.mp3: only WAV files are written"):
        InferenceConfig(text="Hello.", output=Path("a.mp3"))


def test_many_phrases_need_a_folder():
    with pytest.raises(ValueError, match=r"^--output a\.wav.* must be a folder"):
        InferenceConfig(input="x.txt", output=Path("a.wav"))


def pitch_phrase(path: Path) -> Phrase:
    return Phrase(text="Hi.", output=Path("a.wav"), speaker=0, pitch=path, source="x.tsv:2")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"garbage", "not a readable file of tensors"),
        ({"pitch": 1}, "expected a tensor without NaN"),
        (torch.zeros(4), "expected a value for each of the 3 symbols, got 4"),
        (torch.tensor([1.0, torch.nan, 1.0]), "NaN"),
    ],
)
def test_pitch_that_cannot_be_used_is_refused_with_its_line(tmp_path, content, complaint):
    path = tmp_path / "pitch.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"^x\.tsv:2: pitch ") as refused:
        load_pitch(pitch_phrase(path), 3)
    assert complaint in str(refused.value)
    assert str(path) in str(refused.value)


def test_missing_pitch_is_refused_with_its_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^x\.tsv:2: pitch .*none\.pt: no such file"):
        load_pitch(pitch_phrase(tmp_path / "none.pt"), 3)


def test_pitch_is_read_flat(tmp_path):
    torch.save(torch.tensor([[1, 2, 3]]), tmp_path / "pitch.pt")
    assert load_pitch(pitch_phrase(tmp_path / "pitch.pt"), 3).tolist() == [1.0, 2.0, 3.0]


def test_a_phrase_is_read_the_same_with_the_same_seed(checkpoint):
    settings = load_generator(checkpoint).text
    text = TextProcessor(type(settings)(**vars(settings) | {"p_arpabet": 0.5}))
    phrase = one_phrase("Some words are spoken as letters, other words as phonemes.", 0)

    def ids(seed: int) -> list[int]:
        return read_texts([phrase], text, seed)[0].ids

    assert ids(1) == ids(1)
    assert len({tuple(ids(seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1.0, 2.0]),
        ({"pitch_transform_flatten": True}, [0.0, 0.0]),
        ({"pitch_transform_invert": True}, [-1.0, -2.0]),
        ({"pitch_transform_amplify": 3.0}, [3.0, 6.0]),
        ({"pitch_transform_shift": 20.0}, [3.0, 4.0]),
        ({"pitch_transform_invert": True, "pitch_transform_shift": 20.0}, [1.0, 0.0]),
        ({"pitch_transform_semitones": 12.0}, [12.0, 14.0]),
    ],
)
def test_pitch_transforms_follow_their_flags(settings, expected):
    transform = pitch_transform(config_of(**settings))
    pitch = torch.tensor([[1.0, 2.0]])
    mean, std = torch.tensor([100.0]), torch.tensor([10.0])
    transformed = transform(pitch, torch.tensor([2]), mean, std)
    torch.testing.assert_close(transformed, torch.tensor([expected]))


def test_audio_goes_where_it_is_asked_to():
    phrase = one_phrase("Hello.", 0)
    assert output_path(phrase, config_of(output=Path("a/b"))) == Path("a/b/audio_0.wav")
    assert output_path(phrase, config_of(output=Path("a/b.wav"))) == Path("a/b.wav")


@pytest.mark.parametrize("fade_out", [0, 2, 100])
def test_the_end_fades_and_the_mel_and_audio_given_stay_as_they_were(tmp_path, fade_out):
    generator_audio = inference.AudioConfig(hop_length=256)
    mel, wave = torch.zeros(80, 4), torch.full((1024,), 0.5)
    config = config_of(fade_out=fade_out, save_mels=True)
    inference.write_phrase(tmp_path / "new" / "a.wav", mel, wave, config, generator_audio)
    assert torch.equal(wave, torch.full((1024,), 0.5))
    written: Tensor = torch.from_numpy(audio_of(tmp_path / "new" / "a.wav"))
    faded = min(256 * fade_out, 1024)
    assert (written[: 1024 - faded] == 0.5).all()
    assert (written.diff() <= 0).all()
    assert float(written[-1]) == (0.0 if fade_out else 0.5)
    assert np.load(tmp_path / "new" / "a.npy").shape == (4, 80)


def test_a_model_that_diverged_is_refused(refusal, checkpoint, tmp_path):
    diverged = torch.load(checkpoint, weights_only=True)
    diverged["state_dict"]["proj.weight"].fill_(torch.nan)
    torch.save(diverged, tmp_path / "nan.pt")
    assert "NaN" in refusal("--text", "Hello.", fastpitch=tmp_path / "nan.pt")


def test_names_that_cannot_be_written_are_refused(refusal, tmp_path):
    (tmp_path / "folder").mkdir()
    assert "--log-file" in refusal("--text", "Hello.", "--log-file", "folder")


def test_a_name_too_long_for_a_file_is_a_sentence(speak, tmp_path, capsys):
    (tmp_path / "a.tsv").write_text(f"output\ttext\n{'x' * 300}\tHello.\n")
    with pytest.raises(SystemExit) as end:
        speak("-i", "a.tsv")
    assert end.value.code == 2
    assert "xxx.wav: cannot be written" in capsys.readouterr().err


def test_a_pipe_is_an_input(speak, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("Hello.\n",))
    writer.start()
    assert (speak("-i", "pipe") / "audio_0.wav").is_file()
    writer.join()


def test_an_interruption_is_a_sentence(checkpoint, tmp_path):
    command = [sys.executable, "inference.py", "--fastpitch", str(checkpoint), "-i", "-"]
    command += ["--output", str(tmp_path / "out"), "--batch-size", "1"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdin.write("Hello there.\n" * 5000)
        process.stdin.close()
        give_up = time.monotonic() + 60
        while not (tmp_path / "out/audio_9.wav").exists() and time.monotonic() < give_up:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "Interrupted" in errors


def save_mel_of(folder: Path, name: str, num_frames: int) -> Tensor:
    """Writes a mel as prepare_dataset.py does, and returns it."""
    mel = torch.randn(80, num_frames) - 5
    torch.save(mel, folder / name)
    return mel


def assert_audio_is(path: Path, expected: Tensor) -> None:
    """Up to the rounding of 16 bits, and what they clip."""
    audio = torch.from_numpy(audio_of(path)).float()
    torch.testing.assert_close(audio, expected.clamp(max=1 - 2**-15), rtol=0, atol=2**-15)


def test_texts_are_spoken_by_hifigan(speak, hifigan, tmp_path):
    lines = ["A first line.", "A second line, which is a good deal longer.", "A third one."]
    (tmp_path / "phrases.txt").write_text("\n".join(lines))
    output = speak("-i", "phrases.txt", "--hifigan", hifigan, "--save-mels", "--fade-out", "0")
    vocoder = load_vocoder(hifigan)
    for n in range(3):
        mel = torch.from_numpy(np.load(output / f"audio_{n}.npy")).T
        assert_audio_is(output / f"audio_{n}.wav", vocoder.infer(mel[None])[0])


def test_mels_are_spoken_by_hifigan_alone(speak, hifigan, tmp_path):
    mels = {name: save_mel_of(tmp_path, f"{name}.pt", n) for name, n in (("a", 30), ("b", 50))}
    np.save(tmp_path / "c.npy", mels["a"].numpy())
    np.save(tmp_path / "d.npy", mels["b"].T.numpy())
    table = "output\tmel\nA\ta.pt\nB\tb.pt\nC\tc.npy\nD\td.npy\n"
    (tmp_path / "mels.tsv").write_text(table)
    output = speak("-i", "mels.tsv", "--hifigan", hifigan, "--fade-out", "0", fastpitch=None)
    vocoder = load_vocoder(hifigan)
    for name, source in (("A", "a"), ("B", "b"), ("C", "a"), ("D", "b")):
        assert_audio_is(output / f"{name}.wav", vocoder.infer(mels[source][None])[0])


def test_saved_mels_can_be_spoken_again(speak, hifigan, tmp_path):
    first = speak("--text", "Hello there.", "--hifigan", hifigan, "--save-mels")
    (tmp_path / "mels.tsv").write_text("mel\taudio_0.npy".replace("\t", "\n"))
    flags = ["-i", "mels.tsv", "--dataset-path", first, "--hifigan", hifigan]
    again = speak(*flags, fastpitch=None, output="again")
    assert np.array_equal(audio_of(first / "audio_0.wav"), audio_of(again / "audio_0.wav"))


def test_rows_with_mels_and_texts_are_spoken_side_by_side(speak, hifigan, tmp_path):
    mel = save_mel_of(tmp_path, "a.pt", 40)
    rows = ["output\tmel\ttext", "a\t\tHello.", "b\ta.pt\t", "c\ta.pt\tHello."]
    (tmp_path / "mixed.tsv").write_text("\n".join(rows))
    output = speak("-i", "mixed.tsv", "--hifigan", hifigan, "--fade-out", "0")
    spoken = load_vocoder(hifigan).infer(mel[None])[0]
    assert_audio_is(output / "b.wav", spoken)
    assert_audio_is(output / "c.wav", spoken)
    alone = speak("--text", "Hello.", "--hifigan", hifigan, "--fade-out", "0", output="alone")
    assert np.array_equal(audio_of(output / "a.wav"), audio_of(alone / "audio_0.wav"))


def test_a_phrase_sounds_the_same_in_any_batch(speak, hifigan, tmp_path):
    texts = ["Hello.", "Hello you.", "Hello to all of you.", "Hello."]
    (tmp_path / "phrases.txt").write_text("\n".join(texts))
    together = speak("-i", "phrases.txt", "--hifigan", hifigan)
    alone = speak("-i", "phrases.txt", "--hifigan", hifigan, "-bs", "1", output="alone")
    for n in range(4):
        ours, theirs = (audio_of(folder / f"audio_{n}.wav") for folder in (together, alone))
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_mels_are_spoken_by_griffin_lim_without_any_checkpoint(speak, tmp_path):
    save_mel_of(tmp_path, "a.pt", 30)
    (tmp_path / "mels.tsv").write_text("mel\na.pt\n")
    output = speak("-i", "mels.tsv", fastpitch=None)
    assert len(audio_of(output / "audio_0.wav")) == 30 * 256
    flags = ["--sampling-rate", "32000", "--hop-length", "320", "--win-length", "1280"]
    output = speak("-i", "mels.tsv", *flags, fastpitch=None, output="other")
    info = soundfile.info(output / "audio_0.wav")
    assert (info.samplerate, info.frames) == (32000, 30 * 320)
    output = speak("-i", "mels.tsv", "--sampling-rate", "8000", fastpitch=None, output="low")
    assert soundfile.info(output / "audio_0.wav").samplerate == 8000


def test_the_hum_of_hifigan_is_taken_out_as_strongly_as_asked(speak, hifigan, tmp_path):
    mel = save_mel_of(tmp_path, "a.pt", 30)
    (tmp_path / "mels.tsv").write_text("mel\na.pt\n")
    flags = ["-i", "mels.tsv", "--hifigan", hifigan, "--fade-out", "0", "-d", "0.1"]
    output = speak(*flags, fastpitch=None)
    vocoder = load_vocoder(hifigan)
    expected = denoised(vocoder, 0.1).infer(mel[None])[0]
    assert (expected - vocoder.infer(mel[None])[0]).abs().max() > 0.01
    assert_audio_is(output / "audio_0.wav", expected)


@pytest.mark.parametrize("vocoder", ["hifigan", "waveglow"])
def test_half_precision_speaks_nearly_the_same(speak, request, tmp_path, vocoder):
    save_mel_of(tmp_path, "a.pt", 30)
    (tmp_path / "mels.tsv").write_text("mel\na.pt\n")
    flags = ["-i", "mels.tsv", f"--{vocoder}", request.getfixturevalue(vocoder), "-d", "0.1"]
    full, half = (
        audio_of(speak(*flags, *more, fastpitch=None, output=output) / "audio_0.wav")
        for more, output in (((), "full"), (("--amp", "--amp-dtype", "bf16"), "half"))
    )
    assert 0 < np.abs(full - half).max() < 0.05 * np.abs(full).max()


def test_waveglow_speaks_the_same_with_the_same_seed(speak, waveglow, tmp_path):
    save_mel_of(tmp_path, "a.pt", 30)
    (tmp_path / "mels.tsv").write_text("mel\na.pt\n")
    flags = ["-i", "mels.tsv", "--waveglow", waveglow]

    def audio(*more: str) -> np.ndarray:
        return audio_of(speak(*flags, *more, fastpitch=None) / "audio_0.wav")

    assert np.array_equal(audio("--seed", "1"), audio("--seed", "1", "--warmup-steps", "2"))
    assert not np.array_equal(audio("--seed", "1"), audio("--seed", "2"))
    assert np.array_equal(
        audio("--seed", "1", "--waveglow-sigma-infer", "0"),
        audio("--seed", "2", "--waveglow-sigma-infer", "0"),
    )


def test_waveglow_speaks_texts_and_its_hum_can_be_taken_out(speak, waveglow):
    flags = ["--text", "Hello.", "--waveglow", waveglow, "--waveglow-sigma-infer", "0.5"]
    plain = audio_of(speak(*flags) / "audio_0.wav")
    clean = audio_of(speak(*flags, "--denoising-strength", "0.2") / "audio_0.wav")
    assert len(plain) == len(clean) > 0
    assert not np.array_equal(plain, clean)


@pytest.mark.parametrize("vocoder", ["hifigan", "waveglow", "griffin_lim"])
def test_metrics_bear_the_name_of_the_vocoder(speak, request, vocoder):
    named = [] if vocoder == "griffin_lim" else [f"--{vocoder}", request.getfixturevalue(vocoder)]
    output = speak("--text", "Hello.", *named)
    (line,) = (output / "nvlog_infer.json").read_text().splitlines()
    data = json.loads(line.removeprefix("DLLL "))["data"]
    assert {f"avg_{vocoder}_samples/s", f"avg_{vocoder}_latency", f"avg_{vocoder}_RTF"} <= {*data}
    assert "avg_fastpitch_latency" in data
    assert not any(f"avg_{other}_RTF" in data for other in {"hifigan", "waveglow"} - {vocoder})


def test_metrics_of_mels_speak_of_no_generator(speak, hifigan, tmp_path):
    save_mel_of(tmp_path, "a.pt", 30)
    (tmp_path / "mels.tsv").write_text("mel\na.pt\n")
    output = speak("-i", "mels.tsv", "--hifigan", hifigan, fastpitch=None)
    (line,) = (output / "nvlog_infer.json").read_text().splitlines()
    data = json.loads(line.removeprefix("DLLL "))["data"]
    assert {"avg_hifigan_samples/s", "avg_latency", "avg_RTF"} <= data.keys()
    assert not any("fastpitch" in name or "letters" in name for name in data)
    assert all(value > 0 for value in data.values())


@pytest.fixture
def original(tmp_path) -> Path:
    """A HiFi-GAN as the original repository saves it; its settings lie in `settings.json`."""
    fixture = golden("hifigan_original_v3_tiny")
    (tmp_path / "settings.json").write_text(json.dumps(fixture["config"]))
    (tmp_path / "original").mkdir()
    torch.save(fixture["checkpoint"], tmp_path / "original" / "g_00000001")
    return tmp_path / "original" / "g_00000001"


def test_the_original_hifigan_speaks_with_its_config_named(speak, original, tmp_path):
    fixture = golden("hifigan_original_v3_tiny")
    torch.save(fixture["mel"][0], tmp_path / "a.pt")
    (tmp_path / "mels.tsv").write_text("mel\na.pt\n")
    flags = ["-i", "mels.tsv", "--hifigan", original, "--fade-out", "0"]
    output = speak(*flags, "--hifigan-config", "settings.json", fastpitch=None)
    assert_audio_is(output / "audio_0.wav", fixture["audio"][0, 0])


def test_the_original_hifigan_is_refused_without_its_config(refusal, original):
    complaint = refusal("--text", "Hi.", "--hifigan", original)
    assert f"{original}: " in complaint
    assert "put its config.json beside it, or name that with --hifigan-config" in complaint


def test_a_vocoder_of_other_mels_is_refused_with_both_settings_named(
    refusal, hifigan, checkpoint, tmp_path
):
    other = torch.load(hifigan, weights_only=True)
    other["train_setup"] |= {"mel_fmax": 11025.0, "sampling_rate": 44100}
    torch.save(other, tmp_path / "other.pt")
    complaint = refusal("--text", "Hi.", "--hifigan", tmp_path / "other.pt")
    assert "other.pt takes mels of sampling_rate 44100, mel_fmax 11025" in complaint
    assert f"{checkpoint} makes mels of sampling_rate 22050, mel_fmax 8000" in complaint


@pytest.mark.parametrize(
    ("flag", "fixture"), [("--hifigan", "waveglow"), ("--waveglow", "hifigan")]
)
def test_a_vocoder_is_named_by_its_own_flag(refusal, request, flag, fixture):
    complaint = refusal("--text", "Hi.", flag, request.getfixturevalue(fixture))
    assert f"name it with --{fixture}" in complaint


def test_models_named_by_each_others_flags_are_told_apart(refusal, hifigan, checkpoint):
    assert "not a FastPitch checkpoint, but a HiFi-GAN generator: name it with --hifigan" in (
        refusal("--text", "Hi.", fastpitch=hifigan)
    )
    assert "not a vocoder, but a FastPitch: name it with --fastpitch" in (
        refusal("--text", "Hi.", "--hifigan", checkpoint)
    )


def test_every_mel_that_cannot_be_spoken_is_listed(refusal, hifigan, tmp_path):
    save_mel_of(tmp_path, "good.pt", 30)
    torch.save(torch.randn(40, 30), tmp_path / "bands.pt")
    torch.save(torch.full((80, 30), torch.nan), tmp_path / "nan.pt")
    rows = ["mel", "none.pt", "good.pt", "bands.pt", "nan.pt"]
    (tmp_path / "mels.tsv").write_text("\n".join(rows))
    complaint = refusal("-i", "mels.tsv", "--hifigan", hifigan, fastpitch=None)
    assert "mels.tsv:2: mel none.pt: no such file" in complaint
    assert "mels.tsv:4: mel bands.pt: expected a mel of 80 bands" in complaint
    assert "mels.tsv:5: mel nan.pt: the mel holds NaN" in complaint
    assert "good.pt" not in complaint


def test_a_row_without_a_mel_needs_an_acoustic_model(refusal, hifigan, tmp_path):
    save_mel_of(tmp_path, "a.pt", 30)
    (tmp_path / "mixed.tsv").write_text("mel\ttext\na.pt\t\n\tHello.\n")
    complaint = refusal("-i", "mixed.tsv", "--hifigan", hifigan, fastpitch=None)
    assert "--fastpitch is missing" in complaint
    assert "mixed.tsv:3" in complaint


def test_audio_flags_must_be_those_of_the_vocoder(refusal, hifigan, tmp_path):
    save_mel_of(tmp_path, "a.pt", 30)
    (tmp_path / "mels.tsv").write_text("mel\na.pt\n")
    complaint = refusal(
        "-i", "mels.tsv", "--hifigan", hifigan, "--hop-length", "128", fastpitch=None
    )
    assert f"--hop-length 128 differs from the 256 of {hifigan}" in complaint


def test_averaged_weights_of_both_models_are_taken(speak, checkpoint, hifigan, tmp_path, caplog):
    averaged = torch.load(checkpoint, weights_only=True)
    averaged["ema_state_dict"] = averaged["state_dict"]
    torch.save(averaged, tmp_path / "fastpitch.pt")
    averaged = torch.load(hifigan, weights_only=True)
    averaged["gen_ema"] = {name: 0.5 * weight for name, weight in averaged["generator"].items()}
    torch.save(averaged, tmp_path / "hifigan.pt")
    flags = ["--text", "Hello.", "--fade-out", "0", "--save-mels"]
    settings = {"fastpitch": tmp_path / "fastpitch.pt"}
    output = speak(*flags, "--hifigan", tmp_path / "hifigan.pt", "--ema", **settings)
    mel = torch.from_numpy(np.load(output / "audio_0.npy")).T
    expected = load_vocoder(tmp_path / "hifigan.pt", ema=True).infer(mel[None])[0]
    assert_audio_is(output / "audio_0.wav", expected)
    assert "holds no averaged weights" not in caplog.text


def test_vocoder_flags_without_a_vocoder_are_named(speak, caplog):
    speak("--text", "Hello.", "--denoising-strength", "0.1", "--waveglow-sigma-infer", "0.5")
    assert "--denoising-strength has no effect without --hifigan or --waveglow" in caplog.text
    assert "--waveglow-sigma-infer has no effect without --waveglow" in caplog.text


def test_controls_of_texts_are_named_where_there_are_only_mels(speak, hifigan, tmp_path, caplog):
    save_mel_of(tmp_path, "a.pt", 30)
    (tmp_path / "mels.tsv").write_text("mel\na.pt\n")
    speak("-i", "mels.tsv", "--hifigan", hifigan, "--pace", "2", fastpitch=None)
    assert "--pace has no effect on mels" in caplog.text
    assert "--speaker" not in caplog.text
