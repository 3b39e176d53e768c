"""Frozen features: all that a batch contributes where only the mask heads learn.

What the heads read (the encoder's tokens and three of the decoders') never changes while they learn, nor do the
confidences that weigh their loss, nor the labels. `FrozenFeatures` holds just that, `frozen_loss` is `pair_loss` from
it. A `RecordLayout` turns each pair into one run of bytes and back, for the store (`feature_store`): bytes also pass
through Lightning Fabric as they are, which would turn bfloat16 inputs of a model to float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from das3r_ns.predictor.network.config import PairwiseNetworkConfig
from das3r_ns.predictor.training.data.sources import UNKNOWN
from das3r_ns.predictor.training.loop.losses import (
    LossConfig,
    ViewLoss,
    ViewPrediction,
    ViewTruth,
    cross_entropy,
    mean_over,
    normalised_distances,
)

ALIGNMENT = 16
"""Fields of a record begin at multiples of this many bytes."""


class FrozenView(NamedTuple):
    """What one mask head reads and is compared with: one view of b pairs in d directions, direction by direction."""

    tokens: list[Tensor]
    """Four sets, (d b) n c: those of `PairwiseNetworkConfig.hooks`."""
    labels: UInt8[Tensor, "db h w"]
    """1 moves, 0 does not, 255 does not count: unknown, or without a valid depth."""
    confidence: Float[Tensor, "db h w"] | None
    """Of the point head; None where the loss needs no points."""
    distances: Float[Tensor, "db 2"] | None
    """Per pair, over the pixels that count: sum of confidence x distance of the points, and of the distance."""


class FrozenFeatures(NamedTuple):
    """Both views of a batch."""

    view1: FrozenView
    view2: FrozenView
    grid: tuple[int, int]
    """Rows and columns of the patch grid."""


def frozen_view(tokens: list[Tensor], truth: ViewTruth, points: ViewPrediction, distance: Tensor | None) -> FrozenView:
    """Sum up what does not learn.

    Args:
        points: its mask is not looked at.
        distance: of `normalised_distances`, per pixel; None where the point heads were not computed.
    """
    counted = truth.valid & ~truth.dynamic.isnan()
    labels = truth.dynamic.nan_to_num(0.0).to(torch.uint8).where(counted, UNKNOWN)
    if distance is None or points.confidence is None:
        return FrozenView(tokens, labels, None, None)
    confidence = points.confidence.float()
    sums = [values.where(counted, 0.0).sum(dim=(1, 2)) for values in (confidence * distance, distance)]
    return FrozenView(tokens, labels, confidence, torch.stack(sums, dim=-1))


def frozen_views(
    tokens: tuple[list[Tensor], list[Tensor]],
    truths: tuple[ViewTruth, ViewTruth],
    points: tuple[ViewPrediction, ViewPrediction],
) -> tuple[FrozenView, FrozenView]:
    """Sum up both views of a batch; the point clouds of a pair are compared at one common scale."""
    with torch.autocast(truths[0].valid.device.type, enabled=False):
        distances = normalised_distances(points, truths) if points[0].pointmap is not None else (None, None)
        first, second = (frozen_view(*view) for view in zip(tokens, truths, points, distances))
    return first, second


def frozen_loss(
    logits: tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]], features: FrozenFeatures, config: LossConfig
) -> tuple[Float[Tensor, ""], tuple[ViewLoss, ...]]:
    """`pair_loss` of mask logits, all else being frozen."""
    with torch.autocast(logits[0].device.type, enabled=False):
        views = tuple(_view_loss(of_view, view, config) for of_view, view in zip(logits, features[:2]))
    total = sum(config.point_weight * view.points + config.mask_weight * view.mask for view in views)
    return torch.as_tensor(total), views


def _view_loss(logits: Tensor, view: FrozenView, config: LossConfig) -> ViewLoss:
    counted = view.labels != UNKNOWN
    entropy = cross_entropy(logits, (view.labels == 1).float())
    mean_entropy = mean_over(entropy, counted)
    if view.confidence is None or view.distances is None:
        zero = mean_entropy.new_zeros(())
        return ViewLoss(zero, mean_entropy, zero, mean_entropy.detach())
    reward = config.alpha * view.confidence.log()
    weighted, distance = view.distances.sum(0) / counted.sum().clamp_min(1)
    return ViewLoss(
        points=weighted - mean_over(reward, counted),
        mask=mean_over(view.confidence * entropy - reward, counted) if config.confidence_weighting else mean_entropy,
        distance=distance,
        cross_entropy=mean_entropy.detach(),
    )


class RecordLayout(NamedTuple):
    """Where in the bytes of a pair is what."""

    size: tuple[int, int]
    """Rows and columns of the views, in pixels."""
    patch: int
    widths: tuple[int, int]
    """Of the tokens of encoder and decoders."""
    directions: int
    """2 where pairs are symmetrised, else 1."""
    points: bool
    """Whether confidences and distances are in it."""
    dtype: torch.dtype
    """Of the tokens; confidences are rounded to it."""

    @classmethod
    def of(
        cls, network: PairwiseNetworkConfig, size: tuple[int, int], symmetrise: bool, points: bool, dtype: torch.dtype
    ) -> RecordLayout:
        """The layout for views of a size."""
        widths = network.enc_embed_dim, network.dec_embed_dim
        return cls(size, network.patch_size, widths, 1 + symmetrise, points, dtype)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patch grid."""
        return self.size[0] // self.patch, self.size[1] // self.patch

    @property
    def bytes(self) -> int:
        """Of one pair."""
        return sum(_padded(dtype, shape) for dtype, shape in self._fields_of_a_pair().values())

    def _fields_of_a_pair(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        tokens, d = self.grid[0] * self.grid[1], self.directions
        fields: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            "frames": (self.dtype, (2, tokens, self.widths[0])),  # a frame has one encoding, whatever the direction
            "hooks": (self.dtype, (2, d, 3, tokens, self.widths[1])),  # by view and direction
            "labels": (torch.uint8, (2, *self.size)),
        }
        if self.points:
            fields["confidence"] = (self.dtype, (2, d, *self.size))
            fields["distances"] = (torch.float32, (2, d, 2))
        return fields

    def fields(self, records: UInt8[Tensor, "b n"]) -> dict[str, Tensor]:
        """The fields of records, as views of their bytes."""
        found, start = {}, 0
        for name, (dtype, shape) in self._fields_of_a_pair().items():
            end = start + prod(shape) * dtype.itemsize
            found[name] = records[:, start:end].view(dtype).unflatten(1, shape)
            start += _padded(dtype, shape)
        return found

    def pack(self, features: FrozenFeatures) -> UInt8[Tensor, "b n"]:
        """One record a pair."""
        d = self.directions
        pairs = len(features.view1.labels) // d
        records = torch.zeros(pairs, self.bytes, dtype=torch.uint8, device=features.view1.labels.device)
        fields = self.fields(records)
        for side, view in enumerate(features[:2]):
            fields["frames"][:, side] = view.tokens[0][:pairs]
            fields["labels"][:, side] = view.labels[:pairs]
            for hook, tokens in enumerate(view.tokens[1:]):
                fields["hooks"][:, side, :, hook] = tokens.unflatten(0, (d, pairs)).transpose(0, 1)
            if view.confidence is not None and view.distances is not None:
                fields["confidence"][:, side] = view.confidence.unflatten(0, (d, pairs)).transpose(0, 1)
                fields["distances"][:, side] = view.distances.unflatten(0, (d, pairs)).transpose(0, 1)
        return records

    def unpack(self, records: UInt8[Tensor, "b n"]) -> FrozenFeatures:
        """The features of some pairs, their labels taken along into every direction."""
        views = tuple(self._views(self.fields(records)))
        return FrozenFeatures(views[0], views[1], self.grid)

    def _views(self, fields: dict[str, Tensor]) -> Iterator[FrozenView]:
        for side in range(2):
            sides = (side, 1 - side)[: self.directions]  # the second direction has the frames swapped
            hooks = fields["hooks"][:, side].permute(2, 1, 0, 3, 4)  # hook, direction, pair, token, channel
            points = (fields[name][:, side] for name in ("confidence", "distances") if self.points)
            confidence, distances = (*(of.transpose(0, 1).flatten(0, 1).float() for of in points), None, None)[:2]
            yield FrozenView(
                tokens=[torch.cat([fields["frames"][:, s] for s in sides]), *(hook.flatten(0, 1) for hook in hooks)],
                labels=torch.cat([fields["labels"][:, s] for s in sides]),
                confidence=confidence,
                distances=distances,
            )


class FeatureBatch(NamedTuple):
    """Records of a batch of pairs, and how to read them."""

    records: UInt8[Tensor, "b n"]
    layout: RecordLayout

    def features(self) -> FrozenFeatures:
        """What they hold."""
        return self.layout.unpack(self.records)


def _padded(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return -(-prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
