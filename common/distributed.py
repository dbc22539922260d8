# SPDX-License-Identifier: BSD-3-Clause
"""Processes that train together; one process is the same path with nobody to talk to."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def own_rank() -> int:
    """Which of the processes this is, counted from 0, before they talk to each other, too."""
    return int(os.environ.get("RANK", 0))


def num_restarts() -> int:
    """How often `torchrun --max-restarts` began again, after a process had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


class Processes:
    """This process, its device and its companions, as `torchrun` started them.

    Args:
        cuda: run on a GPU

    Raises:
        ValueError: a GPU is asked for and there is none
    """

    def __init__(self, cuda: bool) -> None:
        self.rank = own_rank()
        self.world_size = int(os.environ.get("WORLD_SIZE", 1))
        self.num_local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # on this machine
        local_rank = int(os.environ.get("LOCAL_RANK", 0))
        if cuda and not torch.cuda.is_available():
            raise ValueError("--cuda needs a CUDA device and none was found: leave --cuda out")
        self.device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(self.device)
        if self.world_size > 1:
            store, rank, world_size = next(dist.rendezvous("env://"))
            # torchrun's store outlives a restart, and with it the addresses of processes that died.
            store = dist.PrefixStore(f"attempt_{num_restarts()}", store)
            backend = "nccl" if cuda else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, made to average its gradients over all processes."""
        if self.world_size == 1:
            return model
        return DistributedDataParallel(
            model,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True,  # no second copy of the gradients for sending
        )

    def sync_if(self, model: nn.Module, is_last: bool) -> AbstractContextManager:
        """Region of a micro-batch; only in the last is a wrapped model's gradient averaged."""
        if self.world_size == 1 or is_last:
            return contextlib.nullcontext()
        return model.no_sync()

    def sum(self, values: Tensor) -> Tensor:
        """Element-wise sum over all processes, on every process."""
        if self.world_size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes by rank, on every process: plain values and CPU tensors."""
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def close(self) -> None:
        """Says goodbye to the others."""
        if self.world_size > 1:
            dist.destroy_process_group()

    def end(self, code: int) -> None:
        """Ends this process with an exit code; one that is alone goes on where that is 0.

        Among others, it ends without taking apart what PyTorch holds: once in a while, gloo's
        threads hang there or abort, because another process has left before, and `torchrun` would
        take a training that is done for one that has failed.
        """
        if self.world_size == 1:
            if code != 0:
                sys.exit(code)
            return
        if code == 0:  # else, the others may not come to say goodbye
            self.close()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
