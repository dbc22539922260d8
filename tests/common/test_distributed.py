# SPDX-License-Identifier: BSD-3-Clause
"""One process talks to nobody; two, started as torchrun does, add up and average."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.distributed import Processes
from tests.processes import run_ranks

TWO_PROCESSES = """
import torch
from torch import nn
from common.distributed import Processes
from common.metrics import WeightedMeans


def gradients(model):
    return [parameter.grad for parameter in model.parameters()]


def check(processes):
    rank = processes.rank
    assert processes.is_main == (rank == 0)

    own = torch.tensor([1.0, 10.0]) * (rank + 1)
    assert processes.sum(own).tolist() == [3.0, 30.0]
    assert own.tolist() == [rank + 1, 10 * (rank + 1)], "the own share stays as it was"

    means = WeightedMeans(processes)
    means.add({"loss": torch.tensor(4.0 * rank)}, weight=1 + 2 * rank)
    assert means.read(means.names) == {"loss": 3.0}

    torch.manual_seed(rank)
    model = nn.Linear(2, 1)
    wrapped = processes.wrap(model)
    inputs = torch.full((1, 2), 1.0 + rank)
    with processes.sync_if(wrapped, False):
        wrapped(inputs).sum().backward()
    assert model.weight.grad.tolist() == [[1.0 + rank, 1.0 + rank]]
    wrapped(inputs).sum().backward()
    assert model.weight.grad.tolist() == [[3.0, 3.0]], "the mean of both, over both processes"
    buffers = {gradient.untyped_storage().data_ptr() for gradient in gradients(model)}
    assert len(buffers) == 1, "what is sent is no second copy of the gradients"
    weight = model.weight.detach()
    assert torch.equal(processes.sum(weight), 2 * weight), "both begin with the same weights"


torch.set_num_threads(1)
processes = Processes(cuda=False)
check(processes)
print("all checks hold", flush=True)
processes.end(0)
"""


def test_one_process_is_the_main_one_and_has_nobody_to_talk_to(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    processes = Processes(cuda=False)
    assert processes.is_main
    assert (processes.rank, processes.world_size, processes.device.type) == (0, 1, "cpu")
    model = nn.Linear(2, 2)
    assert processes.wrap(model) is model
    assert processes.sum(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    with processes.sync_if(model, False):
        model(torch.ones(1, 2)).sum().backward()
    assert model.weight.grad.tolist() == [[1, 1], [1, 1]]
    processes.end(0)
    with pytest.raises(SystemExit) as end:
        processes.end(3)
    assert end.value.code == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"^--cuda needs a CUDA device and none was found"):
        Processes(cuda=True)


def test_two_processes_add_up_average_gradients_and_keep_their_own_in_between():
    for process in run_ranks(TWO_PROCESSES):
        assert (process.code, process.output) == (0, "all checks hold\n"), process.errors
