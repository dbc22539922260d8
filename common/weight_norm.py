# SPDX-License-Identifier: BSD-3-Clause
"""Normalized convolutions whose checkpoints name their weights as the public recipe's do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from common.precision import full_precision

Conv = TypeVar("Conv", bound=nn.Module)

# PyTorch's name -> the name in checkpoints
WEIGHT_NORM = {
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}
SPECTRAL_NORM = {
    "parametrizations.weight.original": "weight_orig",
    "parametrizations.weight.0.norm._u": "weight_u",
    "parametrizations.weight.0.norm._v": "weight_v",
}


def weight_norm(conv: Conv) -> Conv:
    """Learns length and direction of each filter apart (Salimans 2016)."""
    return _with_names(parametrizations.weight_norm(conv), WEIGHT_NORM)


def spectral_norm(conv: Conv) -> Conv:
    """Divides the weight by its largest singular value (Miyato 2018)."""
    conv = parametrizations.spectral_norm(conv)
    steps = conv.parametrizations.weight
    steps[0] = _InFullPrecision(steps[0])
    return _with_names(conv, SPECTRAL_NORM)


def fold_norms(model: nn.Module) -> None:
    """Replaces normalized weights by their product, for inference: the same result, faster."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


class _InFullPrecision(nn.Module):
    """A norm whose estimate of the singular value would be lost in the rounding of autocast."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, weight: Tensor) -> Tensor:
        with full_precision(weight):
            return self.norm(weight)


def _with_names(conv: Conv, names: Mapping[str, str]) -> Conv:
    """Translates between PyTorch's names and those in checkpoints, which are read and written."""

    def to_checkpoint(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
        for ours, theirs in names.items():
            if prefix + ours in state:  # folded weights have none
                state[prefix + theirs] = state.pop(prefix + ours)

    def from_checkpoint(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        if parametrize.is_parametrized(module, "weight"):
            for ours, theirs in names.items():
                if prefix + theirs in state:
                    state[prefix + ours] = state.pop(prefix + theirs)

    conv.register_state_dict_post_hook(to_checkpoint)
    conv.register_load_state_dict_pre_hook(from_checkpoint)
    return conv
