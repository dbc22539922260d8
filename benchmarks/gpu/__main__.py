# SPDX-License-Identifier: BSD-3-Clause
"""Checks on a GPU what only a GPU can show, and how fast it is there; see scripts/gpu_check.sh.

Run from the repository's root: python -m benchmarks.gpu [--output FOLDER]
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.corpus import Corpus, make_corpus
from benchmarks.gpu.goals import performance
from benchmarks.gpu.report import FAILED, PASSED, SKIPPED, Result, table, verdict, write_report
from benchmarks.gpu.stages import MODELS, Plan, Stage
from common.cli import FlagParser, flag, flag_name
from common.files import check_folder

ROOT = Path(__file__).resolve().parents[2]
AMPERE = (8, 0)  # compute capability
LONGEST_NOTE = 2000  # room for every place where a step waits
FULL = {"num_clips": 480, "num_more": 2080, "num_phrases": 8, "longest_seconds": 9.0}  # the corpus
QUICK = {"num_clips": 4, "num_phrases": 1, "phrase_length": 16, "longest_seconds": 0.6}


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """GPU check: where, how much, how long."""

    output: Path = flag(Path("output/gpu_check"), short="-o", help="folder of the report")
    device: str = flag(
        "cuda",
        choices=("cuda", "cpu"),
        help="where to compute; cpu only tries the check itself, and skips what needs a GPU",
    )
    models: tuple[str, ...] = flag(tuple(MODELS), help="which to train, and to speak with")
    only: tuple[str, ...] = flag((), help="of the stages those whose names contain such a word")
    work: Path | None = flag(
        None, help="folder of corpus and checkpoints, which stages of later runs find there"
    )
    quick: bool = flag(False, help="tiny models and few steps")
    seconds: float = flag(480.0, help="time for all stages together; what is left then fails")

    def __post_init__(self) -> None:
        if not self.models or not set(self.models) <= MODELS.keys():
            raise ValueError(
                f"--models must be among {', '.join(MODELS)}, got {' '.join(self.models)!r}"
            )
        if self.seconds <= 0:
            raise ValueError(f"--seconds must be positive, got {self.seconds:g}")
        for name in ("output", "work"):
            if getattr(self, name) is not None:
                check_folder(getattr(self, name), flag_name(name))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stages and writes the report; returns the exit code."""
    end = time.monotonic()
    parser = FlagParser(__doc__.splitlines()[0], CheckConfig, prog="gpu_check")
    config = parser.build(CheckConfig, parser.parse(argv))
    end += config.seconds
    cuda = config.device == "cuda"
    if cuda and not torch.cuda.is_available():
        print(
            f"gpu_check: PyTorch {torch.__version__} finds no CUDA device, so nothing was checked; "
            "--device cpu --quick tries the check itself",
            file=sys.stderr,
        )
        return 2
    output = config.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    machine = describe_machine(cuda)
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    results = []
    with work_folder(config) as folder, (output / "log.txt").open("wb") as log:
        plan = Plan(
            corpus=Corpus(folder=folder / "corpus"),
            work=folder,
            output=output,
            cuda=cuda,
            ampere=cuda and torch.cuda.get_device_capability() >= AMPERE,
            models=config.models,
            quick=config.quick,
        )
        try:
            stages = chosen(plan.stages(), config.only)
        except ValueError as error:
            parser.error(str(error))
        provide(plan.corpus, QUICK if config.quick else FULL)
        for stage in stages:
            seconds = min(stage.share * config.seconds, end - time.monotonic())
            results.append(run_stage(stage, seconds, log))
            print(f"{results[-1].status:>7}  {stage.name}", flush=True)
            section = performance(machine, results)
            write_report(output, machine, results, section)  # whatever happens next
    print(f"\n{table(results)}\n\n{section}\n\n{verdict(results)}; the report is in {output}")
    return int(any(result.status == FAILED for result in results))


def describe_machine(cuda: bool) -> dict[str, Any]:
    """Facts that the numbers depend on."""
    facts = {
        "date": datetime.date.today().isoformat(),
        "device": "CPU",
        "torch": torch.__version__,
        "Python": platform.python_version(),
    }
    if not cuda:
        return facts
    properties = torch.cuda.get_device_properties(0)
    return facts | {
        "device": f"{torch.cuda.device_count()} x {properties.name}",
        "GiB": round(properties.total_memory / 2**30, 1),
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
    }


@contextlib.contextmanager
def work_folder(config: CheckConfig) -> Iterator[Path]:
    """The folder that stages work in; one of their own, which goes, where none is named."""
    if config.work is not None:  # full-size stages must not find what tiny ones left
        yield config.work.resolve() / ("quick" if config.quick else "full")
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def provide(corpus: Corpus, sizes: Mapping[str, Any]) -> None:
    """Makes a corpus, unless an earlier run has."""
    if corpus.folder.is_dir():
        return
    corpus.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=corpus.folder.parent) as unfinished:
        make_corpus(Path(unfinished) / "corpus", **sizes).folder.rename(corpus.folder)


def chosen(stages: Iterable[Stage], words: Sequence[str]) -> list[Stage]:
    """The stages whose names contain one of the words; all, where there are none.

    Raises:
        ValueError: no stage does
    """
    stages = list(stages)
    found = [stage for stage in stages if any(word in stage.name for word in words or ("",))]
    if not found:
        names = "; ".join(stage.name for stage in stages)
        raise ValueError(f"--only {' '.join(words)}: no stage is called so, but: {names}")
    return found


def run_stage(stage: Stage, seconds: float, log: Any) -> Result:
    """Runs a stage in a process of its own, which neither a crash nor a hang of it outlives.

    Args:
        stage: to run
        seconds: that it may take
        log: binary file that gets what the process prints
    """
    if stage.skipped:
        return Result(name=stage.name, status=SKIPPED, note=stage.skipped)
    if seconds <= 0:
        return Result(name=stage.name, status=FAILED, note="no time was left: raise --seconds")
    log.write(f"\n== {stage.name}\n$ python {' '.join(stage.command)}\n".encode())
    log.flush()
    begin, start = time.monotonic(), log.tell()
    process = subprocess.Popen(
        [sys.executable, *stage.command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    status, numbers, note = FAILED, {}, ""
    try:
        code = process.wait(seconds)
        if code:
            note = f"exit code {code}: {last_line(Path(log.name), start)}"
        else:
            numbers, note, is_failure = stage.read()
            status = FAILED if is_failure else PASSED
    except subprocess.TimeoutExpired:
        said = last_line(Path(log.name), start)
        note = f"did not end within {seconds:.0f} s, said at last: {said}"
    except (OSError, ValueError, KeyError, IndexError) as error:
        note = f"{type(error).__name__}: {error}"
    finally:
        stop(process)
    return Result(
        name=stage.name,
        status=status,
        seconds=time.monotonic() - begin,
        numbers=numbers,
        note=note[:LONGEST_NOTE],
    )


def stop(process: subprocess.Popen) -> None:
    """Ends a process that leads a session, and all that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_line(path: Path, start: int) -> str:
    """What a process said last, from an offset in the log on."""
    text = path.read_bytes()[start:].decode(errors="replace")
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "silent")


def leave_nothing_running() -> None:
    """Lets this process, when it is asked to end, end the stage that runs before."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


if __name__ == "__main__":
    leave_nothing_running()
    sys.exit(main())
