# SPDX-License-Identifier: BSD-3-Clause
"""apex's fused optimizers where apex is installed, set to compute what the built-in ones do."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

MAX_GRAD_NORM = 1.0  # LAMB's default, apex's and the built-in one's


def make_apex_optimizer(
    name: str, parameters: Iterable[nn.Parameter], settings: dict[str, Any]
) -> torch.optim.Optimizer:
    """The fused optimizer of an update rule. Parameters without a gradient stay as they are.

    It does not respect `found_inf`: `Precision.step` looks itself whether a step is to be taken.

    Args:
        name: lamb, adam or adamw
        parameters: on a GPU, in float32
        settings: `lr`, `betas`, `eps` and `weight_decay`

    Raises:
        ImportError: apex is not installed, or without its CUDA extensions
    """
    importlib.import_module("amp_C")  # the extensions; another package called apex has none
    optimizers = importlib.import_module("apex.optimizers")
    if name == "lamb":
        return optimizers.FusedLAMB(
            parameters,
            **settings,
            bias_correction=True,
            grad_averaging=True,
            adam_w_mode=True,  # decay beside the averages, not in them
            max_grad_norm=MAX_GRAD_NORM,
            use_nvlamb=False,  # the trust ratio applies only where there is decay
        )
    return optimizers.FusedAdam(
        parameters,
        **settings,
        bias_correction=True,
        adam_w_mode=name == "adamw",  # apex would decay as AdamW does under either name
    )
