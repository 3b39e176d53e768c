"""What colours the moving objects have, and where: a coarse grid over time, place and colour.

Motion evidence is noisy at single pixels and silent where an object is even or rests for a moment. Averaged over all
pixels of about the same time, place and colour, it says what the object looks like; looked up again, it fills it
and cleans its surroundings (a bilateral grid: Chen et al., SIGGRAPH 2007).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8

from das3r_ns.runtime.parallel import parallel_for

FRAMES_A_CELL = 5
CELLS_ACROSS = 16
"""Cells over the longer side of the image."""
LIGHTNESS_CELLS = 12
HUE_CELLS = 8
HUE_RANGE = 50.0
"""CIELAB a and b from minus to plus this; beyond, they are cut."""


class AppearanceGrid:
    """Mean of per-pixel values over cells of time, place and colour, blurred by one cell each way."""

    def __init__(self, num_frames: int, size: tuple[int, int]) -> None:
        """`size`: height and width of the maps."""
        self._size = size
        cell = max(size) / CELLS_ACROSS
        rows, columns = (max(2, round(side / cell) + 1) for side in size)
        times = (num_frames - 1) // FRAMES_A_CELL + 2
        self._shape = (times, rows, columns, LIGHTNESS_CELLS, HUE_CELLS, HUE_CELLS)
        self._row = np.linspace(0, rows - 1, size[0])
        self._column = np.linspace(0, columns - 1, size[1])
        self._mean = np.zeros((1, *self._shape), np.float32)

    def fill(
        self,
        values: Float[np.ndarray, "n h w c"],
        image: Callable[[int], UInt8[np.ndarray, "h w 3"]],
    ) -> None:
        """Take the means of `values` over the RGB images of all frames, each channel for itself."""
        channels = values.shape[-1]
        sums = np.zeros((channels + 1, *self._shape), np.float32)  # the last is the number of pixels
        slab = int(np.prod(self._shape[1:]))
        place = np.rint(self._row).astype(int)[:, None], np.rint(self._column).astype(int)[None]

        def add(time: int) -> None:
            for i in range(len(values)):
                if self._time(i) != time:
                    continue
                cells = (*np.broadcast_arrays(*place), *_colour_cells(image(i)))
                cell = np.ravel_multi_index(cells, self._shape[1:]).ravel()
                for c in range(channels):
                    sums[c, time] += np.bincount(cell, values[i, ..., c].ravel(), slab).reshape(self._shape[1:])
                sums[channels, time] += np.bincount(cell, minlength=slab).reshape(self._shape[1:])

        parallel_for(add, self._shape[0])
        parallel_for(lambda c: _blurred(sums[c]), channels + 1)
        self._mean = sums[:channels] / np.maximum(sums[channels], 1e-6)

    def look_up(self, index: int, image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "c h w"]:
        """The means at every pixel of frame `index`: interpolated in place, nearest in time and colour."""
        colour = _colour_cells(image)
        return np.stack([self._interpolated(mean[self._time(index)], colour) for mean in self._mean])

    def _interpolated(
        self, slab: Float32[np.ndarray, "r c l a b"], colour: tuple[Int64[np.ndarray, "h w"], ...]
    ) -> Float32[np.ndarray, "h w"]:
        row = np.minimum(self._row.astype(int), slab.shape[0] - 2)[:, None]
        column = np.minimum(self._column.astype(int), slab.shape[1] - 2)[None]
        down, right = (self._row[:, None] - row).astype(np.float32), (self._column[None] - column).astype(np.float32)
        return (
            (1 - down) * ((1 - right) * slab[(row, column, *colour)] + right * slab[(row, column + 1, *colour)])
            + down * ((1 - right) * slab[(row + 1, column, *colour)] + right * slab[(row + 1, column + 1, *colour)])
        ).astype(np.float32)

    def _time(self, index: int) -> int:
        return round(index / FRAMES_A_CELL)


def lab(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    """CIELAB: lightness 0..100, a and b about -50..50 in ordinary images."""
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _colour_cells(image: UInt8[np.ndarray, "h w 3"]) -> tuple[Int64[np.ndarray, "h w"], ...]:
    colour = lab(image)
    scaled = (
        colour[..., 0] / 100 * (LIGHTNESS_CELLS - 1),
        (colour[..., 1] / HUE_RANGE + 1) / 2 * (HUE_CELLS - 1),
        (colour[..., 2] / HUE_RANGE + 1) / 2 * (HUE_CELLS - 1),
    )
    counts = (LIGHTNESS_CELLS, HUE_CELLS, HUE_CELLS)
    return tuple(np.clip(np.rint(c), 0, n - 1).astype(np.int64) for c, n in zip(scaled, counts))


def _blurred(grid: np.ndarray) -> None:
    for axis in range(grid.ndim):
        _blur(grid, axis)


def _blur(grid: np.ndarray, axis: int) -> None:
    """[1 2 1] / 4 along one axis, in place; nothing comes in over the border."""
    moved = np.moveaxis(grid, axis, 0)
    before = moved.copy()
    moved *= 0.5
    moved[1:] += 0.25 * before[:-1]
    moved[:-1] += 0.25 * before[1:]
