# SPDX-License-Identifier: BSD-3-Clause
"""Begins a training with the weights of another, perhaps of other symbols and speakers."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from common.checkpoint import fitting_weights, load_weights, not_finite
from common.config import check_as_trained
from fastpitch.arg_parser import PARTS, FastPitchConfig
from fastpitch.model import FastPitch

logger = logging.getLogger(__name__)

SYMBOL_EMBEDDING = "encoder.word_emb.weight"
SPEAKER_EMBEDDING = "speaker_emb.weight"
ENERGY_PARTS = ("energy_predictor", "energy_embedding")
ENERGY_PREFIXES = tuple(prefix for part in ENERGY_PARTS for prefix in PARTS[part])
# What may differ from the model that the weights come from; and all dropout.
MAY_DIFFER = {"n_symbols", "padding_idx", "n_speakers", "speaker_emb_weight", "energy_conditioning"}


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A trained FastPitch, as a checkpoint holds it."""

    path: Path
    config: FastPitchConfig
    weights: Mapping[str, Tensor]
    symbols: Sequence[str]  # in the order of its embedding's rows

    def __post_init__(self) -> None:
        if len(self.symbols) != self.config.n_symbols:
            raise ValueError(
                f"{self.path}: has embeddings of {self.config.n_symbols} symbols, but its symbol "
                f"set has {len(self.symbols)}: whose they are is not known. The set that it was "
                "trained with must be its train_setup's symbol_set; --symbol-set counts only where "
                "that says none"
            )


def transfer_weights(
    model: FastPitch, symbols: Sequence[str], pretrained: Pretrained
) -> frozenset[str]:
    """Puts the weights of one model into another; what only the other has keeps its own.

    Embeddings are carried over symbol by symbol and speaker by speaker. The log says what is new
    and what is dropped.

    Args:
        model: with its first weights
        symbols: of its alphabet, in the order of its embedding's rows
        pretrained: where the weights come from

    Returns:
        The names of those `PARTS` that hold weights which nobody trained

    Raises:
        ValueError: the weights contradict their own config or are not finite, or the models differ
            in more than symbols, speakers, energy conditioning and dropout
    """
    ours, theirs = model.config, pretrained.config
    _check_sizes(ours, theirs, pretrained.path)
    with torch.device("meta"):
        source = FastPitch(theirs)
    weights = fitting_weights(source, pretrained.weights, pretrained.path)
    if broken := not_finite(weights):
        raise ValueError(
            f"{pretrained.path}: {', '.join(broken[:3])} hold NaN or infinity, as when training "
            "diverges: take an earlier checkpoint"
        )
    untrained = set()
    if tuple(symbols) != tuple(pretrained.symbols):
        untrained |= _carry_symbols(weights, model, symbols, pretrained)
    if ours.n_speakers != theirs.n_speakers:
        untrained |= _carry_speakers(weights, model, pretrained)
    if ours.energy_conditioning != theirs.energy_conditioning:
        untrained |= _change_energy(weights, model, pretrained)
    load_weights(model, weights, pretrained.path)
    return frozenset(untrained)


def freeze(model: FastPitch, parts: Sequence[str], untrained: Collection[str] = ()) -> None:
    """Keeps parts of a model from learning.

    Args:
        model: not yet known to an optimizer or to other processes
        parts: names of `PARTS`
        untrained: parts that hold weights which nobody trained

    Raises:
        ValueError: the model has no such part, or nothing would be left to learn
    """
    for part in parts:
        parameters = _parameters_of(model, part)
        if not parameters:
            raise ValueError(f"--freeze {part}: this model has none: leave it out")
        for parameter in parameters.values():
            parameter.requires_grad_(False)
        if part in untrained:
            logger.warning("--freeze %s: what is new in it stays untrained", part)
    sizes = {True: 0, False: 0}
    for parameter in model.parameters():
        sizes[parameter.requires_grad] += parameter.numel()
    if not sizes[True]:
        raise ValueError(f"--freeze {','.join(parts)}: leaves nothing to learn: name fewer parts")
    if parts:
        logger.info(
            "Frozen: %s; %s of %s parameters learn",
            ", ".join(parts),
            f"{sizes[True]:,}",
            f"{sum(sizes.values()):,}",
        )


def _check_sizes(ours: FastPitchConfig, theirs: FastPitchConfig, path: Path) -> None:
    """Refuses another network, even one whose weights have the same shapes."""
    names = {name for name in vars(ours) if name in MAY_DIFFER or name.startswith("p_")}
    if not (ours.energy_conditioning and theirs.energy_conditioning):
        names |= {name for name in vars(ours) if name.startswith("energy_")}
    chosen = {name: value for name, value in vars(ours).items() if name in names}
    check_as_trained(path, (ours, dataclasses.replace(theirs, **chosen)))


def _carry_symbols(
    weights: dict[str, Tensor], model: FastPitch, symbols: Sequence[str], pretrained: Pretrained
) -> set[str]:
    """Gives every symbol that both know its old embedding."""
    old_rows = {symbol: row for row, symbol in enumerate(pretrained.symbols)}
    new_rows = {symbol: row for row, symbol in enumerate(symbols)}
    shared = [symbol for symbol in symbols if symbol in old_rows]
    embedding = model.encoder.word_emb.weight.detach().clone()
    old = weights[SYMBOL_EMBEDDING].to(embedding.dtype)
    embedding[[new_rows[symbol] for symbol in shared]] = old[[old_rows[s] for s in shared]]
    weights[SYMBOL_EMBEDDING] = embedding
    new = [symbol for symbol in symbols if symbol not in old_rows]
    dropped = [symbol for symbol in pretrained.symbols if symbol not in new_rows]
    logger.info(
        "Symbols: %d carried over from %s; %d new: %s; %d dropped: %s",
        *(len(shared), pretrained.path),
        *(len(new), _listed(new), len(dropped), _listed(dropped)),
    )
    return {"symbol_embedding"} if new else set()


def _carry_speakers(
    weights: dict[str, Tensor], model: FastPitch, pretrained: Pretrained
) -> set[str]:
    """Gives every speaker that both know the old embedding, and the others the mean of the old."""
    path, old_count, count = pretrained.path, pretrained.config.n_speakers, model.config.n_speakers
    if old_count == 1:
        weights[SPEAKER_EMBEDDING] = model.speaker_emb.weight.detach().clone()
        logger.info("Speakers: %d new: %s knows one voice alone", count, path)
        return {"speaker_embedding"}
    old = weights.pop(SPEAKER_EMBEDDING)
    if count == 1:
        logger.warning(
            "Speakers: the embeddings of %d in %s are dropped, and with them what makes their "
            "voices: --n-speakers %d keeps them",
            *(old_count, path, old_count),
        )
        return set()
    new = old.mean(dim=0).expand(max(count - old_count, 0), -1)
    weights[SPEAKER_EMBEDDING] = torch.cat([old[:count], new])
    if count < old_count:
        logger.info(
            "Speakers: 0 to %d carried over from %s; %d dropped",
            *(count - 1, path, old_count - count),
        )
        return set()
    logger.info(
        "Speakers: 0 to %d carried over from %s; %d new, which begin as the mean of the others",
        *(old_count - 1, path, count - old_count),
    )
    return {"speaker_embedding"}


def _change_energy(
    weights: dict[str, Tensor], model: FastPitch, pretrained: Pretrained
) -> set[str]:
    """Leaves energy conditioning as the model begins with it, or takes it away."""
    if not model.config.energy_conditioning:
        for name in [name for name in weights if name.startswith(ENERGY_PREFIXES)]:
            del weights[name]
        logger.warning("Energy: what %s knows of it is dropped", pretrained.path)
        return set()
    own = model.state_dict()
    weights |= {name: own[name] for name in own if name.startswith(ENERGY_PREFIXES)}
    logger.info("Energy: %s is without; its predictor and embedding are new", pretrained.path)
    return {*ENERGY_PARTS}


def _parameters_of(model: FastPitch, part: str) -> dict[str, nn.Parameter]:
    """By name, the parameters of one of `PARTS`."""
    return {name: p for name, p in model.named_parameters() if name.startswith(PARTS[part])}


def _listed(symbols: Sequence[str]) -> str:
    """Symbols in quotes, for they may be commas and spaces."""
    return " ".join(map(repr, symbols)) or "none"
