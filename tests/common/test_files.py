# SPDX-License-Identifier: BSD-3-Clause
"""Files are complete or not there."""

from __future__ import annotations

import os

import pytest

from common.files import atomic_path, check_file, check_folder


def test_a_file_takes_its_place_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "folder" / "mel.pt"
    with atomic_path(path) as temporary:
        temporary.write_text("complete")
        assert not path.exists()
        assert temporary.parent == path.parent, "a rename within a file system is atomic"
    assert path.read_text() == "complete"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("interruption", [ValueError, OSError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, interruption):
    path = tmp_path / "mel.pt"
    path.write_text("old")
    with pytest.raises(interruption), atomic_path(path) as temporary:
        temporary.write_text("half of the ne")
        raise interruption
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "mel.pt"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left"), atomic_path(path) as temporary:
        temporary.symlink_to("/dev/full")
        temporary.write_text("new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_and_files_that_can_be_written_pass_and_are_not_made(tmp_path):
    check_folder(tmp_path, "--output")
    check_folder(tmp_path / "new" / "folder", "--output")
    check_file(tmp_path / "new" / "log.json", "--log-file")
    (tmp_path / "old.json").touch()
    check_file(tmp_path / "old.json", "--log-file")
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]


def test_what_is_in_the_way_is_named(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "a" / "b"):
        with pytest.raises(ValueError, match=f"--output {folder} must be a folder, but {file} is"):
            check_folder(folder, "--output")
    with pytest.raises(ValueError, match=f"--log-file {tmp_path} must be a file, but is a folder"):
        check_file(tmp_path, "--log-file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match=r"--output .*/new cannot be written: .* allows no new"):
        check_folder(tmp_path / "new", "--output")
    tmp_path.chmod(0o700)
