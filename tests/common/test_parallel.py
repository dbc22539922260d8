# SPDX-License-Identifier: BSD-3-Clause
"""Many clips, one function: results come through, and somebody is told how far they are."""

from __future__ import annotations

import logging
import os

from common.parallel import import_ahead, run_parallel, show_progress


def test_progress_passes_results_on_and_ends_with_a_line(caplog):
    caplog.set_level(logging.INFO)
    results = run_parallel(abs, [-3, 2, -1], num_workers=1)
    assert [*show_progress(results, 3, "measured")] == [(0, 3), (1, 2), (2, 1)]
    (line,) = caplog.messages
    assert line.startswith("measured 3 of 3 clips, ") and line.endswith(" 0 s left")


def test_work_begins_on_what_was_imported_ahead():
    import_ahead(os.path.basename)
    results = run_parallel(os.path.basename, ["a/b", "c/d", "e/f"], num_workers=2)
    assert dict(results) == {0: "b", 1: "d", 2: "f"}


def test_no_clips_are_no_line(caplog):
    caplog.set_level(logging.INFO)
    assert [*show_progress(iter([]), 0, "measured")] == []
    assert caplog.messages == []


def test_no_progress_is_shown_where_the_log_is_for_warnings(caplog, monkeypatch, capfd):
    caplog.set_level(logging.WARNING, logger="common.parallel")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert [*show_progress(iter([1, 2]), 2, "measured")] == [1, 2]
    assert caplog.messages == [] and capfd.readouterr().err == ""
