# SPDX-License-Identifier: BSD-3-Clause
"""Building a voice: what is read, what is packed, what the card says, which commands are run."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from typing import get_type_hints

import numpy as np
import pytest
import soundfile
import torch

import hifigan.train
import inference
import train
from common.audio import write_wav
from common.checkpoint import checkpoint_size, load_checkpoint, save_checkpoint
from common.cli import FlagParser
from common.config import AudioConfig, TextConfig
from evaluate import EvaluationConfig
from fastpitch.extract_mels import ExtractionConfig
from inference import InferenceConfig
from models import VOICE, load_generator, load_vocoder
from prepare_dataset import PreparationConfig
from scripts import newest_checkpoint
from scripts.make_filelists import SplitConfig
from scripts.voice import card, goals, make_corpus, pack
from tests.conftest import golden
from tests.test_scripts import ROOT, run_script

CONFIGS = {
    "scripts.voice.make_corpus": [make_corpus.CorpusConfig],
    "scripts.make_filelists": [SplitConfig],
    "prepare_dataset": [PreparationConfig, AudioConfig, TextConfig],
    "train": [*get_type_hints(train.Settings).values()],
    "hifigan.train": [*get_type_hints(hifigan.train.Settings).values()],
    "fastpitch.extract_mels": [ExtractionConfig, TextConfig],
    "scripts.voice.pack": [pack.PackConfig],
    "evaluate": [EvaluationConfig, AudioConfig],
    "scripts.voice.card": [card.CardConfig],
}
SENTENCES = [
    "A first sentence of good length.",
    "Another one, for $5 and more!",
    "Too short.",
    "Ein Satz mit Umlauten, die niemand hier lesen könnte.",
    "word " * 60,
    "A first sentence of good length.",
]


@pytest.fixture
def models(tmp_path):
    """A FastPitch with averaged weights, and a HiFi-GAN."""
    fastpitch, hifigan = golden("fastpitch_tiny"), golden("hifigan_tiny")
    averaged = {name: 0.5 * weight for name, weight in fastpitch["state_dict"].items()}
    setup = {"text_cleaners": ["english_cleaners_v2"], "symbol_set": "english_basic"}
    checkpoint = {"config": fastpitch["config"], "train_setup": setup, "epoch": 7}
    weights = {"state_dict": fastpitch["state_dict"], "ema_state_dict": averaged}
    torch.save({**checkpoint, **weights, "optimizer": {}}, tmp_path / "f.pt")
    vocoder = {"generator": hifigan["state_dict"], "config": hifigan["config"]}
    setup = {"sampling_rate": 22050, "num_mels": 80, "mel_fmax": 8000.0}
    state = {"epoch": 9, "iters_all": 90}
    torch.save({**vocoder, "train_setup": setup, "train_state": state}, tmp_path / "h.pt")
    return ["--fastpitch", str(tmp_path / "f.pt"), "--hifigan", str(tmp_path / "h.pt")]


def test_a_voice_reads_what_it_can_read_each_once_and_as_the_recipe_reads_it(tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join([*SENTENCES, ""]), encoding="utf-8")
    chosen = list(make_corpus.choose(make_corpus.read_texts(tmp_path / "texts.txt"), 1.0))
    assert {sentence.text for sentence in chosen} == set(SENTENCES[:2])
    spoken = {sentence.text: sentence.spoken for sentence in chosen}
    assert spoken[SENTENCES[1]] == "another one, for five dollars and more!"


def test_names_are_taken_from_lists_that_have_them(tmp_path):
    (tmp_path / "metadata.csv").write_text("LJ1-1|As written.|As normalised.\nwavs/x.wav|Text.\n")
    texts = make_corpus.read_texts(tmp_path / "metadata.csv")
    assert texts == [("LJ1-1", "As normalised."), ("x", "Text.")]


def test_names_may_have_dots_and_are_there_once(tmp_path):
    path = tmp_path / "metadata.csv"
    path.write_text("me.01|One.\nme.02|Two.\n")
    assert [name for name, _ in make_corpus.read_texts(path)] == ["me.01", "me.02"]
    path.write_text("a/x.wav|One.\nb/x.wav|Two.\ny|Three.\n")
    with pytest.raises(ValueError, match=r"each name must be there once.* x is there again"):
        make_corpus.read_texts(path)


def test_texts_that_nobody_can_read_are_refused(tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("Kurz.\n")
    with pytest.raises(SystemExit):
        make_corpus.main(["--texts", str(tmp_path / "texts.txt"), "-o", str(tmp_path / "corpus")])
    assert "expected English sentences of 3 words or more and 15 to 180" in capsys.readouterr().err


def test_no_more_hours_are_read_than_asked_for_and_fewer_are_part_of_more():
    texts = [(str(n), f"This is sentence number {n} of a long row of them.") for n in range(200)]
    few, many = ([s.text for s in make_corpus.choose(texts, hours)] for hours in (0.05, 0.1))
    assert many[: len(few)] == few
    characters = sum(map(len, few))
    seconds = characters / make_corpus.CHARACTERS_PER_SECOND
    assert 180 <= seconds < 190


def test_a_text_that_is_not_there_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        make_corpus.main(["--texts", str(tmp_path / "no.txt"), "--output", str(tmp_path / "out")])
    assert f"--texts {tmp_path / 'no.txt'}: no such file" in capsys.readouterr().err


def test_a_packed_voice_speaks_with_averaged_weights_in_half_the_space(models, tmp_path):
    release = tmp_path / "release"
    assert pack.main([*models, "--output", str(release)]) == 0
    for file in release.iterdir():
        assert checkpoint_size(load_checkpoint(file)) == file.stat().st_size
    generator, vocoder = (
        load_generator(release / "fastpitch.pt"),
        load_vocoder(release / "hifigan.pt"),
    )
    original = golden("fastpitch_tiny")["state_dict"]["proj.weight"]
    torch.testing.assert_close(generator.proj.weight, (0.5 * original).half().float())
    stored = torch.load(release / "fastpitch.pt", weights_only=True)
    assert {*stored} == {"epoch", "config", "train_setup", "state_dict"}
    assert {w.dtype for w in stored["state_dict"].values() if w.is_floating_point()} == {torch.half}
    mel = generator.infer(torch.tensor([[5, 6, 7]])).mel
    reference = load_vocoder(models[3])
    torch.testing.assert_close(vocoder.infer(mel), reference.infer(mel), atol=2e-3, rtol=0)


def test_a_packed_voice_speaks_where_no_checkpoint_is_named(models, tmp_path, monkeypatch, capsys):
    voice = tmp_path / "voice"
    monkeypatch.setattr("models.VOICE", voice)

    def refusal(*flags: str) -> str:
        with pytest.raises(SystemExit) as end:
            inference.main(["--text", "Go on.", "--output", str(tmp_path / "none.wav"), *flags])
        assert end.value.code == 2
        assert not (tmp_path / "none.wav").exists()
        return capsys.readouterr().err

    assert "bash scripts/voice/build.sh makes one); " in refusal()
    pack.main([*models, "--output", str(voice)])
    inference.main(["--text", "Go on.", "--output", str(tmp_path / "own.wav")])
    released = ["--fastpitch", str(voice / "fastpitch.pt"), "--hifigan", str(voice / "hifigan.pt")]
    inference.main(["--text", "Go on.", "--output", str(tmp_path / "named.wav"), *released])
    assert (tmp_path / "own.wav").read_bytes() == (tmp_path / "named.wav").read_bytes()
    assert not [*tmp_path.glob("*.json")]  # a single file comes alone
    assert "leave --hifigan out, and the voice in pretr" in refusal("--hifigan", str(voice / "x"))


def test_a_voice_without_a_vocoder_speaks_by_griffin_lim(models, tmp_path, monkeypatch, capsys):
    voice = tmp_path / "voice"
    monkeypatch.setattr("models.VOICE", voice)
    without = models[:2]
    assert pack.main([*without, "--output", str(voice)]) == 0
    inference.main(["--text", "Go on.", "--output", str(tmp_path / "a.wav")])
    named = ["--fastpitch", str(voice / "fastpitch.pt"), "--output", str(tmp_path / "b.wav")]
    inference.main(["--text", "Go on.", *named])
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    pack.main([*models, "--output", str(voice)])
    with pytest.raises(SystemExit):
        pack.main([*without, "--output", str(voice)])
    assert "hifigan.pt is there and would speak with this" in capsys.readouterr().err


@pytest.mark.skipif(not VOICE.exists(), reason="no voice is in pretrained_models/voice")
def test_the_shipped_voice_is_small_and_speaks_as_fast_as_people_do(tmp_path):
    megabytes = sum(file.stat().st_size for file in VOICE.glob("*.pt")) / pack.MEGABYTE
    assert megabytes <= pack.LARGEST_MEGABYTES
    text = "The queen wore a crown of woven gold."
    inference.main(["--text", text, "--output", str(tmp_path / "queen.wav")])
    audio, rate = soundfile.read(tmp_path / "queen.wav")
    assert 1.5 < len(audio) / rate < 4.0
    assert 0.02 < np.sqrt(np.square(audio).mean()) < 0.3
    card_text = (VOICE / "README.md").read_text()
    assert all(f"| {goal.text} | " in card_text for goal in goals.GOALS)


def test_a_voice_that_is_too_large_is_refused(models, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pack, "LARGEST_MEGABYTES", 0.001)
    with pytest.raises(SystemExit):
        pack.main([*models, "--output", str(tmp_path / "release")])
    assert "more than the 0.001 MB that a release may have" in capsys.readouterr().err
    assert not (tmp_path / "release").exists()


def test_the_card_has_the_measured_numbers_and_names_the_worst_clips(models, tmp_path):
    release, evaluations = tmp_path / "release", tmp_path / "evaluations"
    pack.main([*models, "--output", str(release)])
    (tmp_path / "corpus/wavs").mkdir(parents=True)
    write_wav(tmp_path / "corpus/wavs/a.wav", torch.zeros(22050 * 36), 22050)
    (tmp_path / "corpus/metadata.csv").write_text("a|One.|one.\n")
    summary = {"mean": 0.123, "low": 0.1, "high": 0.15, "num_sentences": 2}
    sentences = [
        {"speech": "speech/b.wav", "text": "Fine.", "scores": {"wer": 0.0}},
        {"speech": "speech/a.wav", "text": "Worst of all.", "scores": {"wer": 1.0}},
    ]
    for name, factor in (("plain", 1), ("pace_0.7", 2)):
        found = {**summary, "mean": factor * summary["mean"]}
        (evaluations / name).mkdir(parents=True)
        report = {"summary": {"wer": {"speech": found, "recordings": None}}, "sentences": sentences}
        (evaluations / name / "evaluation.json").write_text(json.dumps(report))
    flags = ["--release", str(release), "--evaluations", str(evaluations)]
    assert card.main([*flags, "--metadata", str(tmp_path / "corpus/metadata.csv")]) == 0
    written = (release / "README.md").read_text()
    assert "| word error rate, % | 12.3 | 10.0 to 15.0 |" in written
    assert "| pace 0.7 | 24.6 |" in written
    assert "| pace 1.5: word error rate within 3 points of the speech as it is | not " in written
    assert "Of 2 sentences 1 were understood to the word, and 1 with 25% or more" in written
    assert written.index("- `a`: word error rate, % 100.0") < written.index("- `b`: ")
    assert "Worst" not in written  # what is read is no part of a release
    assert "1 sentences, 0.0 hours" in written and "7 epochs" in written and "9 epochs" in written


def measured(**metrics):
    """A report of metrics, each (of the speech, of the recordings)."""
    return {
        "summary": {
            name: {
                "speech": {"mean": speech},
                "recordings": None if recordings is None else {"mean": recordings},
            }
            for name, (speech, recordings) in metrics.items()
        }
    }


AT_THE_LIMITS = {
    "plain": measured(
        wer=(0.07, 0.05),
        dnsmos=(3.3, 3.5),
        mcd=(4.99, None),
        f0_shift=(0.5, None),
        length=(0.98, None),
        words_skipped=(0.01, 0.01),
        words_added=(0.0, 0.01),
    ),
    "pace_0.7": measured(wer=(0.10, 0.05), length=(1.28, None)),
    "pace_1.5": measured(wer=(0.02, 0.05), length=(0.73, None)),
    "semitones_-4": measured(wer=(0.10, 0.05), f0_shift=(-2.5, None)),
    "semitones_4": measured(wer=(0.07, 0.05), f0_shift=(3.5, None)),
}
BEYOND_THEM = {
    "plain": measured(
        wer=(0.071, 0.05),
        dnsmos=(3.29, 3.5),
        mcd=(5.01, None),
        f0_shift=(0.5, None),
        length=(0.98, None),
        words_skipped=(0.011, 0.01),
        words_added=(0.02, 0.01),
    ),
    "pace_0.7": measured(wer=(0.102, 0.05), length=(1.27, None)),
    "pace_1.5": measured(wer=(0.11, 0.2), length=(0.74, None)),
    "semitones_-4": measured(wer=(0.2, 0.05), f0_shift=(-2.4, None)),
    "semitones_4": measured(wer=(1.0, 0.05), f0_shift=(3.4, None)),
}


def test_goals_are_met_up_to_their_limits_and_not_beyond_or_unmeasured():
    rows = list(goals.goal_rows(AT_THE_LIMITS))
    assert [met for _, _, met in rows] == ["yes"] * 13
    assert [found for _, found, _ in rows][:7] == [
        *("7.0 against 5.0 %", "3.30 against 3.50 of 5", "4.99 dB"),
        *("1.0 against 1.0 %", "0.0 against 1.0 %"),
        *("128.0 against 98.0 %", "10.0 against 7.0 %"),
    ]
    assert [met for _, _, met in goals.goal_rows(BEYOND_THEM)] == ["no"] * 13
    unmeasured = {"plain": measured(mcd=(4.0, None), wer=(0.0, None))}
    assert [row[1:] for row in goals.goal_rows(unmeasured)] == [
        *[("not measured", "no")] * 2,
        ("4.00 dB", "yes"),
        *[("not measured", "no")] * 10,
    ]


def test_the_newest_checkpoint_is_the_last_that_has_all_its_files(tmp_path, capsys):
    names = ["hifigan_gen", "hifigan_discrim"]
    for moment in ("9_step_80", "20_step_9", "20_step_10", "20", "21_step_11"):
        for name in names:
            checkpoint = {"epoch": torch.zeros(1)}
            save_checkpoint(checkpoint, tmp_path / f"{name}_checkpoint_{moment}.pt")
    (tmp_path / "hifigan_discrim_checkpoint_21_step_11.pt").unlink()
    newest_checkpoint.main(["--folder", str(tmp_path), "--names", *names])
    assert capsys.readouterr().out == f"{tmp_path / 'hifigan_gen_checkpoint_20.pt'}\n"
    with pytest.raises(SystemExit):
        newest_checkpoint.main(["--folder", str(tmp_path), "--names", "FastPitch"])
    assert "holds no checkpoint of FastPitch" in capsys.readouterr().err


def test_a_card_without_measurements_is_refused(models, tmp_path, capsys):
    flags = ["--release", str(tmp_path), "--evaluations", str(tmp_path), "--metadata", "x"]
    with pytest.raises(SystemExit):
        card.main(flags)
    assert "expected plain/evaluation.json" in capsys.readouterr().err


STANDING_IN = """#!/usr/bin/env bash
case "$*" in
  -c*cuda*) [[ "${HAS_GPU:-}" == true ]] ;;
  "train.py "*)
    [[ "$TRAINING" != new ]] || echo >"$NOTES.pt"
    [[ "$TRAINING" == endless ]] || exit 0
    trap 'echo saved >>"$NOTES"; exit 0' TERM
    echo trains >>"$NOTES"
    while :; do sleep 0.02; done
    ;;
  *newest_checkpoint*) echo "$NOTES.pt" ;;
  "evaluate.py "*)
    while [[ "$1" != --output ]]; do shift; done
    mkdir -p "$2"
    echo >"$2/report.html"
    echo measures >>"$NOTES"
    ;;
esac
"""


@pytest.fixture
def standing_in(tmp_path):
    """Settings that give build.sh, in place of Python, a script that only notes what it does."""
    python, texts = tmp_path / "bin/python", tmp_path / "texts.txt"
    python.parent.mkdir()
    python.write_text(STANDING_IN)
    python.chmod(0o755)
    python.with_name("python3").symlink_to(python)
    texts.touch()
    folders = {"VIRTUAL_ENV": tmp_path, "NOTES": tmp_path / "notes", "OUTPUT_DIR": tmp_path / "out"}
    settings = {"DRY_RUN": "false", "PRESET": "tiny", "TEXTS": texts, **folders}
    return {name: str(value) for name, value in settings.items()}


@pytest.mark.parametrize(
    ("preset", "has_gpu", "vocoders", "more"),
    [
        ("tiny", False, ["vocoder", "fine_tuned"], {}),
        ("laptop", False, [], {}),
        ("laptop", False, ["vocoder"], {"VOCODER_MINUTES": "9.5"}),
        ("small", True, ["vocoder", "fine_tuned"], {}),
        ("base", True, ["vocoder"], {"FINE_TUNING_MINUTES": "0"}),
    ],
)
def test_every_command_of_a_preset_is_one_that_its_program_takes(
    preset, has_gpu, vocoders, more, standing_in
):
    settings = standing_in | {"PRESET": preset, "DRY_RUN": "true"} | more
    done = run_script("voice/build.sh", **settings, HAS_GPU=str(has_gpu).lower())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("--preload gpu") == has_gpu
    commands = [shlex.split(line) for line in done.stdout.splitlines()]
    programs = [command[command.index("python") + 1 :] for command in commands]
    names = [words[1] if words[0] == "-m" else words[0].removesuffix(".py") for words in programs]
    assert names[:4] == [
        *("scripts.voice.make_corpus", "scripts.make_filelists", "prepare_dataset", "train")
    ]
    assert names.count("fastpitch.extract_mels") == ("fine_tuned" in vocoders)
    assert names[-1] == "scripts.voice.card"
    limited = [words[words.index("--output") + 1] for words in programs if "--max-minutes" in words]
    assert [folder.rpartition("/")[2] for folder in limited] == ["fastpitch", *vocoders]
    (packed,) = (words for words in programs if "scripts.voice.pack" in words)
    assert "--hifigan" in packed if vocoders else "--hifigan" not in packed
    assert not vocoders or f"/{vocoders[-1]}/" in packed[packed.index("--hifigan") + 1]
    assert names.count("evaluate") == (1 if preset == "tiny" else 5)
    for name, words in zip(names, programs, strict=True):
        parser = FlagParser("test", *CONFIGS[name])
        flags = words[1 + (words[0] == "-m") :]
        end = flags.index("--") if "--" in flags else len(flags)
        given = parser.parse(flags[:end])
        for config in CONFIGS[name]:
            parser.build(config, given)
        FlagParser("test", InferenceConfig).parse(flags[end + 1 :])


def test_models_are_measured_once_and_again_after_more_training(standing_in, tmp_path):
    for training, times in (("new", 1), ("done", 1), ("new", 2)):
        done = run_script("voice/build.sh", TRAINING=training, **standing_in)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "notes").read_text().split() == ["measures"] * times


def test_without_setup_python3_is_taken_as_it_is(standing_in, tmp_path):
    found = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "VIRTUAL_ENV": "/nowhere"}
    done = run_script("voice/build.sh", **standing_in | found, SETUP="false", TRAINING="new")
    assert done.returncode == 0, done.stderr
    assert "\npython3 train.py " in done.stdout and "\npython3 evaluate.py " in done.stdout


def test_a_build_that_is_told_to_end_has_the_training_save_and_goes_no_further(
    standing_in, tmp_path
):
    notes = tmp_path / "notes"
    build = subprocess.Popen(
        ["bash", ROOT / "scripts/voice/build.sh"],
        env=os.environ | standing_in | {"TRAINING": "endless"},
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not notes.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    build.terminate()
    assert build.wait(60) == 143
    assert notes.read_text().split() == ["trains", "saved"]


def test_a_text_that_is_missing_is_named_before_anything_is_installed(tmp_path):
    settings = {"TEXTS": str(tmp_path / "no.txt"), "OUTPUT_DIR": str(tmp_path / "voice")}
    done = run_script("voice/build.sh", DRY_RUN="false", **settings)
    assert done.returncode == 2
    assert f"build.sh: TEXTS: {tmp_path / 'no.txt'}: no such file" in done.stderr
    assert not (tmp_path / "voice").exists()


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("PRESET", "huge", "PRESET must be tiny, laptop, small or base, got huge"),
        ("DRY_RUN", "1", "DRY_RUN must be true or false, got '1'"),
        ("HOURS", "0.0", "HOURS must be a positive number, got '0.0'"),
        ("FINE_TUNING_MINUTES", "ten", "FINE_TUNING_MINUTES must be a positive number, got 'ten'"),
    ],
)
def test_a_setting_of_no_sense_is_refused(tmp_path, setting, value, sentence):
    done = run_script("voice/build.sh", OUTPUT_DIR=str(tmp_path / "voice"), **{setting: value})
    assert done.returncode == 2
    assert f"build.sh: {sentence}" in done.stderr
