"""2D splats in, image and alpha out: the second differentiable stage of the CPU rasterizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from das3r_ns.model.rasterizer.compositing_gradient_kernels import GEOMETRY_GRADS, composite_backward, gather_gradients
from das3r_ns.model.rasterizer.compositing_kernels import composite_forward
from das3r_ns.model.rasterizer.jit import as_array, in_blocks
from das3r_ns.model.rasterizer.projection import Splats
from das3r_ns.model.rasterizer.tiles import TileLists, deal_to_tiles

_TILES = 8  # tiles per task
_SPLATS = 4096  # splats per task of the gradient sums


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, means2d, conics, opacities, colors, backgrounds, lists, absgrad):  # type: ignore[override]
        cameras, channels = len(lists), colors.shape[-1]
        width, height = lists[0].width, lists[0].height
        image = means2d.new_empty((cameras, height, width, channels))
        transmittance = means2d.new_empty((cameras, height, width))
        last = torch.empty((cameras, height, width), dtype=torch.int32)
        for c, tiles in enumerate(lists):
            arrays = [t[c].numpy() for t in (image, transmittance, last)]
            background = as_array(backgrounds[c])
            in_blocks(
                lambda start, stop, t=tiles, b=background, arrays=arrays: composite_forward(
                    start, stop, t.tile_columns, t.starts, t.entries, t.records, t.colors, b, *arrays
                ),
                tiles.num_tiles,
                _TILES,
            )
        ctx.save_for_backward(means2d, backgrounds, transmittance, last)
        ctx.lists, ctx.absgrad, ctx.channels = lists, absgrad, channels
        return image, (1.0 - transmittance)[..., None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_image, v_alpha):  # type: ignore[override]
        means2d, backgrounds, transmittance, last = ctx.saved_tensors
        cameras, count = means2d.shape[:2]
        columns = GEOMETRY_GRADS + ctx.channels + (2 if ctx.absgrad else 0)
        shapes = ((2,), (3,), (), (ctx.channels,), (2,))
        grads = [means2d.new_zeros((cameras, count, *shape)) for shape in shapes]
        v_image = v_image.contiguous()
        for c, tiles in enumerate(ctx.lists):
            pairs = means2d.new_empty((len(tiles.entries), columns)).numpy()
            arrays = [as_array(t) for t in (backgrounds[c], transmittance[c], last[c], v_image[c], -v_alpha[c, ..., 0])]
            in_blocks(
                lambda start, stop, t=tiles, arrays=arrays, pairs=pairs: composite_backward(
                    start,
                    stop,
                    t.tile_columns,
                    t.starts,
                    t.entries,
                    t.slots,
                    t.boxes,
                    t.records,
                    t.colors,
                    *arrays,
                    ctx.absgrad,
                    pairs,
                ),
                tiles.num_tiles,
                _TILES,
            )
            out = [g[c].numpy() for g in grads]
            if not ctx.absgrad:
                out[-1] = out[-1][:0]
            in_blocks(
                lambda start, stop, t=tiles, pairs=pairs, out=out: gather_gradients(
                    start, stop, t.gaussians, t.slots, pairs, *out
                ),
                len(tiles.gaussians),
                _SPLATS,
            )
        if ctx.absgrad:
            means2d.absgrad = grads[-1]
        v_backgrounds = None
        if ctx.needs_input_grad[4]:
            # NumPy adds in a fixed order; torch's order depends on the number of threads.
            sums = np.einsum("chwd,chw->cd", v_image.numpy(), transmittance.numpy(), dtype=np.float64)
            v_backgrounds = torch.from_numpy(sums).to(means2d.dtype)
        return *grads[:-1], v_backgrounds, None, None


def composite(
    splats: Splats,
    opacities: Float[Tensor, "c n"],
    colors: Float[Tensor, "c n d"],
    backgrounds: Float[Tensor, "c d"],
    lists: list[TileLists],
    absgrad: bool,
) -> tuple[Float[Tensor, "c h w d"], Float[Tensor, "c h w 1"]]:
    """Blend splats front to back over the backgrounds; also the share of light they took (alpha).

    Gradients reach `splats.means2d`, `splats.conics`, opacities, colours (any number of channels) and backgrounds.
    With `absgrad`, backward also sets `splats.means2d.absgrad`: per splat the sum over pixels of the absolute
    gradients (Ye et al., "AbsGS", 2024).

    Args:
        lists: one per camera, from `deal_all_to_tiles` with the same splats, opacities and colours.
    """
    return _Composite.apply(  # type: ignore[no-any-return]
        splats.means2d, splats.conics, opacities, colors, backgrounds, lists, absgrad
    )


def deal_all_to_tiles(
    splats: Splats, opacities: Float[Tensor, "c n"], colors: Float[Tensor, "c n d"], width: int, height: int
) -> list[TileLists]:
    """`deal_to_tiles` for every camera."""
    return [
        deal_to_tiles(
            as_array(splats.radii[c]),
            as_array(splats.means2d[c]),
            as_array(splats.depths[c]),
            as_array(splats.conics[c]),
            as_array(opacities[c]),
            as_array(splats.variances[c]),
            as_array(colors[c]),
            width,
            height,
        )
        for c in range(len(opacities))
    ]
