"""Dynamic labels from 3-D point tracks: each pixel takes the label of the track point nearest to its world point.

A label belongs to a pair of frames: a track moves between two frames when its world position differs by more than a
threshold. (Published: by anything at all, which calls the jitter of half-precision files motion.) So a frame has one
label for each distance in time, forwards and backwards. `pack` puts them into the bits of one colour image: bit
d - 1 for the frame d later, bit max_stride + d - 1 for the frame d earlier; white is what moves always.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt32
from scipy.spatial import cKDTree

MAX_STRIDE = 12
"""Largest distance in time whose labels fit into the 24 bits of a colour image."""
MIN_TRACKS = 16
"""With fewer tracks, labels would be guesses."""


@dataclass(frozen=True)
class Tracks:
    """Point tracks of a sequence of t frames."""

    world: Float[np.ndarray, "t n 3"]
    """World positions."""
    usable: Bool[np.ndarray, "t n"]
    """Where the position is finite and marked valid."""

    def __len__(self) -> int:
        return self.world.shape[0]


def strides_of(max_stride: int) -> list[int]:
    """Distances in time in the order of their bits: 1, 2, ..., then -1, -2, ..."""
    return [*range(1, max_stride + 1), *range(-1, -max_stride - 1, -1)]


def moved(
    tracks: Tracks, frame: int, max_stride: int, threshold: float
) -> tuple[Int[np.ndarray, "m"], Bool[np.ndarray, "s m"]]:
    """The tracks that can label a frame, and which of them move over each of `strides_of(max_stride)`.

    A track must be usable in the frame and in all frames that it is compared with: one that ends would be called
    static by its absence. Distances that lead out of the sequence count as not moved.
    """
    near = slice(max(frame - max_stride, 0), frame + max_stride + 1)
    chosen = np.flatnonzero(tracks.usable[near].all(axis=0))
    here = tracks.world[frame, chosen].astype(np.float32)
    labels = np.zeros((2 * max_stride, len(chosen)), dtype=bool)
    for bit, stride in enumerate(strides_of(max_stride)):
        if 0 <= frame + stride < len(tracks):
            there = tracks.world[frame + stride, chosen].astype(np.float32)
            labels[bit] = np.linalg.norm(there - here, axis=-1) > threshold
    return chosen, labels


def label_pixels(
    points: Float[np.ndarray, "h w 3"],
    known: Bool[np.ndarray, "h w"],
    track_points: Float[np.ndarray, "m 3"],
    labels: Bool[np.ndarray, "s m"],
) -> UInt32[np.ndarray, "h w"]:
    """Bits of every pixel: those of the nearest track point. Pixels without a known point get none.

    Args:
        points: world point of every pixel.
        known: where it is known.
        track_points: positions of the labelling tracks in this frame.
        labels: which of them move, one row a bit.
    """
    bits = np.zeros(labels.shape[1], np.uint32)
    for bit, row in enumerate(labels):
        bits |= row.astype(np.uint32) << np.uint32(bit)
    packed = np.zeros(known.shape, np.uint32)
    if (bits == bits[0]).all():  # nothing moves here, or everything does: no need to look for the nearest
        packed[known] = bits[0]
    else:
        _, nearest = cKDTree(track_points).query(points[known], workers=1)
        packed[known] = bits[nearest]
    return packed


def pack(bits: UInt32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """24 bits as an image in OpenCV's channel order."""
    return np.stack([(bits >> shift).astype(np.uint8) for shift in (0, 8, 16)], axis=-1)


def unpack(image: UInt8[np.ndarray, "h w 3"], stride: int, max_stride: int) -> UInt8[np.ndarray, "h w"]:
    """The label of every pixel towards the frame `stride` away (negative: earlier): 1 moves, 0 does not."""
    bit = stride - 1 if stride > 0 else max_stride - stride - 1
    return (image[..., bit // 8] >> np.uint8(bit % 8)) & np.uint8(1)
