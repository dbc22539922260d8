# SPDX-License-Identifier: BSD-3-Clause
"""Prepare, train, resume, speak: the recipe's main job on a CPU, small."""

from __future__ import annotations

import gc
import io
import json
import logging
import shutil
import wave

import numpy as np
import pytest
import soundfile
import torch

import inference
import prepare_dataset
import train
from common.checkpoint import not_finite
from models import load_vocoder
from tests.conftest import assert_same, golden

RATE = 22050
TEXTS = ["Hello.", "Go on!", "Is it so?", "Yes, now.", "One two.", "A b c.", "Oh no!", "Stop it."]
TINY_MODEL = [
    *("--symbols-embedding-dim", "16", "--in-fft-output-size", "16", "--out-fft-output-size", "16"),
    *("--in-fft-n-layers", "1", "--out-fft-n-layers", "1"),
    *("--in-fft-conv1d-filter-size", "16", "--out-fft-conv1d-filter-size", "16"),
    *("--dur-predictor-filter-size", "8", "--pitch-predictor-filter-size", "8"),
    *("--energy-predictor-filter-size", "8", "--energy-conditioning"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Eight clips of a humming voice, with file lists and prepared features."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "wavs").mkdir()
    rng = np.random.default_rng(0)
    lists = {"train": [], "val": []}
    for index, text in enumerate(TEXTS):
        soundfile.write(folder / f"wavs/clip{index}.wav", hum(rng), RATE, subtype="PCM_16")
        part = "train" if index < 6 else "val"
        lists[part].append(f"wavs/clip{index}.wav|{text}\n")
    for part, lines in lists.items():
        (folder / f"{part}.txt").write_text("".join(lines))
    filelists = [str(folder / "train.txt"), str(folder / "val.txt")]
    prepare_dataset.main(
        [
            *("-d", str(folder), "--wav-text-filelists", *filelists),
            *("--n-workers", "1", "--extract-mels", "--extract-pitch"),
        ]
    )
    return folder


def hum(rng):
    """0.6 s of a gliding voice with overtones and breath."""
    num_samples = int(0.6 * RATE)
    pitch_hz = np.linspace(*rng.uniform(110, 220, size=2), num_samples)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 9))
    return 0.1 * voice + 0.002 * rng.standard_normal(num_samples)


def flags(corpus, output, epochs, *more):
    return [
        *("--dataset-path", str(corpus), "--output", str(output), "--epochs", str(epochs)),
        *("--training-files", str(corpus / "train.txt")),
        *("--validation-files", str(corpus / "val.txt")),
        *("--load-pitch-from-disk", "--learning-rate", "0.01", "--warmup-steps", "0"),
        *("--batch-size", "2", "--grad-accumulation", "2", "--num-workers", "0"),
        *("--text-cleaners", "english_cleaners_v2", "--p-arpabet", "0.5"),
        *("--kl-loss-start-epoch", "2", "--kl-loss-warmup-epochs", "2", "--samples-freq", "0"),
        *TINY_MODEL,
        *more,
    ]


def log_of(output):
    lines = (output / "nvlog.json").read_text().splitlines()
    return [json.loads(line.removeprefix("DLLL ")) for line in lines]


def losses_of(output, key):
    return [event["data"][key] for event in log_of(output) if key in event["data"]]


def checkpoint(output, epoch):
    state = torch.load(output / f"FastPitch_checkpoint_{epoch}.pt", weights_only=True)
    del state["training"]["checkpoints"]  # which were saved before it
    del state["training"]["seconds"]  # that it took
    return state


@pytest.mark.parametrize("optimizer", ["lamb", "adam"])
def test_four_epochs_equal_two_and_two_resumed_bitwise(corpus, tmp_path, optimizer):
    extra = ["--optimizer", optimizer, "--ema-decay", "0.9"]
    train.main(flags(corpus, tmp_path / "whole", 4, *extra))
    train.main(flags(corpus, tmp_path / "parts", 2, *extra))
    torch.manual_seed(99)  # whatever happened in between
    train.main(flags(corpus, tmp_path / "parts", 4, "--resume", *extra))
    assert_same(checkpoint(tmp_path / "whole", 4), checkpoint(tmp_path / "parts", 4))
    for key in ("train_loss", "val_loss", "val_ema_loss"):
        assert losses_of(tmp_path / "whole", key) == losses_of(tmp_path / "parts", key)


class Census(logging.Handler):
    """Counts, whenever something is logged, the checkpoints that trainings began with."""

    def __init__(self):
        super().__init__()
        self.counts = []

    def emit(self, record):
        self.counts.append(sum(type(each) is train.Start for each in gc.get_objects()))


def test_the_checkpoint_that_it_begins_with_does_not_stay_in_memory(corpus, tmp_path):
    train.main(flags(corpus, tmp_path, 1))
    census, saving = Census(), logging.getLogger("common.checkpoint_folder")
    saving.addHandler(census)
    try:
        train.main(flags(corpus, tmp_path, 2, "--resume"))
    finally:
        saving.removeHandler(census)
    assert census.counts == [0]


def test_the_largest_batch_is_tried_first_and_changes_nothing(
    corpus, tmp_path, monkeypatch, caplog
):
    extra = ["--optimizer", "lamb", "--ema-decay", "0.9"]
    train.main(flags(corpus, tmp_path / "tried", 2, *extra))
    assert "The largest batch takes" in caplog.text
    monkeypatch.setattr("common.trainer.rehearse", lambda *_: None)
    train.main(flags(corpus, tmp_path / "not tried", 2, *extra))
    assert_same(checkpoint(tmp_path / "tried", 2), checkpoint(tmp_path / "not tried", 2))


def test_number_of_workers_changes_no_result(corpus, tmp_path):
    train.main(flags(corpus, tmp_path / "none", 2))
    train.main(flags(corpus, tmp_path / "two", 2, "--num-workers", "2"))
    assert_same(checkpoint(tmp_path / "none", 2), checkpoint(tmp_path / "two", 2))


@pytest.fixture
def unpacked(corpus, tmp_path):
    """The corpus as it is read clip by clip."""
    return shutil.copytree(corpus, tmp_path / "corpus", ignore=shutil.ignore_patterns("packed"))


def test_features_from_disk_and_computed_ones_train_alike(corpus, unpacked, tmp_path):
    train.main(flags(corpus, tmp_path / "packed", 1))
    corpus = unpacked
    train.main(flags(corpus, tmp_path / "audio", 1))
    for part in ("train", "val"):
        lines = (corpus / f"{part}.txt").read_text().replace("wavs/", "mels/")
        (corpus / f"{part}_mel.txt").write_text(lines.replace(".wav|", ".pt|"))
    from_mels = [
        *("--training-files", str(corpus / "train_mel.txt")),
        *("--validation-files", str(corpus / "val_mel.txt"), "--load-mel-from-disk"),
    ]
    train.main(flags(corpus, tmp_path / "mels", 1, *from_mels))
    online = [f for f in flags(corpus, tmp_path / "online", 1) if f != "--load-pitch-from-disk"]
    train.main([*online, "--pitch-online-dir", str(tmp_path / "pitch")])
    for output in ("mels", "online", "packed"):
        assert_same(
            checkpoint(tmp_path / "audio", 1)["state_dict"],
            checkpoint(tmp_path / output, 1)["state_dict"],
        )
    kept = [*(tmp_path / "pitch").rglob("*.pt")]
    assert len(kept) == 8  # of a training step, the largest batch and the validation


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """A model after a few epochs."""
    output = tmp_path_factory.mktemp("trained") / "run"
    train.main(flags(corpus, output, 12, "--validation-freq", "4", "--samples-freq", "6"))
    return output


def test_the_loss_falls(trained):
    losses = [
        e["data"]["train_avg_mel_loss"]
        for e in log_of(trained)
        if len(e["step"]) == 1 and "train_avg_mel_loss" in e["data"]
    ]
    assert len(losses) == 12
    assert losses[-1] < 0.9 * losses[0]


def test_the_log_has_the_lines_of_the_public_recipe(trained):
    events = log_of(trained)
    parameters = events[0]
    assert parameters["step"] == "PARAMETER"
    assert parameters["data"]["batch_size"] == 2
    assert parameters["data"]["pitch_mean"] > 0, "defaults must be resolved"
    step = next(e for e in events if len(e["step"]) == 3)
    assert step["step"] == [1, 1, 1]
    names = "loss mel_loss kl_loss kl_weight frames/s took lrate".split()  # noqa: SIM905
    assert {f"train_{name}" for name in names} <= step["data"].keys()
    validations = [e for e in events if "val_loss" in e["data"]]
    assert [e["step"] for e in validations] == [[4], [8], [12]]
    assert {"val_mel_loss", "val_frames/s", "val_took"} <= validations[0]["data"].keys()
    assert events[-1]["step"] == [] and "train_avg_loss" in events[-1]["data"]
    for event in events:
        assert event["type"] == "LOG"
        assert all(isinstance(event[k], str) for k in ("timestamp", "datetime", "elapsedtime"))


def test_tensorboard_shows_scalars_mels_alignment_prosody_and_audio(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "train/grad_norm", "val/mel_loss"} <= {*tags["scalars"]}
    kinds = ("mel_recorded", "mel_predicted", "alignment", "prosody")
    clips = ("clip1", "clip2")  # as many as there are to validate on
    assert {*tags["images"]} == {f"{clip}/{kind}" for clip in clips for kind in kinds}
    spoken = {f"{clip}/{kind}" for clip in clips for kind in ("recorded", "predicted")}
    assert {*tags["audio"]} == spoken


def test_tensorboard_plays_the_clips_through_a_hifigan(corpus, tmp_path, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    vocoder = tmp_path / "hifigan_gen_checkpoint_1.pt"
    fixture = golden("hifigan_tiny")
    setup = {"sampling_rate": RATE, "num_mels": 80, "mel_fmax": 8000.0}
    contents = {"generator": fixture["state_dict"], "config": fixture["config"]}
    torch.save(contents | {"train_setup": setup}, vocoder)
    train.main(flags(corpus, tmp_path / "run", 1, "--hifigan", str(vocoder), "--samples-freq", "1"))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    played = events.Audio("clip1/recorded")[0]
    mel = torch.load(corpus / "mels" / "clip6.pt", weights_only=True)
    expected = load_vocoder(vocoder).infer(mel[None])[0].detach().numpy()
    samples, rate = soundfile.read(io.BytesIO(played.encoded_audio_string))
    assert rate == RATE
    assert np.abs(samples - expected).max() < 1e-3

    torch.save(contents | {"train_setup": setup | {"mel_fmax": 7000.0}}, vocoder)
    message = refused(flags(corpus, tmp_path / "other", 1, "--hifigan", str(vocoder)), capsys)
    assert "mel_fmax 7000, but this training makes mels of mel_fmax 8000" in message


def test_a_checkpoint_holds_plain_values_and_every_setting(corpus, trained):
    state = checkpoint(trained, 12)
    assert state["epoch"] == 12 and state["iteration"] == 12
    assert len(state["config"]) == 39
    assert state["train_setup"]["text_cleaners"] == ["english_cleaners_v2"]
    assert state["train_setup"]["mel_fmax"] == 8000.0
    prepared = json.loads((corpus / "pitch_stats.json").read_text())
    assert state["state_dict"]["pitch_mean"].item() == pytest.approx(prepared["mean"])
    assert not any("/" in str(value) for value in state["train_setup"].values())


def test_a_trained_model_speaks_into_pcm_files_in_input_order(trained, tmp_path):
    phrases = tmp_path / "phrases.tsv"
    phrases.write_text("output\ttext\nlong\tA long one, is it not?\nshort.wav\tOh.\n")
    inference.main(
        [
            *("-i", str(phrases), "-o", str(tmp_path / "out"), "--save-mels", "-bs", "1"),
            *("--fastpitch", str(trained / "FastPitch_checkpoint_12.pt")),
        ]
    )
    for name in ("long", "short"):
        with wave.open(str(tmp_path / "out" / f"{name}.wav")) as file:
            assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (RATE, 2, 1)
            mel = np.load(tmp_path / "out" / f"{name}.npy")
            assert mel.shape == (file.getnframes() // 256, 80)
    logged = json.loads((tmp_path / "out" / "nvlog_infer.json").read_text().removeprefix("DLLL "))
    assert {"avg_fastpitch_latency", "avg_latency", "90%_latency", "avg_RTF"} <= {*logged["data"]}


def test_only_validating_a_checkpoint_needs_no_size_flags(corpus, trained, tmp_path):
    start = ["--init-from-checkpoint", str(trained / "FastPitch_checkpoint_12.pt")]
    model_free = flags(corpus, tmp_path, 0, *start)[: -len(TINY_MODEL) - len(start)] + start
    train.main(model_free)
    assert losses_of(tmp_path, "val_loss") == [losses_of(trained, "val_loss")[-1]]
    assert not [*tmp_path.glob("*.pt")]


def test_validation_does_not_depend_on_the_batch_size(corpus, trained, tmp_path):
    start = ["--init-from-checkpoint", str(trained / "FastPitch_checkpoint_12.pt")]
    for size in ("1", "5"):
        train.main(flags(corpus, tmp_path / size, 0, *start, "--batch-size", size))
    assert losses_of(tmp_path / "1", "val_loss") == losses_of(tmp_path / "5", "val_loss")


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as exit_info:
        train.main(arguments)
    assert exit_info.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_an_earlier_training_is_not_overwritten(corpus, trained, capsys):
    message = refused(flags(corpus, trained, 3), capsys)
    assert "holds FastPitch_checkpoint_12.pt of an earlier training" in message


def test_sizes_that_contradict_the_checkpoint_are_refused(corpus, trained, tmp_path, capsys):
    start = ["--init-from-checkpoint", str(trained / "FastPitch_checkpoint_12.pt")]
    arguments = flags(corpus, tmp_path, 1, *start, "--in-fft-conv1d-filter-size", "32")
    expected = "was trained with --in-fft-conv1d-filter-size 16, not 32 as the flags say"
    assert expected in refused(arguments, capsys)


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 and then nothing"])
def test_damaged_checkpoints_are_refused_by_name(corpus, tmp_path, capsys, content):
    damaged = tmp_path / "FastPitch_checkpoint_9.pt"
    damaged.write_bytes(content)
    message = refused(flags(corpus, tmp_path, 10, "--resume"), capsys)
    assert f"{damaged}: not a readable checkpoint" in message


def test_every_problem_of_the_data_is_listed_before_anything_is_written(corpus, tmp_path, capsys):
    bad = tmp_path / "bad.txt"
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    bad.write_text(f"{corpus}/wavs/none.wav|Hello.\n{tmp_path}/silent.wav|Hello.\n")
    arguments = flags(corpus, tmp_path / "out", 1, "--training-files", str(bad))
    message = refused(arguments, capsys)
    assert "bad.txt:1" in message and "bad.txt:2" in message
    assert not (tmp_path / "out").exists()


def test_missing_statistics_and_too_few_clips_are_sentences(corpus, tmp_path, capsys):
    few = flags(corpus, tmp_path / "out", 1, "--batch-size", "50")
    assert "6 training clips do not fill one step" in refused(few, capsys)
    elsewhere = flags(corpus, tmp_path / "out", 1, "--dataset-path", str(tmp_path))
    assert "no pitch statistics" in refused(elsewhere, capsys)


def test_a_stored_pitch_may_be_repeated_but_not_changed(corpus, trained, tmp_path, capsys):
    stored = checkpoint(trained, 12)["state_dict"]
    mean, std = stored["pitch_mean"].item(), stored["pitch_std"].item()
    resume = ["--checkpoint-path", str(trained / "FastPitch_checkpoint_12.pt"), "--pitch-std"]
    arguments = flags(corpus, tmp_path, 0, *resume, f"{std:.6f}", "--pitch-mean")
    train.main([*arguments, f"{mean:.6f}"])
    assert "differ from" in refused([*arguments, f"{mean + 1:.6f}"], capsys)


def test_resuming_with_another_optimizer_is_refused(corpus, trained, capsys):
    arguments = flags(corpus, trained, 13, "--resume", "--optimizer", "adam")
    assert "--optimizer adam cannot continue" in refused(arguments, capsys)


def test_resuming_takes_the_settings_of_the_command_line(corpus, tmp_path):
    train.main(flags(corpus, tmp_path, 1, "--weight-decay", "0.1"))
    train.main(flags(corpus, tmp_path, 2, "--weight-decay", "0.2", "--resume"))
    (group,) = checkpoint(tmp_path, 2)["optimizer"]["param_groups"]
    assert group["weight_decay"] == 0.2


def test_a_public_checkpoint_is_resumed(corpus, shared, tmp_path):
    public = shared / "golden" / "cli" / "FastPitch_checkpoint_7.pt"
    arguments = flags(corpus, tmp_path, 8, "--checkpoint-path", str(public), "--optimizer", "adam")
    train.main(arguments[: arguments.index("--symbols-embedding-dim")] + arguments[-4:])
    assert checkpoint(tmp_path, 8)["iteration"] == 1234 + 1


def test_paths_that_cannot_be_written_are_refused(corpus, tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()
    for more in (["--output", file], ["--log-file", tmp_path], ["--pitch-online-dir", file]):
        arguments = flags(corpus, tmp_path / "new", 1, *map(str, more))
        arguments.remove("--load-pitch-from-disk")
        assert f"{more[0]} {more[1]} must be a" in refused(arguments, capsys)
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_dataset_is_named(corpus, tmp_path, capsys):
    arguments = flags(corpus, tmp_path / "new", 1, "--dataset-path", str(tmp_path / "absent"))
    assert "absent: no such folder" in refused(arguments, capsys)


def test_mels_without_pitch_are_refused(corpus, tmp_path, capsys):
    arguments = flags(corpus, tmp_path / "new", 1, "--load-mel-from-disk")
    arguments.remove("--load-pitch-from-disk")
    assert "needs --load-pitch-from-disk" in refused(arguments, capsys)


def test_kept_pitch_that_does_not_fit_its_clip_is_computed_again(unpacked, tmp_path):
    kept = tmp_path / "kept"

    def run(name):
        arguments = flags(unpacked, tmp_path / name, 1, "--pitch-online-dir", str(kept))
        arguments.remove("--load-pitch-from-disk")
        train.main(arguments)
        return losses_of(tmp_path / name, "pitch_loss")

    first = run("first")
    damaged, of_another_clip, *_ = sorted(kept.rglob("*.pt"))
    damaged.write_bytes(b"corrupt")
    torch.save(torch.full((5,), 150.0), of_another_clip)
    assert run("second") == first
    assert torch.load(of_another_clip).shape[0] > 5


@pytest.mark.parametrize("feature", ["mels", "pitch"])
def test_a_poisoned_clip_is_named_and_does_not_end_the_training(corpus, tmp_path, caplog, feature):
    folder = tmp_path / "corpus"
    shutil.copytree(corpus, folder)
    for part in ("train", "val"):
        lines = (folder / f"{part}.txt").read_text().replace("wavs/", "mels/")
        (folder / f"{part}.txt").write_text(lines.replace(".wav|", ".pt|"))
    poisoned = folder / feature / "clip2.pt"
    values = torch.load(poisoned)
    values[..., 5] = torch.nan
    torch.save(values, poisoned)
    more = ["--load-mel-from-disk", "--batch-size", "1", "--grad-accumulation", "1"]
    train.main(flags(folder, tmp_path / "run", 2, *more, "--checkpoint-every-steps", "1"))
    warnings = [record.message for record in caplog.records if "was skipped" in record.message]
    assert len(warnings) == 2, "once an epoch"
    for warning in warnings:
        assert "its loss is not finite" in warning
        assert warning.endswith(f"clips: {folder / 'mels' / 'clip2.pt'}")
    assert np.isfinite(losses_of(tmp_path / "run", "train_loss")).all()
    assert len(losses_of(tmp_path / "run", "train_loss")) == 2 * 5
    assert not not_finite(checkpoint(tmp_path / "run", 2))


def test_averaged_weights_are_not_dropped_in_silence(corpus, tmp_path, caplog):
    train.main(flags(corpus, tmp_path, 1, "--ema-decay", "0.9"))
    with caplog.at_level("WARNING"):
        train.main(flags(corpus, tmp_path, 2, "--resume"))
    assert "averaged weights" in caplog.text
    assert "--ema-decay" in caplog.text


def test_validating_a_public_checkpoint_gives_the_losses_of_the_public_recipe(shared, tmp_path):
    golden = shared / "golden" / "cli"
    validation = str(golden / "audio_text_val.txt")
    arguments = [
        *("--epochs", "0", "--init-from-checkpoint", str(golden / "FastPitch_checkpoint_7.pt")),
        *("--output", str(tmp_path), "--dataset-path", str(shared / "ljspeech_sample")),
        *("--training-files", validation, "--validation-files", validation),
        *("--learning-rate", "0.1", "--batch-size", "3", "--num-workers", "0"),
        *("--dur-predictor-loss-scale", "0.1", "--pitch-predictor-loss-scale", "0.1"),
    ]
    train.main(arguments)
    expected = json.loads((golden / "expected.json").read_text())["val"]
    for name, value in expected.items():
        assert losses_of(tmp_path, f"val_{name}") == [pytest.approx(value, rel=5e-3)], name


def test_batches_of_like_length_resume_bitwise_from_packed_features(corpus, tmp_path, capsys):
    extra = ["--max-batch-frames", "110", "--checkpoint-every-steps", "1"]  # two clips
    train.main(flags(corpus, tmp_path / "whole", 2, *extra))
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    (tmp_path / "parts" / "FastPitch_checkpoint_2.pt").unlink()
    train.main(flags(corpus, tmp_path / "parts", 2, "--resume", *extra))
    assert_same(checkpoint(tmp_path / "whole", 2), checkpoint(tmp_path / "parts", 2))
    with pytest.raises(SystemExit) as end:
        train.main(flags(corpus, tmp_path / "refused", 1, "--max-batch-frames", "40"))
    assert end.value.code == 2
    assert "--max-batch-frames 40 must not be less than" in capsys.readouterr().err
