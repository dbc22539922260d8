# SPDX-License-Identifier: BSD-3-Clause
"""Where kernels in Triton are tested: on a GPU or in Triton's interpreter. To be imported first.

TRITON_INTERPRET=1 python -m pytest tests/fastpitch/test_kernels.py tests/hifigan/test_kernels.py
"""

from __future__ import annotations

import os

import pytest
import torch

pytest.importorskip("triton", reason="needs Triton, which PyTorch for CUDA brings")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a CUDA device or TRITON_INTERPRET=1", allow_module_level=True)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
