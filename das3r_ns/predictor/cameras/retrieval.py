"""Which frames look alike: one descriptor a frame, made of its point features.

A vector of locally aggregated descriptors (Jegou et al., CVPR 2010): what is left of each feature after its word of a
small vocabulary was taken off, added up by word. Square roots and lengths of one keep what repeats from drowning the
rest (Arandjelovic and Zisserman, All about VLAD, CVPR 2013). The vocabulary is learned from the clip itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

NUM_CLUSTERS = 32
MAX_SAMPLED_FEATURES = 20_000
"""Features that the vocabulary is learned from, at most."""
FRAMES_AT_ONCE = 512
"""Frames compared with all others at a time: memory grows with the number of frames, not with its square."""


def vlad_descriptors(descriptors: Sequence[UInt8[np.ndarray, "_ d"]]) -> Float32[np.ndarray, "n e"]:
    """One vector of length 1 for each frame; 0 for a frame without features."""
    every = np.concatenate(descriptors)
    result = np.zeros((len(descriptors), NUM_CLUSTERS * every.shape[1]), np.float32)
    if len(every) < NUM_CLUSTERS:
        return result
    chosen = np.random.default_rng(0).permutation(len(every))[:MAX_SAMPLED_FEATURES]
    cv2.setRNGSeed(0)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 1e-3)
    words = cv2.kmeans(every[chosen].astype(np.float32), NUM_CLUSTERS, None, criteria, 1, cv2.KMEANS_PP_CENTERS)[2]  # type: ignore[call-overload]
    for i, found in enumerate(descriptors):
        if len(found) == 0:
            continue
        values = found.astype(np.float32)
        nearest = (0.5 * np.square(words).sum(axis=1) - values @ words.T).argmin(axis=1)
        left = np.zeros((NUM_CLUSTERS, values.shape[1]), np.float32)
        np.add.at(left, nearest, values - words[nearest])
        left /= np.maximum(np.linalg.norm(left, axis=1, keepdims=True), 1e-6)
        whole = np.sign(left) * np.sqrt(np.abs(left))
        result[i] = whole.ravel() / max(float(np.linalg.norm(whole)), 1e-6)
    return result


def retrieve_pairs(
    vectors: Float32[np.ndarray, "n e"], frames: Sequence[int], apart: int, most: int
) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of indices into `frames`: for each j the `most` earlier ones that look most like it, at
    least `apart` frames before it. At most `most` times n, whatever the clip."""
    number, pairs = np.asarray(frames), []
    for start in range(0, len(vectors), FRAMES_AT_ONCE):
        alike = vectors[start : start + FRAMES_AT_ONCE] @ vectors.T
        alike[number[start : start + FRAMES_AT_ONCE, None] - number < apart] = -1
        best = np.argsort(-alike, axis=1, kind="stable")[:, :most]
        for row, chosen in enumerate(best):
            pairs += [(int(i), start + row) for i in chosen if alike[row, i] > 0]
    return sorted(pairs)
