"""The region that a click means: what belongs together in colour, in motion and over time.

To call something static, what is marked as moving around the click is meant: its connected part of the mask. To call
something moving, there are three kinds of candidates, and the first that there is at the click is the best:

1. what neighbouring frames call moving there;
2. what moves there and is not explained by the camera;
3. what has the strongest edges along its border. From the click outwards every pixel has a distance, the sum of all
   edges of colour, motion and depth that the shortest way to it crosses (a geodesic distance: Criminisi et al., ECCV
   2008); all pixels up to a distance are a candidate.

Outlines are drawn by colour (GrabCut: Rother et al., SIGGRAPH 2004). Who means more or less than the best candidate
asks for another level: the next larger or smaller one.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from das3r_ns.editing.cutout import (
    MOTION_BAND,
    OUTLINE_BAND,
    cut_out,
    dilate,
    erode,
    fill_holes,
    largest_part,
    parts_of,
)

COLOUR_WEIGHT = 1.0
"""Of a difference from black to white."""
MOTION_WEIGHT = 0.6
"""Of the difference between a pixel at rest and one of `FAST_PX`."""
FAST_PX = 2.0
"""Motion in map pixels a frame above which faster makes no difference."""
TIME_WEIGHT = 0.8
"""Of the difference between what all neighbouring frames call moving and what none does."""
DEPTH_WEIGHT = 0.3
"""Of the difference between a surface at infinity and one at hand."""
STEP_COST = 0.002
"""Of a step where there is no edge at all: near pixels come first."""
MIN_SHARE, MAX_SHARE = 0.0004, 0.5
"""Of the image that a region may cover."""
GROWTH = 1.12
"""From one candidate's area to the next one's."""
PEAK_SHARE = 0.75
"""Strength of a border, as a share of the strongest, from which a candidate counts as another level."""
CLICK_RADIUS_SHARE = 0.006
"""Of the longer side: all pixels this near the click belong to it."""
NEAR_SHARE = 0.02
"""Of the longer side: how far from a marked region a click may lie to mean it."""
AROUND_CONVINCES, MOTION_CONVINCES = 0.34, 0.5
"""Share of the neighbouring frames that call a pixel moving, and sureness of its own motion, above which it belongs to
what moves."""
SAME_OVERLAP = 0.85
"""Overlap (intersection over union) above which two candidates are one."""
MIN_PART_SHARE = 0.02
"""Of a marked region that a click may mean."""


@dataclass(frozen=True)
class RegionCues:
    """What a region is found by, at the size of the maps."""

    image: UInt8[np.ndarray, "h w 3"]
    """RGB."""
    motion: Float32[np.ndarray, "2 h w"] | None = None
    """What the camera leaves of the optical flow, pixels a frame."""
    around: Float32[np.ndarray, "h w"] | None = None
    """Share of the neighbouring frames that call the pixel moving."""
    moves: Float32[np.ndarray, "h w"] | None = None
    """How sure it is that the pixel moves by its own motion, 0 to 1."""
    depth: Float32[np.ndarray, "h w"] | None = None
    """Inverse depth over that plus its median: 0 at infinity, near 1 at hand."""

    def features(self) -> Float32[np.ndarray, "h w c"]:
        """All of it in one scale, without texture."""
        lab = cv2.cvtColor(self.image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        layers = [COLOUR_WEIGHT * cv2.bilateralFilter(lab, 7, 12.0, 3.0) / 100]
        if self.motion is not None:
            speed = np.linalg.norm(self.motion, axis=0)
            bounded = self.motion * np.minimum(1, FAST_PX / np.maximum(speed, 1e-6)) / FAST_PX
            layers += [MOTION_WEIGHT * _steady(part)[..., None] for part in bounded]
        if self.around is not None:
            layers.append(TIME_WEIGHT * _steady(self.around)[..., None])
        if self.depth is not None:
            layers.append(DEPTH_WEIGHT * _steady(self.depth)[..., None])
        return np.concatenate(layers, axis=-1).astype(np.float32)


def marked_region(moving: Bool[np.ndarray, "h w"], at: tuple[float, float]) -> Bool[np.ndarray, "h w"] | None:
    """The connected part of what moves that a click means: the one it hits, or the nearest that it just misses.

    Args:
        at: (x, y) of the click as shares of width and height.

    Returns:
        None if nothing near the click moves.
    """
    row, column = pixel_at(at, moving.shape)
    if not moving.any():
        return None
    _, labels = parts_of(moving, 8)
    if not moving[row, column]:
        rows, columns = np.nonzero(moving)
        distance = np.hypot(rows - row, columns - column)
        nearest = int(distance.argmin())
        if distance[nearest] > max(2.0, NEAR_SHARE * max(moving.shape)):
            return None
        row, column = int(rows[nearest]), int(columns[nearest])
    return labels == labels[row, column]


def region_at(
    cues: RegionCues, at: tuple[float, float], level: int = 0, marked: Bool[np.ndarray, "h w"] | None = None
) -> Bool[np.ndarray, "h w"]:
    """The region around a click.

    Args:
        at: (x, y) of the click as shares of width and height.
        level: 0 is the best candidate, 1 the next larger one, -1 the next smaller one.
        marked: what is marked already. Its border is no edge of what is not.
    """
    sure = [
        _outlined(cues.image, part, band)
        for values, convinces, band in (
            (cues.around, AROUND_CONVINCES, OUTLINE_BAND),
            (cues.moves, MOTION_CONVINCES, MOTION_BAND),
        )
        if values is not None and (part := _part_at(values > convinces, at)) is not None
    ]
    if level == 0 and sure:
        return sure[0]
    distance, steps = distances_from(cues.features(), at)
    by_edges, strongest = _candidates(distance, steps, marked)
    best = sure[0] if sure else by_edges[strongest]
    # Candidates that hardly differ from the best are not a level of their own.
    others = [region for region in (*sure[1:], *by_edges) if _overlap(region, best) < SAME_OVERLAP]
    smaller = sorted((r for r in others if r.sum() < best.sum()), key=lambda r: -int(r.sum()))
    larger = sorted((r for r in others if r.sum() >= best.sum()), key=lambda r: int(r.sum()))
    ladder = larger if level > 0 else smaller
    chosen = ladder[min(abs(level), len(ladder)) - 1] if level and ladder else best
    return chosen if any(chosen is region for region in sure) else _outlined(cues.image, chosen)


def part_of_region(
    cues: RegionCues, region: Bool[np.ndarray, "h w"], at: tuple[float, float], level: int
) -> Bool[np.ndarray, "h w"]:
    """A part of what is marked, for a click on two objects that the mask joins.

    Args:
        level: from 1; the larger, the smaller the part.
    """
    distance, steps = distances_from(cues.features(), at)
    candidates, _ = _candidates(np.where(region, distance, np.inf), steps, None)
    parts = [part & region for part in candidates]
    parts = [part for part in parts if MIN_PART_SHARE * region.sum() < part.sum() < SAME_OVERLAP * region.sum()]
    return parts[max(len(parts) - level, 0)] if parts else region


def _part_at(region: Bool[np.ndarray, "h w"], at: tuple[float, float]) -> Bool[np.ndarray, "h w"] | None:
    """The connected part that a click hits; None if it hits none, or one too small or large to be meant."""
    row, column = pixel_at(at, region.shape)
    if not region[row, column]:
        return None
    _, labels = parts_of(region, 4)
    part = labels == labels[row, column]
    return part if MIN_SHARE < part.mean() < MAX_SHARE else None


def _overlap(a: Bool[np.ndarray, "h w"], b: Bool[np.ndarray, "h w"]) -> float:
    """Intersection over union."""
    return float((a & b).sum() / max(int((a | b).sum()), 1))


def distances_from(
    features: Float32[np.ndarray, "h w c"], at: tuple[float, float]
) -> tuple[Float[np.ndarray, "h w"], tuple[Float32[np.ndarray, "h w_1"], Float32[np.ndarray, "h_1 w"]]]:
    """Geodesic distance of each pixel from a click, and the edges between neighbours (across, down)."""
    height, width = features.shape[:2]
    across = np.linalg.norm(np.diff(features, axis=1), axis=-1)
    down = np.linalg.norm(np.diff(features, axis=0), axis=-1)
    number = np.arange(height * width).reshape(height, width)
    first = np.concatenate((number[:, :-1].ravel(), number[:-1].ravel()))
    second = np.concatenate((number[:, 1:].ravel(), number[1:].ravel()))
    cost = np.concatenate((across.ravel(), down.ravel())) + STEP_COST
    row, column = pixel_at(at, (height, width))
    disc = np.zeros((height, width), np.uint8)
    cv2.circle(disc, (column, row), max(1, round(CLICK_RADIUS_SHARE * max(height, width))), (1,), -1)
    graph = coo_array((cost, (first, second)), shape=(height * width, height * width)).tocsr()
    distance = dijkstra(graph, directed=False, indices=np.flatnonzero(disc), min_only=True)
    return distance.reshape(height, width), (across, down)


def _candidates(
    distance: Float[np.ndarray, "h w"],
    steps: tuple[np.ndarray, np.ndarray],
    marked: Bool[np.ndarray, "h w"] | None,
) -> tuple[list[Bool[np.ndarray, "h w"]], int]:
    """Regions whose border is stronger than those a little smaller and larger, ascending in size, and the place of the
    one with the strongest border."""
    order = np.sort(distance[np.isfinite(distance)], axis=None)
    count, areas = len(order), []
    area = max(8.0, MIN_SHARE * count)
    while area < MAX_SHARE * count:
        areas.append(int(area))
        area *= GROWTH
    across, down = steps
    free = np.ones(distance.shape, bool) if marked is None else ~marked
    # Only pairs of pixels that are both not marked can be a border of what is to be marked.
    pairs = (
        (distance[:, :-1], distance[:, 1:], across, free[:, :-1] & free[:, 1:]),
        (distance[:-1], distance[1:], down, free[:-1] & free[1:]),
    )
    strengths = []
    for area in areas:
        limit, edges, length = order[area], 0.0, 0
        for a, b, edge, counts in pairs:
            border = ((a <= limit) != (b <= limit)) & counts
            edges += float(edge[border].sum())
            length += int(border.sum())
        strengths.append(edges / (length + 8))
    smooth = np.convolve(np.pad(strengths, 1, "edge"), [0.25, 0.5, 0.25], "valid")
    peaks = [
        k
        for k in range(len(smooth))
        if smooth[k] >= PEAK_SHARE * smooth.max() and smooth[k] >= smooth[max(k - 2, 0) : k + 3].max()
    ]
    best = int(smooth.argmax())
    chosen = sorted({*_spread(peaks, best, len(areas)), best})
    return [fill_holes(distance <= order[areas[k]]) for k in chosen], chosen.index(best)


def _spread(peaks: list[int], best: int, count: int) -> list[int]:
    """Peaks, and between them steps by half the area, so that there is always a next level."""
    steps = range(best % 6, count, 6)
    return [*peaks, *(k for k in steps if all(abs(k - peak) > 3 for peak in peaks))]


def _outlined(
    image: UInt8[np.ndarray, "h w 3"], region: Bool[np.ndarray, "h w"], band: float = OUTLINE_BAND
) -> Bool[np.ndarray, "h w"]:
    """The region with its outline where colours say, no farther away than `band` times the root of its area."""
    reach = max(2, round(band * np.sqrt(region.sum())))
    found = cut_out(image, erode(region, reach), dilate(region, reach), region)
    joined = largest_part(found, region)
    return region if joined.sum() < 0.4 * region.sum() else joined


def pixel_at(at: tuple[float, float], size: tuple[int, ...]) -> tuple[int, int]:
    """Row and column of a place given as shares (x, y) of width and height."""
    return min(max(int(at[1] * size[0]), 0), size[0] - 1), min(max(int(at[0] * size[1]), 0), size[1] - 1)


def _steady(values: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    return cv2.medianBlur(np.ascontiguousarray(values, np.float32), 5)
