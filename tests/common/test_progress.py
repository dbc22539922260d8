# SPDX-License-Identifier: BSD-3-Clause
"""The progress line, on a terminal and elsewhere."""

from __future__ import annotations

import io
import logging

import pytest

from common.progress import ProgressLine, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def took(seconds: float, loss: float, frames_per_s: float) -> dict[str, float]:
    return {"took": seconds, "loss": loss, "frames/s": frames_per_s}


def terminal_in(monkeypatch) -> Terminal:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    return stream


def test_a_terminal_sees_a_line_that_moves_and_goes_away(monkeypatch):
    terminal = terminal_in(monkeypatch)
    line = ProgressLine(num_epochs=3, steps_per_epoch=4)
    for iteration in (1, 2):
        line.update(2, iteration, took(10, 0.5, 12345))
    assert "epoch 2/3 step 2/4 |" in terminal.getvalue()
    assert "loss 0.5, 12,345 frames/s, 0:01:00 left" in terminal.getvalue()
    assert "\n" not in terminal.getvalue()
    line.end_epoch()
    assert terminal.getvalue().endswith("\r"), "the next words begin at the edge"


def test_without_a_terminal_there_are_plain_lines_now_and_then(caplog):
    caplog.set_level(logging.INFO)
    line = ProgressLine(num_epochs=2, steps_per_epoch=100, seconds_between_lines=0)
    line.update(1, 1, took(2, 1.25, 1000))
    assert caplog.messages == ["epoch 1/2 step 1/100: loss 1.25, 1,000 frames/s, 0:06:38 left"]
    rare = ProgressLine(num_epochs=2, steps_per_epoch=100, seconds_between_lines=3600)
    rare.update(1, 1, took(2, 1.25, 1000))
    assert len(caplog.messages) == 1


def test_no_more_time_is_left_than_training_may_take(caplog):
    caplog.set_level(logging.INFO)
    line = ProgressLine(num_epochs=9, steps_per_epoch=100, seconds_between_lines=0)
    line.update(1, 1, took(2, 1.25, 1000), 61.0)
    assert caplog.messages[0].endswith(", 0:01:01 left")


def test_a_slow_first_step_is_forgotten():
    line = ProgressLine(num_epochs=1, steps_per_epoch=1001, seconds_between_lines=1e9)
    line.update(1, 1, took(100, 1, 1))
    for iteration in range(2, 202):
        line.update(1, iteration, took(1, 1, 1))
    assert line.seconds_left(1, 201) == pytest.approx(800, rel=0.02)


def test_other_processes_are_silent(monkeypatch):
    terminal = terminal_in(monkeypatch)
    line = ProgressLine(num_epochs=1, steps_per_epoch=2, is_shown=False)
    line.update(1, 1, took(1, 1, 1))
    line.end_epoch()
    assert terminal.getvalue() == ""


def test_durations_are_hours_minutes_and_seconds():
    assert duration(3723.4) == "1:02:03"
    assert duration(90_000) == "1 day, 1:00:00"
