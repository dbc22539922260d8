# SPDX-License-Identifier: BSD-3-Clause
"""Processes that train together; one process is the same path with nobody to talk to."""

from __future__ import annotations

import contextlib
import os
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class Processes:
    """This process, its device and its companions, as `torchrun` started them.

    Args:
        cuda: run on a GPU

    Raises:
        ValueError: a GPU is asked for and there is none
    """

    def __init__(self, cuda: bool) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.world_size = int(os.environ.get("WORLD_SIZE", 1))
        self.num_local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # on this machine
        local_rank = int(os.environ.get("LOCAL_RANK", 0))
        if cuda and not torch.cuda.is_available():
            raise ValueError("--cuda needs a CUDA device and none was found: leave --cuda out")
        self.device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(self.device)
        if self.world_size > 1:
            dist.init_process_group("nccl" if cuda else "gloo")

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
