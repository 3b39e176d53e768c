"""The predictor's loss: pointmaps and dynamic masks of a pair against ground truth, weighted by its confidence.

Formulas: DUSt3R (Wang et al. 2024, section 3.2) for the confidence-weighted regression, DAS3R (Xu et al. 2024) for
the mask term. For each view the training loss is

    mean(c d - alpha log c) + mean(c b - alpha log c)

with c the confidence, d the distance of a predicted point from the true one after both point clouds were divided by
their mean distance from camera 1 (per pair, over the valid pixels of both views), b the binary cross entropy of the
mask; means over the valid pixels of the batch. Pixels whose label is unknown (NaN) count for the normalisation and
for nothing else. Where only the mask heads learn, c and d are constants to the optimiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

MIN_SCALE = 1e-8


@dataclass
class LossConfig:
    """What the network is trained to minimise. The defaults are the published loss."""

    alpha: float = 0.2
    """Weight of -log(confidence): higher makes the network claim more confidence."""
    point_weight: float = 1.0
    """Weight of the pointmap terms. They reach parameters only where more than the mask heads learn; 0 leaves them
    out."""
    mask_weight: float = 1.0
    """Weight of the mask terms."""
    confidence_weighting: bool = True
    """Weight the mask term by the confidence of the point heads. Off: plain mean cross entropy, and with
    point_weight 0 the point heads are not computed at all."""

    def __post_init__(self) -> None:
        if min(self.alpha, self.point_weight, self.mask_weight) < 0 or self.point_weight + self.mask_weight == 0:
            raise ValueError(
                f"loss weights are alpha {self.alpha}, points {self.point_weight}, masks {self.mask_weight}: "
                "none may be negative, and points or masks must count"
            )

    @property
    def needs_points(self) -> bool:
        """Whether the point heads have to be computed."""
        return self.point_weight > 0 or (self.confidence_weighting and self.mask_weight > 0)


class ViewPrediction(NamedTuple):
    """What the network says about one view of a batch of pairs."""

    mask_logits: Float[Tensor, "b h w"]
    """Raw mask-head output; its sigmoid is `dynamic_prob`. Logits keep the gradient where a sigmoid saturates."""
    pointmap: Float[Tensor, "b h w 3"] | None
    """In the frame of camera 1; None where the point heads were not computed."""
    confidence: Float[Tensor, "b h w"] | None
    """Above 1; None with `pointmap`."""


class ViewTruth(NamedTuple):
    """What is true about one view of a batch of pairs."""

    pointmap: Float[Tensor, "b h w 3"]
    """In the frame of camera 1, in world units."""
    valid: Bool[Tensor, "b h w"]
    """Where the depth is known and near enough."""
    dynamic: Float[Tensor, "b h w"]
    """1 moves, 0 does not, NaN unknown."""


class ViewLoss(NamedTuple):
    """The loss of one view, and what it consists of. Zero where a term is not computed or no pixel is valid."""

    points: Float[Tensor, ""]
    """mean(c d - alpha log c)."""
    mask: Float[Tensor, ""]
    """mean(c b - alpha log c), or mean(b) without confidence weighting."""
    distance: Float[Tensor, ""]
    """mean(d), for the logs."""
    cross_entropy: Float[Tensor, ""]
    """mean(b), for the logs."""


def pair_loss(
    predictions: Sequence[ViewPrediction], truths: Sequence[ViewTruth], config: LossConfig
) -> tuple[Float[Tensor, ""], tuple[ViewLoss, ...]]:
    """The training loss of a batch and its parts per view (first view first). Computed in float32."""
    with torch.autocast(truths[0].valid.device.type, enabled=False):
        distances = normalised_distances(predictions, truths) if predictions[0].pointmap is not None else (None, None)
        views = tuple(
            _view_loss(prediction, truth, distance, config)
            for prediction, truth, distance in zip(predictions, truths, distances)
        )
    total = sum(config.point_weight * view.points + config.mask_weight * view.mask for view in views)
    return torch.as_tensor(total), views


def _view_loss(prediction: ViewPrediction, truth: ViewTruth, distance: Tensor | None, config: LossConfig) -> ViewLoss:
    counted = truth.valid & ~truth.dynamic.isnan()
    entropy = cross_entropy(prediction.mask_logits, truth.dynamic)
    mean_entropy = mean_over(entropy, counted)
    if distance is None or prediction.confidence is None:
        return ViewLoss(mean_entropy.new_zeros(()), mean_entropy, mean_entropy.new_zeros(()), mean_entropy.detach())
    confidence = prediction.confidence.float()
    reward = config.alpha * confidence.log()
    mask = mean_over(confidence * entropy - reward, counted) if config.confidence_weighting else mean_entropy
    return ViewLoss(
        points=mean_over(confidence * distance - reward, counted),
        mask=mask,
        distance=mean_over(distance, counted).detach(),
        cross_entropy=mean_entropy.detach(),
    )


def validation_criterion(predictions: Sequence[ViewPrediction], truths: Sequence[ViewTruth]) -> Float[Tensor, ""]:
    """Mean point distance after the best scale and depth shift, in world units, plus mean cross entropy; both views
    added. Without confidence, so it compares networks of different confidence.

    Predicted points are normalised as in training; from both clouds the median depth of the pair is subtracted, and
    the predicted one is scaled so that its median distance from its median point is that of the true one.

    Raises:
        ValueError: the predictions hold no pointmaps.
    """
    if predictions[0].pointmap is None or predictions[1].pointmap is None:
        raise ValueError("the validation criterion compares pointmaps, and the point heads were not computed")
    with torch.autocast(truths[0].valid.device.type, enabled=False):
        valid = torch.cat([truth.valid.flatten(1) for truth in truths], dim=1)
        predicted = torch.cat([view.pointmap.float().flatten(1, 2) for view in predictions], dim=1)  # type: ignore[union-attr]
        true = torch.cat([truth.pointmap.float().flatten(1, 2) for truth in truths], dim=1)
        predicted = _without_median_depth(predicted / _mean_distance(predicted, valid), valid)
        true = _without_median_depth(true, valid)
        predicted = predicted * (_median_spread(true, valid) / _median_spread(predicted, valid).clamp_min(MIN_SCALE))
        distance = (predicted - true).norm(dim=-1)
        total = distance.new_zeros(())
        per_view = distance.split([truth.valid[0].numel() for truth in truths], dim=1)
        for prediction, truth, d in zip(predictions, truths, per_view):
            counted = truth.valid & ~truth.dynamic.isnan()
            total = total + mean_over(d.view_as(truth.dynamic), counted)
            total = total + mean_over(cross_entropy(prediction.mask_logits, truth.dynamic), counted)
    return total


def normalised_distances(
    predictions: Sequence[ViewPrediction], truths: Sequence[ViewTruth]
) -> tuple[Float[Tensor, "b h w"], ...]:
    """Distance of predicted from true points per pixel, each pair's two clouds at mean distance 1 from camera 1."""
    valid = torch.cat([truth.valid.flatten(1) for truth in truths], dim=1)
    predicted = [view.pointmap.float() for view in predictions if view.pointmap is not None]
    # What lies at invalid pixels (an infinite sky) must not reach the gradient, not even multiplied by 0.
    true = [truth.pointmap.float().where(truth.valid[..., None], 0.0) for truth in truths]
    scale_predicted, scale_true = (
        _mean_distance(torch.cat([points.flatten(1, 2) for points in clouds], dim=1), valid)[..., None]
        for clouds in (predicted, true)
    )
    return tuple((p / scale_predicted - t / scale_true).norm(dim=-1) for p, t in zip(predicted, true))


def _mean_distance(points: Float[Tensor, "b n 3"], valid: Bool[Tensor, "b n"]) -> Float[Tensor, "b 1 1"]:
    """Mean distance from the origin over the valid points of each pair."""
    norms = points.norm(dim=-1).where(valid, 0.0)
    return (norms.sum(1) / valid.sum(1).clamp_min(1)).clamp_min(MIN_SCALE)[:, None, None]


def _without_median_depth(points: Float[Tensor, "b n 3"], valid: Bool[Tensor, "b n"]) -> Float[Tensor, "b n 3"]:
    shift = torch.zeros_like(points[:, :1])
    shift[..., 0, 2] = _median(points[..., 2], valid)
    return points - shift


def _median_spread(points: Float[Tensor, "b n 3"], valid: Bool[Tensor, "b n"]) -> Float[Tensor, "b 1 1"]:
    """Median distance of the valid points from their component-wise median."""
    centre = torch.stack([_median(points[..., axis], valid) for axis in range(3)], dim=-1)
    return _median((points - centre[:, None]).norm(dim=-1), valid)[:, None, None]


def _median(values: Float[Tensor, "b n"], valid: Bool[Tensor, "b n"]) -> Float[Tensor, "b"]:
    """Median of the valid values of each row, the lower of two middle ones; 0 where none is valid."""
    median = values.where(valid, torch.nan).nanmedian(dim=1).values
    return median.nan_to_num(0.0)


def cross_entropy(logits: Float[Tensor, "b h w"], dynamic: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Cross entropy of each pixel; without meaning where the label is NaN."""
    return F.binary_cross_entropy_with_logits(logits.float(), dynamic.nan_to_num(0.0), reduction="none")


def mean_over(per_pixel: Float[Tensor, "b h w"], counted: Bool[Tensor, "b h w"]) -> Float[Tensor, ""]:
    """Mean over the counted pixels of the batch; 0 where there are none."""
    return per_pixel.where(counted, 0.0).sum() / counted.sum().clamp_min(1)
