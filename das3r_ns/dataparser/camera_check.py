"""Do the images agree with cameras that somebody gave?

A point seen in two frames lies on the epipolar line that the two cameras predict, in front of both. Matches between
frames some distance apart tell how many do: by the cameras as they are read, by the same matrices read in another
convention, and by the best motion that the matches themselves allow (RANSAC), to which right cameras come close. What
moves disagrees with all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Bool, Float64, UInt8

from das3r_ns.dataparser.known_cameras import Convention, in_convention

LONGEST_SIDE_PX = 640
"""Frames are reduced to this for matching."""
MAX_FEATURES = 1500
MAX_RATIO = 0.8
"""Of the distances to the nearest and the second nearest descriptor (Lowe 2004)."""
MIN_MATCHES = 40
"""Fewer matches of a pair of frames say nothing."""
MIN_DISPLACEMENT_PX = 3.0
"""Median displacement below which the camera hardly moved between two frames, and any cameras agree."""
ANCHORS = 6
"""Frames from which pairs are made."""
TOLERANCE_PX = 1.5
"""Distance from the epipolar line up to which a match agrees, at `LONGEST_SIDE_PX`."""
PARALLAX_PX = 3.0
"""Parallax from which the sign of a depth is not noise."""

MIN_FITTING_SHARE = 0.7
"""Cameras fit whose share of agreeing matches reaches this part of what is possible."""
BETTER_FACTOR = 1.4
"""Another reading is better when its share is this many times larger."""

CONVENTIONS: tuple[Convention, ...] = ("opengl", "opencv", "opengl-inverse", "opencv-inverse")

DESCRIPTIONS = {
    "opengl": "camera-to-world with OpenGL axes (x right, y up, z back)",
    "opencv": "camera-to-world with OpenCV axes (x right, y down, z forward)",
    "opengl-inverse": "world-to-camera with OpenGL axes (x right, y up, z back)",
    "opencv-inverse": "world-to-camera with OpenCV axes (x right, y down, z forward)",
}


@dataclass(frozen=True)
class PairMatches:
    """Matches between two frames, as rays x/z, y/z."""

    i: int
    j: int
    rays_i: Float64[np.ndarray, "m 2"]
    rays_j: Float64[np.ndarray, "m 2"]
    focal: float
    """Of the first frame, in pixels at which the matches were made: what turns rays into pixels."""


@dataclass
class FrameMatcher:
    """Finds matches between frames of a clip; features are computed once a frame."""

    frames: Callable[[int], UInt8[np.ndarray, "h w 3"]]
    K: Float64[np.ndarray, "n 3 3"]
    """In pixels of the frames."""
    moving: Callable[[int], Bool[np.ndarray, "h w"] | None] = lambda _: None
    """Where something moves, in a frame, if that is known."""
    _features: dict[int, tuple[np.ndarray, np.ndarray, float]] = field(default_factory=dict)

    def features(self, i: int) -> tuple[Float64[np.ndarray, "m 2"], np.ndarray, float]:
        """Rays and descriptors of features of a frame, and its focal length in pixels of the reduced frame."""
        if i not in self._features:
            image, moving = self.frames(i), self.moving(i)
            scale = min(1.0, LONGEST_SIDE_PX / max(image.shape[:2]))
            if scale < 1:
                size = round(image.shape[1] * scale), round(image.shape[0] * scale)
                image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            mask = np.full(image.shape[:2], 255, np.uint8)
            if moving is not None:
                still = cv2.resize((~moving).astype(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
                mask = np.asarray(cv2.erode(still, np.ones((5, 5), np.uint8)))
            detector = cv2.SIFT.create(nfeatures=MAX_FEATURES, contrastThreshold=0.02)
            points, descriptors = detector.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), mask)
            pixels = np.array([point.pt for point in points], np.float64).reshape(-1, 2) + 0.5
            K = self.K[i]
            rays = (pixels / scale - K[:2, 2]) / K[[0, 1], [0, 1]]
            empty = np.zeros((0, 128), np.float32)
            self._features[i] = rays, empty if descriptors is None else descriptors, float(K[0, 0] * scale)
        return self._features[i]

    def match(self, i: int, j: int) -> PairMatches | None:
        """Matches of two frames that are each other's nearest; None where there are too few."""
        (rays_i, of_i, focal), (rays_j, of_j, _) = self.features(i), self.features(j)
        if min(len(of_i), len(of_j)) < MIN_MATCHES:
            return None
        # Products instead of differences: descriptors of SIFT have nearly one length, and one multiplication is fast.
        squares = (of_i**2).sum(1)[:, None] + (of_j**2).sum(1)[None] - 2 * of_i @ of_j.T
        nearest = squares.argmin(axis=1)
        first = np.sqrt(np.maximum(squares[np.arange(len(of_i)), nearest], 0))
        squares_back = squares.argmin(axis=0)
        squares[np.arange(len(of_i)), nearest] = np.inf
        second = np.sqrt(np.maximum(squares.min(axis=1), 0))
        good = (first < MAX_RATIO * second) & (squares_back[nearest] == np.arange(len(of_i)))
        if good.sum() < MIN_MATCHES:
            return None
        return PairMatches(i, j, rays_i[good], rays_j[nearest[good]], focal)

    def far_match(self, places: Sequence[int], a: int) -> tuple[int, PairMatches] | None:
        """From place `a` of a list of frames the farthest later one that still has enough matches and has moved."""
        step = max(1, min(len(places) - 1 - a, len(places) // 3))
        while step >= 1:
            found = self.match(places[a], places[a + step]) if a + step < len(places) else None
            if found is not None and np.median(_displacement(found)) > MIN_DISPLACEMENT_PX:
                return a + step, found
            step //= 2
        return None


def _displacement(pair: PairMatches) -> np.ndarray:
    return np.linalg.norm(pair.rays_i - pair.rays_j, axis=1) * pair.focal


def agreeing(
    pair: PairMatches, T_world_i: Float64[np.ndarray, "4 4"], T_world_j: Float64[np.ndarray, "4 4"]
) -> Bool[np.ndarray, "m"]:
    """Which matches lie on their epipolar lines (Sampson's distance) and in front of both cameras."""
    T = np.linalg.inv(T_world_j) @ T_world_i
    R, t = T[:3, :3], T[:3, 3]
    x, y = (np.column_stack((rays, np.ones(len(rays)))) for rays in (pair.rays_i, pair.rays_j))
    turned = x @ R.T
    if np.linalg.norm(t) < 1e-12:
        straight = turned[:, 2] > 1e-6
        off = np.linalg.norm(turned[:, :2] / np.where(straight, turned[:, 2], 1)[:, None] - pair.rays_j, axis=1)
        return straight & (off * pair.focal < TOLERANCE_PX)
    t = t / np.linalg.norm(t)
    E = np.cross(t, R, axisb=0, axisc=0)
    line_j, line_i = x @ E.T, y @ E
    value = (y * line_j).sum(axis=1)
    slope = np.sqrt((line_j[:, :2] ** 2).sum(axis=1) + (line_i[:, :2] ** 2).sum(axis=1))
    near = np.abs(value) < TOLERANCE_PX / pair.focal * np.maximum(slope, 1e-12)
    # y * depth_j = turned * depth_i + t, solved for both depths.
    normal = np.cross(y, turned)
    area = (normal**2).sum(axis=1)
    depth_i = -(np.cross(y, np.broadcast_to(t, y.shape)) * normal).sum(axis=1)
    depth_j = -(np.cross(turned, np.broadcast_to(t, y.shape)) * normal).sum(axis=1)
    behind = (np.minimum(depth_i, depth_j) < 0) & (np.sqrt(area) * pair.focal > PARALLAX_PX)
    return near & ~behind


def best_possible(pair: PairMatches) -> int:
    """How many matches the best rigid motion explains."""
    focal = pair.focal
    cv2.setRNGSeed(0)
    E, _ = cv2.findEssentialMat(
        pair.rays_i, pair.rays_j, np.eye(3), method=cv2.RANSAC, prob=0.999, threshold=TOLERANCE_PX / focal
    )
    if E is None:
        return 0
    best = 0
    for k in range(len(E) // 3):
        _, R, t, _ = cv2.recoverPose(E[3 * k : 3 * k + 3], pair.rays_i, pair.rays_j, np.eye(3))
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = R, t[:, 0]
        best = max(best, int(agreeing(pair, T, np.eye(4)).sum()))
    return best


@dataclass(frozen=True)
class Fit:
    """How well cameras agree with the images."""

    share: float
    """Share of the matches that agree."""
    possible: float
    """Share that the best motion of each pair reaches."""
    matches: int

    @property
    def good(self) -> bool:
        """Whether they agree as well as can be hoped."""
        return self.share >= MIN_FITTING_SHARE * self.possible

    def beats(self, other: "Fit") -> bool:
        """Whether this reading is right where the other is wrong."""
        return self.good and not other.good and self.share > BETTER_FACTOR * other.share


def pairs_of(matcher: FrameMatcher, places: Sequence[int]) -> list[tuple[int, int, PairMatches]]:
    """Pairs of places in a list of frames, spread over it, with their matches."""
    if len(places) < 2:
        return []
    found = []
    for a in sorted({round(a) for a in np.linspace(0, max(0, len(places) - 2), ANCHORS)}):
        far = matcher.far_match(places, a)
        if far is not None:
            found.append((a, *far))
    return found


def fit_of(pairs: Sequence[tuple[int, int, PairMatches]], T_world_camera: Float64[np.ndarray, "n 4 4"]) -> Fit | None:
    """How well cameras agree with the matches of pairs of them; None where there is nothing to tell from."""
    count = sum(len(pair.rays_i) for _, _, pair in pairs)
    if count < 2 * MIN_MATCHES:
        return None
    agree = sum(int(agreeing(pair, T_world_camera[a], T_world_camera[b]).sum()) for a, b, pair in pairs)
    possible = sum(max(best_possible(pair), 1) for _, _, pair in pairs)
    return Fit(agree / count, max(agree, possible) / count, count)


def fits_by_convention(
    pairs: Sequence[tuple[int, int, PairMatches]], matrices: Float64[np.ndarray, "n 4 4"]
) -> dict[Convention, Fit] | None:
    """How well matrices agree with the images in each convention; None where there is nothing to tell from."""
    found: dict[Convention, Fit | None] = {
        convention: fit_of(pairs, in_convention(matrices, convention)) for convention in CONVENTIONS
    }
    whole: dict[Convention, Fit] = {convention: fit for convention, fit in found.items() if fit is not None}
    return whole if len(whole) == len(CONVENTIONS) else None
