# SPDX-License-Identifier: BSD-3-Clause
"""A device that stands in for a GPU: the CPU computes, but tensors of the two do not mix.

PyTorch lends a device's name to one extension a process: to be imported only by processes of
their own.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

ROOT = Path(__file__).parent.parent
ATEN = torch.ops.aten
READS = {  # what gives the host a value, or a tensor of a size that only the device knows
    ATEN._local_scalar_dense.default,
    ATEN.equal.default,
    ATEN.nonzero.default,
    ATEN.masked_select.default,
    ATEN._unique2.default,
    ATEN.bincount.default,
}
INDEXED = {ATEN.index.Tensor, ATEN.index_put.default, ATEN.index_put_.default}
RESHAPED_IN_PLACE = {ATEN.transpose_.default, ATEN.squeeze_.dim, ATEN.unsqueeze_.default}


class _Module(_DummyBackendModule):
    """What torch.cuda is for CUDA, as far as it is asked for."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


_setup_privateuseone_for_python_backend("standin", _Module())
DEVICE = torch.device("standin", 0)


class DevicesMixed(RuntimeError):  # noqa: N818 -- what happened
    """An operation was given tensors of both devices."""


class StandInTensor(torch.Tensor):
    """A tensor that is said to be on the device; `held` are its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> StandInTensor:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        tensor.held = held
        return tensor

    def __init__(self, held: Tensor) -> None:
        pass

    def __repr__(self) -> str:
        return f"StandInTensor({self.held!r})"

    @classmethod
    def __torch_dispatch__(
        cls, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if operation is ATEN._has_compatible_shallow_copy_type.default:
            return True  # what `data =` asks
        raise RuntimeError(f"{operation} outside of a StandIn")

    def tolist(self) -> list:
        """As of any tensor, which PyTorch has not for such classes."""
        return self.cpu().tolist()


class StandIn(TorchDispatchMode):
    """Region in which the device is there.

    Attributes:
        waits: how often the host would wait for a GPU, by the line of the project
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        operation: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ours = [tensor for tensor in tensors if isinstance(tensor, StandInTensor)]
        target = kwargs.get("device")
        goes_here = bool(ours) if target is None else torch.device(target) == DEVICE
        if operation in READS and ours:
            self._note_wait()
        elif operation in (ATEN._to_copy.default, ATEN.copy_.default):
            is_copied = len({isinstance(tensor, StandInTensor) for tensor in tensors}) > 1
            is_moved = bool(ours) != goes_here
            in_background = kwargs.get("non_blocking", len(args) > 2 and args[2])
            if (is_copied or is_moved) and not (in_background and goes_here):
                self._note_wait()
        elif ours:
            self._check(operation, args, tensors)
        result = operation(*tree_map(_held, args), **tree_map(_held, kwargs))
        if operation in RESHAPED_IN_PLACE and ours:
            args[0].data = StandInTensor(args[0].held)
        if operation is ATEN.copy_.default:
            return args[0]
        return tree_map(_giving_back(ours), result) if goes_here else result

    def _check(self, operation: Any, args: Sequence[Any], tensors: Sequence[Tensor]) -> None:
        if operation in INDEXED:
            is_mask = [each is not None and each.dtype == torch.bool for each in args[1]]
            if any(is_mask):
                self._note_wait()
        foreign = [t for t in tensors if not isinstance(t, StandInTensor) and t.ndim > 0]
        if foreign:
            shapes = ", ".join(f"{tuple(t.shape)} on {t.device.type}" for t in tensors)
            raise DevicesMixed(f"{_place()}: {operation} of {shapes}")

    def _note_wait(self) -> None:
        self.waits[_place()] += 1


def _held(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.held if isinstance(value, StandInTensor) else value


def _giving_back(ours: Sequence[StandInTensor]) -> Callable[[Any], Any]:
    """What an operation gives, as tensors of the device; those that it changed are the same."""
    known = {id(tensor.held): tensor for tensor in ours}

    def give_back(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return known.get(id(value)) if id(value) in known else StandInTensor(value)

    return give_back


def _place() -> str:
    """The innermost line of the project that is not a test's."""
    for frame, line in traceback.walk_stack(None):
        path = Path(frame.f_code.co_filename)
        is_ours = path.is_relative_to(ROOT) and ".venv" not in path.parts
        if is_ours and not path.is_relative_to(ROOT / "tests"):
            return f"{path.relative_to(ROOT)}:{line}"
    return "a test"
