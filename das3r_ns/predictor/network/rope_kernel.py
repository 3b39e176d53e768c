"""Rotary positions in one pass over the tokens, for GPUs where nothing learns.

Written out in PyTorch, a rotation reads and writes every query and key four times, three of them in float32: a fifth of
the time of a frozen network in bfloat16. Triton comes with PyTorch; where it is missing or finds no compiler, the
written-out form takes its place.
"""

from __future__ import annotations

import functools
import inspect

import torch
from jaxtyping import Float
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None


@functools.cache
def kernel_works(device: torch.device) -> bool:
    """Whether the kernel compiles and runs here; tried once."""
    if triton is None:
        return False
    table = torch.zeros(1, 4, device=device)
    try:
        rotate_in_place(torch.zeros(1, 1, 1, 4, device=device), table, table)
        torch.cuda.synchronize(device)
    except Exception:  # no C compiler, a driver that Triton does not know: of many types, and none of them ours
        return False
    return True


def lies_packed(tokens: Float[Tensor, "b n heads d"]) -> bool:
    """Whether the heads of a token lie one after the other in memory, and tokens at one distance."""
    return tokens.stride()[2:] == (tokens.shape[3], 1) and tokens.stride(0) == tokens.shape[1] * tokens.stride(1)


def rotate_in_place(
    tokens: Float[Tensor, "b n heads d"], cos: Float[Tensor, "n d"], sin: Float[Tensor, "n d"]
) -> Float[Tensor, "b n heads d"]:
    """Rotate `tokens`, which must lie packed, and return them.

    Args:
        cos, sin: as `transformer.rope_table` gives them.
    """
    b, n, heads, d = tokens.shape
    assert lies_packed(tokens), tokens.stride()
    pairs = heads * d // 2
    block = 1 << (pairs - 1).bit_length()
    warps = min(8, max(1, block // 256))
    arguments = (tokens, cos, sin, n, tokens.stride(1), pairs, d // 4, block)
    _rotate_rows[(b * n,)](*arguments, num_warps=warps)  # type: ignore[call-arg]
    return tokens


if triton is not None:

    def _rows(
        tokens, cos, sin, n, stride, pairs: tl.constexpr, quarter: tl.constexpr, block: tl.constexpr
    ):  # one program a token: all pairs of all its heads
        row = tl.program_id(0)
        pair = tl.arange(0, block)
        inside = pair < pairs
        # A head is row half, column half; each half is its first elements, then their partners.
        half, m = pair // quarter, pair % quarter
        first = half * 2 * quarter + m
        angle = (row % n) * 4 * quarter + (half % 2) * 2 * quarter + m
        here = tokens + row.to(tl.int64) * stride + first
        c, s = tl.load(cos + angle, inside), tl.load(sin + angle + quarter, inside)
        a, b = tl.load(here, inside).to(tl.float32), tl.load(here + quarter, inside).to(tl.float32)
        tl.store(here, (a * c - b * s).to(tokens.dtype.element_ty), inside)
        tl.store(here + quarter, (b * c + a * s).to(tokens.dtype.element_ty), inside)

    # Triton compiles the source with the names of this module: not those around a wrapper that checks types.
    _rotate_rows = triton.jit(inspect.unwrap(_rows))
