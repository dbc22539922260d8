# SPDX-License-Identifier: BSD-3-Clause
"""Random states of the processes that train together, so that a resumed training repeats."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from common.distributed import Processes

logger = logging.getLogger(__name__)


def random_states(processes: Processes) -> list[dict[str, Any]]:
    """By rank, the states of each process: of its CPU and, if it has one, of its GPU."""
    device = processes.device
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return processes.gather({"cpu": torch.get_rng_state(), "cuda": cuda})


def restore_random_states(
    states: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None,
    processes: Processes,
    source: str,
) -> None:
    """Goes on where `random_states` were taken; says what does not repeat.

    A process without a state of its own keeps the one that it was seeded with.

    Args:
        states: by rank; or of the first process alone, as in checkpoints of old
        source: of the states, for the warning
    """
    if states is None:
        states = []
    elif isinstance(states, Mapping):
        states = [states]
    if processes.rank < len(states):
        _set_random_state(states[processes.rank], processes.device)
    if processes.is_main and not states:
        logger.warning("%s holds no random states: the run will not repeat exactly", source)
    elif processes.is_main and len(states) != processes.world_size:
        logger.warning(
            "%s was saved by %d processes and is continued by %d: the clips come in the same "
            "order, but other processes draw other random numbers (dropout), so the run will not "
            "repeat exactly",
            *(source, len(states), processes.world_size),
        )


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Region whose random numbers do not change those that are drawn after it."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def _set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["cuda"]:
        torch.cuda.set_rng_state(state["cuda"][0], device)
