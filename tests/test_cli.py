# SPDX-License-Identifier: BSD-3-Clause
"""Flags are promises: their names, spellings, defaults, and that each is used."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
from pathlib import Path
from typing import get_type_hints

import pytest

import hifigan.train
import inference
import train
import waveglow.train
from common.cli import FlagParser, flag, flag_name, literal_tuple
from common.config import AudioConfig, DataConfig, TextConfig
from evaluate import EvaluationConfig
from fastpitch.arg_parser import FastPitchConfig
from fastpitch.extract_mels import ExtractionConfig
from inference import InferenceConfig
from prepare_dataset import PreparationConfig
from tests.conftest import DATA
from tests.test_architecture import LAYERS

ROOT = Path(__file__).parent.parent
PUBLIC = json.loads((DATA / "cli_flags.json").read_text())
FASTPITCH = [*get_type_hints(train.Settings).values()]
HIFIGAN = [*get_type_hints(hifigan.train.Settings).values()]
WAVEGLOW = [*get_type_hints(waveglow.train.Settings).values()]
COMMANDS = {
    "train": FASTPITCH,
    "inference": [InferenceConfig, TextConfig],
    "prepare_dataset": [PreparationConfig, AudioConfig, TextConfig],
    "fastpitch_model": FASTPITCH,
    "hifigan_train": HIFIGAN,
    "hifigan_model": HIFIGAN,
    "waveglow_model": WAVEGLOW,
}
# Defaults that a command has in place of those of its fields.
OWN_DEFAULTS = {"hifigan_train": hifigan.train.DEFAULTS}
# Public default -> ours, where a better one is known: the folder, the package's dictionary, the
# statistics of the data, the cleaners and sizes of the checkpoint.
OTHER_DEFAULTS = {
    "train": {"dataset_path", "heteronyms_path", "cmudict_path", "pitch_mean", "pitch_std"},
    "inference": {
        "affinity",
        "cmudict_path",
        "dataset_path",
        "heteronyms_path",
        "hop_length",
        "input",
        "output",
        "sampling_rate",
        "text_cleaners",
        "win_length",
    },
    "prepare_dataset": {"dataset_path", "log_file"},
    "fastpitch_model": set(),
    "hifigan_train": {"dataset_path", "affinity"},
    "hifigan_model": set(),
    "waveglow_model": set(),
}


def fields_of(command):
    """By each of its names."""
    fields = [field for config in COMMANDS[command] for field in dataclasses.fields(config)]
    return {name: field for field in fields for name in (field.name, *field.metadata["also"])}


def public_flags():
    for command in COMMANDS:
        for public in PUBLIC[command]:
            yield pytest.param(command, public, id=f"{command}{public['flags'][-1]}")


@pytest.mark.parametrize(("command", "public"), [*public_flags()])
def test_every_flag_of_the_public_recipe_is_accepted(command, public):
    long_name = public["flags"][-1].lstrip("-").replace("-", "_")
    field = fields_of(command)[long_name]
    if len(public["flags"]) == 2:
        assert field.metadata["short"] == public["flags"][0]
    if long_name in OTHER_DEFAULTS[command]:
        return
    if public.get("required") == "True":
        assert field.default is dataclasses.MISSING
    elif "os.getenv" not in public.get("default", ""):
        default = ast.literal_eval(
            public.get("default", "False").replace(
                "list(range(100, 1000, 100))", str(list(range(100, 1000, 100)))
            )
        )
        own = OWN_DEFAULTS.get(command, {}).get(field.name, field.default)
        assert as_lists(own) == as_lists(default)


def as_lists(value):
    return [as_lists(each) for each in value] if isinstance(value, list | tuple) else value


def train_parser():
    return FlagParser("test", *COMMANDS["train"])


REQUIRED = [
    *("--output", "o", "--epochs", "1", "--learning-rate", "0.1", "--batch-size", "2"),
    *("--training-files", "a", "--validation-files", "b"),
]


def test_dashes_and_underscores_are_the_same():
    dashes = train_parser().parse([*REQUIRED, "--kl-loss-weight", "0.5", "--p-arpabet=1"])
    underscores = train_parser().parse([*REQUIRED, "--kl_loss_weight", "0.5", "--p_arpabet=1"])
    assert dashes == underscores
    assert dashes["kl_loss_weight"] == 0.5


def test_underscores_in_values_stay():
    given = train_parser().parse([*REQUIRED, "--dataset-path=my_data", "--log-file", "my_log"])
    assert given["dataset_path"] == Path("my_data") and given["log_file"] == Path("my_log")


@pytest.mark.parametrize(
    "wrong",
    [["--no-such-flag"], ["--epoch", "3"], ["--batch-size", "many"], ["--optimizer", "sgd"]],
)
def test_unknown_and_malformed_flags_end_with_code_2(wrong, capsys):
    with pytest.raises(SystemExit) as exit_info:
        train_parser().parse([*REQUIRED, *wrong])
    assert exit_info.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_parse_returns_only_what_was_typed():
    assert train_parser().parse([*REQUIRED, "--amp"]) == {
        "output": Path("o"),
        "epochs": 1,
        "learning_rate": 0.1,
        "batch_size": 2,
        "training_files": (Path("a"),),
        "validation_files": (Path("b"),),
        "amp": True,
    }


def test_the_command_line_outranks_a_checkpoint_and_a_checkpoint_the_default():
    parser = train_parser()
    checkpoint = {"symbol_set": "english_expanded", "p_arpabet": 0.5}
    text = parser.build(TextConfig, checkpoint, parser.parse([*REQUIRED, "--p-arpabet", "1"]))
    assert (text.symbol_set, text.p_arpabet) == ("english_expanded", 1.0)
    assert text.text_cleaners == TextConfig().text_cleaners


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--p-arpabet 1.5", "--p-arpabet must lie in [0, 1], got 1.5"),
        ("--batch-size 0", "--batch-size must be positive, got 0"),
        ("--mel-fmax 12000", "--mel-fmax must not exceed half the sampling rate, 11025 Hz"),
        ("--win-length 2048", "--win-length must not exceed --filter-length 1024, got 2048"),
        ("--pitch-mean 200", "--pitch-mean and --pitch-std go together"),
        ("--checkpoint-path x --init-from-checkpoint y", "--checkpoint-path and --init-from"),
        ("--dur-predictor-kernel-size 4", "--dur-predictor-kernel-size must be odd"),
        ("--in-fft-output-size 100", "must be equal, got 384, 100 and 384"),
        ("--ema-decay 1", "--ema-decay must lie in [0, 1), got 1.0"),
    ],
)
def test_contradictions_end_with_code_2_and_a_sentence(flags, sentence, capsys):
    parser = train_parser()
    given = parser.parse([*REQUIRED, *flags.split()])
    with pytest.raises(SystemExit) as exit_info:
        for config in COMMANDS["train"]:
            parser.build(config, given)
    assert exit_info.value.code == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_a_flag_of_two_configs_reaches_both():
    parser = train_parser()
    given = parser.parse([*REQUIRED, "--n-mel-channels", "40", "--n-speakers", "3"])
    assert parser.build(AudioConfig, given).n_mel_channels == 40
    assert parser.build(FastPitchConfig, given).n_mel_channels == 40
    assert parser.build(DataConfig, given).n_speakers == 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """Example: what no command happens to need all of."""

    pause: int = flag(5, also=("rest_time",), help="steps to rest")
    rates: tuple[tuple[int, ...], ...] = flag(
        ((1, 3), (5,)), parse=literal_tuple, help="rates of each layer"
    )


@pytest.mark.parametrize("name", ["--pause", "--rest-time", "--rest_time"])
def test_a_flag_may_have_other_names(name):
    assert FlagParser("test", Example).parse([name, "3"]) == {"pause": 3}


@pytest.mark.parametrize("text", ["[[2,4],[8]]", "((2, 4), (8,))", "[[2, 4], (8,)]"])
def test_lists_of_lists_are_read(text):
    assert FlagParser("test", Example).parse(["--rates", text]) == {"rates": ((2, 4), (8,))}


@pytest.mark.parametrize("text", ["3", "[[2,4", "__import__('os')", "nonsense"])
def test_a_malformed_list_is_answered_with_an_example(text, capsys):
    with pytest.raises(SystemExit) as end:
        FlagParser("test", Example).parse(["--rates", text])
    assert end.value.code == 2
    assert "--rates: expected numbers in brackets like [3,7,11], got" in capsys.readouterr().err


def test_a_command_may_have_defaults_of_its_own(capsys):
    parser = FlagParser("test", Example, defaults={"pause": 7})
    assert parser.build(Example, parser.parse([])).pause == 7
    assert parser.build(Example, parser.parse(["--pause", "3"])).pause == 3
    with pytest.raises(SystemExit):
        parser.parse(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "steps to rest (default: 7)" in shown
    assert "rates of each layer (default: [[1,3],[5]])" in shown


def test_a_field_of_unknown_type_is_no_flag():
    @dataclasses.dataclass(frozen=True)
    class Wrong:
        """Wrong: nobody can type a dict."""

        table: dict | None = flag(None, help="a table")

    with pytest.raises(AssertionError, match="no flag for"):
        FlagParser("test", Wrong)


CONFIGS = {
    *FASTPITCH,
    *HIFIGAN,
    *WAVEGLOW,
    InferenceConfig,
    PreparationConfig,
    ExtractionConfig,
    EvaluationConfig,
}


@pytest.mark.parametrize(
    "config",
    sorted(CONFIGS, key=lambda config: config.__name__),
    ids=lambda config: config.__name__,
)
def test_every_flag_is_used_or_says_that_it_is_not(config):
    code = "\n".join(path.read_text() for path in ROOT.glob("*.py"))
    code += "\n".join(p.read_text() for d in LAYERS for p in (ROOT / d).rglob("*.py"))
    for field in dataclasses.fields(config):
        idle = "has no effect" in field.metadata["help"] or "cannot" in field.metadata["help"]
        by_attribute = f".{field.name}" in code
        by_pattern = "predictor" in field.name  # read by name from the config, see _predictor
        assert idle or by_attribute or by_pattern, flag_name(field.name)


@pytest.mark.parametrize("command", ["hifigan.train", "waveglow.train", "fastpitch.extract_mels"])
def test_help_of_commands_in_packages_names_the_command(command, capsys):
    with pytest.raises(SystemExit) as end:
        importlib.import_module(command).main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: python -m {command} ") and str(ROOT) not in shown


@pytest.mark.parametrize("command", ["train", "inference", "prepare_dataset"])
def test_help_shows_no_path_of_this_machine(command, capsys):
    with pytest.raises(SystemExit) as end:
        importlib.import_module(command).main(["--help"])
    assert end.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert str(ROOT) not in shown
    assert "(default: cmudict/heteronyms of this project)" in shown


def test_help_says_which_settings_come_from_the_checkpoint(capsys):
    with pytest.raises(SystemExit):
        inference.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "applied in this order (default: the checkpoint's)" in shown
    assert "speed; 2 is twice as fast (default: 1.0)" in shown


@pytest.mark.parametrize("mistake", [["--nonsense"], ["--epochs", "many"], []])
def test_a_mistake_is_answered_in_one_line(mistake, capsys):
    with pytest.raises(SystemExit) as end:
        train.main(mistake)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert ": error: " in line
