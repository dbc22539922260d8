# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints: that they are whole, and what is no checkpoint."""

from __future__ import annotations

import pickle
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from common.checkpoint import (
    check_readable,
    load_checkpoint,
    load_weights,
    not_finite,
    save_checkpoint,
)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.pt: no such checkpoint"):
        load_checkpoint(tmp_path / "gone.pt")


def a_good_checkpoint(path: Path) -> bytes:
    torch.save({"state_dict": {"weight": torch.rand(50, 50)}, "epoch": 3}, path)
    return path.read_bytes()


def refusal_of(path: Path) -> str:
    with pytest.raises(ValueError, match=re.escape(str(path))) as refusal:
        load_checkpoint(path)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize(
    "content", [b"", b"This is text.\n", b"RIFF\0\0\0\0WAVE", b"PK\x03\x04", b"."]
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "Net_checkpoint_1.pt"
    path.write_bytes(content)
    assert "not a readable checkpoint, or damaged" in refusal_of(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_half_a_checkpoint_is_refused(tmp_path, share):
    path = tmp_path / "Net_checkpoint_1.pt"
    whole = a_good_checkpoint(path)
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "damaged" in refusal_of(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_bytes_give_a_sentence_or_a_checkpoint_never_anything_else(tmp_path):
    path = tmp_path / "Net_checkpoint_1.pt"
    pickled = pickle.dumps({"state_dict": [1, 2.0, "three"], "config": {"n": (4, 5)}}, protocol=2)
    rng = random.Random(1)
    refused = 0
    for _ in range(300):
        damaged = bytearray(pickled)
        for _ in range(rng.choice([1, 2, 8])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            load_checkpoint(path)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 100


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_objects_in_a_checkpoint_are_refused_and_their_code_never_runs(tmp_path):
    sprung, path = tmp_path / "sprung", tmp_path / "Net_checkpoint_1.pt"
    torch.save({"state_dict": {}, "trap": Trap(sprung)}, path)
    refusal_of(path)
    path.write_bytes(pickle.dumps(Trap(sprung), protocol=2))
    refusal_of(path)
    assert not sprung.exists()


@pytest.mark.parametrize("content", [{}, [], torch.ones(3)], ids=["empty", "list", "tensor"])
def test_a_file_without_named_entries_is_refused(tmp_path, content):
    path = tmp_path / "Net_checkpoint_1.pt"
    torch.save(content, path)
    assert "named entries" in refusal_of(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_not_readable(tmp_path, share):
    path = tmp_path / "Net_checkpoint_1.pt"
    whole = a_good_checkpoint(path)
    check_readable(path)
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=rf"{path}: not a readable checkpoint, or damaged"):
        check_readable(path)


def test_every_damaged_byte_makes_a_checkpoint_unreadable_or_is_nobodys(tmp_path):
    path = tmp_path / "Net_checkpoint_1.pt"
    whole = a_good_checkpoint(path)
    expected = load_checkpoint(path)["state_dict"]["weight"]
    rng = random.Random(1)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            check_readable(path)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
        else:  # padding, the date of an entry
            assert torch.equal(load_checkpoint(path)["state_dict"]["weight"], expected)
    assert refused > 250


def test_checkpoints_of_old_writers_are_readable(tmp_path):
    path = tmp_path / "Net_checkpoint_1.pt"
    torch.save({"epoch": 3}, path, _use_new_zipfile_serialization=False)
    check_readable(path)


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from common.checkpoint import save_checkpoint
path, state = Path(sys.argv[1]), {"weights": torch.zeros(50_000)}
whole = path.with_name("whole.pt")
save_checkpoint(state, whole)
limit = int(whole.stat().st_size * float(sys.argv[2]))
whole.unlink()
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    save_checkpoint(state, path)
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("room", [0.0, 0.5, 0.999], ids=["none", "for half", "but for the end"])
def test_a_full_disk_leaves_the_old_checkpoint_and_says_so(tmp_path, room):
    path = tmp_path / "Net_checkpoint_1.pt"
    save_checkpoint({"weights": torch.ones(3)}, path)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path, str(room)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path}: cannot be saved (File too large); the checkpoints")
    assert torch.equal(load_checkpoint(path)["weights"], torch.ones(3))
    assert list(tmp_path.iterdir()) == [path]


def test_tensors_that_are_not_finite_are_named():
    states = {
        "Net": {"weight": torch.tensor([1.0, torch.nan]), "bias": torch.ones(2), "epoch": 3},
        "optimizer": {"state": {0: {"momentum": [torch.ones(1), torch.tensor(-torch.inf)]}}},
        "counts": torch.tensor([1, 2]),
    }
    assert not_finite(states) == ["Net.weight", "optimizer.state.0.momentum.1"]


def test_weights_come_back_as_they_were_saved():
    saved, model = nn.Linear(3, 2), nn.Linear(3, 2)
    load_weights(model, saved.state_dict(), "here.pt")
    assert torch.equal(model.weight, saved.weight)
    assert torch.equal(model.bias, saved.bias)


def test_the_prefix_of_parallel_training_is_taken_off():
    saved, model = nn.Linear(3, 2), nn.Linear(3, 2)
    parallel = {f"module.{key}": value for key, value in saved.state_dict().items()}
    load_weights(model, parallel, "here.pt")
    assert torch.equal(model.weight, saved.weight)


def test_every_misfit_is_listed_and_nothing_is_changed():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    weights = {"0.weight": torch.ones(2, 4), "0.bias": torch.ones(2), "1.bias": torch.ones(2)}
    with pytest.raises(ValueError, match=r"^here\.pt: its weights do not fit") as refusal:
        load_weights(model, weights | {"head.weight": torch.ones(1)}, "here.pt")
    assert "0.weight has shape (2, 4), the model (2, 3)" in str(refusal.value)
    assert "1.weight is missing" in str(refusal.value)
    assert "head.weight is unknown" in str(refusal.value)
    assert "0.bias" not in str(refusal.value)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_a_long_list_of_misfits_is_cut_with_their_number():
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(10)))
    with pytest.raises(ValueError, match=r"and 10 more$") as refusal:
        load_weights(model, {}, "here.pt")
    assert str(refusal.value).count("is missing") == 10


@pytest.mark.parametrize(
    "weights", [[1, 2], {"weight": [1.0], "bias": [2.0]}], ids=["list", "lists"]
)
def test_weights_that_are_no_tensors_are_refused(weights):
    with pytest.raises(ValueError, match=r"here\.pt: expected weights as named tensors"):
        load_weights(nn.Linear(1, 1), weights, "here.pt")


def test_a_folder_in_place_of_a_checkpoint_is_told_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="is a folder: name the checkpoint in it"):
        load_checkpoint(tmp_path)


def test_nobody_is_advised_to_run_code_from_a_file(tmp_path):
    for content in (b"text, no tensors", b"corrupt"):
        (tmp_path / "a.pt").write_bytes(content)
        assert "weights_only" not in refusal_of(tmp_path / "a.pt")
