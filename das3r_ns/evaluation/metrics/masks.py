"""How well a dynamic mask covers what moves: J and F as DAVIS defines them (Perazzi et al., CVPR 2016, section 5).

J is the overlap of the two regions, F that of their outlines. Each frame is scored by itself, all moving objects
taken together as one region, every frame counted (the evaluation of the unsupervised task; the semi-supervised
one leaves out the first and the last frame).
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BOUNDARY_TOLERANCE = 0.008
"""How far two outlines may lie apart and still match, as a share of the image's diagonal."""

CALIBRATION_BINS = 10
"""Equal parts of 0 to 1 in which probabilities are compared with how many of their pixels move."""

RECALL_THRESHOLD = 0.5
"""A frame counts as found when its J is above this."""


@dataclass(frozen=True)
class MaskScores:
    """Scores of every frame of a clip."""

    j: Float[Tensor, "n"]
    f: Float[Tensor, "n"]
    moving_marked: Float[Tensor, "n"]
    """Share of the truly moving pixels that are marked; NaN where nothing moves. What is missed leaves ghosts."""
    static_marked: Float[Tensor, "n"]
    """Share of the truly static pixels that are marked; NaN where everything moves. False alarms leave holes."""

    @property
    def moving_marked_mean(self) -> float:
        """Over the frames in which something moves; NaN if there are none."""
        return float(self.moving_marked.nanmean())

    @property
    def static_marked_mean(self) -> float:
        """Over the frames in which something is static; NaN if there are none."""
        return float(self.static_marked.nanmean())

    @property
    def j_mean(self) -> float:
        return float(self.j.mean())

    @property
    def j_recall(self) -> float:
        """Share of the frames with J above 0.5."""
        return float((self.j > RECALL_THRESHOLD).double().mean())

    @property
    def f_mean(self) -> float:
        return float(self.f.mean())

    @property
    def f_recall(self) -> float:
        """Share of the frames with F above 0.5."""
        return float((self.f > RECALL_THRESHOLD).double().mean())


def mask_scores(predicted: Bool[Tensor, "n h w"], truth: Bool[Tensor, "n h w"]) -> MaskScores:
    """All scores of every frame; True is moving."""
    return MaskScores(
        jaccard(predicted, truth),
        boundary_f(predicted, truth),
        share_marked(predicted, truth),
        share_marked(predicted, ~truth),
    )


def share_marked(predicted: Bool[Tensor, "n h w"], region: Bool[Tensor, "n h w"]) -> Float[Tensor, "n"]:
    """Share of a region's pixels that are marked, in every frame; NaN where the region is empty."""
    return (predicted & region).sum(dim=(1, 2)).double() / region.sum(dim=(1, 2)).double()


def calibration_counts(
    dynamic_prob: Float[Tensor, "h w"], truth: Bool[Tensor, "h w"]
) -> tuple[Int[Tensor, "b"], Int[Tensor, "b"], Float[Tensor, "b"]]:
    """Pixels of one frame whose probability lies in each of `CALIBRATION_BINS` bins, and how many of them move, and
    the sum of their probabilities. Of a calibrated map four fifths of the pixels given 0.8 move."""
    bins = (dynamic_prob.clamp(0, 1) * CALIBRATION_BINS).long().clamp_max(CALIBRATION_BINS - 1).flatten()
    pixels = torch.bincount(bins, minlength=CALIBRATION_BINS)
    moving = torch.bincount(bins[truth.flatten()], minlength=CALIBRATION_BINS)
    return pixels, moving, torch.bincount(bins, dynamic_prob.flatten().double(), CALIBRATION_BINS)


def jaccard(predicted: Bool[Tensor, "n h w"], truth: Bool[Tensor, "n h w"]) -> Float[Tensor, "n"]:
    """Intersection over union of every frame; 1 where both masks are empty."""
    intersection = (predicted & truth).sum(dim=(1, 2)).double()
    union = (predicted | truth).sum(dim=(1, 2)).double()
    return torch.where(union > 0, intersection / union.clamp_min(1), torch.ones_like(union))


def boundary_f(predicted: Bool[Tensor, "n h w"], truth: Bool[Tensor, "n h w"]) -> Float[Tensor, "n"]:
    """F of the outlines of every frame: harmonic mean of the share of the predicted outline that lies near the true
    one (precision) and the share of the true outline that lies near the predicted one (recall).

    "Near" is within a disk of 0.008 of the diagonal, rounded up to whole pixels. Where one mask alone has an
    outline F is 0, where neither has one it is 1.
    """
    _, height, width = predicted.shape
    disk = _disk(math.ceil(BOUNDARY_TOLERANCE * math.hypot(height, width)))
    pairs = zip(predicted.cpu().numpy(), truth.cpu().numpy())
    return torch.tensor([_boundary_f_of_frame(p, t, disk) for p, t in pairs], dtype=torch.float64)


def _boundary_f_of_frame(predicted: np.ndarray, truth: np.ndarray, disk: np.ndarray) -> float:
    outline_p, outline_t = outline(predicted), outline(truth)
    count_p, count_t = int(outline_p.sum()), int(outline_t.sum())
    if count_p == 0 and count_t == 0:
        return 1.0
    if count_p == 0 or count_t == 0:
        return 0.0
    precision = float((outline_p & cv2.dilate(outline_t, disk)).sum()) / count_p
    recall = float((outline_t & cv2.dilate(outline_p, disk)).sum()) / count_t
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def outline(mask: np.ndarray) -> np.ndarray:
    """Outline, one pixel wide, of a boolean mask (h, w): the pixels that differ from the one to the right, below, or
    below to the right. The image's own edge is not an outline. 0 or 1 as uint8."""
    grown = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    here = grown[:-1, :-1]
    differs = (here != grown[:-1, 1:]) | (here != grown[1:, :-1]) | (here != grown[1:, 1:])
    return differs.astype(np.uint8)


def _disk(radius: int) -> np.ndarray:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)


def pair_masks_per_frame(
    edges: Int[Tensor, "e 2"], masks: Float[Tensor, "e h w"], num_frames: int
) -> tuple[Float[Tensor, "n h w"], Float[Tensor, "n h w"]]:
    """Mean and maximum, for every frame, of the masks predicted in the pairs whose first view it is.

    This is how the published method turns masks of pairs into masks of frames; it calls a pixel moving where the
    mean is above 0.5.

    Raises:
        ValueError: a frame is the first view of no pair.
    """
    first = edges[:, 0]
    missing = sorted(set(range(num_frames)) - set(first.tolist()))
    if missing:
        raise ValueError(f"frames {missing} are the first view of no pair, so nothing says what moves in them")
    index = [torch.nonzero(first == i)[:, 0] for i in range(num_frames)]
    mean = torch.stack([masks[rows].mean(dim=0) for rows in index])
    return mean, torch.stack([masks[rows].amax(dim=0) for rows in index])
