# SPDX-License-Identifier: BSD-3-Clause
"""`python -m common.text`, run as a user would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "common.text"]


def run(text: bytes, *flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*COMMAND, *flags], input=text, capture_output=True, cwd=ROOT, check=False
    )


def test_each_line_becomes_a_json_line():
    result = run("Dr. Who\n\nüber 😀".encode())
    assert result.returncode == 0, result.stderr
    first, empty, last = map(json.loads, result.stdout.decode().splitlines())
    assert first["clean"] == "doctor who"
    assert len(first["ids"]) == len("doctor who")
    assert empty == {"clean": "", "arpabet": "", "ids": []}
    assert last["clean"] == "ueber 😀"
    assert last["dropped"] == "😀"


def test_flags_choose_the_settings_with_dashes_or_underscores():
    result = run(b"Hello NASA", "--p-arpabet", "1", "--text_cleaners", "basic_cleaners")
    reading = json.loads(result.stdout)
    assert reading["clean"] == "hello nasa"
    assert reading["arpabet"].endswith("{N AE1 S AH0}")


def test_the_seed_decides_which_words_become_phonemes():
    text = b"one two three four five six seven eight nine ten"
    seeded = [run(text, "--p-arpabet", "0.5", "--seed", seed).stdout for seed in "112"]
    assert seeded[0] == seeded[1] != seeded[2]


def test_no_input_is_no_output():
    result = run(b"")
    assert (result.returncode, result.stdout) == (0, b"")


def test_wrong_values_exit_with_code_2_and_a_sentence():
    for flags, sentence in (
        (["--symbol-set", "klingon"], b"--symbol-set must be one of english_basic"),
        (["--text-cleaners", "klingon"], b"--text-cleaners must be among basic_cleaners"),
        (["--p-arpabet", "1.5"], b"--p-arpabet must lie in [0, 1], got 1.5"),
        (["--p-arpabet", "1", "--cmudict-path", "absent"], b"absent does not exist"),
    ):
        result = run(b"hello", *flags)
        assert result.returncode == 2
        assert sentence in result.stderr
        assert b"Traceback" not in result.stderr


def test_mistakes_are_told_under_the_name_it_is_called_by():
    assert b"python -m common.text: error: " in run(b"hello", "--nonsense").stderr


def test_bytes_that_are_not_utf8_are_refused_with_their_line():
    result = run(b"fine\ncaf\xe9\n")
    assert result.returncode == 2
    assert b"standard input, line 2, is not UTF-8 text" in result.stderr
    assert json.loads(result.stdout)["clean"] == "fine"


def test_a_reader_that_leaves_is_no_error():
    with subprocess.Popen(
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        process.stdout.close()
        process.stdin.write(b"hello world\n" * 5000)
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
