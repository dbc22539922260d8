# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints: the only place that writes and reads them."""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.files import atomic_path

logger = logging.getLogger(__name__)

NUM_NEWEST_KEPT = 2


class CheckpointFolder:
    """The checkpoints of one training: for each epoch a file `<name>_checkpoint_<epoch>.pt`, or
    several that belong together.

    Args:
        folder: where they are
        names: of the files of an epoch
        milestones: epochs whose checkpoints are never removed
    """

    def __init__(
        self, folder: Path, names: Sequence[str], milestones: Collection[int] = ()
    ) -> None:
        self.folder = folder
        self.names = names
        self.milestones = milestones
        self._saved_here: list[int] = []

    def paths(self, epoch: int) -> dict[str, Path]:
        """By name, the files of an epoch."""
        return {name: self.folder / f"{name}_checkpoint_{epoch}.pt" for name in self.names}

    def latest(self) -> dict[str, Path] | None:
        """By name, the files of the last epoch that has them all; None where there is none."""
        found = [self._find(name) for name in self.names]
        complete = set.intersection(*map(set, found))
        if not complete:
            return None
        return {name: files[max(complete)] for name, files in zip(self.names, found, strict=True)}

    def save(self, epoch: int, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes a checkpoint, then removes old ones that this object wrote itself.

        Args:
            states: what goes into each file, by name
        """
        for name, path in self.paths(epoch).items():
            with atomic_path(path) as temporary:
                torch.save(dict(states[name]), temporary)
            logger.info("Saved %s", path)
        if epoch not in self._saved_here:
            self._saved_here.append(epoch)
        for old in self._saved_here[:-NUM_NEWEST_KEPT]:
            if old not in self.milestones:
                self._saved_here.remove(old)
                for path in self.paths(old).values():
                    path.unlink(missing_ok=True)

    def _find(self, name: str) -> dict[int, Path]:
        pattern = re.compile(re.escape(name) + r"_checkpoint_(\d+)\.pt")
        return {
            int(match[1]): path
            for path in self.folder.glob("*.pt")
            if (match := pattern.fullmatch(path.name))
        }


def load_checkpoint(path: Path | str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads a checkpoint; tensors and plain values only, no code runs.

    Raises:
        FileNotFoundError: there is no such file
        ValueError: the file is no checkpoint, or is damaged
    """
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(f"{path}: is a folder: name the checkpoint in it, a file *.pt")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    checkpoint = load_tensors(path, device, expected="checkpoint")
    if not isinstance(checkpoint, dict) or not checkpoint:
        raise ValueError(f"{path}: expected a checkpoint with named entries, got none")
    return checkpoint


def load_tensors(
    path: Path,
    device: torch.device | str = "cpu",
    expected: str = "file of tensors",
    mmap: bool = False,
) -> Any:
    """Reads what `torch.save` wrote; tensors and plain values only, no code runs.

    Args:
        path: of the file
        device: where to put the tensors
        expected: what an error calls the file
        mmap: read the tensors only where they are used

    Raises:
        ValueError: the file holds anything else, or is damaged
    """
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    except Exception as error:  # wrong bytes make the reader fail in any way, AssertionError too
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        if isinstance(error, pickle.UnpicklingError):  # torch's own words advise to run its code
            reason = "it holds something else than tensors and plain values"
        raise ValueError(f"{path}: not a readable {expected}, or damaged ({reason})") from error


def not_finite(states: Any) -> list[str]:
    """The names of tensors, in nested dicts and lists, with a value that is infinite or NaN."""
    tensors = dict(_tensors(states))
    flags = [tensor.isfinite().all().cpu() for tensor in tensors.values()]
    return [name for name, is_finite in zip(tensors, flags, strict=True) if not is_finite]


def _tensors(states: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(states, Tensor):
        yield name, states
    elif isinstance(states, Mapping):
        for key, value in states.items():
            yield from _tensors(value, f"{name}.{key}".lstrip("."))
    elif isinstance(states, list | tuple):
        for index, value in enumerate(states):
            yield from _tensors(value, f"{name}.{index}".lstrip("."))


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: Path | str) -> None:
    """Puts weights into a model; every key and shape must fit. A `module.` prefix is taken off.

    Raises:
        ValueError: what does not fit, with the name of the file; the model is as it was
    """
    if not isinstance(weights, Mapping) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise ValueError(f"{source}: expected weights as named tensors")
    weights = {key.removeprefix("module."): value for key, value in weights.items()}
    expected = model.state_dict()
    misfits = [f"{key} is missing" for key in expected.keys() - weights.keys()]
    misfits += [f"{key} is unknown" for key in weights.keys() - expected.keys()]
    misfits += [
        f"{key} has shape {tuple(weights[key].shape)}, the model {tuple(expected[key].shape)}"
        for key in expected.keys() & weights.keys()
        if weights[key].shape != expected[key].shape
    ]
    if misfits:
        shown = "\n  ".join(sorted(misfits)[:10])
        more = f"\n  and {len(misfits) - 10} more" if len(misfits) > 10 else ""
        raise ValueError(f"{source}: its weights do not fit the model:\n  {shown}{more}")
    model.load_state_dict(weights)
