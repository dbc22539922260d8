# SPDX-License-Identifier: BSD-3-Clause
"""HiFi-GAN trained on a CPU, small: it learns, resumes exactly, and says what is wrong."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch

from hifigan import train
from models import load_vocoder
from tests.conftest import assert_same, golden

RATE = 22050
TINY = [
    *("--variant", "V3", "--upsample-initial-channel", "16", "--discriminator-divisor", "8"),
    *("--mpd-periods", "[2,3]", "--num-workers", "0"),
]


def hum(rng, seconds=0.5):
    """A gliding voice with overtones and breath."""
    num_samples = int(seconds * RATE)
    pitch_hz = np.linspace(*rng.uniform(110, 220, size=2), num_samples)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 9))
    return 0.1 * voice + 0.002 * rng.standard_normal(num_samples)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six clips, one of them silent and one shorter than a segment; lists and mels to fine-tune."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    clips = [hum(rng), hum(rng), np.zeros(RATE // 2), hum(rng, 0.05), hum(rng), hum(rng)]
    for index, samples in enumerate(clips):
        soundfile.write(folder / f"clip{index}.wav", samples, RATE, subtype="PCM_16")
        num_frames = len(samples) // 256 + 1
        np.save(folder / f"clip{index}.npy", rng.normal(-5, 1, (80, num_frames)).astype("f4"))
    names = [f"clip{index}.wav" for index in range(6)]
    (folder / "train.txt").write_text("".join(f"{name}|with a text\n" for name in names[:4]))
    (folder / "val.txt").write_text("".join(f"{name}\n" for name in names[4:]))
    return folder


def flags(corpus, output, epochs, *more):
    return [
        *("--dataset-path", str(corpus), "--output", str(output), "--epochs", str(epochs)),
        *("--training-files", str(corpus / "train.txt")),
        *("--validation-files", str(corpus / "val.txt")),
        *("--learning-rate", "0.001", "--batch-size", "2", "--segment-size", "2048"),
        *("--samples-interval", "0"),
        *more,
    ]


def log_of(output):
    lines = (output / "nvlog.json").read_text().splitlines()
    return [json.loads(line.removeprefix("DLLL "))["data"] for line in lines]


def metrics_of(output, key):
    return [data[key] for data in log_of(output) if key in data]


def checkpoint(output, kind, epoch):
    state = torch.load(output / f"hifigan_{kind}_checkpoint_{epoch}.pt", weights_only=True)
    if kind == "discrim":
        del state["training"]["checkpoints"]  # which were saved before it
        del state["training"]["seconds"]  # that it took
    return state


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """The folder of four epochs with averaged weights."""
    output = tmp_path_factory.mktemp("trained")
    train.main(flags(corpus, output, 4, "--ema-decay", "0.9", "--samples-interval", "4", *TINY))
    return output


def test_four_epochs_equal_two_and_two_resumed_bitwise(corpus, tmp_path, trained):
    extra = ["--ema-decay", "0.9", *TINY]
    train.main(flags(corpus, tmp_path, 2, *extra))
    torch.manual_seed(99)  # whatever happened in between
    train.main(flags(corpus, tmp_path, 4, "--resume", *extra))
    for kind in ("gen", "discrim"):
        assert_same(checkpoint(trained, kind, 4), checkpoint(tmp_path, kind, 4))
    for key in ("train_loss", "train_discriminator_loss"):
        expected = metrics_of(trained, key)
        assert len(expected) == 8 and metrics_of(tmp_path, key) == expected
    for key in ("val_mel_loss", "val_ema_mel_loss"):
        assert metrics_of(tmp_path, key)[-1:] == metrics_of(trained, key)


def test_a_silent_and_a_short_clip_leave_every_number_finite(trained):
    for data in log_of(trained)[1:]:
        assert all(np.isfinite(value) for value in data.values()), data
    weights = checkpoint(trained, "gen", 4)["generator"].values()
    assert all(weight.isfinite().all() for weight in weights)


def test_the_checkpoint_is_split_into_what_ships_and_what_resumes(trained):
    shipped, kept = checkpoint(trained, "gen", 4), checkpoint(trained, "discrim", 4)
    assert {"generator", "gen_ema", "config", "train_setup", "train_state"} <= shipped.keys()
    assert {"mpd", "msd", "optim_g", "optim_d", "scaler_g", "scaler_d"} <= kept.keys()
    assert shipped["train_state"] == {"epoch": 4, "iters_all": 8}
    assert shipped["config"]["resblock_dilation_sizes"] == [[1, 2], [2, 6], [3, 12]]
    assert (shipped["train_setup"]["num_mels"], shipped["train_setup"]["hop_length"]) == (80, 256)


def test_the_trained_vocoder_speaks_with_either_weights(trained):
    path, mel = trained / "hifigan_gen_checkpoint_4.pt", torch.randn(1, 80, 5)
    last, average = load_vocoder(path).infer(mel), load_vocoder(path, ema=True).infer(mel)
    assert last.shape == average.shape == (1, 5 * 256)
    assert not torch.equal(last, average)


def test_tensorboard_gets_mel_loss_and_samples(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tensorboard")).Reload()
    tags = events.Tags()
    assert {"train/mel_loss", "val/mel_loss", "val_ema/mel_loss"} <= {*tags["scalars"]}
    assert {"audio/recorded", "audio/generated"} <= {*tags["audio"]}
    assert {"mel/recorded", "mel/generated"} <= {*tags["images"]}


def test_two_micro_batches_are_one_of_double_size(corpus, tmp_path):
    train.main(flags(corpus, tmp_path / "one", 3, *TINY, "--batch-size", "4"))
    train.main(flags(corpus, tmp_path / "two", 3, *TINY, "--grad-accumulation", "2"))
    for key in ("train_loss", "train_mel_loss", "train_discriminator_loss", "train_grad_norm"):
        one, two = (metrics_of(tmp_path / name, key) for name in ("one", "two"))
        assert len(one) == 3 and one == pytest.approx(two, rel=1e-4)


def test_the_learning_rate_falls_with_the_epochs(corpus, tmp_path):
    train.main(flags(corpus, tmp_path, 2, *TINY, "--lr-decay", "0.5"))
    assert metrics_of(tmp_path, "train_lrate") == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4])


def test_no_epochs_only_validate(corpus, tmp_path, trained):
    files = [
        *("--checkpoint-path-gen", str(trained / "hifigan_gen_checkpoint_4.pt")),
        *("--checkpoint-path-discrim", str(trained / "hifigan_discrim_checkpoint_4.pt")),
    ]
    train.main(flags(corpus, tmp_path, 0, *files))
    assert metrics_of(tmp_path, "val_mel_loss") == metrics_of(trained, "val_mel_loss")[-1:]
    assert not list(tmp_path.glob("*.pt"))


def fine_tuning(corpus, output, epochs, generator, *more):
    return flags(
        corpus,
        output,
        epochs,
        *("--fine-tuning", "--input-mels-dir", str(corpus), "--fine-tune-lr-factor", "3"),
        *("--checkpoint-path-gen", str(generator), "--num-workers", "0"),
        *("--discriminator-divisor", "8", *more),
    )


def test_fine_tuning_begins_with_the_weights_and_a_higher_rate(corpus, tmp_path, trained):
    generator = trained / "hifigan_gen_checkpoint_4.pt"
    train.main(fine_tuning(corpus, tmp_path, 1, generator))
    assert metrics_of(tmp_path, "train_lrate")[0] == pytest.approx(3e-3)
    assert checkpoint(tmp_path, "gen", 1)["train_state"]["iters_all"] == 2
    train.main(fine_tuning(corpus, tmp_path, 2, generator, "--resume"))
    assert checkpoint(tmp_path, "gen", 2)["train_state"]["iters_all"] == 4


def test_fine_tuning_takes_the_generator_of_the_original_repository(corpus, tmp_path):
    original = golden("hifigan_original_v3_tiny")
    torch.save(original["checkpoint"], tmp_path / "g_00000001")
    (tmp_path / "config.json").write_text(json.dumps(original["config"]))
    train.main(fine_tuning(corpus, tmp_path / "out", 1, tmp_path / "g_00000001"))
    assert checkpoint(tmp_path / "out", "gen", 1)["config"] == original["config"]


def test_a_public_checkpoint_without_our_additions_is_continued(corpus, tmp_path, trained):
    additions = ("optimizer_name", "random_state", "train_state", "training")
    for kind, ours in (("gen", ()), ("discrim", additions)):
        state = checkpoint(trained, kind, 4)
        torch.save(
            {key: value for key, value in state.items() if key not in ours},
            tmp_path / f"hifigan_{kind}_checkpoint_4.pt",
        )
    train.main(flags(corpus, tmp_path, 5, "--resume", "--ema-decay", "0.9", *TINY))
    assert checkpoint(tmp_path, "gen", 5)["train_state"] == {"epoch": 5, "iters_all": 10}


def test_the_original_repository_s_config_file_sets_generator_and_audio(corpus, tmp_path):
    config = {
        "resblock": "2",
        "upsample_rates": [8, 8, 2],
        "upsample_kernel_sizes": [16, 16, 4],
        "upsample_initial_channel": 16,
        "resblock_kernel_sizes": [3, 5],
        "resblock_dilation_sizes": [[1, 2], [2, 6]],
        "adam_b1": 0.7,
        "adam_b2": 0.9,
        "lr_decay": 0.5,
        "segment_size": 1024,
        "num_mels": 40,
        "n_fft": 512,
        "hop_size": 128,
        "win_size": 512,
        "sampling_rate": RATE,
        "fmin": 0,
        "fmax": 8000,
        "fmax_for_loss": None,
        "batch_size": 16,
        "seed": 1,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    arguments = flags(corpus, tmp_path / "out", 1, "--hifigan-config", str(path), *TINY[4:])
    arguments = [argument for argument in arguments if argument not in ("--segment-size", "2048")]
    train.main(arguments)
    settings = log_of(tmp_path / "out")[0]
    expected = {"segment_size": 1024, "lr_decay": 0.5, "adam_betas": [0.7, 0.9], "hop_length": 128}
    assert {key: settings[key] for key in expected} == expected
    shipped = checkpoint(tmp_path / "out", "gen", 1)
    assert shipped["config"]["upsample_rates"] == [8, 8, 2]
    assert shipped["train_setup"]["num_mels"] == 40


def complaint(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        train.main(arguments)
    assert end.value.code == 2
    return capsys.readouterr().err


def test_missing_and_wrong_mels_are_listed_all(corpus, tmp_path, trained, capsys):
    for name in ("train.txt", "val.txt", *(f"clip{index}.wav" for index in range(6))):
        shutil.copy(corpus / name, tmp_path)
    np.save(tmp_path / "clip0.npy", np.zeros((40, 44), np.float32))
    np.save(tmp_path / "clip1.npy", np.zeros((80, 12), np.float32))
    (tmp_path / "clip2.npy").write_bytes(b"nonsense")
    generator = trained / "hifigan_gen_checkpoint_4.pt"
    told = complaint(fine_tuning(tmp_path, tmp_path / "out", 1, generator), capsys)
    assert "6 problems" in told and "--input-mels-dir" in told
    assert "clip0.npy has shape (40, 44), expected (80, frames) as --n-mel-channels says" in told
    assert "clip1.npy has 12 frames, the recording 44" in told
    assert "clip2.npy cannot be read" in told
    for index in (3, 4, 5):
        assert f"clip{index}.npy is missing: make it with python -m fastpitch.extract_mels" in told


def test_another_sampling_rate_is_refused(corpus, tmp_path, capsys):
    told = complaint(
        flags(corpus, tmp_path, 1, "--sampling-rate", "16000", "--mel-fmax", "7600", *TINY), capsys
    )
    assert "clip0.wav: recorded at 22050 Hz, --sampling-rate is 16000" in told
    assert "6 problems" in told


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--segment-size", "1000"], "--segment-size must be a multiple of --hop-length 256, got"),
        (["--hop-length", "200"], "--upsample-rates multiply to 256, which must be --hop-length"),
        (["--fine-tuning"], "--fine-tuning needs --input-mels-dir"),
        (["--checkpoint-path-discrim", "x"], "--checkpoint-path-discrim needs --checkpoint-path-g"),
        (["--upsample-rates", "[8,8]"], "--upsample-rates and --upsample-kernel-sizes must be"),
        (["--adam-betas", "0.8"], "--adam-betas must be two numbers in [0, 1), got 0.8"),
        (["--batch-size", "5"], "4 training clips do not fill one step of --batch-size 5"),
        (["--variant", "V4"], "--variant: invalid choice: 'V4'"),
        (["--amp"], "--amp needs a GPU"),
        (["--mel-fmax-loss", "20000"], "--mel-fmax"),
    ],
)
def test_contradictions_end_with_a_sentence(corpus, tmp_path, more, sentence, capsys):
    assert sentence in complaint(flags(corpus, tmp_path, 1, *TINY, *more), capsys)


def test_files_that_are_something_else_are_named(corpus, tmp_path, trained, capsys):
    generator = str(trained / "hifigan_gen_checkpoint_4.pt")
    discriminators = str(trained / "hifigan_discrim_checkpoint_4.pt")
    told = complaint(
        flags(
            corpus,
            tmp_path,
            1,
            *("--checkpoint-path-gen", generator, "--checkpoint-path-discrim", generator),
        ),
        capsys,
    )
    assert f"--checkpoint-path-discrim {generator}: holds no discriminators (mpd, msd)" in told
    told = complaint(flags(corpus, tmp_path, 1, "--checkpoint-path-gen", discriminators), capsys)
    assert f"{discriminators}: not a vocoder, but the discriminators of a HiFi-GAN" in told
    (tmp_path / "empty.pt").touch()
    empty = str(tmp_path / "empty.pt")
    told = complaint(flags(corpus, tmp_path, 1, "--checkpoint-path-gen", empty), capsys)
    assert f"{empty}: not a readable checkpoint, or damaged" in told
    waveglow = golden("waveglow_tiny")
    torch.save({key: waveglow[key] for key in ("config", "state_dict")}, tmp_path / "w.pt")
    told = complaint(
        flags(corpus, tmp_path, 1, "--checkpoint-path-gen", str(tmp_path / "w.pt")), capsys
    )
    assert "w.pt: a WaveGlow, not a HiFi-GAN: train it with waveglow.train" in told


def test_an_earlier_training_is_not_overwritten(corpus, trained, capsys):
    told = complaint(flags(corpus, trained, 5, *TINY), capsys)
    assert "holds hifigan_gen_checkpoint_4.pt of an earlier training: continue it" in told


def test_another_generator_than_the_checkpoint_s_is_refused(corpus, trained, capsys):
    told = complaint(flags(corpus, trained, 5, "--resume", "--variant", "V2"), capsys)
    assert "was trained with --upsample-rates" in told


LEARNING = [
    *("--variant", "V3", "--upsample-initial-channel", "64", "--discriminator-divisor", "8"),
    *("--mpd-periods", "[2]", "--num-workers", "0", "--batch-size", "2"),
    *("--segment-size", "4096", "--learning-rate", "0.002", "--samples-interval", "0"),
]


def mel_losses(folder, output, train_list, val_list, epochs, lr_decay):
    """Before and after training, of the last weights and of the averaged."""
    shared_flags = [
        *("--dataset-path", str(folder), "--training-files", str(train_list)),
        *("--validation-files", str(val_list), "--lr-decay", lr_decay, *LEARNING),
    ]
    train.main([*shared_flags, "--output", str(output / "before"), "--epochs", "0"])
    (before,) = metrics_of(output / "before", "val_mel_loss")
    arguments = ["--epochs", str(epochs), "--validation-interval", str(epochs)]
    train.main(
        [*shared_flags, *arguments, "--output", str(output / "after"), "--ema-decay", "0.98"]
    )
    after = [metrics_of(output / "after", f"{scope}_mel_loss")[-1] for scope in ("val", "val_ema")]
    return before, after


def test_the_mel_loss_falls_on_generated_voices(corpus, tmp_path):
    before, after = mel_losses(
        corpus, tmp_path, corpus / "train.txt", corpus / "val.txt", 30, "0.96"
    )
    assert max(after) < 0.75 * before


@pytest.mark.slow
def test_the_mel_loss_of_held_out_real_clips_at_least_halves(shared, tmp_path):
    folder = shared / "ljspeech_sample"
    names = sorted(path.relative_to(folder) for path in folder.rglob("*.wav"))
    for part, chosen in (("train", names[:20]), ("val", names[-2:])):
        (tmp_path / f"{part}.txt").write_text("".join(f"{name}\n" for name in chosen))
    before, after = mel_losses(
        folder, tmp_path, tmp_path / "train.txt", tmp_path / "val.txt", 80, "0.97"
    )
    assert max(after) < before / 2
