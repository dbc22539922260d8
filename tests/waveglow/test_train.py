# SPDX-License-Identifier: BSD-3-Clause
"""WaveGlow trained from the command line on a CPU: it learns, resumes, speaks, refuses."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from torch.testing import assert_close

from common.config import AudioConfig
from models import load_vocoder
from tests.conftest import assert_same, golden
from tests.test_train import RATE, hum, log_of, losses_of
from waveglow import train
from waveglow.model import WaveGlow

NUM_CLIPS = 10
SMALL = [
    *("--flows", "4", "--early-every", "2", "--wn-channels", "16", "--wn-layers", "2"),
    *("--n-mel-channels", "20", "--mel-fmax", "7600"),
]
SEGMENT = ["--segment-length", "2000"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Clips of a humming voice, one of them shorter than a segment, one silent."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    for index in range(NUM_CLIPS):
        soundfile.write(folder / f"clip{index}.wav", hum(rng), RATE, subtype="PCM_16")
    soundfile.write(folder / "short.wav", hum(rng)[:900], RATE, subtype="PCM_16")
    soundfile.write(folder / "silent.wav", np.zeros(RATE // 2), RATE, subtype="PCM_16")
    names = [*(f"clip{index}" for index in range(NUM_CLIPS - 2)), "short", "silent"]
    lines = [f"{name}.wav|Any text.\n" for name in names]
    (folder / "train.txt").write_text("".join(lines))
    lines = [f"clip{index}.wav|Any text.\n" for index in (NUM_CLIPS - 2, NUM_CLIPS - 1)]
    (folder / "val.txt").write_text("".join(lines))
    return folder


def flags(corpus, output, epochs, *more):
    return [
        *("--dataset-path", str(corpus), "--output", str(output), "--epochs", str(epochs)),
        *("--training-files", str(corpus / "train.txt")),
        *("--validation-files", str(corpus / "val.txt")),
        *("--learning-rate", "0.001", "--batch-size", "5", "--num-workers", "0"),
        *map(str, more),
    ]


def checkpoint(output, epoch):
    state = torch.load(output / f"WaveGlow_checkpoint_{epoch}.pt", weights_only=True)
    del state["training"]["checkpoints"]  # which were saved before it
    del state["training"]["seconds"]  # that it took
    return state


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """A small model after a few epochs, and its folder."""
    output = tmp_path_factory.mktemp("trained") / "run"
    more = ("--ema-decay", "0.9", "--validation-freq", "10")
    train.main(flags(corpus, output, 30, *SMALL, *SEGMENT, *more))
    return output


def assert_falls_steadily(losses):
    quarters = torch.tensor(losses).chunk(4)
    means = torch.stack([quarter.mean() for quarter in quarters])
    assert len(quarters) == 4 and means.isfinite().all()
    assert (means.diff() < -0.05).all(), means


def test_the_negative_log_likelihood_falls_steadily(trained):
    losses = losses_of(trained, "train_loss")
    assert len(losses) == 30 * 2
    assert_falls_steadily(losses)
    for key in ("val_loss", "val_ema_loss"):
        first, second, third = losses_of(trained, key)
        assert first > second > third


def test_it_learns_from_real_recordings(shared, tmp_path):
    lines = (shared / "ljspeech_sample" / "metadata.csv").read_text().splitlines()
    names = [f"wavs/{line.partition('|')[0]}.wav\n" for line in lines]
    (tmp_path / "train.txt").write_text("".join(names[:20]))
    (tmp_path / "val.txt").write_text("".join(names[20:21]))
    arguments = flags(tmp_path, tmp_path / "out", 15, *SMALL, *SEGMENT)
    train.main([*arguments, "--dataset-path", str(shared / "ljspeech_sample")])
    assert_falls_steadily(losses_of(tmp_path / "out", "train_loss"))


def test_four_epochs_equal_two_and_two_resumed_bitwise(corpus, tmp_path):
    extra = [*SMALL, *SEGMENT, "--ema-decay", "0.9", "--grad-accumulation", "2"]
    train.main(flags(corpus, tmp_path / "whole", 4, *extra, "--validation-freq", "2"))
    train.main(flags(corpus, tmp_path / "parts", 2, *extra))
    torch.manual_seed(99)  # whatever happened in between
    # Sizes, bands and the mel's highest frequency come from the checkpoint.
    train.main(flags(corpus, tmp_path / "parts", 4, "--resume", *extra[len(SMALL) :]))
    assert_same(checkpoint(tmp_path / "whole", 4), checkpoint(tmp_path / "parts", 4))
    for key in ("train_loss", "val_loss", "val_ema_loss"):
        assert losses_of(tmp_path / "whole", key) == losses_of(tmp_path / "parts", key)


def test_number_of_workers_changes_no_result(corpus, tmp_path):
    train.main(flags(corpus, tmp_path / "none", 2, *SMALL, *SEGMENT))
    train.main(flags(corpus, tmp_path / "two", 2, *SMALL, *SEGMENT, "--num-workers", 2))
    assert_same(checkpoint(tmp_path / "none", 2), checkpoint(tmp_path / "two", 2))


def test_a_trained_checkpoint_speaks(trained):
    path = trained / "WaveGlow_checkpoint_30.pt"
    vocoder, average = load_vocoder(path), load_vocoder(path, ema=True)
    assert isinstance(vocoder, WaveGlow)
    assert vocoder.audio == AudioConfig(n_mel_channels=20, mel_fmax=7600.0)
    mel = torch.randn(2, 20, 12) - 5
    audio = vocoder.infer(mel)
    assert audio.shape == (2, 12 * 256)
    assert audio.isfinite().all() and audio.abs().max() <= 1 and audio.std() > 1e-3
    assert not torch.allclose(vocoder.infer(mel, sigma=0.0), average.infer(mel, sigma=0.0))


def test_the_log_names_the_terms_of_the_loss_and_every_setting(trained):
    events = log_of(trained)
    settings = events[0]["data"]
    assert events[0]["step"] == "PARAMETER"
    assert (settings["optimizer"], settings["warmup_steps"], settings["sigma"]) == ("adam", 0, 1.0)
    assert (settings["wn_channels"], settings["segment_length"]) == (16, 2000)
    step = next(event for event in events if len(event["step"]) == 3)
    assert step["step"] == [1, 1, 2]
    names = "loss latent_loss coupling_loss mixing_loss lrate grad_norm frames/s took"
    assert {f"train_{name}" for name in names.split()} <= step["data"].keys()
    assert step["data"]["train_lrate"] == pytest.approx(0.001)
    parts = [step["data"][f"train_{name}"] for name in names.split()[1:4]]
    assert step["data"]["train_loss"] == pytest.approx(sum(parts), rel=1e-5)
    validations = [event for event in events if "val_loss" in event["data"]]
    assert [event["step"] for event in validations] == [[10], [20], [30]]
    assert "val_coupling_loss" in validations[0]["data"]


def test_tensorboard_shows_scalars_mels_and_audio(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "train/mixing_loss", "val_ema/loss"} <= {*tags["scalars"]}
    assert {"mel/recorded", "mel/generated"} <= {*tags["images"]}
    assert {"audio/recorded", "audio/generated"} <= {*tags["audio"]}


def test_a_checkpoint_holds_plain_values_and_every_setting(trained):
    state = checkpoint(trained, 30)
    assert (state["epoch"], state["iteration"]) == (30, 60)
    assert state["config"]["n_group"] == 8 and state["config"]["WN_config"]["n_channels"] == 16
    assert state["train_setup"]["mel_fmax"] == 7600.0
    assert not any("/" in str(value) for value in state["train_setup"].values())


def test_only_validating_a_checkpoint_repeats_its_loss(corpus, trained, tmp_path):
    start = ("--init-from-checkpoint", trained / "WaveGlow_checkpoint_30.pt")
    train.main(flags(corpus, tmp_path, 0, *start))
    assert losses_of(tmp_path, "val_loss") == [losses_of(trained, "val_loss")[-1]]
    assert not [*tmp_path.glob("*.pt")]


def test_training_begins_with_the_weights_of_a_public_checkpoint(corpus, tmp_path):
    fixture = golden("waveglow_tiny")
    public = {name: fixture[name] for name in ("config", "state_dict")}
    torch.save(public, tmp_path / "public.pt")
    start = ("--init-from-checkpoint", tmp_path / "public.pt")
    more = ("--learning-rate", "1e-9", *SEGMENT)
    train.main(flags(corpus, tmp_path / "out", 1, *start, *more))
    state = checkpoint(tmp_path / "out", 1)
    assert state["config"] == public["config"] and state["iteration"] == 2
    assert_close(state["state_dict"], dict(public["state_dict"]), rtol=0, atol=1e-8)


def test_a_clip_shorter_than_a_hop_is_validated(corpus, tmp_path):
    soundfile.write(tmp_path / "click.wav", np.full(100, 0.1), RATE)
    (tmp_path / "val.txt").write_text(f"{tmp_path}/click.wav\n")
    validation = ("--validation-files", tmp_path / "val.txt")
    train.main(flags(corpus, tmp_path / "out", 1, *SMALL, *SEGMENT, *validation))
    assert np.isfinite(losses_of(tmp_path / "out", "val_loss")).all()


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        train.main(arguments)
    assert end.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--segment-length", 2001), "--segment-length must be a multiple of --groups 8, got 2001"),
        (("--segment-length", 0), "--segment-length must be positive, got 0"),
        (("--hop-length", 250), "--groups must divide --hop-length 250"),
        (("--win-length", 128), "--win-length must be at least --hop-length 256"),
        (("--groups", 7, *SEGMENT), "--groups must be even"),
        (("--batch-size", 50), "10 training clips do not fill one step of --batch-size 50"),
        (("--sampling-rate", 16000), "silent.wav: recorded at 22050 Hz, --sampling-rate is 16000"),
        (("--segment-size", 2000), "unrecognized arguments: --segment-size"),
        (("--checkpoint-path", "x", "--init-from-checkpoint", "y"), "exclude each other"),
        (("--checkpoint-path", "no.pt"), "--checkpoint-path no.pt: no such checkpoint"),
    ],
)
def test_impossible_settings_end_with_code_2_and_a_sentence(
    corpus, tmp_path, capsys, more, sentence
):
    assert sentence in refused(flags(corpus, tmp_path / "out", 1, *SMALL, *more), capsys)
    assert not (tmp_path / "out").exists()


def test_files_of_something_else_are_refused_by_flag_and_name(corpus, trained, tmp_path, capsys):
    fixture = golden("hifigan_tiny")
    hifigan = {"generator": fixture["state_dict"], "config": fixture["config"]}
    discriminators = {"mpd": {"a": torch.zeros(1)}, "msd": {"a": torch.zeros(1)}}
    config = checkpoint(trained, 30)["config"]
    weights = {"config": config, "state_dict": {"a.weight_g": torch.zeros(1)}}
    for name, content, sentence in (
        ("hifigan", hifigan, "a HiFi-GAN, not a WaveGlow: train it with hifigan.train"),
        ("discriminators", discriminators, "not a vocoder, but the discriminators of a HiFi-GAN"),
        ("weights", weights, "its weights do not fit the model"),
        ("other", {"weights": {}}, "not a vocoder"),
    ):
        path = tmp_path / f"{name}.pt"
        torch.save(content, path)
        arguments = flags(corpus, tmp_path / "out", 1, "--init-from-checkpoint", path)
        assert f"--init-from-checkpoint {path}: {sentence}" in refused(arguments, capsys)
    empty = tmp_path / "WaveGlow_checkpoint_3.pt"
    empty.write_bytes(b"")
    arguments = flags(corpus, tmp_path, 1, "--init-from-checkpoint", empty)
    assert f"holds {empty.name} of an earlier training" in refused(arguments, capsys)
    message = refused(flags(corpus, tmp_path, 4, "--resume"), capsys)
    assert f"--resume {empty}: not a readable checkpoint" in message


def test_weights_alone_cannot_be_continued(corpus, trained, tmp_path, capsys):
    state = checkpoint(trained, 30)
    path = tmp_path / "weights.pt"
    torch.save({name: state[name] for name in ("config", "train_setup", "state_dict")}, path)
    arguments = flags(corpus, tmp_path / "out", 31, "--checkpoint-path", path)
    message = refused(arguments, capsys)
    assert f"{path}: cannot be continued: it has no" in message


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--wn-channels", 32), "was trained with --wn-channels 16, not 32"),
        (("--n-mel-channels", 80), "was trained with --n-mel-channels 20, not 80"),
        (("--mel-fmax", 8000), "was trained with --mel-fmax 7600.0, not 8000.0"),
    ],
)
def test_settings_that_contradict_the_checkpoint_are_refused(
    corpus, trained, tmp_path, capsys, more, sentence
):
    path = trained / "WaveGlow_checkpoint_30.pt"
    for flag in ("--init-from-checkpoint", "--checkpoint-path"):
        message = refused(flags(corpus, tmp_path, 31, flag, path, *more), capsys)
        assert f"{path} {sentence}" in message
    repeated = flags(corpus, tmp_path, 0, "--init-from-checkpoint", path, *SMALL)
    train.main(repeated)  # what agrees may be repeated


def test_an_earlier_training_is_not_overwritten(corpus, trained, capsys):
    message = refused(flags(corpus, trained, 31), capsys)
    assert "holds WaveGlow_checkpoint_30.pt of an earlier training" in message


def test_resuming_with_another_optimizer_is_refused(corpus, trained, capsys):
    arguments = flags(corpus, trained, 31, "--resume", "--optimizer", "lamb")
    assert "--optimizer lamb cannot continue" in refused(arguments, capsys)


def test_help_shows_the_defaults_of_waveglow(capsys):
    with pytest.raises(SystemExit) as end:
        train.main(["--help"])
    assert end.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "update rule (default: adam)" in shown
    assert "weight decay (default: 0.0)" in shown
    assert "largest gradient norm (default: 65504.0)" in shown
    assert "a multiple of --groups (default: 4000)" in shown
