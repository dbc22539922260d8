# SPDX-License-Identifier: BSD-3-Clause
"""Logs can be read back: DLLogger lines, with DLLogger or without, and TensorBoard."""

from __future__ import annotations

import datetime
import json
import logging
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.tb_dllogger import (
    FileLogger,
    JsonLines,
    NullLogger,
    configure_console,
    open_json_log,
)

# A DLLogger with the interface of the real one, which NGC containers hold.
DLLOGGER = """
import atexit, json, time
from datetime import datetime


class Verbosity:
    OFF, DEFAULT, VERBOSE = -1, 0, 1


class JSONStreamBackend:
    def __init__(self, verbosity, filename, append=False):
        self.verbosity = verbosity
        self.file = open(filename, "a" if append else "w")

    def log(self, timestamp, elapsedtime, step, data):
        event = dict(
            timestamp=str(timestamp.timestamp()),
            datetime=str(timestamp),
            elapsedtime=str(elapsedtime),
            type="LOG",
            step=step,
            data=data,
            by="dllogger",
        )
        self.file.write("DLLL {}\\n".format(json.dumps(event)))

    def flush(self):
        self.file.flush()


class Logger:
    def __init__(self, backends):
        self.backends = backends
        self.start = datetime.now()
        atexit.register(self.flush)

    def log(self, step, data, verbosity=1):
        now = datetime.now()
        for backend in self.backends:
            if backend.verbosity <= verbosity:
                backend.log(now, (now - self.start).total_seconds(), step, data)

    def flush(self):
        for backend in self.backends:
            backend.flush()
"""


@pytest.fixture(params=["without", "placeholder", "with"])
def dllogger(request, tmp_path, monkeypatch) -> str:
    """A machine without DLLogger, with the registry's placeholder, or with the real interface."""
    site = tmp_path / "site"
    site.mkdir()
    if request.param == "placeholder":
        (site / "dllogger.py").write_text("")
    if request.param == "with":
        (site / "dllogger.py").write_text(DLLOGGER)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "dllogger", raising=False)
    if request.param == "without":
        monkeypatch.setitem(sys.modules, "dllogger", None)
    yield request.param
    sys.modules.pop("dllogger", None)


def events_in(path: Path) -> list[dict]:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all(line.startswith("DLLL {") for line in lines)
    return [json.loads(line.removeprefix("DLLL ")) for line in lines]


def scalars_in(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def test_a_line_has_the_fields_of_dllogger(tmp_path):
    log = JsonLines(tmp_path / "new" / "nvlog.json")
    log.log("PARAMETER", {"text_cleaners": ("english_cleaners",)})
    log.log((3,), {"val_loss": 1.5})
    log.flush()
    parameters, validation = events_in(tmp_path / "new" / "nvlog.json")
    assert set(parameters) == {"timestamp", "datetime", "elapsedtime", "type", "step", "data"}
    for name in ("timestamp", "datetime", "elapsedtime"):
        assert type(parameters[name]) is str
    written = datetime.datetime.fromisoformat(parameters["datetime"]).timestamp()
    assert written == pytest.approx(float(parameters["timestamp"]), abs=1e-3)
    assert 0 <= float(parameters["elapsedtime"]) <= float(validation["elapsedtime"]) < 60
    assert parameters["type"] == "LOG"
    assert validation["step"] == [3]
    assert validation["data"] == {"val_loss": 1.5}


def test_every_kind_of_step_is_logged_with_or_without_dllogger(tmp_path, dllogger):
    report = FileLogger(tmp_path / "out")
    report.parameters({"output": Path("out"), "files": (Path("a.txt"),), "lr": 0.1, "x": None})
    report.log("train", (1, 2, 5), {"loss": 2.0, "frames/s": 100.0}, 2)
    report.log("train_avg", (1,), {"loss": 3.0})
    report.log("val", (1,), {"loss": 4.0})
    report.log("val_ema", (1,), {"loss": 5.0})
    report.log("train_avg", (), {"loss": 6.0})
    report.close()
    events = events_in(tmp_path / "out" / "nvlog.json")
    assert [(event["step"], event["data"]) for event in events] == [
        ("PARAMETER", {"output": "out", "files": ["a.txt"], "lr": 0.1, "x": None}),
        ([1, 2, 5], {"train_loss": 2.0, "train_frames/s": 100.0}),
        ([1], {"train_avg_loss": 3.0}),
        ([1], {"val_loss": 4.0}),
        ([1], {"val_ema_loss": 5.0}),
        ([], {"train_avg_loss": 6.0}),
    ]
    assert all(("by" in event) == (dllogger == "with") for event in events)


def test_a_resumed_run_appends_to_its_log(tmp_path, dllogger):
    for epoch in (1, 2):
        log = open_json_log(tmp_path / "nvlog.json")
        log.log((epoch,), {"val_loss": 1.0})
        log.flush()
    assert [event["step"] for event in events_in(tmp_path / "nvlog.json")] == [[1], [2]]


def test_an_old_dllogger_that_would_empty_the_log_is_not_used(tmp_path, monkeypatch):
    old = DLLOGGER.replace(", append=False", "").replace('"a" if append else "w"', '"w"')
    (tmp_path / "dllogger.py").write_text(old)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "dllogger", raising=False)
    path = tmp_path / "nvlog.json"
    path.write_text("DLLL {}\n")
    assert isinstance(open_json_log(path), JsonLines)
    assert path.read_text() == "DLLL {}\n"
    monkeypatch.delitem(sys.modules, "dllogger")


def test_the_log_file_may_be_elsewhere(tmp_path):
    report = FileLogger(tmp_path / "out", tmp_path / "logs" / "mine.json")
    report.parameters({"seed": 1})
    report.close()
    assert events_in(tmp_path / "logs" / "mine.json")[0]["data"] == {"seed": 1}
    assert not (tmp_path / "out" / "nvlog.json").exists()


def test_an_epoch_is_visible_in_the_log_as_soon_as_it_is_over(tmp_path):
    report = FileLogger(tmp_path)
    report.log("val", (1,), {"loss": 1.0})
    assert len(events_in(tmp_path / "nvlog.json")) == 1
    report.close()


def test_tensorboard_shows_curves_over_steps_and_epochs(tmp_path):
    report = FileLogger(tmp_path)
    num_steps = 0
    for epoch, iterations in ((1, 3), (2, 2)):  # of twice as many clips after a resume
        for iteration in range(1, iterations + 1):
            num_steps += 1
            where = (epoch, iteration, iterations)
            report.log("train", where, {"loss": 10.0 * epoch + iteration}, num_steps)
        report.log("train_avg", (epoch,), {"loss": 10.0 * epoch})
        report.log("val", (epoch,), {"loss": 0.5 * epoch})
    report.log("train_avg", (), {"loss": 15.0})
    report.close()
    assert scalars_in(tmp_path / "tensorboard") == {
        "train/loss": [(1, 11), (2, 12), (3, 13), (4, 21), (5, 22)],
        "train_avg/loss": [(1, 10), (2, 20)],
        "val/loss": [(1, 0.5), (2, 1)],
    }


def test_tensorboard_shows_pictures_and_plays_audio(tmp_path):
    report = FileLogger(tmp_path)
    report.figure("mel", Figure(figsize=(1, 1)), 2)
    report.audio("voice", torch.linspace(-1, 1, 1000), 22050, 2)
    report.close()
    accumulator = EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    (picture,) = accumulator.Images("mel")
    (audio,) = accumulator.Audio("voice")
    assert (picture.step, audio.step) == (2, 2)
    assert (audio.sample_rate, audio.length_frames) == (22050, 1000)


def test_the_console_hears_of_epochs_not_of_steps(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    report = FileLogger(tmp_path)
    report.log("train", (1, 1, 2), {"loss": 2.0}, 1)
    report.log("val", (7,), {"loss": 1.25, "mel_loss": 0.5})
    report.log("train_avg", (), {"loss": 2.5})
    report.close()
    assert [record.getMessage().split() for record in caplog.records] == [
        ["epoch", "7", "val", "loss", "1.25", "mel_loss", "0.5"],
        ["whole", "run", "train_avg", "loss", "2.5"],
    ]


@pytest.mark.parametrize(("rank", "tells"), [("0", True), ("1", False)])
def test_of_several_processes_one_tells_and_all_warn(monkeypatch, rank, tells):
    monkeypatch.setenv("RANK", rank)
    configure_console()
    try:
        for name in ("common.trainer", "fastpitch.task", "prepare_dataset"):
            assert logging.getLogger(name).isEnabledFor(logging.INFO) == tells
            assert logging.getLogger(name).isEnabledFor(logging.WARNING)
    finally:
        monkeypatch.delenv("RANK")
        configure_console()


def test_the_null_logger_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = NullLogger()
    report.parameters({"seed": 1})
    report.log("train", (1,), {"loss": 1.0})
    report.figure("mel", Figure(), 1)
    report.audio("voice", torch.zeros(3), 22050, 1)
    report.close()
    assert list(tmp_path.iterdir()) == []
