# SPDX-License-Identifier: BSD-3-Clause
"""The checkpoints in a folder: which is the newest, which are kept, which is the best."""

from __future__ import annotations

import json
import pickle

import pytest
import torch

from common.checkpoint import load_checkpoint
from common.checkpoint_folder import Best, CheckpointFolder, Moment


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_milestones_and_the_last_two_are_kept(tmp_path):
    checkpoints = CheckpointFolder(tmp_path, ["Net"], milestones=(2, 4))
    for epoch in range(1, 8):
        checkpoints.save(Moment(epoch), {"Net": {"epoch": epoch}})
        newest = load_checkpoint(checkpoints.paths(Moment(epoch))["Net"])
        assert newest == {"epoch": epoch}
    assert names_in(tmp_path) == [f"Net_checkpoint_{epoch}.pt" for epoch in (2, 4, 6, 7)]


def test_only_files_that_this_run_wrote_are_removed(tmp_path):
    foreign = ["Net_checkpoint_1.pt", "Net_checkpoint_2.pt", "Other_checkpoint_1.pt", "notes.txt"]
    for name in foreign:
        (tmp_path / name).write_text("somebody else's")
    checkpoints = CheckpointFolder(tmp_path, ["Net"])
    for epoch in range(3, 9):
        checkpoints.save(Moment(epoch), {"Net": {"epoch": epoch}})
    assert names_in(tmp_path) == sorted([*foreign, "Net_checkpoint_7.pt", "Net_checkpoint_8.pt"])
    for name in foreign:
        assert (tmp_path / name).read_text() == "somebody else's"


def test_saving_goes_on_when_somebody_removed_an_old_checkpoint(tmp_path):
    checkpoints = CheckpointFolder(tmp_path, ["Net"])
    checkpoints.save(Moment(1), {"Net": {"epoch": 1}})
    checkpoints.paths(Moment(1))["Net"].unlink()
    for epoch in (2, 3, 4):
        checkpoints.save(Moment(epoch), {"Net": {"epoch": epoch}})
    assert names_in(tmp_path) == ["Net_checkpoint_3.pt", "Net_checkpoint_4.pt"]


def test_the_files_of_an_epoch_belong_together(tmp_path):
    checkpoints = CheckpointFolder(tmp_path, ["gen", "discrim"])
    for epoch in (1, 2, 3):
        checkpoints.save(Moment(epoch), {"gen": {"a": epoch}, "discrim": {"b": epoch}})
    expected = [f"{name}_checkpoint_{epoch}.pt" for name in ("discrim", "gen") for epoch in (2, 3)]
    assert names_in(tmp_path) == expected
    (tmp_path / "discrim_checkpoint_3.pt").unlink()  # as when saving was cut off between the two
    assert checkpoints.latest() == checkpoints.paths(Moment(2))
    assert load_checkpoint(checkpoints.paths(Moment(2))["discrim"]) == {"b": 2}


def test_an_epoch_saved_twice_counts_once(tmp_path):
    checkpoints = CheckpointFolder(tmp_path, ["Net"])
    for epoch in (1, 2, 2):
        checkpoints.save(Moment(epoch), {"Net": {"epoch": epoch}})
    assert names_in(tmp_path) == ["Net_checkpoint_1.pt", "Net_checkpoint_2.pt"]


def test_the_latest_checkpoint_has_the_largest_number(tmp_path):
    checkpoints = CheckpointFolder(tmp_path, ["Net"])
    assert checkpoints.latest() is None
    for epoch in (9, 10):
        checkpoints.save(Moment(epoch), {"Net": {"epoch": epoch}})
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
    checkpoints.save(Moment(1), {"Net": {"weights": torch.ones(3)}})
    state = {"weights": torch.zeros(3), "not to be saved": lambda: None}
    with pytest.raises((pickle.PicklingError, AttributeError)):
        checkpoints.save(Moment(1), {"Net": state})
    assert names_in(tmp_path) == ["Net_checkpoint_1.pt"]
    assert torch.equal(
        load_checkpoint(checkpoints.paths(Moment(1))["Net"])["weights"], torch.ones(3)
    )


def test_moments_are_in_the_order_of_training():
    moments = [Moment(1, 5), Moment(1, 10), Moment(1), Moment(2, 12), Moment(2), Moment(10)]
    assert sorted(moments, key=lambda moment: moment.suffix) != moments
    assert sorted(moments[3:] + moments[:3]) == moments


def test_checkpoints_in_the_middle_of_an_epoch_come_before_its_end(tmp_path):
    checkpoints = CheckpointFolder(tmp_path, ["Net"], milestones=(1, 2))
    kept = []
    for moment in (Moment(1), Moment(2, 5), Moment(2, 10), Moment(2), Moment(3, 15)):
        checkpoints.save(moment, {"Net": {"suffix": moment.suffix}})
        kept.append(names_in(tmp_path))
        newest = CheckpointFolder(tmp_path, ["Net"]).latest()
        assert load_checkpoint(newest["Net"]) == {"suffix": moment.suffix}
    assert kept == [
        [f"Net_checkpoint_{suffix}.pt" for suffix in suffixes]
        for suffixes in (
            ["1"],
            ["1", "2_step_5"],
            ["1", "2_step_10", "2_step_5"],
            ["1", "2", "2_step_10"],
            ["1", "2", "3_step_15"],
        )
    ], "the last two of all kinds, and milestones"


def test_a_resumed_training_removes_what_its_earlier_part_saved(tmp_path):
    (tmp_path / "Net_checkpoint_1.pt").write_text("somebody else's")
    first = CheckpointFolder(tmp_path, ["Net"])
    for moment in (Moment(2), Moment(3, 7)):
        first.save(moment, {"Net": {"folder": first.state_dict(moment)}})
    second = CheckpointFolder(tmp_path, ["Net"])
    second.load_state_dict(load_checkpoint(second.latest()["Net"])["folder"])
    second.save(Moment(3, 9), {"Net": {"epoch": 3}})
    assert names_in(tmp_path) == [
        f"Net_checkpoint_{suffix}.pt" for suffix in ("1", "3_step_7", "3_step_9")
    ]


def test_the_best_epoch_is_marked_and_kept_until_there_is_a_better_one(tmp_path):
    checkpoints = CheckpointFolder(tmp_path, ["gen", "discrim"])
    for epoch in range(1, 9):
        if epoch in (2, 7):
            checkpoints.best = Best(epoch=epoch, loss=1 / epoch, scope="val")
        checkpoints.save(Moment(epoch), {"gen": {"a": epoch}, "discrim": {"b": epoch}})
        if epoch == 6:
            assert {int(path.stem[-1]) for path in tmp_path.glob("*.pt")} == {2, 5, 6}
    assert {int(path.stem[-1]) for path in tmp_path.glob("*.pt")} == {7, 8}
    assert json.loads((tmp_path / "best.json").read_text()) == {
        "epoch": 7,
        "loss": 1 / 7,
        "scope": "val",
        "files": ["gen_checkpoint_7.pt", "discrim_checkpoint_7.pt"],
    }


def test_the_mark_goes_from_one_part_of_a_training_to_the_next(tmp_path):
    first = CheckpointFolder(tmp_path, ["Net"])
    first.best = Best(epoch=1, loss=0.5, scope="val_ema")
    for epoch in (1, 2):
        moment = Moment(epoch)
        first.save(moment, {"Net": {"folder": first.state_dict(moment)}})
    second = CheckpointFolder(tmp_path, ["Net"])
    second.load_state_dict(load_checkpoint(second.latest()["Net"])["folder"])
    for epoch in (3, 4, 5):
        second.save(Moment(epoch), {"Net": {"epoch": epoch}})
    assert second.best == first.best
    assert {path.name[-4] for path in tmp_path.glob("*.pt")} == {"1", "4", "5"}


@pytest.mark.parametrize("damage", [b"", b"garbage", b"PK\x03\x04 and then nothing", None])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_loudly(tmp_path, caplog, damage):
    checkpoints = CheckpointFolder(tmp_path, ["gen", "discrim"])
    for moment in (Moment(1), Moment(2, 5)):
        states = {name: {"weights": torch.rand(99)} for name in checkpoints.names}
        checkpoints.save(moment, states)
    assert checkpoints.latest_readable() == checkpoints.paths(Moment(2, 5))
    assert caplog.text == ""
    newest = checkpoints.paths(Moment(2, 5))["discrim"]
    newest.write_bytes(newest.read_bytes()[:-100] if damage is None else damage)
    before = checkpoints.paths(Moment(1))
    assert checkpoints.latest_readable() == before
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith(f"{newest}: not a readable checkpoint, or damaged (")
    assert warning.endswith(f"using {before['gen']} and {before['discrim']}, saved before it")


def test_where_all_checkpoints_are_damaged_the_newest_is_named(tmp_path):
    for epoch in (8, 9):
        (tmp_path / f"Net_checkpoint_{epoch}.pt").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"Net_checkpoint_9\.pt: not a readable checkpoint"):
        CheckpointFolder(tmp_path, ["Net"]).latest_readable()


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    leftovers = [".Net_checkpoint_2_step_8.pt.123.tmp", ".Other_checkpoint_1.pt.123.tmp"]
    for name in leftovers:
        (tmp_path / name).write_text("half a")
    CheckpointFolder(tmp_path, ["Net"]).save(Moment(3), {"Net": {"epoch": 3}})
    assert names_in(tmp_path) == [leftovers[1], "Net_checkpoint_3.pt"]
