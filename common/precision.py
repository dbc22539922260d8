# SPDX-License-Identifier: BSD-3-Clause
"""Mixed precision: autocast, scaled backward, unscale-clip-step; the only user of torch.amp."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def set_tf32(allowed: bool, device: torch.device) -> None:
    """Lets a GPU round the factors of float32 products to TF32's 10 bits of mantissa, or not.

    GPUs older than Ampere compute in float32 either way; so do CPUs, whose settings stay.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed


@contextlib.contextmanager
def full_precision(like: Tensor) -> Iterator[None]:
    """Region in which products of float32 tensors are float32: without autocast, without TF32.

    Gradients of its products are computed after it has ended: float32 as well, but with TF32
    where that is allowed. Half-precision tensors stay what they are: convert them.
    """
    matmul = torch.get_float32_matmul_precision()
    convolution = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(like.device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolution


class Precision:
    """How a training step computes; without AMP it is the same path with nothing to do.

    Args:
        amp: compute in half precision where that does no harm
        device: of the model; fp16 without a GPU is refused
        dtype: fp16, with which losses are scaled up to what gradients can bear, since small
            numbers vanish otherwise; or bf16
    """

    def __init__(self, amp: bool, device: torch.device, dtype: str = "fp16") -> None:
        if amp:
            _check_hardware(dtype, device)
        self.device = device
        self.amp = amp
        self.dtype = DTYPES[dtype]
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp and dtype == "fp16")

    def autocast(self) -> AbstractContextManager:
        """Region in which the model's forward pass runs."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.amp)

    def backward(self, loss: Tensor) -> None:
        """Back-propagates the scaled loss."""
        self.scaler.scale(loss).backward()

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Iterable[nn.Parameter],
        max_grad_norm: float,
        bad_loss: Tensor,
    ) -> dict[str, Tensor]:
        """Clips the unscaled gradients and updates the weights.

        Where a loss or the gradients' norm is not finite, neither weights nor optimizer change,
        and where only a gradient is not, the scale is lowered. The host does not wait to learn of
        it: it is the optimizer that looks at `found_inf`, PyTorch's word for it. For an optimizer
        that does not, as apex's, the host has to look.

        Args:
            bad_loss: () more than 0 where a loss was not finite, on any process

        Returns:
            Each () and on the device: `grad_norm` before clipping; `bad_step`, 1 where the step
            was skipped, else 0; `scale` of this step's loss, if losses are scaled
        """
        # The scaled 1 is the scale; asking for the number would wait for the device.
        scale = self.scaler.scale(torch.ones((), device=self.device))
        self.scaler.unscale_(optimizer)
        grad_norm = nn.utils.clip_grad_norm_(parameters, max_grad_norm, foreach=True)
        bad_step = (grad_norm.isfinite().logical_not() | (bad_loss > 0)).float()
        # Scaler.step would do it as well, but knows of bad gradients only if losses are scaled.
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            optimizer.found_inf = bad_step
            optimizer.step()
        elif not bad_step:
            optimizer.step()
        stepped = {"grad_norm": grad_norm, "bad_step": bad_step}
        if not self.scaler.is_enabled():
            return stepped
        self._update_scale(bad_loss)
        return stepped | {"scale": scale}

    def state_dict(self) -> dict:
        """Scale and growth counter; empty where losses are not scaled."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Restores `state_dict`; a state saved without scaling leaves a fresh scaler."""
        if state:
            self.scaler.load_state_dict(state)

    def _update_scale(self, bad_loss: Tensor) -> None:
        # A loss that is not finite is so at any scale, and says nothing of this one: a clip that
        # spoils a step in every epoch would lower it faster than it grows. PyTorch's scaler has no
        # words for that; the host must not look.
        state = [self.scaler._scale, self.scaler._growth_tracker]
        before = [value.clone() for value in state]
        self.scaler.update()
        for value, kept in zip(state, before, strict=True):
            value.copy_(torch.where(bad_loss > 0, kept, value))


def _check_hardware(dtype: str, device: torch.device) -> None:
    if dtype == "fp16" and device.type != "cuda":
        raise ValueError(
            "--amp needs a GPU: add --cuda, or --amp-dtype bf16, which CPUs compute as well, or "
            "leave --amp out"
        )
    if dtype == "bf16" and device.type == "cuda":
        with torch.cuda.device(device):
            supported = torch.cuda.is_bf16_supported(including_emulation=False)
        if not supported:
            raise ValueError(
                "--amp-dtype bf16 needs a GPU of the Ampere generation or newer, and "
                f"{torch.cuda.get_device_name(device)} is older: take --amp-dtype fp16"
            )
