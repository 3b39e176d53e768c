"""Eight numbers at once: a vector type for Numba kernels.

A `Lanes` value is an LLVM vector of eight floats (AVX: one register; SSE and NEON: two). Kernels write plain arithmetic
on it, `a * b + c`, with numbers broadcast to all lanes. LLVM does not vectorise the compositing loops by itself, since
it cannot see that their arrays are apart; spelled out, they run four times as fast.
There are no masks: a condition is a `where_*` between two values.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model
from numpy.polynomial import Chebyshev, Polynomial

LANES = 8

_FLAGS = ("contract", "nsz")  # lets LLVM fuse multiply and add; keeps NaN and infinity meaningful
_I32 = ir.IntType(32)
_EXP_COEFFICIENTS: list[float] = (
    Chebyshev.interpolate(np.exp, deg=5, domain=[-5.6 / 16.0, 0.0])
    .convert(kind=Polynomial, domain=[-1, 1])
    .coef.tolist()
)


class Lanes(types.Type):
    """Numba type of eight float32 or eight float64."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Lanes) -> None:
        super().__init__(manager, fe_type, ir.VectorType(manager.lookup(fe_type.dtype).get_value_type(), LANES))


def _intrinsic(function: Callable[..., Any]) -> Any:
    """numba's `intrinsic`, for type checkers: what it returns takes other arguments than `function`."""
    return intrinsic(function)


def _broadcast(builder: Any, value: Any) -> Any:
    vector = ir.VectorType(value.type, LANES)
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


def _as_lanes(context: Any, builder: Any, values: Any, value_types: Any, lanes: Lanes) -> list[Any]:
    """Numbers among `values` are cast to the lanes' dtype and broadcast."""
    return [
        v if isinstance(t, Lanes) else _broadcast(builder, context.cast(builder, v, t, lanes.dtype))
        for v, t in zip(values, value_types)
    ]


def _lanes_among(*value_types: Any) -> Any:
    return next((t for t in value_types if isinstance(t, Lanes)), None)


def _define_arithmetic(operation: Callable[[Any, Any], Any], instruction: str) -> None:
    @_intrinsic
    def apply(typingctx: Any, a: Any, b: Any) -> Any:
        lanes = _lanes_among(a, b)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, y = _as_lanes(context, builder, args, signature.args, lanes)
            return getattr(builder, instruction)(x, y, flags=_FLAGS)

        return lanes(a, b), codegen

    @overload(operation)
    def _overload(a, b):  # numba compares the two signatures, so neither has annotations
        if _lanes_among(a, b) is not None:
            return lambda a, b: apply(a, b)
        return None


for _operation, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define_arithmetic(_operation, _instruction)


def _define_where(predicate: str) -> Any:
    @_intrinsic
    def where(typingctx: Any, a: Any, b: Any, if_true: Any, if_false: Any) -> Any:
        lanes = _lanes_among(a, b, if_true, if_false)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, y, yes, no = _as_lanes(context, builder, args, signature.args, lanes)
            return builder.select(builder.fcmp_ordered(predicate, x, y), yes, no)

        return lanes(a, b, if_true, if_false), codegen

    return where


where_gt = _define_where(">")
"""`if_true` in the lanes where a > b, else `if_false`; NaN compares false."""
where_ge = _define_where(">=")
"""`if_true` in the lanes where a >= b, else `if_false`; NaN compares false."""


@_intrinsic
def broadcast(typingctx, x):
    """x in all lanes."""
    return Lanes(x)(x), lambda context, builder, signature, args: _broadcast(builder, args[0])


@_intrinsic
def ramp(typingctx, x):
    """x, x + 1, .. x + 7."""

    def codegen(context, builder, signature, args):
        start = _broadcast(builder, args[0])
        return builder.fadd(start, ir.Constant(start.type, [float(i) for i in range(LANES)]))

    return Lanes(x)(x), codegen


@_intrinsic
def total(typingctx, v):
    """Sum over the lanes, always in the same order."""

    def codegen(context, builder, signature, args):
        rest, width = args[0], LANES
        while width > 1:  # add the upper half of the lanes to the lower one
            width //= 2
            halves = [
                builder.shuffle_vector(rest, rest, ir.Constant(ir.VectorType(_I32, width), list(half)))
                for half in (range(width), range(width, 2 * width))
            ]
            rest = builder.fadd(*halves)
        return builder.extract_element(rest, ir.Constant(_I32, 0))

    return v.dtype(v), codegen


def _row_pointer(context: Any, builder: Any, array_type: Any, array: Any, row: Any, row_type: Any) -> tuple[Any, Any]:
    element = context.get_data_type(array_type.dtype)
    offset = builder.mul(context.cast(builder, row, row_type, types.uintp), ir.Constant(ir.IntType(64), LANES))
    start = cgutils.gep_inbounds(builder, context.make_array(array_type)(context, builder, array).data, offset)
    vector = ir.VectorType(element, LANES)
    return builder.bitcast(start, vector.as_pointer()), vector


@_intrinsic
def load(typingctx, array, row):
    """Row `row` of a C-contiguous (rows, 8) array. No bounds check."""

    def codegen(context, builder, signature, args):
        pointer, vector = _row_pointer(context, builder, signature.args[0], args[0], args[1], signature.args[1])
        return builder.load(pointer, align=vector.element.get_abi_size(context.target_data))

    return Lanes(array.dtype)(array, row), codegen


@_intrinsic
def store(typingctx, array, row, v):
    """Write `v` into row `row` of a C-contiguous (rows, 8) array. No bounds check."""

    def codegen(context, builder, signature, args):
        pointer, vector = _row_pointer(context, builder, signature.args[0], args[0], args[1], signature.args[1])
        builder.store(args[2], pointer, align=vector.element.get_abi_size(context.target_data))
        return context.get_dummy_value()

    return types.void(array, row, v), codegen


@_intrinsic
def exp_minus(typingctx, v):
    """exp(-v) for v >= 0.

    float32: a polynomial for exp(-v / 16), squared four times. Relative error below 2e-6 up to v = 5.6, where opacity
    times exp(-v) falls under the smallest alpha that counts, 1/255; from v = 16 on constant, about 1e-7.
    float64: the C library's.
    """

    def codegen(context, builder, signature, args):
        (value,) = args
        if v.dtype is types.float64:
            exp = builder.module.declare_intrinsic("llvm.exp", [ir.DoubleType()])
            result = ir.Constant(value.type, ir.Undefined)
            for i in range(LANES):
                lane = builder.extract_element(value, ir.Constant(_I32, i))
                result = builder.insert_element(result, builder.call(exp, [builder.fneg(lane)]), ir.Constant(_I32, i))
            return result

        def constant(number: float) -> Any:
            return ir.Constant(value.type, [number] * LANES)

        limit = constant(16.0)
        x = builder.select(builder.fcmp_ordered("<", value, limit), value, limit)
        x = builder.fmul(x, constant(-1.0 / 16.0), flags=_FLAGS)
        result = constant(_EXP_COEFFICIENTS[-1])
        for coefficient in _EXP_COEFFICIENTS[-2::-1]:
            result = builder.fadd(builder.fmul(result, x, flags=_FLAGS), constant(coefficient), flags=_FLAGS)
        for _ in range(4):
            result = builder.fmul(result, result, flags=_FLAGS)
        return result

    return v(v), codegen
