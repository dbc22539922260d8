# SPDX-License-Identifier: BSD-3-Clause
"""Logs: DLLogger lines in a file, TensorBoard, and plain words on the console."""

from __future__ import annotations

import datetime
import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from common.distributed import own_rank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

ENTRY_POINTS = ("__main__", "train", "inference", "prepare_dataset", "evaluate")

Step = tuple[int, ...]  # (epoch, iteration, iterations), (epoch,) or () for a whole run


class JsonLines:
    """Appends DLLogger lines to a file: `DLLL {json}`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._start = time.time()

    def log(self, step: Step | str, data: Mapping[str, Any]) -> None:
        """Writes one line."""
        now = time.time()
        event = {
            "timestamp": str(now),
            "datetime": str(datetime.datetime.fromtimestamp(now)),
            "elapsedtime": str(now - self._start),
            "type": "LOG",
            "step": step,
            "data": data,
        }
        self._file.write(f"DLLL {json.dumps(event)}\n")

    def flush(self) -> None:
        """Makes the lines visible to readers."""
        self._file.flush()


def open_json_log(path: Path) -> JsonLines:
    """A log of DLLogger lines: DLLogger's own where it is installed, else the same lines by us."""
    try:
        # The package of this name on the registry is an empty placeholder without these names.
        from dllogger import JSONStreamBackend, Logger, Verbosity
    except ImportError:
        return JsonLines(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return Logger([JSONStreamBackend(Verbosity.DEFAULT, str(path), append=True)])
    except TypeError:  # an old DLLogger, which would empty an existing file
        return JsonLines(path)


class TrainingLogger(Protocol):
    """Where a training run reports to."""

    def parameters(self, settings: Mapping[str, Any]) -> None:
        """Records every setting of the run."""

    def log(
        self, scope: str, step: Step, metrics: Mapping[str, float], num_steps: int | None = None
    ) -> None:
        """Records numbers of a scope: train, train_avg, val or val_ema.

        Args:
            num_steps: of the optimizer since the beginning, where numbers are of a step; an epoch
                may have another number of them after a resume
        """

    def figure(self, name: str, figure: Figure, epoch: int) -> None:
        """Shows a picture."""

    def audio(self, name: str, audio: Tensor, sampling_rate: int, epoch: int) -> None:
        """Lets hear audio, (T_audio,) in [-1, 1]."""

    def flush(self) -> None:
        """Writes what came so far, so that it outlives this process."""

    def close(self) -> None:
        """Writes what is left."""


class NullLogger:
    """Reports nowhere; for all processes but the first."""

    def parameters(self, settings: Mapping[str, Any]) -> None: ...

    def log(
        self, scope: str, step: Step, metrics: Mapping[str, float], num_steps: int | None = None
    ) -> None: ...

    def figure(self, name: str, figure: Figure, epoch: int) -> None: ...

    def audio(self, name: str, audio: Tensor, sampling_rate: int, epoch: int) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class FileLogger:
    """Reports to a file of DLLogger lines, to TensorBoard and, each epoch, to the console.

    Args:
        output: folder; TensorBoard's files go into its `tensorboard`
        log_file: of the DLLogger lines; `nvlog.json` in `output` if not given
    """

    def __init__(self, output: Path, log_file: Path | None = None) -> None:
        # Slow to import, and only this process needs it.
        from torch.utils.tensorboard import SummaryWriter

        self._json = open_json_log(log_file or output / "nvlog.json")
        self._tensorboard = SummaryWriter(str(output / "tensorboard"))

    def parameters(self, settings: Mapping[str, Any]) -> None:
        """Records every setting of the run."""
        # DLLogger knows JSON's own types only; paths become strings
        self._json.log("PARAMETER", json.loads(json.dumps(dict(settings), default=str)))
        self._json.flush()

    def log(
        self, scope: str, step: Step, metrics: Mapping[str, float], num_steps: int | None = None
    ) -> None:
        """Records numbers under `<scope>_<name>`; TensorBoard's curves are over `num_steps`, or
        over epochs."""
        self._json.log(step, {f"{scope}_{name}": value for name, value in metrics.items()})
        if step:  # numbers of a whole run have no place on a curve
            place = step[0] if num_steps is None else num_steps
            for name, value in metrics.items():
                self._tensorboard.add_scalar(f"{scope}/{name}", value, place)
        if len(step) < 3:
            self._json.flush()
            logger.info("%s", _console_line(scope, step, metrics))

    def figure(self, name: str, figure: Figure, epoch: int) -> None:
        """Shows a picture in TensorBoard."""
        self._tensorboard.add_figure(name, figure, epoch)

    def audio(self, name: str, audio: Tensor, sampling_rate: int, epoch: int) -> None:
        """Lets hear audio in TensorBoard, (T_audio,) in [-1, 1]."""
        self._tensorboard.add_audio(name, audio, epoch, sampling_rate)

    def flush(self) -> None:
        """Writes what came so far, so that it outlives this process."""
        self._json.flush()
        self._tensorboard.flush()

    def close(self) -> None:
        """Writes what is left."""
        self._json.flush()
        self._tensorboard.close()


def configure_console() -> None:
    """Sends the words of all modules to standard error, where progress bars are, too; of several
    processes, all but the first only warn."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    level = logging.INFO if own_rank() == 0 else logging.WARNING
    for name in ("common", "fastpitch", "hifigan", "waveglow", "models", *ENTRY_POINTS):
        logging.getLogger(name).setLevel(level)


def _console_line(scope: str, step: Step, metrics: Mapping[str, float]) -> str:
    where = f"epoch {step[0]:4d}" if step else "whole run "
    numbers = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    return f"{where} {scope:>9}  {numbers}"
