"""Tensors that say they are on a GPU, for machines that have none: what mixes devices, and what waits, shows.

Within `pretended_gpu()`, `device="cuda"` and `.to("cuda")` give `PretendedTensor`s: `is_cuda`, with true numbers that
lie on the CPU. An operation on tensors of both kinds is the error that it would be on a GPU, and so is `.numpy()`.
What a GPU makes the host wait for is counted. Autograd records, but nothing can be sent backward: PyTorch's engine
asks for the GPU itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
aten = torch.ops.aten

COPIES = (aten.copy_.default, aten._to_copy.default)
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._unsafe_index.Tensor)
WAITS = (
    *(aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default),
    *(aten._unique2.default, aten.unique_dim.default, aten.unique_consecutive.default),
)


class PretendedTensor(torch.Tensor):
    """A tensor that says it is on a GPU."""

    host: torch.Tensor
    """Where its numbers are."""

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> PretendedTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls, host.size(), host.stride(), host.storage_offset(), dtype=host.dtype, device=CUDA
        )
        made.host = host
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"PretendedTensor({self.host})"

    def tolist(self) -> Any:
        """As of any tensor, which subclasses have no more."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        return _run(function, arguments, options or {}, Waits())


@dataclass
class Waits:
    """What made the host wait for the GPU, or copied to it from memory that is not page-locked."""

    names: list[str] = field(default_factory=list)


class _Pretence(TorchDispatchMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        return _run(function, arguments, options or {}, self.waits)


@contextmanager
def pretended_gpu() -> Iterator[Waits]:
    """Within it, CUDA tensors can be made; gives what waits for them."""
    torch._C._ensureCUDADeviceGuardSet()  # as PyTorch's own fake tensors do: a guard that guards nothing
    before, waits = torch._C._only_lift_cpu_tensors(), Waits()
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes its numbers on the CPU and then moves them
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with mock.patch("torch.cuda._lazy_init"), _Pretence(waits):
            yield waits
    finally:
        torch._C._set_only_lift_cpu_tensors(before)
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)


def on_host(values: Any) -> Any:
    """Tensors among `values` as they lie on the CPU."""
    return _changed(values, lambda tensor: tensor.host if isinstance(tensor, PretendedTensor) else tensor)


def on_gpu(values: Any) -> Any:
    """CPU tensors among `values` as if they were on a GPU."""
    return _changed(values, lambda tensor: tensor if tensor.is_cuda else PretendedTensor(tensor.detach()))


def _changed(values: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """`values` with every tensor in them changed."""
    if isinstance(values, torch.Tensor):
        return change(values)
    if isinstance(values, (tuple, list)):
        changed = [_changed(value, change) for value in values]
        return type(values)(*changed) if hasattr(values, "_fields") else type(values)(changed)
    if isinstance(values, dict):
        return {key: _changed(value, change) for key, value in values.items()}
    return values


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)


def _run(function: Any, arguments: Any, options: dict[str, Any], waits: Waits) -> Any:
    tensors = list(_tensors((*arguments, *options.values())))
    given = [value for value in tensors if isinstance(value, PretendedTensor)]
    _refuse_mixtures(function, arguments, tensors)
    wanted = options.get("device")
    device = wanted if wanted is not None else CUDA if given else CPU
    if function in INDEXED and not isinstance(arguments[0], PretendedTensor):
        device = CPU
    if _waits(function, arguments, options, given, device):
        waits.names.append(str(function))
    if wanted is not None:
        options = {**options, "device": CPU}
    options.pop("pin_memory", None)
    result = function(*on_host(arguments), **on_host(options))
    if device.type == "cpu" or function is aten._local_scalar_dense.default:
        return result
    known = {id(value.host): value for value in given}  # in-place operations return what they were given
    return _changed(result, lambda tensor: known[id(tensor)] if id(tensor) in known else PretendedTensor(tensor))


def _refuse_mixtures(function: Any, arguments: Any, tensors: list[torch.Tensor]) -> None:
    if function in COPIES:
        return
    if function in INDEXED:
        whole, indices, *values = arguments[:3]
        of_indices = [index for index in indices if index is not None]
        if not isinstance(whole, PretendedTensor) and any(isinstance(i, PretendedTensor) for i in of_indices):
            raise RuntimeError(f"{function}: indices on the GPU into a tensor on the CPU")
        tensors = [whole, *(value for value in values if isinstance(value, torch.Tensor))]
    kinds = {isinstance(value, PretendedTensor) for value in tensors if value.ndim > 0}
    if len(kinds) > 1 or (kinds == {False} and any(isinstance(value, PretendedTensor) for value in tensors)):
        raise RuntimeError(f"{function}: tensors on the GPU and on the CPU")


def _waits(function: Any, arguments: Any, options: dict[str, Any], given: list[Any], device: torch.device) -> bool:
    if function in COPIES:
        other = arguments[1] if function is aten.copy_.default else None
        sides = {isinstance(arguments[0], PretendedTensor), device.type == "cuda"}
        if other is not None:
            sides = {isinstance(value, PretendedTensor) for value in (arguments[0], other)}
        return len(sides) > 1
    if function in INDEXED and given:
        indices = [index for index in arguments[1] if index is not None]
        return any(index.dtype == torch.bool or not isinstance(index, PretendedTensor) for index in indices)
    return function in WAITS and bool(given)
