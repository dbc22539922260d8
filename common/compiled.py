# SPDX-License-Identifier: BSD-3-Clause
"""Functions that numba compiles, once for all processes and runs; whether Triton can others."""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numba

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)


def compile_once(function: Callable, fastmath: Collection[str] = ()) -> Callable:
    """The function, compiled when it is first called; where nothing can be kept, in each process.

    Args:
        fastmath: rules of arithmetic that may be broken, as numba calls them
    """
    try:
        return numba.njit(function, nogil=True, fastmath=set(fastmath), cache=True)
    except RuntimeError:
        return numba.njit(function, nogil=True, fastmath=set(fastmath))


def runs_triton(like: Tensor) -> bool:
    """Whether a package's `kernels`, in Triton, work on such a tensor: on a CUDA device. One on
    which they could, were Triton installed, is told of once."""
    return like.is_cuda and _triton_is_installed()


@functools.cache
def _triton_is_installed() -> bool:
    installed = importlib.util.find_spec("triton") is not None
    if not installed:
        logger.warning(
            "Triton is not installed: steps take longer, and FastPitch's wait for the CPU, which "
            "searches for alignments; PyTorch for Linux brings it (pip install triton)"
        )
    return installed
