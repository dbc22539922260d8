# SPDX-License-Identifier: BSD-3-Clause
"""Mels in files: every layout that a command writes, and sentences about the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from common.mels import load_mel, read_mels, save_mel
from common.phrases import Phrase

N_MELS = 4


@pytest.fixture
def mel() -> Tensor:
    return torch.randn(N_MELS, 7)


def write(path: Path, content: object) -> Path:
    """Writes bytes, an array or a tensor, as the name says."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".npy":
        np.save(path, content)
    else:
        torch.save(content, path)
    return path


def test_a_prepared_mel_is_read(tmp_path, mel):
    assert torch.equal(load_mel(write(tmp_path / "a.pt", mel), N_MELS), mel)


def test_a_saved_mel_is_read(tmp_path, mel):
    save_mel(tmp_path / "a.npy", mel)
    assert np.load(tmp_path / "a.npy").shape == (7, N_MELS)
    assert torch.equal(load_mel(tmp_path / "a.npy", N_MELS), mel)


def test_an_extracted_mel_is_read(tmp_path, mel):
    assert torch.equal(load_mel(write(tmp_path / "a.npy", mel.numpy()), N_MELS), mel)


def test_a_mel_of_other_precision_is_read_as_float32(tmp_path, mel):
    half = load_mel(write(tmp_path / "a.pt", mel.half()), N_MELS)
    assert half.dtype == torch.float32
    assert torch.equal(half, mel.half().float())
    double = load_mel(write(tmp_path / "a.npy", mel.double().numpy()), N_MELS)
    assert torch.equal(double, mel)


def test_as_many_frames_as_bands_are_bands_first_and_said(tmp_path, caplog):
    mel = torch.randn(N_MELS, N_MELS)
    path = write(tmp_path / "a.npy", mel.numpy())
    assert torch.equal(load_mel(path, N_MELS), mel)
    assert f"{path}: as many frames as bands" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.pt", torch.zeros(5, 7), r"expected a mel of 4 bands.*got shape \(5, 7\)"),
        ("a.npy", np.zeros((5, 7)), r"expected a mel of 4 bands.*got shape \(5, 7\)"),
        ("a.pt", torch.zeros(4), "expected a mel of 4 bands"),
        ("a.pt", torch.zeros(1, 4, 7), "expected a mel of 4 bands"),
        ("a.pt", torch.zeros(4, 0), "expected a mel of 4 bands"),
        ("a.pt", torch.full((4, 7), torch.nan), "the mel holds NaN or infinity"),
        ("a.npy", np.full((4, 7), np.inf), "the mel holds NaN or infinity"),
        ("a.pt", torch.zeros(4, 7, dtype=torch.int64), "no floating-point tensor"),
        ("a.pt", {"mel": 1}, "no floating-point tensor"),
        ("a.npy", np.array(["a", "b"]), "no floating-point tensor"),
        ("a.npy", np.array([{"a": 1}]), "not a readable .npy file"),
        ("a.npy", b"", "not a readable .npy file"),
        ("a.npy", b"\x93NUMPY", "not a readable .npy file"),
        ("a.npy", b"PK\x03\x04 half an archive", "not a readable .npy file"),
        ("a.pt", b"garbage", "not a readable file of tensors"),
        ("a.wav", b"RIFF", "expected a file of a mel, .pt or .npy"),
    ],
)
def test_what_is_no_mel_is_refused(tmp_path, name, content, complaint):
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=complaint) as refusal:
        load_mel(path, N_MELS)
    assert str(refusal.value).startswith(f"{path}: ")


def phrase(path: Path, line: int) -> Phrase:
    return Phrase(text="", output=Path("a.wav"), speaker=0, mel=path, source=f"x.tsv:{line}")


def test_mels_come_in_the_order_of_their_phrases(tmp_path, mel):
    paths = [write(tmp_path / f"{n}.pt", mel[:, : n + 1]) for n in range(3)]
    mels = read_mels([phrase(path, n) for n, path in enumerate(paths)], N_MELS)
    assert [mel.shape for mel in mels] == [(N_MELS, 1), (N_MELS, 2), (N_MELS, 3)]


def test_every_mel_that_cannot_be_used_is_listed(tmp_path, mel):
    paths = [
        tmp_path / "none.pt",
        write(tmp_path / "good.pt", mel),
        write(tmp_path / "bands.pt", mel[:3]),
        tmp_path / ("x" * 300),
    ]
    with pytest.raises(ValueError) as refusal:
        read_mels([phrase(path, n) for n, path in enumerate(paths, start=2)], N_MELS)
    missing, bands, too_long = str(refusal.value).split("\n")
    assert missing == f"x.tsv:2: mel {paths[0]}: no such file"
    assert bands.startswith(f"x.tsv:4: mel {paths[2]}: expected a mel of 4 bands")
    assert too_long.endswith("no such file")
