"""Depth and masks of a program's images as maps of the frames of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from das3r_ns.dataparser.reconstructions.arrays import check_room
from das3r_ns.dataparser.reconstructions.assign import Assigned
from das3r_ns.dataparser.reconstructions.types import DepthMap, Framing, Reconstruction
from das3r_ns.predictor.base import DepthPrior


def depth_of_frames(assigned: Assigned, rows: Sequence[int | None]) -> DepthPrior | None:
    """Depth of the frames of a clip; 0 in those that have none. None where the program gives no depth.

    Args:
        rows: of each frame, as in `Assigned.rows`.
    Raises:
        ValueError: the maps do not fit the images, or the memory.
    """
    reconstruction = assigned.reconstruction
    if reconstruction.depth is None:
        return None
    framing = assigned.framing or Framing((1, 1), 0, 0)
    found: dict[int, DepthMap] = {}
    shape: tuple[int, int] | None = None
    for k, row in enumerate(rows):
        if row is None:
            continue
        depth_map = reconstruction.depth(row)
        if not depth_map.depth.any():
            continue
        if shape is None:
            shape = depth_map.depth.shape[0], depth_map.depth.shape[1]
            whole = padded(depth_map.depth, reconstruction, framing).shape
            check_room(2 * 4 * len(rows) * whole[0] * whole[1], f"depth of {reconstruction.path}")
        if depth_map.depth.shape != shape:
            raise ValueError(
                f"{reconstruction.path}: depth of image {row + 1} differs in size from that of the others."
            )
        found[k] = depth_map
    if not found:
        return None
    maps = [padded(found[k].depth, reconstruction, framing) if k in found else None for k in range(len(rows))]
    certain = [
        None if k not in found or (c := found[k].confidence) is None else padded(c, reconstruction, framing)
        for k in range(len(rows))
    ]
    size = next(m for m in maps if m is not None).shape
    depth = np.stack([np.zeros(size, np.float32) if m is None else m for m in maps])
    confidence = np.stack([(d > 0).astype(np.float32) if c is None else c * (d > 0) for c, d in zip(certain, depth)])
    depth *= confidence > 0
    return DepthPrior(torch.from_numpy(depth), torch.from_numpy(confidence.astype(np.float32)), reconstruction.tool)


def padded(
    values: Float32[np.ndarray, "h w"], reconstruction: Reconstruction, framing: Framing, replicate: bool = False
) -> Float32[np.ndarray, "_ _"]:
    """A map of a saved image as one of the whole frame.

    Args:
        replicate: repeat the border in what was cut off, instead of 0.
    """
    saved = reconstruction.saved_size
    if saved is None or framing.resized == saved:
        return values
    if values.shape != saved:
        factor = saved[0] // values.shape[0]
        if factor < 1 or (values.shape[0] * factor, values.shape[1] * factor) != saved:
            raise ValueError(
                f"{reconstruction.path}: a map of {values.shape[1]}x{values.shape[0]} pixels does not fit images of "
                f"{saved[1]}x{saved[0]}."
            )
        values = cv2.resize(values, saved[::-1], interpolation=cv2.INTER_NEAREST)
    bottom = framing.resized[0] - framing.top - saved[0]
    right = framing.resized[1] - framing.left - saved[1]
    mode = "edge" if replicate else "constant"
    return np.pad(values, ((framing.top, bottom), (framing.left, right)), mode=mode).astype(np.float32)


def moving_of_frames(assigned: Assigned, size: tuple[int, int]) -> Float[Tensor, "n h w"]:
    """1 where something moves, at the size of the clip; 0 in frames without a row.

    Raises:
        ValueError: the program gives no masks.
    """
    reconstruction, framing, rows = assigned.reconstruction, assigned.framing, assigned.rows
    if reconstruction.moving is None or framing is None:
        raise ValueError(f"{reconstruction.path} ({reconstruction.tool}) has no masks of what moves.")
    found = torch.zeros(len(rows), *size)
    for k, row in enumerate(rows):
        if row is not None:
            whole = padded(reconstruction.moving(row), reconstruction, framing, replicate=True)
            interpolation = cv2.INTER_AREA if whole.shape[0] >= size[0] else cv2.INTER_LINEAR
            found[k] = torch.from_numpy(cv2.resize(whole, size[::-1], interpolation=interpolation))
    return found
