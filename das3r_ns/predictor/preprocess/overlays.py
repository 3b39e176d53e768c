"""Overlays on the images of a clip: bars, logos, watermarks, captions that stay. None of it is in the scene.

It stands still in the image, sharp and full of corners, which looks like a camera that stands still. Bars are black,
even rows and columns at the border. Signs are found by their edges, which lie at the same pixels with the same
direction in all frames, so that their mean over time remains (Dekel et al., On the Effectiveness of Visible
Watermarks, CVPR 2017): while the camera moves, edges of the scene come and go. Along an edge a moving camera may leave
it in place, so a sign must have edges of more than one direction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, UInt8
from torch import Tensor

from das3r_ns.predictor.base import UserPriors
from das3r_ns.runtime.parallel import parallel_for
from das3r_ns.scene import Scene
from das3r_ns.video.clip import Clip

MAX_SAMPLED_FRAMES = 20
"""Frames that are looked at for signs, spread over the clip."""
MIN_FRAMES = 8
"""With fewer frames chance leaves too much in place."""
LONGEST_SIDE_PX = 640
"""Images are reduced to this many pixels on the longer side before signs are sought."""
MIN_EDGE_GRADIENT = 7.0
"""Grey levels a pixel, all colours together, that make an edge."""
MIN_EDGE_STRENGTH_SHARE = 0.4
"""Share of its usual strength that an edge must have in a frame to be there, along its usual direction."""
MIN_FRAMES_SHARE = 0.85
"""Share of the frames in which it must be there: clips fade in, and what is behind may be as bright for a while."""
MAX_SHIFT_PX = 0.15
"""A sign stays in place within this distance in nine tenths of the frames. Scenes that a camera keeps in the middle
of the image waver more, and signs by a few hundredths."""
MAX_STILL_EDGES_SHARE = 0.3
"""Share of all edges. If more stay in place, the camera does."""
MIN_ACROSS_SHARE = 0.05
"""Edges of a sign across its main direction, as a share of those along it, in squared strength."""
MIN_SIGN_PX = 20
"""Edge pixels of the smallest sign."""
MAX_GAP_SHARE = 0.02
"""Gap between edges of one sign, as a share of the longer side."""
MAX_SIGN_SHARE = 0.15
"""Share of the image. What a larger outline encloses is not part of it: it frames the scene."""
MARGIN_PX = 2
"""Pixels around signs, and inside bars, that scaling and compression mix with them."""
MAX_BAR_LEVEL = 24
"""Grey levels of a bar, at most: black is 16 in some videos."""
MAX_BAR_CONTRAST = 12
"""Grey levels between the darkest and the brightest of a bar's row."""
MAX_OUTLIER_SHARE = 0.1
"""Share of a bar's row, at each end, and share of the frames, in which it need not be so: compression spills into bars.
"""
MAX_TEXT_SHARE = 0.7
"""Share of a bar's row that words may cover."""
MIN_STEP_LEVELS = 10
"""Grey levels by which the scene beside a bar is brighter at some time, in half of its pixels. Night has no such
border."""
MIN_INSIDE_PX = 64
"""Pixels that bars must leave."""


@dataclass(frozen=True)
class Overlays:
    """Where an image shows no scene."""

    signs: Bool[np.ndarray, "h w"]
    """True where a sign is, in the whole image."""
    rows: tuple[int, int]
    """First row of the scene and the one after its last: bars are above and below."""
    columns: tuple[int, int]

    @property
    def has_bars(self) -> bool:
        return (*self.rows, *self.columns) != (0, self.signs.shape[0], 0, self.signs.shape[1])

    @property
    def crop(self) -> tuple[slice, slice]:
        """Rows and columns of the smallest cut that puts the scene in the middle, where its principal point is. Bars of
        one width on both sides stay: what stands before them is told from the border, which it would touch without."""
        ranges = []
        for (first, last), length in zip((self.rows, self.columns), self.signs.shape, strict=True):
            both = min(first, length - last)
            ranges.append(slice(first - both, last + both))
        return ranges[0], ranges[1]

    @property
    def overlay_mask(self) -> Bool[np.ndarray, "_ _"] | None:
        """True where the cut image shows no scene: signs, and bars that stay. None if that is nowhere."""
        overlay_mask = np.ones(self.signs.shape, bool)
        inside = slice(*self.rows), slice(*self.columns)
        overlay_mask[inside] = self.signs[inside]
        overlay_mask = overlay_mask[self.crop]
        return overlay_mask if overlay_mask.any() else None

    def __str__(self) -> str:
        height, width = self.signs.shape
        parts = []
        if self.has_bars:
            size = f"{self.columns[1] - self.columns[0]}x{self.rows[1] - self.rows[0]}"
            parts.append(f"bars, which leave {size} of {width}x{height} pixels")
        signs = self.signs[slice(*self.rows), slice(*self.columns)]
        if signs.any():
            parts.append(f"signs or words that stay in place, on {100 * signs.mean():.1f} % of it")
        return " and ".join(parts)


def find_overlays(frames: UInt8[Tensor, "n h w 3"]) -> Overlays | None:
    """Bars and signs that are there all the time; None where there are none."""
    signs = np.zeros(tuple(frames.shape[1:3]), bool)
    rows, columns = _bars(frames, signs)
    inside = slice(*rows), slice(*columns)  # a bar's edge stays in place too
    signs[inside] = _signs(frames[:, inside[0], inside[1]])
    if signs.any():
        rows, columns = _bars(frames, signs)
    found = Overlays(signs, rows, columns)
    return found if found.has_bars or signs.any() else None


def remove_overlays(clip: Clip, over: Overlays) -> Clip:
    """The clip cut so that the scene is in its middle, signs painted over with what surrounds them, so that nothing in
    the scene stands still that does not belong to it."""
    frames = clip.frames[(slice(None), *over.crop)]
    there = over.signs[over.crop].astype(np.uint8)
    if there.any():
        frames = torch.from_numpy(np.stack([cv2.inpaint(f.numpy(), there, 3, cv2.INPAINT_TELEA) for f in frames]))
    return replace(clip, frames=frames)


def priors_inside(priors: UserPriors, over: Overlays) -> UserPriors:
    """What is known, in the pixels of the clip that is cut."""
    K, mask, depth = priors.K, priors.dynamic_mask, priors.depth
    if K is not None:
        K = K.clone()
        K[:, 0, 2] -= over.crop[1].start
        K[:, 1, 2] -= over.crop[0].start
    if mask is not None:
        mask = mask[(slice(None), *over.crop)]
    if depth is not None:
        height, width = over.signs.shape
        rows, columns = over.crop
        depth = depth.crop((rows.start / height, rows.stop / height), (columns.start / width, columns.stop / width))
    return replace(priors, K=K, dynamic_mask=mask, depth=depth)


def restore_full_frame(scene: Scene, over: Overlays) -> Scene:
    """The scene of the clip that is cut as one of the whole images. What was cut off has no depth and counts as
    moving: no frame shows there what stands still."""
    height, width = over.signs.shape
    if scene.image_size == (height, width):
        return scene
    top, left = over.crop[0].start, over.crop[1].start
    scale_y, scale_x = (m / s for m, s in zip(scene.map_size, scene.image_size))
    size = (round(height * scale_y), round(width * scale_x))
    # Where each pixel of the whole maps lies in the smaller ones; pixel centres are at (u + 0.5, v + 0.5).
    row = (np.arange(size[0]) + 0.5) * height / size[0] - top
    column = (np.arange(size[1]) + 0.5) * width / size[1] - left
    row, column = np.floor(row * scale_y).astype(int), np.floor(column * scale_x).astype(int)
    inside = np.ix_(
        (row >= 0) & (row < scene.map_size[0]),
        (column >= 0) & (column < scene.map_size[1]),
    )
    rows = torch.from_numpy(row[(row >= 0) & (row < scene.map_size[0])])
    columns = torch.from_numpy(column[(column >= 0) & (column < scene.map_size[1])])

    def whole(maps: Tensor, beyond: float) -> Tensor:
        result = torch.full((len(maps), *size), beyond)
        result[(slice(None), *map(torch.from_numpy, inside))] = maps[:, rows][:, :, columns]
        return result

    K = scene.K.clone()
    K[:, 0, 2] += left
    K[:, 1, 2] += top
    return replace(
        scene,
        K=K,
        image_size=(height, width),
        lens=None if scene.lens is None else scene.lens.shifted(float(left), float(top)),
        depth=whole(scene.depth, 0.0),
        confidence=whole(scene.confidence, 0.0),
        dynamic_prob=whole(scene.dynamic_prob, 1.0),
    )


def _signs(frames: UInt8[Tensor, "n h w 3"]) -> Bool[np.ndarray, "h w"]:
    n, height, width = frames.shape[:3]
    none = np.zeros((height, width), bool)
    if n < MIN_FRAMES:
        return none
    chosen = np.unique(np.linspace(0, n - 1, min(n, MAX_SAMPLED_FRAMES)).round().astype(int))
    scale = min(1.0, LONGEST_SIDE_PX / max(height, width))
    size = (round(width * scale), round(height * scale))
    gradient = np.empty((len(chosen), size[1], size[0], 6), np.float32)

    def look(k: int) -> None:
        gradient[k] = _gradient(frames[int(chosen[k])].numpy(), size)

    parallel_for(look, len(chosen))
    usual = gradient.mean(axis=0)
    strength = np.square(usual).sum(axis=-1)
    stays = strength > MIN_EDGE_GRADIENT**2
    here = gradient[:, stays]
    stays[stays] = ((here * usual[stays]).sum(axis=-1) > MIN_EDGE_STRENGTH_SHARE * strength[stays]).mean(
        axis=0
    ) >= MIN_FRAMES_SHARE
    gap = 2 * round(MAX_GAP_SHARE * max(size) / 2) + 1
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap, gap))
    count, label = cv2.connectedComponents(cv2.morphologyEx(stays.astype(np.uint8), cv2.MORPH_CLOSE, disk))
    label[~stays] = 0
    found, edge_pixels = np.zeros(stays.shape, np.uint8), 0
    for number in range(1, count):
        part = label == number
        if part.sum() < MIN_SIGN_PX or not _two_ways(usual[part]) or _wavers(gradient, usual, part):
            continue
        edge_pixels += int(part.sum())
        hull = cv2.convexHull(np.argwhere(part)[:, ::-1].astype(np.int32))
        filled = cv2.fillConvexPoly(np.zeros_like(found), hull, (1,))
        found = np.maximum(found, filled if np.mean(filled) < MAX_SIGN_SHARE else part.astype(np.uint8))
    if edge_pixels == 0:
        return none
    edges = np.square(gradient).sum(axis=-1) > MIN_EDGE_GRADIENT**2
    if edge_pixels > MAX_STILL_EDGES_SHARE * edges.sum() / len(chosen):
        return none
    found = cv2.resize(found, (width, height), interpolation=cv2.INTER_NEAREST)
    around = round(MARGIN_PX / scale)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * around + 1, 2 * around + 1))
    return cv2.dilate(found, disk) > 0


def _gradient(frame: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> Float32[np.ndarray, "_ _ 6"]:
    """d/du of each colour, then d/dv, in grey levels a pixel."""
    if size != frame.shape[1::-1]:
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return np.concatenate([cv2.Sobel(frame, cv2.CV_32F, 1 - k, k, scale=1 / 8) for k in (0, 1)], axis=-1)


def _two_ways(gradient: Float32[np.ndarray, "m 6"]) -> bool:
    """Whether edges run in more than one direction."""
    direction = np.stack((gradient[:, :3].ravel(), gradient[:, 3:].ravel()))
    across, along = np.linalg.eigvalsh(direction @ direction.T)
    return bool(across > MIN_ACROSS_SHARE * along)


def _wavers(
    gradient: Float32[np.ndarray, "n h w 6"], usual: Float32[np.ndarray, "h w 6"], part: Bool[np.ndarray, "h w"]
) -> bool:
    """Whether the edges of a part lie elsewhere, now and then, than usual: where they fit best, by the parabola through
    how well they fit when moved by a pixel."""
    height, width = part.shape
    row, column = np.nonzero(part)
    inside = (row > 0) & (row < height - 1) & (column > 0) & (column < width - 1)
    row, column = row[inside], column[inside]
    if len(row) == 0:
        return True

    def fit(du: int, dv: int) -> np.ndarray:
        return np.einsum("npc,pc->n", gradient[:, row + dv, column + du], usual[row, column])

    moved = []
    for du, dv in ((1, 0), (0, 1)):
        before, at, after = fit(-du, -dv), fit(0, 0), fit(du, dv)
        bend = before + after - 2 * at
        moved.append(np.where(bend < 0, (before - after) / (2 * np.minimum(bend, -1e-9)), 1.0))
    return bool(np.quantile(np.hypot(*moved), 0.9) > MAX_SHIFT_PX)


def _bars(frames: UInt8[Tensor, "n h w 3"], signs: Bool[np.ndarray, "h w"]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns between the bars. Words in a bar do not make it less of one."""
    n = len(frames)
    chosen = torch.linspace(0, n - 1, min(n, MAX_SAMPLED_FRAMES)).round().long()
    bright = frames[chosen].amax(dim=-1).numpy()
    found = []
    for axis in (0, 1):
        values, other = (bright, signs) if axis == 0 else (bright.transpose(0, 2, 1), signs.T)
        length = values.shape[1]
        if not _dark_rows(values[:, [0, -1]], other[[0, -1]])[0].any():  # as of nearly every clip
            found.append((0, length))
            continue
        values = _without_signs(values, other)
        dark, level = _dark_rows(values, other)
        first, last = (int(np.argmin(d)) if not d.all() else 0 for d in (dark, dark[::-1]))
        brightest = np.median(values.max(axis=0), axis=1)  # of half of a row, at some time
        if first and brightest[first + MARGIN_PX] <= level[:first].max() + MIN_STEP_LEVELS:
            first = 0
        if last and brightest[length - 1 - last - MARGIN_PX] <= level[length - last :].max() + MIN_STEP_LEVELS:
            last = 0
        first, last = (bar + MARGIN_PX if bar else 0 for bar in (first, last))
        found.append((first, length - last) if length - first - last >= MIN_INSIDE_PX else (0, length))
    return found[0], found[1]


def _without_signs(values: UInt8[np.ndarray, "n h w"], signs: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "n h w"]:
    """Signs as dark as the darkest beside them in their row."""
    return np.where(signs, np.where(signs, 255, values).min(axis=2, keepdims=True), values)


def _dark_rows(
    values: UInt8[np.ndarray, "n h w"], signs: Bool[np.ndarray, "h w"]
) -> tuple[Bool[np.ndarray, "h"], Float64[np.ndarray, "h"]]:
    """Which rows look like those of a bar, and how bright each is."""
    values = _without_signs(values, signs)
    low, high = (_of_row(values, share) for share in (1 - MAX_OUTLIER_SHARE, MAX_OUTLIER_SHARE))
    level = np.quantile(high, 1 - MAX_OUTLIER_SHARE, axis=0)
    even = np.quantile(high.astype(float) - low, 1 - MAX_OUTLIER_SHARE, axis=0) <= MAX_BAR_CONTRAST
    return (level <= MAX_BAR_LEVEL) & even & (signs.mean(axis=1) < MAX_TEXT_SHARE), level


def _of_row(values: UInt8[np.ndarray, "n h w"], beyond: float) -> UInt8[np.ndarray, "n h"]:
    """Of each row the value that the given share of its pixels exceeds."""
    rank = min(int((1 - beyond) * values.shape[2]), values.shape[2] - 1)
    return np.partition(values, rank, axis=2)[..., rank]
