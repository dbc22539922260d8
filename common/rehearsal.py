# SPDX-License-Identifier: BSD-3-Clause
"""The most expensive step, tried before training, and what to do where memory is short."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from common.config import RunConfig
from common.distributed import Processes
from common.metrics import Stopwatch, pop_peak_memory
from common.random_state import random_state_kept

if TYPE_CHECKING:
    from common.task import Progress, Task

logger = logging.getLogger(__name__)

NO_MEMORY = ("can't allocate memory", "not enough memory")  # as PyTorch says it of the CPU's


class OutOfMemory(RuntimeError):  # noqa: N818 -- what happened, said where it is caught
    """Work does not fit into memory; the text says what would."""


def rehearse(
    task: Task,
    largest_batch: Any,
    progress: Progress,
    run: RunConfig,
    processes: Processes,
    max_frames: int | None = None,
) -> None:
    """Runs training steps with the largest batch, after which everything is as before.

    What a step changes is restored as it is when a training is continued: from the task's own
    state, kept on the CPU meanwhile.

    Args:
        largest_batch: a micro-batch that no other needs more memory than
        progress: of the first step to come
        run: how many micro-batches are a step
        processes: that train together
        max_frames: of `--max-batch-frames`

    Raises:
        OutOfMemory: a step does not fit
        ValueError: a step cannot be compiled on this machine
    """
    device = processes.device
    micro_batches = [largest_batch.to(device)] * min(run.grad_accumulation, 2)
    state = on_cpu(task.state_dict(progress))
    # The second has what the optimizer keeps beside its activations; a CPU's memory is larger.
    num_steps = 2 if device.type == "cuda" else 1
    watch = Stopwatch(device)
    with random_state_kept(device):
        for _ in range(num_steps):
            advice = batch_advice(run, max_frames)
            with (
                explaining_failed_compilation(run),
                explaining_short_memory("the largest batch", device, advice),
            ):
                task.train_step(micro_batches, progress)
    seconds = watch.seconds / num_steps / len(micro_batches)
    task.load_state_dict(state, dict.fromkeys(task.files, "the state before training"))
    if processes.is_main:
        peak = pop_peak_memory(device)
        memory = "".join(f", {gib:.3g} GiB of GPU memory" for gib in peak.values())
        logger.info("The largest batch takes %.3g s%s", seconds, memory)


@contextlib.contextmanager
def explaining_short_memory(what: str, device: torch.device, advice: str) -> Iterator[None]:
    """Region of work that may not fit into memory.

    Args:
        what: the work
        device: whose memory
        advice: what it is that does not fit, and what makes it fit

    Raises:
        OutOfMemory: it did not fit
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        where = "this machine"
        if device.type == "cuda":
            gpu = torch.cuda.get_device_properties(device)
            where = f"{gpu.name} with {gpu.total_memory / 2**30:.0f} GiB"
        raise OutOfMemory(f"{what}: out of memory on {where} {advice}") from error


@contextlib.contextmanager
def explaining_failed_compilation(run: RunConfig) -> Iterator[None]:
    """Region of a step that `--compile` may have compiled.

    Raises:
        ValueError: it cannot be; PyTorch needs a compiler of C++, and Triton on a GPU
    """
    try:
        yield
    except RuntimeError as error:
        if not run.compile:
            raise
        from torch._dynamo.exc import TorchDynamoException  # takes a second

        if not isinstance(error, TorchDynamoException):
            raise
        said = str(error).partition("\n\n")[0]
        raise ValueError(f"--compile: leave it out, PyTorch cannot compile here: {said}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of PyTorch says that memory is short, of a GPU or of the machine."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def batch_advice(run: RunConfig, max_frames: int | None = None) -> str:
    """What does not fit in training, and flags that make it fit.

    Args:
        max_frames: of `--max-batch-frames`
    """
    amp = "" if run.amp else "; --amp saves memory as well"
    if max_frames is not None:
        return (
            f"with --max-batch-frames {max_frames}: take half of that and --grad-accumulation "
            f"{2 * run.grad_accumulation}, or leave out the longest clips{amp}"
        )
    what = f"with --batch-size {run.batch_size}"
    if run.batch_size == 1:
        return f"{what}: leave out the longest clips, or take a smaller model"
    fewer = run.batch_size // 2
    more = -(-run.grad_accumulation * run.batch_size // fewer)
    return f"{what}: take --batch-size {fewer} --grad-accumulation {more}{amp}"


def validation_advice(num_clips: int) -> str:
    """What does not fit where so many clips are validated at once, and what makes it fit."""
    what = "a whole clip" if num_clips == 1 else f"{num_clips} whole clips at once"
    return f"with {what}, whatever --batch-size is: leave out the longest of --validation-files"


def on_cpu(value: Any) -> Any:
    """A copy of nested dicts and lists whose tensors share no memory with the original's."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: on_cpu(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return type(value)(on_cpu(each) for each in value)
    return value
