# SPDX-License-Identifier: BSD-3-Clause
"""Functions that numba compiles, once for all processes and runs."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numba


def compile_once(function: Callable, fastmath: Collection[str] = ()) -> Callable:
    """The function, compiled when it is first called; where nothing can be kept, in each process.

    Args:
        fastmath: rules of arithmetic that may be broken, as numba calls them
    """
    try:
        return numba.njit(function, nogil=True, fastmath=set(fastmath), cache=True)
    except RuntimeError:
        return numba.njit(function, nogil=True, fastmath=set(fastmath))
