# SPDX-License-Identifier: BSD-3-Clause
"""Memory that is freed stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
COUNT = """
import resource
def num_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    before = num_faults()
    bytearray(2**26)
print(num_faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
@pytest.mark.parametrize("keeps", [False, True])
def test_memory_is_had_again_without_asking_the_system(keeps):
    program = "from common.heap import keep_freed_memory; keep_freed_memory()" * keeps + COUNT
    num_faults = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True)
    assert (int(num_faults) < 10) == keeps
