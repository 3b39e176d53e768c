"""The exact outline of a region: by the colours inside and outside of it, with morphology on masks."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Int32, UInt8

MAX_HOLE = 0.05
"""Of a region's area: smaller holes are filled."""
MIN_SAMPLES = 32
"""Pixels that must surely belong to an object, and to its surroundings, for their colours to be told apart."""
OUTLINE_BAND, MOTION_BAND = 0.06, 0.16
"""Of the root of a region's area: how far its outline may be off; that of what moves is as blurred as flow is."""


def cut_out(
    image: UInt8[np.ndarray, "h w 3"],
    surely: Bool[np.ndarray, "h w"],
    possibly: Bool[np.ndarray, "h w"],
    probably: Bool[np.ndarray, "h w"],
) -> Bool[np.ndarray, "h w"]:
    """What belongs to an object by its colours (GrabCut), looked for around it only.

    Args:
        surely: belongs to it.
        possibly: all that may.
        probably: the guess to begin with.
    """
    rows, columns = np.nonzero(possibly)
    if len(rows) == 0 or not probably.any():
        return probably
    margin = max(6, round(0.35 * max(np.ptp(rows), np.ptp(columns))))
    top, bottom = max(int(rows.min()) - margin, 0), min(int(rows.max()) + margin + 1, image.shape[0])
    left, right = max(int(columns.min()) - margin, 0), min(int(columns.max()) + margin + 1, image.shape[1])
    box = np.s_[top:bottom, left:right]
    crop = np.ascontiguousarray(image[box][..., ::-1])
    inside, outside = surely[box], ~possibly[box]
    if min(inside.sum(), outside.sum()) < MIN_SAMPLES:
        return probably
    models = _colour_models(crop, inside, outside)
    labels = np.where(probably[box], cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[inside], labels[outside] = cv2.GC_FGD, cv2.GC_BGD
    # The models stay: learned anew from what was just cut out, they would come to hold what leaked in.
    cv2.grabCut(crop, labels, (0, 0, 1, 1), *models, 1, cv2.GC_EVAL_FREEZE_MODEL)
    out = np.zeros_like(probably)
    out[box] = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return out


def _colour_models(
    image: UInt8[np.ndarray, "h w 3"], inside: Bool[np.ndarray, "h w"], outside: Bool[np.ndarray, "h w"]
) -> tuple[np.ndarray, np.ndarray]:
    """GrabCut's mixtures of colours of the background and of the object, from pixels that surely belong to either."""
    sure = np.concatenate((image[inside], image[outside]))[:, None]
    labels = np.full((len(sure), 1), cv2.GC_BGD, np.uint8)
    labels[: int(inside.sum())] = cv2.GC_FGD
    background, object_ = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # its clustering draws at random; a click twice means the same
    cv2.grabCut(np.ascontiguousarray(sure), labels, (0, 0, 1, 1), background, object_, 1, cv2.GC_INIT_WITH_MASK)
    return background, object_


def parts_of(region: Bool[np.ndarray, "h w"], connectivity: int = 4) -> tuple[int, Int32[np.ndarray, "h w"]]:
    """Number of connected parts, with the outside, and the number of the part of each pixel, 0 outside."""
    count, labels = cv2.connectedComponents(region.astype(np.uint8), connectivity=connectivity)
    return count, np.asarray(labels, np.int32)


def largest_part(found: Bool[np.ndarray, "h w"], guess: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The parts of `found` that hold much of `guess`, without holes."""
    count, labels = parts_of(found, 4)
    if count <= 2:
        return fill_holes(found)
    held = np.bincount(labels[guess & found], minlength=count)
    held[0] = 0
    return fill_holes(np.isin(labels, np.flatnonzero(held >= max(1, 0.1 * held.max()))))


def fill_holes(region: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Without small holes."""
    holes, labels = parts_of(~region)
    small = np.bincount(labels.ravel(), minlength=holes) < MAX_HOLE * region.sum()
    small[0] = False
    return region | small[labels] if holes > 1 else region


def dilate(region: Bool[np.ndarray, "h w"], reach: int) -> Bool[np.ndarray, "h w"]:
    """All pixels within `reach` pixels of the region."""
    return cv2.dilate(region.astype(np.uint8), _disc(reach)) > 0


def erode(region: Bool[np.ndarray, "h w"], reach: int) -> Bool[np.ndarray, "h w"]:
    """All pixels of the region farther than `reach` pixels from what is outside; the image border is not outside."""
    return cv2.erode(region.astype(np.uint8), _disc(reach), borderType=cv2.BORDER_CONSTANT, borderValue=(1,)) > 0


def _disc(reach: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
