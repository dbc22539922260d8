# SPDX-License-Identifier: BSD-3-Clause
"""Turns dataclass fields into command-line flags and the flags back into configs."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

Config = TypeVar("Config")


def flag(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    short: str | None = None,
    also: Sequence[str] = (),
    choices: Sequence[str] | None = None,
    parse: Callable[[str], Any] | None = None,
    shown: str | None = None,
) -> Any:
    """A dataclass field that is also a command-line flag.

    The field's name gives the flag (`text_cleaners` -> `--text-cleaners`), its annotation the
    type: `bool` is a switch, `tuple[X, ...]` takes several values, `X | None` may be left out.
    A field without default is a required flag.

    Args:
        also: other names of the flag, spelled like fields
        parse: turns one word of the command line into the value, where the annotation does not
        shown: what the help calls the default, where its value says nothing to a reader
    """
    metadata = {"help": help, "short": short, "also": also, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata | {"parse": parse, "shown": shown})


def literal_tuple(text: str) -> tuple:
    """Reads numbers in brackets, which may be nested: `[[1, 3], [1, 5]]` -> ((1, 3), (1, 5))."""
    try:
        return _as_tuple(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise argparse.ArgumentTypeError(
            f"expected numbers in brackets like [3,7,11], got {text!r}"
        ) from error


class FlagParser(argparse.ArgumentParser):
    """Reads the flags of several config dataclasses in one pass.

    `parse` returns only what the user typed, so that a value from a checkpoint can stand between
    a flag's default and the user's own word; see `build`. Underscores are accepted for dashes. Two
    configs may declare the same field (`n_mel_channels`): it is one flag, given to both.

    Args:
        description: what the program does
        config_classes: whose fields are flags
        from_checkpoint: those of them whose values a checkpoint brings along, but for paths
        defaults: by field name, in place of those that the fields have
        prog: what the program is called, unless by its file
    """

    def __init__(
        self,
        description: str,
        *config_classes: type,
        from_checkpoint: Collection[type] = (),
        defaults: Mapping[str, Any] | None = None,
        prog: str | None = None,
    ) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)
        self.defaults = defaults or {}
        declared: dict[str, dataclasses.Field] = {}
        for config_class in config_classes:
            hints = typing.get_type_hints(config_class)
            group = self.add_argument_group(config_class.__doc__.splitlines()[0].rstrip("."))
            for field in dataclasses.fields(config_class):
                if "help" not in field.metadata:
                    continue
                if field.name in declared:
                    assert field.default == declared[field.name].default, field.name
                    continue
                declared[field.name] = field
                default = self.defaults.get(field.name, field.default)
                text = _help(field, default, config_class in from_checkpoint)
                _add_flag(group, field, hints[field.name], default, text)

    def parse(self, argv: Sequence[str] | None = None) -> dict[str, Any]:
        """The flags on the command line (`sys.argv` unless given) by field name.

        Exits with code 2 and a sentence on an unknown flag or a value of the wrong type.
        """
        tokens = [_with_dashes(token) for token in (sys.argv[1:] if argv is None else argv)]
        return vars(self.parse_args(tokens))

    def build(self, config_class: type[Config], *layers: Mapping[str, Any]) -> Config:
        """A config from layers of values, later ones first in rank; others keep their default.

        Exits with code 2 and the config's own sentence where the values contradict each other.
        """
        names = {field.name for field in dataclasses.fields(config_class) if field.init}
        ranked = (self.defaults, *layers)
        values = {k: v for layer in ranked for k, v in layer.items() if k in names}
        try:
            return config_class(**values)
        except ValueError as error:
            self.error(str(error))

    def error(self, message: str) -> typing.NoReturn:
        """Exits with code 2 and a sentence; the usage of a hundred flags would bury it."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def flag_name(field_name: str) -> str:
    """`text_cleaners` -> `--text-cleaners`."""
    return "--" + field_name.replace("_", "-")


def _add_flag(
    group: argparse._ArgumentGroup, field: dataclasses.Field, hint: Any, default: Any, text: str
) -> None:
    names = [field.metadata["short"]] if field.metadata["short"] else []
    names += [flag_name(name) for name in (field.name, *field.metadata["also"])]
    required = default is dataclasses.MISSING
    options: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
    options["help"] = text.replace("%", "%%")
    if hint is bool:
        group.add_argument(*names, action="store_true", **options)
        return
    if field.metadata["parse"]:
        group.add_argument(*names, type=field.metadata["parse"], metavar="LIST", **options)
        return
    value_type, several = _value_type(hint)
    if several:
        options |= {"nargs": "*", "action": _StoreTuple}
    group.add_argument(
        *names,
        type=value_type,
        required=required,
        choices=field.metadata["choices"],
        metavar=None if field.metadata["choices"] else value_type.__name__.upper(),
        **options,
    )


def _help(field: dataclasses.Field, default: Any, from_checkpoint: bool) -> str:
    text = field.metadata["help"]
    if default is dataclasses.MISSING:
        return f"{text} (required)"
    if default is None or default is False or default == ():
        return text
    shown = field.metadata["shown"]
    if from_checkpoint and not isinstance(default, Path):
        shown = "the checkpoint's"
    elif shown is None and field.metadata["parse"]:
        shown = json.dumps(default, separators=(",", ":"))
    elif shown is None:
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{text} (default: {shown})"


def _as_tuple(value: Any) -> tuple:
    if not isinstance(value, list | tuple):
        raise ValueError("not a list")
    return tuple(_as_tuple(v) if isinstance(v, list | tuple) else v for v in value)


def _value_type(hint: Any) -> tuple[type, bool]:
    """The type of one value, and whether the flag takes several."""
    if isinstance(hint, types.UnionType):
        (hint,) = (arg for arg in typing.get_args(hint) if arg is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    assert hint in (str, int, float, Path), f"no flag for {hint}"
    return hint, False


class _StoreTuple(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, tuple(values))


def _with_dashes(token: str) -> str:
    if not token.startswith("--"):
        return token
    name, equals, value = token.partition("=")
    return name.replace("_", "-") + equals + value
