# SPDX-License-Identifier: BSD-3-Clause
"""Mels in files, as any command of the recipe writes them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.checkpoint import load_tensors
from common.files import is_file
from common.phrases import Phrase

logger = logging.getLogger(__name__)


def read_mels(phrases: Sequence[Phrase], n_mels: int) -> list[Tensor]:
    """The mel of each phrase, (n_mels, T_mel) natural log of amplitude.

    Raises:
        ValueError: files that are missing or hold no such mel, all of them, with their lines
    """
    mels, problems = [], []
    for phrase in phrases:
        try:
            mels.append(load_mel(phrase.mel, n_mels))
        except (ValueError, FileNotFoundError) as error:
            problems.append(f"{phrase.source}: mel {error}")
    if problems:
        raise ValueError("\n".join(problems))
    return mels


def load_mel(path: Path, n_mels: int) -> Tensor:
    """A mel, (n_mels, T_mel) float32, from a tensor (.pt) or an array (.npy).

    The bands are found by their number, whichever dimension is theirs; where both could be, the
    first is.

    Raises:
        FileNotFoundError: there is no such file
        ValueError: it holds something else
    """
    if not is_file(path):
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix not in (".pt", ".npy"):
        raise ValueError(f"{path}: expected a file of a mel, .pt or .npy")
    mel = _load_array(path) if path.suffix == ".npy" else load_tensors(path)
    if not isinstance(mel, Tensor) or not mel.is_floating_point():
        raise ValueError(f"{path}: expected a mel, got no floating-point tensor")
    if mel.ndim != 2 or n_mels not in mel.shape or 0 in mel.shape:
        raise ValueError(
            f"{path}: expected a mel of {n_mels} bands, ({n_mels}, frames) or (frames, {n_mels}), "
            f"got shape {tuple(mel.shape)}"
        )
    if path.suffix == ".npy" and mel.shape[0] == mel.shape[1]:
        logger.warning(
            "%s: as many frames as bands: taking the first dimension for the bands", path
        )
    bands_first = mel if mel.shape[0] == n_mels else mel.T
    if not bands_first.isfinite().all():
        raise ValueError(f"{path}: the mel holds NaN or infinity: make it again")
    return bands_first.float().contiguous()


def save_mel(path: Path, mel: Tensor) -> None:
    """Writes (n_mels, T_mel) as .npy of shape (frames, bands), as the public recipe does."""
    np.save(path, mel.T.cpu().numpy())


def _load_array(path: Path) -> Tensor | None:
    """The numbers of a file; None where they are of a type that tensors have not."""
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a readable .npy file, or damaged ({error})") from error
    try:
        return torch.from_numpy(array)
    except TypeError:
        return None
