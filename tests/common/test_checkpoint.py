# SPDX-License-Identifier: BSD-3-Clause
"""Checkpoints: which are kept, that they are whole, and what is no checkpoint."""

from __future__ import annotations

import pickle
import random
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from common.checkpoint import CheckpointFolder, load_checkpoint, load_weights


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_milestones_and_the_last_two_are_kept(tmp_path):
    checkpoints = CheckpointFolder(tmp_path, ["Net"], milestones=(2, 4))
    for epoch in range(1, 8):
        checkpoints.save(epoch, {"Net": {"epoch": epoch}})
        newest = load_checkpoint(checkpoints.paths(epoch)["Net"])
        assert newest == {"epoch": epoch}
    assert names_in(tmp_path) == [f"Net_checkpoint_{epoch}.pt" for epoch in (2, 4, 6, 7)]


def test_only_files_that_this_run_wrote_are_removed(tmp_path):
    foreign = ["Net_checkpoint_1.pt", "Net_checkpoint_2.pt", "Other_checkpoint_1.pt", "notes.txt"]
    for name in foreign:
        (tmp_path / name).write_text("somebody else's")
    checkpoints = CheckpointFolder(tmp_path, ["Net"])
    for epoch in range(3, 9):
        checkpoints.save(epoch, {"Net": {"epoch": epoch}})
    assert names_in(tmp_path) == sorted([*foreign, "Net_checkpoint_7.pt", "Net_checkpoint_8.pt"])
    for name in foreign:
        assert (tmp_path / name).read_text() == "somebody else's"


def test_saving_goes_on_when_somebody_removed_an_old_checkpoint(tmp_path):
    checkpoints = CheckpointFolder(tmp_path, ["Net"])
    checkpoints.save(1, {"Net": {"epoch": 1}})
    checkpoints.paths(1)["Net"].unlink()
    for epoch in (2, 3, 4):
        checkpoints.save(epoch, {"Net": {"epoch": epoch}})
    assert names_in(tmp_path) == ["Net_checkpoint_3.pt", "Net_checkpoint_4.pt"]


def test_the_files_of_an_epoch_belong_together(tmp_path):
    checkpoints = CheckpointFolder(tmp_path, ["gen", "discrim"])
    for epoch in (1, 2, 3):
        checkpoints.save(epoch, {"gen": {"a": epoch}, "discrim": {"b": epoch}})
    expected = [f"{name}_checkpoint_{epoch}.pt" for name in ("discrim", "gen") for epoch in (2, 3)]
    assert names_in(tmp_path) == expected
    (tmp_path / "discrim_checkpoint_3.pt").unlink()  # as when saving was cut off between the two
    assert checkpoints.latest() == checkpoints.paths(2)
    assert load_checkpoint(checkpoints.paths(2)["discrim"]) == {"b": 2}


def test_an_epoch_saved_twice_counts_once(tmp_path):
    checkpoints = CheckpointFolder(tmp_path, ["Net"])
    for epoch in (1, 2, 2):
        checkpoints.save(epoch, {"Net": {"epoch": epoch}})
    assert names_in(tmp_path) == ["Net_checkpoint_1.pt", "Net_checkpoint_2.pt"]


def test_the_latest_checkpoint_has_the_largest_number(tmp_path):
    checkpoints = CheckpointFolder(tmp_path, ["Net"])
    assert checkpoints.latest() is None
    for epoch in (9, 10):
        checkpoints.save(epoch, {"Net": {"epoch": epoch}})
    for name in ("Net_checkpoint_99.pt.bak", "Net_checkpoint_last.pt", "My_Net_checkpoint_50.pt"):
        (tmp_path / name).touch()
    assert checkpoints.latest() == {"Net": tmp_path / "Net_checkpoint_10.pt"}


def test_the_latest_checkpoint_exists_even_where_its_number_has_leading_zeros(tmp_path):
    (tmp_path / "Net_checkpoint_0012.pt").touch()
    newest = CheckpointFolder(tmp_path, ["Net"]).latest()
    assert newest == {"Net": tmp_path / "Net_checkpoint_0012.pt"}


def test_there_is_no_latest_checkpoint_where_there_is_no_folder(tmp_path):
    assert CheckpointFolder(tmp_path / "none", ["Net"]).latest() is None


def test_a_failure_while_saving_leaves_the_old_checkpoint(tmp_path):
    checkpoints = CheckpointFolder(tmp_path, ["Net"])
    checkpoints.save(1, {"Net": {"weights": torch.ones(3)}})
    state = {"weights": torch.zeros(3), "not to be saved": lambda: None}
    with pytest.raises((pickle.PicklingError, AttributeError)):
        checkpoints.save(1, {"Net": state})
    assert names_in(tmp_path) == ["Net_checkpoint_1.pt"]
    assert torch.equal(load_checkpoint(checkpoints.paths(1)["Net"])["weights"], torch.ones(3))


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
