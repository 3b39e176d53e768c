"""A start for dense flow where the motion is larger than it can find by itself.

Coarse-to-fine flow loses its way when objects move by more than about an eighth of the image, or by more than their own
size. Given a rough guess of the motion, the second image is warped back by it, the flow that remains is short, and the
two are composed. Guesses come from shorter steps in time (`chain`), which carry the motion of every surface, and from
point matches (`guess_from_matches`), which need nothing in between. Several results are merged by pixel (`merge`).

All flow is (du, dv) in pixels of the images at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from das3r_ns.predictor.flow.matches import Matches

Estimate = Callable[[np.ndarray, np.ndarray], np.ndarray]
BothWays = tuple[Float32[np.ndarray, "h w 2"], Float32[np.ndarray, "h w 2"]]
"""Flow from a first image to a second, and back."""
Guess = tuple[Float32[np.ndarray, "gh gw 2"], Float32[np.ndarray, "gh gw 2"]]
"""The same where the size is another."""

ROUND_TRIP = (1.5, 0.03)
"""A pixel is found up to this round-trip error: pixels, plus this share of the flow's length."""
FULL_SHARE = 0.2
"""Of the pixels that are found. With more, what is lost has left the view or is hidden, and no guess finds it. Where
an object covers most of the image a third is lost for that reason alone, and guesses would follow the object."""
MATCHING_SHARE = 0.2
"""With less after a chain of shorter steps, points are matched as well."""
MIN_CHAIN_SHARE = 0.1
"""Of the pixels that both steps of a chain must find, or the chain says nothing about the others either."""
COARSE_PX = 4
"""Guesses are smooth: they are made in cells of so many pixels."""
FILL_SIGMAS = (1.0, 3.0, 9.0, 27.0)
"""Cells. What is not known is filled from ever wider surroundings."""
PLANE_PX = 4.0
"""Distance of a match from where a homography puts it."""
LOCAL_SIGMA = 0.06
"""Share of the longer side over which matches say how the motion departs from one homography."""
PATCH_PX = 9
"""Side of the patches that results are compared by."""
TRIP_LEVELS = 4.0
"""Grey levels of difference that count as much as a pixel that does not come back to where it was."""
FIRST_BONUS = 0.95
"""Of the cost of the flow without a guess: among equals it is taken."""


def found(forward: Float32[np.ndarray, "h w 2"], backward: Float32[np.ndarray, "h w 2"]) -> np.ndarray:
    """Which pixels come back to where they were, as floats."""
    error, length = _trip_error(forward, backward), np.sqrt(np.square(forward).sum(axis=-1))
    return (error < ROUND_TRIP[0] + ROUND_TRIP[1] * length).astype(np.float32)


def seeded(estimate: Estimate, a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"], guess: np.ndarray):
    """Flow from `a` to `b` around a guess: what `a` needs to reach the warped `b`, then the guess from there."""
    rest = estimate(a, look_up(b, guess))
    return rest + look_up(guess, rest)


def chain(first: BothWays, second: BothWays, size: tuple[int, int]) -> Guess | None:
    """A guess for a long step from the flow of two shorter ones that meet in the middle.

    Args:
        first, second: flow of each step there and back, of any resolution.
        size: height and width of the guess.
    Returns:
        None where the steps find too little.
    """
    there = _compose(first[0], second[0], found(*first), found(*second))
    back = _compose(second[1], first[1], found(*second[::-1]), found(*first[::-1]))
    filled = [_filled(flow, weight, size) for flow, weight in (there, back)]
    return None if filled[0] is None or filled[1] is None else (filled[0], filled[1])


def guess_from_matches(matches: Matches, size: tuple[int, int]) -> Guess | None:
    """The motion that matches show, there and back: the homography that fits most of them, bent to follow the others.

    Args:
        matches: in pixels of images of `size`.
    Returns:
        None where the frames are not `linked`, or no homography fits.
    """
    if not matches.linked:
        return None
    ways = [_bent_homography(m, size) for m in (matches, matches.swapped())]
    return None if ways[0] is None or ways[1] is None else (ways[0], ways[1])


def merge(a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"], results: Sequence[BothWays]) -> BothWays:
    """Of several results the best in each pixel: whose patches look alike, and which comes back to where it was."""
    if len(results) == 1:
        return results[0]
    return (
        _best(a, b, [forward for forward, _ in results], [backward for _, backward in results]),
        _best(b, a, [backward for _, backward in results], [forward for forward, _ in results]),
    )


def look_up(values: np.ndarray, flow: Float32[np.ndarray, "h w 2"]) -> np.ndarray:
    """Values of the second image where each pixel of the first went; the border's out of view."""
    u, v = _ends(flow)
    return cv2.remap(values, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _trip_error(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    height, width = forward.shape[:2]
    u, v = _ends(forward)
    back = forward + cv2.remap(backward, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    error = np.sqrt(back[..., 0] ** 2 + back[..., 1] ** 2)
    error[(u < 0) | (v < 0) | (u > width - 1) | (v > height - 1)] = np.inf
    return error


def _ends(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel went, as `cv2.remap` wants it."""
    height, width = flow.shape[:2]
    u, v = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return u + flow[..., 0], v + flow[..., 1]


def _compose(
    first: np.ndarray, second: np.ndarray, first_found: np.ndarray, second_found: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    return first + look_up(second, first), first_found * (look_up(second_found, first) > 0.5)


def _filled(flow: np.ndarray, weight: np.ndarray, size: tuple[int, int]) -> Float32[np.ndarray, "_ _ 2"] | None:
    """Flow of another size, smooth, unknown pixels filled from around; None where too little is known."""
    if weight.mean() < MIN_CHAIN_SHARE:
        return None
    cells = (max(size[0] // COARSE_PX, 1), max(size[1] // COARSE_PX, 1))
    weighted = cv2.resize(flow * weight[..., None], cells[::-1], interpolation=cv2.INTER_AREA)
    total = cv2.resize(weight, cells[::-1], interpolation=cv2.INTER_AREA)
    scale = np.array([size[1] / flow.shape[1], size[0] / flow.shape[0]], np.float32)
    return cv2.resize(_spread(weighted, total) * scale, size[::-1], interpolation=cv2.INTER_LINEAR)


def _spread(weighted: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Normalised convolution with growing Gaussians: each cell takes its value from the nearest that are known."""
    mean = (weighted.sum(axis=(0, 1)) / max(float(total.sum()), 1e-6)).astype(np.float32)
    result = np.broadcast_to(mean, weighted.shape).copy()
    for sigma in reversed(FILL_SIGMAS):
        above, below = cv2.GaussianBlur(weighted, (0, 0), sigma), cv2.GaussianBlur(total, (0, 0), sigma)
        known = np.clip(below / 0.1, 0, 1)[..., None]
        result = known * (above / np.maximum(below, 1e-6)[..., None]) + (1 - known) * result
    return result.astype(np.float32)


def _bent_homography(matches: Matches, size: tuple[int, int]) -> Float32[np.ndarray, "h w 2"] | None:
    source, target = matches.source, matches.target
    H, _ = cv2.findHomography(source, target, cv2.USAC_MAGSAC, PLANE_PX, maxIters=2000)
    if H is None:
        return None
    cells = (max(size[0] // COARSE_PX, 1), max(size[1] // COARSE_PX, 1))
    u, v = np.meshgrid(
        (np.arange(cells[1], dtype=np.float32) + 0.5) * size[1] / cells[1],
        (np.arange(cells[0], dtype=np.float32) + 0.5) * size[0] / cells[0],
    )
    grid = np.stack((u, v), axis=-1)
    moved = cv2.perspectiveTransform(grid.reshape(-1, 1, 2), H).reshape(grid.shape)
    reach = 2.0 * max(size)
    if not np.isfinite(moved).all() or np.abs(moved - grid).max() > reach:
        return None  # the plane's horizon lies in the image
    rest = target - cv2.perspectiveTransform(source[:, None], H)[:, 0]
    # Single wrong matches lie along an epipolar line too: one that its neighbours contradict is left out.
    near = np.square(source[:, None] - source[None]).sum(axis=-1).argsort(axis=1)[:, 1:6]
    usual = np.median(rest[near], axis=1)
    agrees = np.linalg.norm(rest - usual, axis=1) < PLANE_PX + 0.1 * np.linalg.norm(target - source, axis=1)
    weighted, total = np.zeros((*cells, 2), np.float32), np.zeros(cells, np.float32)
    column = np.clip((source[agrees, 0] * cells[1] / size[1]).astype(int), 0, cells[1] - 1)
    row = np.clip((source[agrees, 1] * cells[0] / size[0]).astype(int), 0, cells[0] - 1)
    np.add.at(weighted, (row, column), rest[agrees])
    np.add.at(total, (row, column), 1.0)
    sigma = LOCAL_SIGMA * max(cells)
    above, below = cv2.GaussianBlur(weighted, (0, 0), sigma), cv2.GaussianBlur(total, (0, 0), sigma)
    # One match within reach is half believed: 1 / (2 pi sigma^2) is what it leaves at its own place.
    bend = above / (below + 0.5 / (2 * np.pi * sigma**2))[..., None]
    return cv2.resize((moved - grid + bend).astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)


def _best(a: np.ndarray, b: np.ndarray, ways: list[np.ndarray], returns: list[np.ndarray]) -> np.ndarray:
    first, second = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (a, b))
    costs = []
    for k, (way, back) in enumerate(zip(ways, returns)):
        difference = first.astype(np.float32) - look_up(second, way)
        difference -= cv2.blur(difference, (2 * PATCH_PX + 1,) * 2)  # a change of light is not a difference
        trip = np.minimum(_trip_error(way, back) / ROUND_TRIP[0], 1)
        cost = cv2.blur(np.abs(difference) + TRIP_LEVELS * trip, (PATCH_PX, PATCH_PX))
        costs.append(cost * (FIRST_BONUS if k == 0 else 1))
    chosen = cv2.medianBlur(np.argmin(costs, axis=0).astype(np.uint8), 7)
    return np.take_along_axis(np.stack(ways), chosen[None, ..., None].astype(np.int64), axis=0)[0]
