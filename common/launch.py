# SPDX-License-Identifier: BSD-3-Clause
"""What the training commands share around their own work: how to begin, report and end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from common.bad_steps import TrainingFailed
from common.checkpoint_folder import CheckpointFolder
from common.cli import FlagParser
from common.config import RunConfig
from common.distributed import Processes
from common.files import check_file, check_folder
from common.heap import keep_freed_memory
from common.precision import set_tf32
from common.rehearsal import OutOfMemory
from common.signals import StopRequest
from common.tb_dllogger import FileLogger, NullLogger, TrainingLogger, configure_console
from common.trainer import Trainer

logger = logging.getLogger(__name__)

Begin = Callable[[FlagParser, Mapping[str, Any], Processes], Trainer]


def run_training(parser: FlagParser, argv: Sequence[str] | None, begin: Begin) -> None:
    """A training command: reads the flags, begins and trains to the end.

    What cannot be begun ends with code 2 and a sentence. Of the checkpoint that it begins with,
    nothing stays in memory.

    Args:
        argv: the command's words; those of this process if not given
        begin: puts a Trainer together from the parser and what it was given
    """
    configure_console()
    given = parser.parse(argv)
    with StopRequest() as stop:
        try:
            run = parser.build(RunConfig, given)
            processes = Processes(run.cuda)
            check_outputs(run)
            trainer = begin(parser, given, processes)
        except (ValueError, OSError) as error:
            parser.error(str(error))
        train_to_end(trainer, parser.prog, stop)


def checkpoint_to_resume(run: RunConfig, names: Sequence[str]) -> dict[str, Path] | None:
    """The newest checkpoint in `--output` if `--resume` asks for it; None where there is none.

    Where a file of it is damaged, it is the one before, with a warning. After a restart by torchrun
    it is the same: what is in the folder may be another training, which was refused before.

    Args:
        names: of a checkpoint's files

    Raises:
        ValueError: without `--resume`, an earlier training would be overwritten; with it, all
            checkpoints are damaged
    """
    folder = CheckpointFolder(run.output, names)
    if run.resume:
        try:
            newest = folder.latest_readable()
        except ValueError as error:
            raise ValueError(f"--resume {error}") from error
        if newest is None:
            logger.info("No checkpoint in %s to resume from: starting anew", run.output)
        return newest
    latest = folder.latest()
    if latest is not None and run.epochs > 0:
        raise ValueError(
            f"--output {run.output} holds {latest[names[0]].name} of an earlier training: "
            "continue it with --resume, or choose another folder"
        )
    return None


def check_outputs(run: RunConfig) -> None:
    """Refuses paths that cannot be written, before any work is done."""
    check_folder(run.output, "--output")
    if run.log_file is not None:
        check_file(run.log_file, "--log-file")


def check_steps(run: RunConfig, num_clips: int, processes: Processes) -> None:
    """Refuses data that does not fill one optimizer step."""
    clips_per_step = run.batch_size * run.grad_accumulation * processes.world_size
    if run.epochs > 0 and num_clips < clips_per_step:
        raise ValueError(
            f"{num_clips} training clips do not fill one step of --batch-size "
            f"{run.batch_size} x --grad-accumulation {run.grad_accumulation} x "
            f"{processes.world_size} processes: lower --batch-size or --grad-accumulation"
        )


def set_up_torch(run: RunConfig, processes: Processes) -> None:
    """Seeds random numbers, which differ between processes and repeat in every run, lets a GPU
    compute as the flags say, and memory on a CPU be used again."""
    torch.manual_seed(run.seed + processes.rank)
    torch.backends.cudnn.benchmark = run.cudnn_benchmark
    set_tf32(not run.no_tf32, processes.device)
    if processes.device.type == "cpu":
        keep_freed_memory()


def make_report(run: RunConfig, settings: Any, processes: Processes) -> TrainingLogger:
    """Where this process reports to, told every setting of the run.

    Args:
        settings: a dataclass of configs, whose fields are named by their flags
    """
    report = FileLogger(run.output, run.log_file) if processes.is_main else NullLogger()
    groups = (vars(config) for config in vars(settings).values())
    report.parameters({name: value for group in groups for name, value in group.items()})
    return report


def train_to_end(trainer: Trainer, program: str, stop: StopRequest) -> None:
    """Trains, and ends this process where it is one of several or training failed.

    The exit code is 0 when training is done or a signal asked to stop, 130 when it was interrupted,
    and 1 when anything else ended it.
    """
    code = _exit_code(lambda: trainer.fit(stop), program)
    trainer.progress_line.end_epoch()
    closing = _exit_code(trainer.report.close, program)
    trainer.processes.end(code or closing)


def _exit_code(work: Callable[[], None], program: str) -> int:
    """What a process is to end with after this work, which may fail in any way."""
    try:
        with logging_redirect_tqdm():  # lines come above the progress line, not into it
            work()
    except KeyboardInterrupt:
        logger.warning("Interrupted: the same command with --resume continues")
        return 130
    except (ValueError, OSError, TrainingFailed, OutOfMemory) as error:
        logger.error("%s: stopped: %s", program, _sentence_of(error))
        return 1
    except Exception:  # another process may have failed, which is no reason to wait for it
        logger.exception("%s: stopped", program)
        return 1
    return 0


def _sentence_of(error: Exception) -> str:
    """What an error says, without the traceback that a DataLoader's worker puts before it."""
    return str(error).rpartition(f"\n{type(error).__name__}: ")[2].strip()
