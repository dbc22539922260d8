# SPDX-License-Identifier: BSD-3-Clause
"""How this process keeps memory that it has freed."""

from __future__ import annotations

import ctypes
import platform

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = -1


def keep_freed_memory() -> None:
    """Lets later tensors on the CPU have the memory of those before, from now on.

    glibc gives large pieces back to the system at once, and the system fills every page with zeros
    before it lends it again: a quarter of a training step's time. The process keeps what it needed
    at most. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, NEVER)
