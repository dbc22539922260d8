# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark of batches prints its table, and the plain way makes the same batches."""

from __future__ import annotations

import logging

import pytest
import torch

from benchmarks import loader as benchmark
from benchmarks.corpus import make_corpus
from common.text import TextProcessor
from tests.conftest import assert_same

TINY = ["--clips", "6", "--slow-clips", "4", "--startup-clips", "9", "--runs", "1"]


def test_the_table_has_a_line_for_each_way_and_the_time_to_start(capsys):
    assert benchmark.main([*TINY, "--batch-size", "2", "--num-workers", "1"]) == 0
    printed = capsys.readouterr().out
    lines = [line.split("|")[1:3] for line in printed.splitlines() if line.startswith("| ")][1:]
    assert [(name.strip(), processes.strip()) for name, processes in lines] == [
        ("plain, a file per clip", "1"),
        ("a file per clip", "1"),
        ("mels computed from audio", "1"),
        ("packed, with processes", "1"),
        ("packed, without a thread", "0"),
        ("packed", "0"),
        ("batches of 9 clips", "padding, % of frames"),
        ("shuffled", lines[7][1].strip()),
        ("--bucket", lines[8][1].strip()),
        (lines[9][0].strip(), lines[9][1].strip()),
    ]
    assert lines[9][0].startswith(" --max-batch-frames")
    assert float(lines[7][1]) > float(lines[8][1])
    assert "Start-up on 9 clips: " in printed


def test_all_that_read_mels_make_the_same_batches(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    text = TextProcessor(benchmark.TEXT)
    utterances, data = make_corpus(tmp_path, 3, benchmark.AUDIO, text)
    sizes = {"clips": 3, "slow_clips": 3, "batch_size": 3, "num_workers": 0}
    config = benchmark.BenchmarkConfig(**sizes)
    plain, from_files, from_audio, *_, packed = benchmark.make_ways(utterances, data, text, config)
    assert "read from the packed files" in caplog.text
    (expected,), (ours,), (fast,) = (list(way.loader) for way in (plain, from_files, packed))
    for batch in (ours, fast):
        for name in ("text", "text_lens", "mel", "mel_lens", "energy", "prior", "speaker"):
            assert_same(getattr(batch, name), getattr(expected, name))
        torch.testing.assert_close(batch.pitch, expected.pitch)
    (computed,) = from_audio.loader
    assert_same(computed.mel_lens, expected.mel_lens)


@pytest.mark.parametrize("flag", ["--clips", "--runs", "--batch-size"])
def test_numbers_that_measure_nothing_are_refused(flag, capsys):
    with pytest.raises(SystemExit):
        benchmark.main([flag, "0"])
    assert f"{flag} must be 1 or more, got 0" in capsys.readouterr().err


def test_a_negative_number_of_processes_is_refused(capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--num-workers", "-1"])
    assert "--num-workers must not be negative, got -1" in capsys.readouterr().err
