# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark of preparation prints its table, and its plain loop writes the same features."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import prepare_dataset
from benchmarks import preparation as benchmark
from benchmarks.plain.preparation import prepare_plainly
from benchmarks.processes import PeakMemory
from benchmarks.speech import generate_speech
from common.audio import write_wav
from common.config import AudioConfig

TINY = ["--seconds", "0.5", "--clips", "3", "--plain-clips", "1", "--processes", "1", "--runs", "1"]


def test_the_table_compares_both_ways(capsys, monkeypatch, tmp_path):
    # Its processes have a cache to themselves: where others compiled for the same one meanwhile, on
    # a machine where nothing was compiled yet, one once ended by a segmentation fault.
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert benchmark.main(TINY) == 0
    printed = capsys.readouterr().out
    rows = [line.split("|")[1:3] for line in printed.splitlines() if line.startswith("| ")]
    assert [[cell.strip() for cell in row] for row in rows[1:]] == [
        ["plain loop over files", "1"],
        ["prepare_dataset.py", "3"],
    ]
    assert "with nothing left to do" in printed


def test_folders_without_audio_are_a_sentence(tmp_path, capsys):
    assert benchmark.main([*TINY, "--audio", str(tmp_path)]) == 1
    assert "expected WAV or FLAC files, got none" in capsys.readouterr().err


def test_the_plain_loop_writes_the_features_that_the_command_writes(tmp_path):
    for folder in ("wavs", "plain/mels", "plain/pitch"):
        (tmp_path / folder).mkdir(parents=True)
    write_wav(tmp_path / "wavs/a.wav", generate_speech(1.0, 22050, seed=0), 22050)
    filelist = tmp_path / "list.txt"
    filelist.write_text("wavs/a.wav|Hello.\n")
    flags = ["-d", str(tmp_path), "--wav-text-filelists", str(filelist)]
    assert prepare_dataset.main([*flags, "--extract-mels", "--extract-pitch"]) == 0
    prepare_plainly(tmp_path / "wavs/a.wav", tmp_path / "plain", AudioConfig())
    for feature in ("mels", "pitch"):
        ours, plain = (torch.load(tmp_path / f / feature / "a.pt") for f in ("", "plain"))
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_the_memory_of_a_process_below_is_seen(tmp_path):
    memory = PeakMemory()
    with memory.watch():
        subprocess.run(
            [sys.executable, "-c", "b = b'1' * 200_000_000; import time; time.sleep(0.5)"],
            check=True,
        )
    assert 190 < memory.megabytes < 400
