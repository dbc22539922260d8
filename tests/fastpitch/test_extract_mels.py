# SPDX-License-Identifier: BSD-3-Clause
"""Mels for fine-tuning: those of the training forward, made once, continued where they stopped."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import prepare_dataset
from common.audio import MelSpectrogram, read_audio, write_wav
from common.config import AudioConfig, DataConfig, TextConfig
from common.filelists import Utterance, read_filelist
from common.precision import Precision
from common.text import TextProcessor
from fastpitch.data_function import Batch
from fastpitch.extract_mels import main
from fastpitch.extraction import RECORD_FILE, Extraction, extract_here
from fastpitch.prior import InterpolatedPrior
from models import load_generator
from tests.conftest import golden

ROOT = Path(__file__).parent.parent.parent
RATE = 22050
TEXTS = ["Go on, then!", "Oh.", "Is it so, or is it not?"]
SECONDS = [0.5, 0.7, 0.9]


def hum(seconds: float, seed: int) -> np.ndarray:
    """A gliding voice with overtones and breath."""
    rng = np.random.default_rng(seed)
    pitch_hz = np.linspace(*rng.uniform(110, 220, size=2), int(seconds * RATE))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 9))
    return 0.1 * voice + 0.002 * rng.standard_normal(len(phase))


@pytest.fixture
def corpus(tmp_path) -> Path:
    """The file list of three clips of different lengths, with mels and pitch on disk."""
    folder = tmp_path / "corpus"
    (folder / "wavs").mkdir(parents=True)
    lines = []
    for i, (text, seconds) in enumerate(zip(TEXTS, SECONDS, strict=True)):
        write_wav(folder / f"wavs/clip{i}.wav", hum(seconds, seed=i), RATE)
        lines.append(f"wavs/clip{i}.wav|{text}\n")
    filelist = folder / "list.txt"
    filelist.write_text("".join(lines))
    flags = ["-d", str(folder), "--wav-text-filelists", str(filelist), "--n-workers", "1"]
    assert prepare_dataset.main([*flags, "--extract-mels", "--extract-pitch"]) == 0
    return filelist


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A small FastPitch with weights that no other has."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "FastPitch_checkpoint_1.pt")


def save_checkpoint(path: Path, fixture: str = "fastpitch_tiny", shift: float = 0.0) -> Path:
    stored = golden(fixture)
    weights = dict(stored["state_dict"])
    weights["proj.bias"] = weights["proj.bias"] + shift
    setup = {"text_cleaners": ["english_cleaners_v2"], "symbol_set": "english_basic"}
    torch.save({"config": stored["config"], "state_dict": weights, "train_setup": setup}, path)
    return path


def extract(filelist: Path, checkpoint: Path, output: Path, *flags: str) -> int:
    return main(
        [
            *("--fastpitch", str(checkpoint), "--output", str(output), "--num-workers", "0"),
            *("--dataset-path", str(filelist.parent), "--input-files", str(filelist), *flags),
        ]
    )


def mels_of(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.glob("*.npy"))}


def times_of(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in output.glob("*.npy")}


def refusal_of(capsys, *arguments, **settings) -> str:
    with pytest.raises(SystemExit) as end:
        extract(*arguments, **settings)
    assert end.value.code == 2
    return capsys.readouterr().err.rpartition("error: ")[2]


def batch_of(filelist: Path, clip: int, speaker: int = 0) -> Batch:
    """A clip as FastPitch sees it, put together from its features on disk."""
    mel = torch.load(filelist.parent / f"mels/clip{clip}.pt", weights_only=True)
    pitch_hz = torch.load(filelist.parent / f"pitch/clip{clip}.pt", weights_only=True)
    statistics = golden("fastpitch_tiny")["state_dict"]
    pitch = (pitch_hz - statistics["pitch_mean"]) / statistics["pitch_std"]
    text = TextProcessor(TextConfig(text_cleaners=("english_cleaners_v2",))).encode(TEXTS[clip])
    return Batch(
        text=torch.tensor([text]),
        text_lens=torch.tensor([len(text)]),
        mel=mel[None],
        mel_lens=torch.tensor([mel.shape[1]]),
        pitch=torch.where(pitch_hz > 0, pitch, 0),
        energy=mel.norm(dim=0)[None],
        prior=torch.from_numpy(InterpolatedPrior()(mel.shape[1], len(text)))[None],
        speaker=torch.tensor([speaker]),
        paths=[],
    )


@pytest.mark.parametrize("names_pitch", [False, True])
def test_a_mel_is_that_of_the_training_forward_and_as_long_as_the_recording(
    corpus, checkpoint, tmp_path, names_pitch
):
    if names_pitch:
        (corpus.parent / "pitch").rename(corpus.parent / "f0")
        lines = [f"wavs/clip{i}.wav|f0/clip{i}.pt|{text}\n" for i, text in enumerate(TEXTS)]
        corpus.write_text("".join(lines))
    assert extract(corpus, checkpoint, tmp_path / "out", "--load-pitch-from-disk") == 0
    if names_pitch:
        (corpus.parent / "f0").rename(corpus.parent / "pitch")
    model = load_generator(checkpoint)
    for i in range(3):
        mel = np.load(tmp_path / f"out/clip{i}.npy")
        audio = torch.from_numpy(read_audio(corpus.parent / f"wavs/clip{i}.wav", RATE))
        assert mel.shape == MelSpectrogram(AudioConfig())(audio[None])[0].shape
        assert mel.dtype == np.float32
        expected = model(batch_of(corpus, i)).mel[0].detach()
        torch.testing.assert_close(torch.from_numpy(mel), expected, rtol=0, atol=1e-5)


def test_every_speaker_gets_a_mel_in_their_voice(corpus, tmp_path):
    checkpoint = save_checkpoint(tmp_path / "speakers.pt", "fastpitch_tiny_speakers")
    lines = [f"wavs/clip{i}.wav|{text}|{3 - i}\n" for i, text in enumerate(TEXTS)]
    corpus.write_text("".join(lines))
    assert extract(corpus, checkpoint, tmp_path / "out") == 0
    model = load_generator(checkpoint)
    for i in range(3):
        expected = model(batch_of(corpus, i, speaker=3 - i)).mel[0].detach()
        mel = torch.from_numpy(np.load(tmp_path / f"out/clip{i}.npy"))
        torch.testing.assert_close(mel, expected, rtol=0, atol=1e-5)


def test_features_from_disk_and_computed_ones_give_the_same_mels(corpus, checkpoint, tmp_path):
    assert extract(corpus, checkpoint, tmp_path / "audio") == 0
    mel_list = corpus.with_name("mels.txt")
    mel_list.write_text(corpus.read_text().replace("wavs/", "mels/").replace(".wav|", ".pt|"))
    flags = ["--load-mel-from-disk", "--load-pitch-from-disk"]
    assert extract(mel_list, checkpoint, tmp_path / "mels", *flags) == 0
    assert mels_of(tmp_path / "mels") == mels_of(tmp_path / "audio")


def test_neither_companions_nor_processes_change_a_mel(corpus, checkpoint, tmp_path):
    phonemes = ["--p-arpabet", "0.5"]
    assert extract(corpus, checkpoint, tmp_path / "together", *phonemes) == 0
    together = mels_of(tmp_path / "together")
    alone = corpus.with_name("alone.txt")
    alone.write_text(corpus.read_text().splitlines()[2])
    assert extract(alone, checkpoint, tmp_path / "alone", *phonemes) == 0
    assert mels_of(tmp_path / "alone") == {"clip2.npy": together["clip2.npy"]}
    assert extract(corpus, checkpoint, tmp_path / "two", *phonemes, "--num-workers", "2") == 0
    assert mels_of(tmp_path / "two") == together


def test_clips_may_be_read_by_other_processes(corpus, checkpoint, tmp_path):
    assert extract(corpus, checkpoint, tmp_path / "out") == 0
    model = load_generator(checkpoint)
    extraction, utterances = extraction_of(corpus, checkpoint, tmp_path / "read")
    reader = extraction.reader(model)
    jobs = extraction.plan(utterances, {}, reader)
    precision = Precision(amp=False, device=torch.device("cpu"))
    results = [*extract_here(jobs, model, reader, precision, num_readers=2)]
    assert mels_of(tmp_path / "read") == mels_of(tmp_path / "out")
    frames = [np.load(tmp_path / f"out/clip{i}.npy").shape[1] for i in range(3)]
    assert results == [*enumerate(frames)]


def extraction_of(
    filelist: Path, checkpoint: Path, output: Path
) -> tuple[Extraction, list[Utterance]]:
    lists = {"training_files": (filelist,), "validation_files": (filelist,)}
    extraction = Extraction(
        load_generator=load_generator,
        checkpoint=checkpoint,
        ema=False,
        data=DataConfig(dataset_path=filelist.parent, **lists),
        text=load_generator(checkpoint).text,
        seed=1234,
        output=output,
    )
    return extraction, read_filelist(filelist, filelist.parent, 1)


def test_what_is_complete_is_not_made_again(corpus, checkpoint, tmp_path):
    output = tmp_path / "out"
    assert extract(corpus, checkpoint, output) == 0
    first = times_of(output)
    renamed = tmp_path / "same_weights.pt"
    renamed.write_bytes(checkpoint.read_bytes())
    assert extract(corpus, renamed, output) == 0
    assert times_of(output) == first

    write_wav(corpus.parent / "wavs/clip0.wav", hum(0.6, seed=7), RATE)
    corpus.write_text(corpus.read_text().replace("Oh.", "Ah!"))
    (output / "clip2.npy").unlink()
    assert extract(corpus, checkpoint, output) == 0
    second = times_of(output)
    assert all(second[name] != first[name] for name in first)
    assert np.load(output / "clip0.npy").shape == (80, int(0.6 * RATE) // 256 + 1)

    corpus.write_text(corpus.read_text().replace("Ah!", "Oh."))
    assert extract(corpus, checkpoint, output) == 0
    third = times_of(output)
    assert {name for name in second if second[name] != third[name]} == {"clip1.npy"}


@pytest.mark.parametrize("flags", [["--append-space-to-text"], ["--seed", "9"], []])
def test_another_checkpoint_or_other_settings_make_all_again(
    corpus, checkpoint, tmp_path, caplog, flags
):
    output = tmp_path / "out"
    assert extract(corpus, checkpoint, output) == 0
    first = times_of(output)
    if not flags:
        checkpoint = save_checkpoint(tmp_path / "FastPitch_checkpoint_1.pt", shift=1.0)
    caplog.set_level("INFO")
    assert extract(corpus, checkpoint, output, *flags) == 0
    second = times_of(output)
    assert all(second[name] != first[name] for name in first) and len(second) == 3
    assert "3 mels were made with another checkpoint or other settings: made again" in caplog.text


def test_an_interrupted_run_is_continued_to_the_same_mels(corpus, checkpoint, tmp_path):
    lines = []
    for i in range(40):
        clip = corpus.parent / f"wavs/long{i}.wav"
        write_wav(clip, hum(2.0, seed=i), RATE)
        lines.append(f"wavs/{clip.name}|{TEXTS[i % 3]}\n")
    corpus.write_text("".join(lines))
    output = tmp_path / "out"
    record = output / RECORD_FILE
    command = [sys.executable, "-m", "fastpitch.extract_mels", "--num-workers", "1"]
    command += ["--fastpitch", str(checkpoint), "--output", str(output)]
    command += ["--dataset-path", str(corpus.parent), "--input-files", str(corpus)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        give_up = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < give_up:
            if record.is_file() and record.stat().st_size:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Interrupted" in errors and "Traceback" not in errors
    done = [json.loads(line)["mel"] for line in record.read_text().splitlines()]
    assert 1 <= len(done) < 40
    assert not [*output.glob(".*")]
    record.write_text(record.read_text()[:-20])  # as when the machine stops while it is written
    finished = times_of(output)

    assert extract(corpus, checkpoint, output) == 0
    now = times_of(output)
    assert len(now) == 40
    assert [name for name in done[:-1] if now[name] != finished[name]] == []
    assert now[done[-1]] != finished[done[-1]]
    assert extract(corpus, checkpoint, tmp_path / "undisturbed") == 0
    assert mels_of(output) == mels_of(tmp_path / "undisturbed")
    assert extract(corpus, checkpoint, output) == 0
    assert times_of(output) == now


def test_every_problem_is_listed_and_nothing_written(corpus, checkpoint, tmp_path, capsys):
    (corpus.parent / "pitch/clip0.pt").unlink()
    write_wav(corpus.parent / "wavs/clip1.wav", np.zeros(int(0.7 * RATE)), RATE)
    output = tmp_path / "out"
    message = refusal_of(capsys, corpus, checkpoint, output, "--load-pitch-from-disk")
    assert "2 problems" in message and "silent" in message
    assert f"pitch file {corpus.parent / 'pitch/clip0.pt'}: no such file" in message
    assert not output.exists()
    assert extract(corpus, checkpoint, output, "--load-pitch-from-disk", "--skip-bad") == 0
    assert [*mels_of(output)] == ["clip2.npy"]
    assert len((output / "skipped_clips.txt").read_text().splitlines()) == 2


def test_files_of_others_are_left_alone(corpus, checkpoint, tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    (output / "clip1.npy").write_text("mine")
    message = refusal_of(capsys, corpus, checkpoint, output)
    assert "holds clip1.npy but no extraction.jsonl, so it was not made by this" in message
    assert [path.read_text() for path in output.iterdir()] == ["mine"]
    (output / "clip1.npy").rename(output / "other.npy")
    assert extract(corpus, checkpoint, output) == 0
    assert (output / "other.npy").read_text() == "mine"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--input-files"], "--input-files must name a file list"),
        (["--input-files", "none.txt"], "none.txt: no such file list"),
        (["--dataset-path", "nowhere"], "--dataset-path nowhere: no such folder"),
        (["--fastpitch", "none.pt"], "none.pt: no such checkpoint"),
        (["--num-workers", "-1"], "--num-workers must not be negative, got -1"),
        (["--max-clip-seconds", "0"], "--max-clip-seconds must be positive, got 0.0"),
        (["--amp"], "--amp needs a GPU"),
        (["--ema"], "holds no averaged weights"),
        (["--load-mel-from-disk"], "--load-mel-from-disk needs --load-pitch-from-disk"),
        (["--symbol-set", "english_expanded"], "the model in --fastpitch 148"),
        (["--output", "/dev/null"], "--output /dev/null must be a folder"),
        (["--loud"], "unrecognized arguments: --loud"),
    ],
)
def test_impossible_flags_are_refused_in_a_sentence(
    corpus, checkpoint, tmp_path, capsys, flags, sentence
):
    assert sentence in refusal_of(capsys, corpus, checkpoint, tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_ends_with_code_1_and_leaves_no_half_mel(corpus, checkpoint, tmp_path, caplog):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        assert extract(corpus, checkpoint, tmp_path / "out") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "stopped: " in caplog.text
    assert [path.name for path in (tmp_path / "out").iterdir()] == [RECORD_FILE]
    assert extract(corpus, checkpoint, tmp_path / "out") == 0
    assert len(mels_of(tmp_path / "out")) == 3


def test_a_public_checkpoint_makes_mels_of_recordings(shared, tmp_path):
    cli, sample = shared / "golden" / "cli", shared / "ljspeech_sample"
    filelist = tmp_path / "list.txt"
    lines = (cli / "audio_text_val.txt").read_text().splitlines()[:3]
    filelist.write_text("\n".join(lines))
    public = cli / "FastPitch_checkpoint_7.pt"
    output = tmp_path / "out"
    assert extract(filelist, public, output, "--dataset-path", str(sample)) == 0
    for line in lines:
        path = sample / line.partition("|")[0]
        mel = np.load(output / f"{path.stem}.npy")
        assert mel.shape == (80, len(read_audio(path, RATE)) // 256 + 1)
