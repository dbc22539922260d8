# SPDX-License-Identifier: BSD-3-Clause
"""From one voice to two and other symbols: train.py with the weights of another training."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

import inference
import prepare_dataset
import train
from common.text.symbols import symbol_set
from fastpitch.arg_parser import PARTS
from tests.test_train import (
    RATE,
    TEXTS,
    TINY_MODEL,
    assert_same,
    checkpoint,
    flags,
    hum,
    log_of,
    losses_of,
    refused,
)

WORDS = "encoder.word_emb.weight"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Eight clips of humming voices, in file lists of one voice and, in `two`, of two."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "wavs").mkdir()
    (folder / "two").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for index, text in enumerate(TEXTS):
        soundfile.write(folder / f"wavs/clip{index}.wav", hum(rng), RATE, subtype="PCM_16")
        rows.append(f"wavs/clip{index}.wav|{text}")
    for part, chosen in (("train", slice(6)), ("val", slice(6, 8))):
        (folder / f"{part}.txt").write_text("".join(f"{row}\n" for row in rows[chosen]))
        with_speakers = [f"{row}|{index % 2}\n" for index, row in enumerate(rows[chosen])]
        (folder / "two" / f"{part}.txt").write_text("".join(with_speakers))
    filelists = [str(folder / "train.txt"), str(folder / "val.txt")]
    prepare_dataset.main(
        [
            *("-d", str(folder), "--wav-text-filelists", *filelists),
            *("--n-workers", "1", "--extract-mels", "--extract-pitch"),
        ]
    )
    return folder


@pytest.fixture(scope="module")
def one_voice(corpus, tmp_path_factory):
    """The checkpoint of a model that knows one voice and the basic symbols."""
    output = tmp_path_factory.mktemp("one_voice")
    train.main(flags(corpus, output, 2))
    return output / "FastPitch_checkpoint_2.pt"


def for_two(corpus, output, epochs, start, *more):
    """Flags that fine-tune on two voices and more symbols; the sizes are the checkpoint's."""
    return [
        *flags(corpus, output, epochs)[: -len(TINY_MODEL)],
        *("--training-files", str(corpus / "two" / "train.txt")),
        *("--validation-files", str(corpus / "two" / "val.txt")),
        *("--init-from-checkpoint", str(start), "--n-speakers", "2"),
        *("--symbol-set", "english_expanded", "--warmup-steps", "10"),
        *more,
    ]


def is_part_of(name, *parts):
    return name.startswith(tuple(prefix for part in parts for prefix in PARTS[part]))


def test_one_voice_becomes_two_with_other_symbols_and_they_speak(corpus, one_voice, tmp_path):
    output = tmp_path / "run"
    train.main(for_two(corpus, output, 2, one_voice, "--ema-decay", "0.9", "--freeze", "aligner"))
    old, new = torch.load(one_voice, weights_only=True), checkpoint(output, 2)
    assert (new["config"]["n_symbols"], new["config"]["n_speakers"]) == (175, 2)
    assert new["train_setup"]["symbol_set"] == "english_expanded"
    assert new["train_setup"]["freeze"] == ["aligner"]
    for scope in ("state_dict", "ema_state_dict"):
        assert new[scope][WORDS].shape == (175, 16)
        for name, weight in new[scope].items():
            if is_part_of(name, "aligner"):
                assert torch.equal(weight, old["state_dict"][name]), name
    assert len(losses_of(output, "val_ema_loss")) == len(losses_of(output, "val_loss")) == 2

    spoken = {}
    for speaker in ("0", "1"):
        for more in ([], ["--ema"]):
            wav = tmp_path / f"{speaker}{len(more)}.wav"
            inference.main(
                [
                    *("--text", "Go on & on!", "--speaker", speaker, "-o", str(wav), *more),
                    *("--fastpitch", str(output / "FastPitch_checkpoint_2.pt")),
                ]
            )
            spoken[speaker, len(more)] = wav.read_bytes()
    assert len({*spoken.values()}) == 4, "each voice is another, and its average again"


def test_optimizer_and_schedule_start_fresh(corpus, one_voice, tmp_path):
    train.main(for_two(corpus, tmp_path, 2, one_voice))
    state = checkpoint(tmp_path, 2)
    assert (state["epoch"], state["iteration"]) == (2, 2)
    rates = [e["data"]["train_lrate"] for e in log_of(tmp_path) if len(e["step"]) == 3]
    assert rates == [pytest.approx(0.01 * step * 10**-1.5) for step in (1, 2)]
    (group,) = state["optimizer"]["param_groups"]
    assert group["step"] == 2


def test_what_both_know_is_carried_over_and_the_log_says_what_is_new(
    corpus, one_voice, tmp_path, caplog
):
    rate = ["--learning-rate", "1e-30"]  # moves nothing
    with caplog.at_level("INFO"):
        train.main(for_two(corpus, tmp_path, 1, one_voice, *rate, "--weight-decay", "0"))
    old = torch.load(one_voice, weights_only=True)["state_dict"]
    new = checkpoint(tmp_path, 1)["state_dict"]
    for symbol in ("_", " ", "a", "Z", "@AA1"):
        rows = (symbol_set(name).index(symbol) for name in ("english_expanded", "english_basic"))
        assert torch.equal(new[WORDS][next(rows)], old[WORDS][next(rows)]), symbol
    for name in old.keys() - {WORDS}:
        assert torch.equal(new[name], old[name]), name
    assert f"148 carried over from {one_voice}; 27 new: '\"' '#' '%'" in caplog.text
    assert f"Speakers: 2 new: {one_voice} knows one voice alone" in caplog.text


def test_a_continued_training_remembers_what_is_frozen(corpus, one_voice, tmp_path):
    start = ("--ema-decay", "0.9", "--freeze", "encoder,decoder")
    train.main(for_two(corpus, tmp_path / "whole", 4, one_voice, *start))
    train.main(for_two(corpus, tmp_path / "parts", 2, one_voice, *start))
    torch.manual_seed(99)  # whatever happened in between
    train.main(for_two(corpus, tmp_path / "parts", 4, one_voice, *start[:2], "--resume"))
    whole, parts = checkpoint(tmp_path / "whole", 4), checkpoint(tmp_path / "parts", 4)
    assert parts["train_setup"]["freeze"] == ["encoder", "decoder"]
    for key in ("state_dict", "ema_state_dict", "optimizer", "iteration"):
        assert_same(whole[key], parts[key])


@pytest.mark.parametrize("optimizer", ["lamb", "adam"])
def test_other_parts_may_be_frozen_from_some_epoch_on(
    corpus, one_voice, tmp_path, caplog, optimizer
):
    rule = ("--optimizer", optimizer, "--keep-milestones", "1")
    train.main(for_two(corpus, tmp_path, 1, one_voice, *rule, "--freeze", "encoder,decoder"))
    with caplog.at_level("INFO"):
        train.main(
            for_two(corpus, tmp_path, 2, one_voice, *rule, "--resume", "--freeze", "decoder")
        )
    path = tmp_path / "FastPitch_checkpoint_1.pt"
    assert f"Frozen until {path}, and learning from now on: encoder" in caplog.text
    train.main(for_two(corpus, tmp_path, 3, one_voice, *rule, "--resume", "--freeze", ""))
    first, second, third = (checkpoint(tmp_path, epoch)["state_dict"] for epoch in (1, 2, 3))
    for name, weight in second.items():
        if name.endswith("inv_freq"):  # which nobody learns
            continue
        if is_part_of(name, "decoder"):
            assert torch.equal(weight, first[name]), name
            assert not torch.equal(weight, third[name]), name
        if is_part_of(name, "encoder"):
            assert not torch.equal(weight, first[name]), name
    assert checkpoint(tmp_path, 3)["train_setup"]["freeze"] == []


def test_a_public_checkpoint_is_fine_tuned(corpus, shared, tmp_path, caplog):
    public = torch.load(shared / "golden" / "cli" / "FastPitch_checkpoint_7.pt", weights_only=True)
    parallel = {f"module.{name}": weight for name, weight in public["state_dict"].items()}
    path = tmp_path / "public.pt"
    torch.save(public | {"state_dict": parallel}, path)
    with caplog.at_level("INFO"):
        train.main(for_two(corpus, tmp_path / "run", 1, path, "--freeze", "encoder"))
    state = checkpoint(tmp_path / "run", 1)
    assert (state["epoch"], state["iteration"]) == (1, 1)
    alphabet = symbol_set("english_expanded")
    changes = {"n_symbols": len(alphabet), "padding_idx": alphabet.index("_"), "n_speakers": 2}
    assert state["config"] == public["config"] | changes
    for name, weight in public["state_dict"].items():
        if is_part_of(name, "encoder") or name in ("pitch_mean", "pitch_std"):
            assert torch.equal(state["state_dict"][name], weight), name
    assert "are those of" in caplog.text and "--pitch-mean and --pitch-std choose" in caplog.text


def test_where_a_checkpoint_does_not_say_its_symbols_the_flag_does(corpus, one_voice, tmp_path):
    train.main(for_two(corpus, tmp_path / "first", 1, one_voice))
    state = checkpoint(tmp_path / "first", 1)
    path = tmp_path / "silent.pt"
    torch.save(state | {"train_setup": None}, path)
    train.main(for_two(corpus, tmp_path / "second", 1, path, "--learning-rate", "1e-30"))
    assert_same(checkpoint(tmp_path / "second", 1)["state_dict"], state["state_dict"])


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--freeze", "vocoder"), "--freeze must name parts among encoder, "),
        (("--freeze", ",".join(PARTS)), "--freeze encoder,decoder,"),
        (("--in-fft-n-heads", "2", "--in-fft-d-head", "32"), "--in-fft-n-heads 1, not 2 as the"),
        (("--symbol-set", "klingon"), "--symbol-set must be one of english_basic, "),
    ],
)
def test_what_cannot_be_is_refused(corpus, one_voice, tmp_path, capsys, more, sentence):
    message = refused(for_two(corpus, tmp_path / "run", 1, one_voice, *more), capsys)
    assert sentence in message


def test_freezing_needs_a_checkpoint(corpus, tmp_path, capsys):
    message = refused(flags(corpus, tmp_path, 1, "--freeze", "encoder"), capsys)
    assert "--freeze encoder: nothing is trained yet: give --init-from-checkpoint" in message


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda state: state["state_dict"]["proj.bias"].fill_(float("nan")),
            "proj.bias hold NaN or infinity",
        ),
        (lambda state: state["state_dict"].pop("proj.bias"), "proj.bias is missing"),
        (lambda state: state["config"].update(n_speakers=3), "speaker_emb.weight is missing"),
        (
            lambda state: state["train_setup"].update(symbol_set="english_expanded"),
            "has embeddings of 148 symbols, but its symbol set has 175",
        ),
        (
            lambda state: state["train_setup"].update(symbol_set="klingon"),
            "train_setup cannot be used: --symbol-set must be one of",
        ),
    ],
)
def test_a_checkpoint_that_contradicts_itself_is_refused(
    corpus, one_voice, tmp_path, capsys, change, sentence
):
    state = torch.load(one_voice, weights_only=True)
    change(state)
    path = tmp_path / "contradiction.pt"
    torch.save(state, path)
    message = refused(for_two(corpus, tmp_path / "run", 1, path), capsys)
    assert f"--init-from-checkpoint {path}: " in message and sentence in message
