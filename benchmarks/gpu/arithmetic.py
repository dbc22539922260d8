# SPDX-License-Identifier: BSD-3-Clause
"""How much arithmetic a piece of work is, and how much of it devices can do in a second."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

# What is in a device's name -> 1e12 operations a second in products of dense matrices, in half
# precision and in TF32, as NVIDIA's data sheets have them (half of what they say of sparse ones).
PEAKS = {
    "A100": (312.0, 156.0),
    "H100 HBM3": (989.4, 494.7),  # SXM
    "H100 NVL": (835.5, 417.5),
    "H100 PCIe": (756.5, 378.0),
    "H200": (989.4, 494.7),
    "H200 NVL": (835.5, 417.5),
    "L4": (121.0, 60.0),
    "L40S": (362.0, 183.0),
}


def peak_flops(device_name: str, precision: str) -> float | None:
    """Operations a second that a device can do at most; None where that is not known.

    Args:
        device_name: as PyTorch has it
        precision: fp16, bf16, tf32 or fp32
    """
    words = {*device_name.replace("-", " ").split()}
    known = [name for name in PEAKS if words.issuperset(name.split())]
    if not known or precision == "fp32":
        return None
    half, single = PEAKS[max(known, key=len)]
    return 1e12 * (single if precision == "tf32" else half)


def count_flops(work: Callable[[], Any]) -> int:
    """Operations of the matrix products, convolutions and attentions of work that PyTorch does.

    As PyTorch's counter has it, but for the gradients of convolutions in groups, which that counts
    as if there were no groups. What `torch.compile` has made is not used: its work is not seen.
    """
    counter = FlopCounterMode(
        display=False,
        custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward_flops},
    )
    with torch.compiler.set_stance("force_eager"), counter:
        work()
    return counter.get_total_flops()


def _convolution_backward_flops(
    gradient: Sequence[int],
    inputs: Sequence[int],
    weight: Sequence[int],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    wanted: Sequence[bool],
    **_: Any,
) -> int:
    # The gradients of input and weight take as many operations as the convolution does.
    places = inputs[2:] if transposed else gradient[2:]
    products = inputs[0] * math.prod(places) * math.prod(weight)
    return 2 * products * sum(wanted[:2])
