# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints: the only place that writes and reads them."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.files import atomic_path

ARCHIVE = b"PK"  # how a ZIP file begins


def save_checkpoint(state: Mapping[str, Any], path: Path) -> None:
    """Writes a checkpoint; what was at `path` before stands until all is written.

    Raises:
        OSError: it cannot be written, perhaps for want of room
    """
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            torch.save(dict(state), file)
    except (OSError, RuntimeError) as error:
        # PyTorch's writer, when it cannot write, says that it is at the wrong place of the file.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OSError(
            f"{path}: cannot be saved ({cause.strerror}); the checkpoints before it are as they "
            "were: make room, then --resume continues"
        ) from error


def checkpoint_size(state: Mapping[str, Any]) -> int:
    """Bytes of the file that `save_checkpoint` would write."""
    file = io.BytesIO()
    torch.save(dict(state), file)
    return file.tell()


def check_readable(path: Path) -> None:
    """Refuses what `load_checkpoint` does, and a file whose bytes are not those that were written.

    Raises:
        ValueError: the file is no checkpoint, or is damaged
    """
    with path.open("rb") as file:
        is_archive = file.read(len(ARCHIVE)) == ARCHIVE
    load_checkpoint(path, mmap=is_archive)
    if not is_archive:  # as PyTorch once wrote them
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # reading a checkpoint compares no checksums
    except Exception as error:  # wrong bytes make the reader fail in any way
        raise ValueError(f"{path}: not a readable checkpoint, or damaged ({error})") from error
    if damaged is not None:
        raise ValueError(f"{path}: not a readable checkpoint, or damaged (in {damaged})")


def load_checkpoint(
    path: Path | str, device: torch.device | str = "cpu", mmap: bool = False
) -> dict[str, Any]:
    """Reads a checkpoint; tensors and plain values only, no code runs. Settings as `load_tensors`.

    Raises:
        FileNotFoundError: there is no such file
        ValueError: the file is no checkpoint, or is damaged
    """
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(f"{path}: is a folder: name the checkpoint in it, a file *.pt")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    checkpoint = load_tensors(path, device, expected="checkpoint", mmap=mmap)
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
    """Puts weights into a model, which stays as it was where `fitting_weights` refuses them."""
    model.load_state_dict(fitting_weights(model, weights, source))


def fitting_weights(
    model: nn.Module, weights: Mapping[str, Tensor], source: Path | str
) -> dict[str, Tensor]:
    """Weights by the names of a model, every key and shape of which must fit; a `module.` prefix
    is taken off.

    Raises:
        ValueError: what does not fit, with the name of the file
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
    return weights
