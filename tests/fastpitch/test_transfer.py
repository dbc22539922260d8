# SPDX-License-Identifier: BSD-3-Clause
"""A training begins with the weights of another; what is frozen stays as it is, bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from common.config import AudioConfig, OptimizerConfig, RunConfig
from common.distributed import Processes
from common.griffin_lim import GriffinLim
from common.task import Progress
from common.text.symbols import SYMBOL_SETS, symbol_set
from fastpitch.arg_parser import PARTS, FastPitchConfig, FastPitchLossConfig, FineTuningConfig
from fastpitch.model import FastPitch
from fastpitch.task import FastPitchTask
from fastpitch.transfer import Pretrained, freeze, transfer_weights
from tests.conftest import golden, golden_batch
from tests.processes import run_ranks

SOURCE = Path("trained.pt")
TINY = FastPitchConfig(
    **dict.fromkeys(("symbols_embedding_dim", "in_fft_output_size", "out_fft_output_size"), 16),
    **dict.fromkeys(("in_fft_n_layers", "out_fft_n_layers"), 1),
    **dict.fromkeys(("in_fft_conv1d_filter_size", "out_fft_conv1d_filter_size"), 16),
    **{f"{name}_predictor_filter_size": 8 for name in ("dur", "pitch", "energy")},
)
WORDS = "encoder.word_emb.weight"
SPEAKERS = "speaker_emb.weight"


def sized(symbols="english_basic", **changes):
    return dataclasses.replace(TINY, n_symbols=len(symbol_set(symbols)), **changes)


def trained_model(symbols="english_basic", **changes):
    """A model with weights unlike those that any model begins with."""
    model = FastPitch(sized(symbols, **changes), 200.0, 50.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def pretrained_of(model, symbols="english_basic", **changes):
    values = {"path": SOURCE, "config": model.config, "weights": model.state_dict()}
    return Pretrained(**values | {"symbols": symbol_set(symbols)} | changes)


def transferred(source, symbols="english_basic", **changes):
    """A model before and after it takes over weights, and its parts that nobody trained."""
    model = FastPitch(sized(symbols, **changes), 200.0, 50.0)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    untrained = transfer_weights(model, symbol_set(symbols), source)
    return before, model.state_dict(), untrained


def assert_all_equal_but(names, first, second):
    for name in (first.keys() & second.keys()) - {*names}:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("new", [name for name in SYMBOL_SETS if name != "english_basic"])
@pytest.mark.parametrize("back", [False, True])
def test_embeddings_are_carried_over_symbol_by_symbol(new, back, caplog):
    old, new = (new, "english_basic") if back else ("english_basic", new)
    source = trained_model(old)
    with caplog.at_level("INFO"):
        before, after, untrained = transferred(pretrained_of(source, old), new)
    ours, theirs = symbol_set(new), symbol_set(old)
    for row, symbol in enumerate(ours):
        begun = source.state_dict()[WORDS][theirs.index(symbol)] if symbol in theirs else None
        assert torch.equal(after[WORDS][row], before[WORDS][row] if begun is None else begun)
    assert_all_equal_but([WORDS], after, source.state_dict())

    added = [symbol for symbol in ours if symbol not in theirs]
    dropped = [symbol for symbol in theirs if symbol not in ours]
    assert untrained == ({"symbol_embedding"} if added else frozenset())
    assert f"{len(ours) - len(added)} carried over from {SOURCE}; {len(added)} new" in caplog.text
    assert f"{len(dropped)} dropped" in caplog.text
    new_in_log, _, dropped_in_log = caplog.messages[-1].partition(" dropped: ")
    assert all(repr(symbol) in new_in_log for symbol in added)
    assert all(repr(symbol) in dropped_in_log for symbol in dropped)


def test_the_same_symbols_and_speakers_are_taken_over_without_a_word(caplog):
    source = trained_model(n_speakers=3, energy_conditioning=True)
    with caplog.at_level("INFO"):
        _, after, untrained = transferred(
            pretrained_of(source), n_speakers=3, energy_conditioning=True
        )
    assert_all_equal_but([], after, source.state_dict())
    assert untrained == frozenset() and not caplog.messages


def test_more_speakers_begin_as_the_mean_of_the_known(caplog):
    source = trained_model(n_speakers=2)
    with caplog.at_level("INFO"):
        _, after, untrained = transferred(pretrained_of(source), n_speakers=4)
    old = source.state_dict()[SPEAKERS]
    assert torch.equal(after[SPEAKERS][:2], old)
    assert torch.equal(after[SPEAKERS][2:], old.mean(dim=0).expand(2, -1))
    assert_all_equal_but([SPEAKERS], after, source.state_dict())
    assert untrained == {"speaker_embedding"}
    assert f"Speakers: 0 to 1 carried over from {SOURCE}; 2 new" in caplog.text


def test_of_fewer_speakers_the_first_stay(caplog):
    source = trained_model(n_speakers=4)
    with caplog.at_level("INFO"):
        _, after, untrained = transferred(pretrained_of(source), n_speakers=2)
    assert torch.equal(after[SPEAKERS], source.state_dict()[SPEAKERS][:2])
    assert untrained == frozenset()
    assert f"Speakers: 0 to 1 carried over from {SOURCE}; 2 dropped" in caplog.text


def test_a_single_voice_becomes_many_and_many_become_one(caplog):
    single, many = trained_model(), trained_model(n_speakers=3)
    with caplog.at_level("INFO"):
        before, after, untrained = transferred(pretrained_of(single), n_speakers=3)
    assert torch.equal(after[SPEAKERS], before[SPEAKERS]) and untrained == {"speaker_embedding"}
    assert_all_equal_but([SPEAKERS], after, single.state_dict())
    assert "Speakers: 3 new" in caplog.text
    _, after, untrained = transferred(pretrained_of(many))
    assert SPEAKERS not in after and untrained == frozenset()
    assert_all_equal_but([SPEAKERS], after, many.state_dict())
    assert f"Speakers: the embeddings of 3 in {SOURCE} are dropped" in caplog.text


def test_energy_conditioning_begins_anew_or_is_dropped(caplog):
    without, conditioned = trained_model(), trained_model(energy_conditioning=True)
    with caplog.at_level("INFO"):
        before, after, untrained = transferred(pretrained_of(without), energy_conditioning=True)
    assert untrained == {"energy_predictor", "energy_embedding"}
    energy = [name for name in after if name.startswith("energy_")]
    assert energy and all(torch.equal(after[name], before[name]) for name in energy)
    assert_all_equal_but(energy, after, without.state_dict())
    assert f"Energy: {SOURCE} is without; its predictor and embedding are new" in caplog.text
    _, after, untrained = transferred(pretrained_of(conditioned))
    assert untrained == frozenset() and not [name for name in after if name.startswith("energy_")]
    assert_all_equal_but([], after, conditioned.state_dict())
    assert f"Energy: what {SOURCE} knows of it is dropped" in caplog.text


def test_all_of_it_may_change_at_once():
    source = trained_model()
    parallel = {f"module.{name}": weight for name, weight in source.state_dict().items()}
    changes = {"n_speakers": 2, "energy_conditioning": True, "energy_predictor_filter_size": 4}
    _, after, untrained = transferred(
        pretrained_of(source, weights=parallel), "english_expanded", **changes
    )
    assert_all_equal_but([WORDS], after, source.state_dict())
    assert untrained == {
        *("symbol_embedding", "speaker_embedding", "energy_predictor", "energy_embedding")
    }


def test_half_precision_weights_are_taken_over():
    source = trained_model()
    halves = {name: weight.half() for name, weight in source.state_dict().items()}
    _, after, _ = transferred(
        pretrained_of(source, weights=halves), "english_expanded", n_speakers=2
    )
    assert {weight.dtype for weight in after.values()} == {torch.float32}
    a = symbol_set("english_expanded").index("a"), symbol_set("english_basic").index("a")
    assert torch.equal(after[WORDS][a[0]], halves[WORDS][a[1]].float())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"in_fft_conv1d_filter_size": 32}, "--in-fft-conv1d-filter-size 16, not 32"),
        ({"n_mel_channels": 40}, "--n-mel-channels 80, not 40"),
        # The shapes of its weights are the same, but it computes something else.
        ({"in_fft_n_heads": 2, "in_fft_d_head": 32}, "--in-fft-n-heads 1, not 2"),
    ],
)
def test_another_network_is_refused_by_its_flag(changes, sentence):
    source = pretrained_of(trained_model())
    with pytest.raises(ValueError) as error:
        transferred(source, **changes)
    assert str(error.value) == (
        f"{SOURCE} was trained with {sentence} as the flags say: leave that out"
    )


def test_dropout_may_be_another():
    source = trained_model()
    _, after, untrained = transferred(pretrained_of(source), p_in_fft_dropout=0.3)
    assert_all_equal_but([], after, source.state_dict())
    assert untrained == frozenset()


def test_weights_that_contradict_their_config_are_refused():
    model = trained_model(n_speakers=2)
    for config in (sized(n_speakers=3), sized(n_speakers=2, energy_conditioning=True), sized()):
        source = pretrained_of(model, config=config)
        with pytest.raises(ValueError, match=f"^{SOURCE}: its weights do not fit the model:\n"):
            transferred(source, n_speakers=2, energy_conditioning=config.energy_conditioning)


def test_embeddings_of_nobody_knows_whom_are_refused():
    model = trained_model("english_expanded")
    with pytest.raises(ValueError, match="has embeddings of 175 symbols, but its symbol set has"):
        pretrained_of(model, "english_basic")


def test_weights_of_a_training_that_diverged_are_refused():
    model = trained_model()
    with torch.no_grad():
        model.proj.bias[3] = float("nan")
    with pytest.raises(ValueError, match=f"^{SOURCE}: proj.bias hold NaN or infinity"):
        transferred(pretrained_of(model))


def test_every_parameter_belongs_to_one_part():
    for name, _ in FastPitch(sized(n_speakers=2, energy_conditioning=True)).named_parameters():
        assert len([part for part, begins in PARTS.items() if name.startswith(begins)]) == 1, name


def test_parts_are_named_with_commas_and_dashes_between():
    parse = FineTuningConfig.__dataclass_fields__["freeze"].metadata["parse"]
    assert parse("encoder, pitch-predictor,") == ("encoder", "pitch_predictor")
    assert parse("") == ()


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (["speaker_embedding"], "--freeze speaker_embedding: this model has none: leave it out"),
        (
            [part for part in PARTS if not part.startswith(("energy", "speaker"))],
            "leaves nothing to learn: name fewer parts",
        ),
    ],
)
def test_parts_that_are_not_there_and_freezing_all_are_refused(parts, sentence):
    with pytest.raises(ValueError, match=sentence):
        freeze(FastPitch(sized()), parts)


def test_a_part_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ValueError, match=r"--freeze must name parts among encoder.*; got vocoder"):
        FineTuningConfig(freeze=("vocoder",))


def test_freezing_says_how_much_learns_and_what_stays_untrained(caplog):
    model = FastPitch(sized(n_speakers=2))
    with caplog.at_level("INFO"):
        freeze(model, ["speaker_embedding", "encoder"], {"speaker_embedding"})
    assert "--freeze speaker_embedding: what is new in it stays untrained" in caplog.text
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert f"Frozen: speaker_embedding, encoder; {learning:,} of" in caplog.text
    assert "--freeze encoder:" not in caplog.text


def make_task(optimizer, frozen, processes, ema_decay=0.0):
    """A task whose model has a speaker and energy for everything that may be frozen."""
    model = FastPitch(FastPitchConfig(**golden("fastpitch_tiny")["config"]), 200.0, 50.0)
    freeze(model, frozen)
    return FastPitchTask(
        model,
        run=RunConfig(output=Path(), epochs=1, batch_size=4, ema_decay=ema_decay),
        optimization=OptimizerConfig(
            optimizer=optimizer, learning_rate=0.01, weight_decay=0.1, warmup_steps=0
        ),
        loss=FastPitchLossConfig(kl_loss_start_epoch=0),
        audio=AudioConfig(),
        vocoder=GriffinLim(AudioConfig()),
        setup={},
        processes=processes,
    )


def train_and_compare(optimizer, frozen, processes):
    """Trains three steps; whatever is frozen must be as before, and all else have changed."""
    task = make_task(optimizer, frozen, processes, ema_decay=0.5)
    before = {n: p.detach().clone() for n, p in task.learner.model.named_parameters()}
    batch = golden_batch(golden("fastpitch_tiny"))
    for step in range(1, 4):
        metrics = task.train_step([batch, batch], Progress(epoch=2, step=step))
        assert float(processes.sum(metrics["bad_step"])) == 0
    prefixes = tuple(prefix for part in frozen for prefix in PARTS[part])
    prefixes += ("attention.attn_proj.",)  # which nobody uses
    for model in (task.learner.model, task.learner.ema.model):
        for name, parameter in model.named_parameters():
            stayed = torch.equal(parameter, before[name])
            assert stayed == name.startswith(prefixes), name
    return task


FREEZES = [
    ["encoder", "decoder", "aligner"],
    [part for part in PARTS if part not in ("symbol_embedding", "speaker_embedding")],
    ["symbol_embedding", "duration_predictor", "pitch_predictor", "energy_predictor"],
]


@pytest.mark.parametrize("optimizer", ["lamb", "adam", "adamw"])
@pytest.mark.parametrize("frozen", FREEZES, ids=["encoder", "all but symbols", "predictors"])
def test_frozen_parts_stay_bit_for_bit_and_all_others_learn(optimizer, frozen):
    train_and_compare(optimizer, frozen, Processes(cuda=False))


TWO_PROCESSES = """
import torch
from common.distributed import Processes
from common.griffin_lim import GriffinLim
from tests.fastpitch.test_transfer import FREEZES, train_and_compare

torch.set_num_threads(1)
processes = Processes(cuda=False)
for frozen in FREEZES:
    torch.manual_seed(processes.rank)
    task = train_and_compare("lamb", frozen, processes)
    assert not task.learner.wrapped.find_unused_parameters
    for model in (task.learner.model, task.learner.ema.model):
        weights = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        assert torch.equal(processes.sum(weights), 2 * weights), "the same on both"
processes.close()
print("all checks hold", flush=True)
"""


def test_frozen_parts_stay_with_two_processes():
    for ended in run_ranks(TWO_PROCESSES, timeout=120):
        # Not the exit code: once in a while gloo's threads abort a process that is leaving.
        assert ended.output == "all checks hold\n", ended.errors
