"""How good the masks are on pairs that were not trained on: J, its recall, and the published criterion.

J of a frame is the overlap of the mask predicted for it as the first view of a pair (the one that the predictor uses
afterwards, at probability 1/2) with the true one, over the pixels whose label is known; 1 where both are empty. Recall
is the share of frames with J above 1/2. Views are those of inference: the long side of the training views, no random
crop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from das3r_ns.predictor.network.preprocess import framing
from das3r_ns.predictor.training.data.loading import PairBatch, PairDataset, make_loader
from das3r_ns.predictor.training.data.order import Draw
from das3r_ns.predictor.training.data.sources import BadDataError, PairSource, Problem
from das3r_ns.predictor.training.loop.losses import validation_criterion
from das3r_ns.predictor.training.loop.step import TrainingStep

RECALL_THRESHOLD = 0.5


@dataclass(frozen=True)
class Scores:
    """Validation of one set."""

    name: str
    j: float
    """Mean J over the frames."""
    recall: float
    """Share of the frames with J above 1/2."""
    criterion: float
    """Mean of `validation_criterion` over the batches; 0 where the point heads are not computed."""
    frames: int


@dataclass(frozen=True)
class ValidationImages:
    """Some validated frames, for the logs."""

    rgb: Tensor
    """(n h w 3), bytes."""
    truth: Tensor
    """(n h w), 0 to 1; unknown is 1/2."""
    predicted: Tensor
    """(n h w), `dynamic_prob`."""


def validation_plan(
    source: PairSource, count: int, long_side: int, batch_size: int
) -> tuple[list[list[Draw]], list[Problem]]:
    """Batches of up to `count` pairs spread evenly over the set, each batch of one shape; always the same.

    Args:
        long_side: of the views, in pixels; the other side follows from the images, as in inference.
    """
    chosen = torch.linspace(0, len(source.pairs) - 1, min(count, len(source.pairs))).round().long().tolist()
    by_size: dict[tuple[int, int], list[Draw]] = {}
    problems: list[Problem] = []
    for pair in chosen:
        try:
            size = framing(source.image_size(source.pairs[pair]), long_side).size
        except BadDataError as error:
            problems.append(error.problem)
            continue
        by_size.setdefault(size, []).append(Draw(0, pair, size, position=pair))
    batches = [
        draws[start : start + batch_size]
        for _, draws in sorted(by_size.items())
        for start in range(0, len(draws), batch_size)
    ]
    return batches, problems


def jaccard(
    predicted: Bool[Tensor, "b h w"], truth: Bool[Tensor, "b h w"], known: Bool[Tensor, "b h w"]
) -> Float[Tensor, "b"]:
    """Intersection over union of each frame over its known pixels; 1 where both are empty."""
    intersection = (predicted & truth & known).sum(dim=(1, 2))
    union = ((predicted | truth) & known).sum(dim=(1, 2))
    return torch.where(union > 0, intersection / union.clamp_min(1), 1.0).float()


@torch.no_grad()
def validate(
    step: TrainingStep,
    source: PairSource,
    batches: Sequence[list[Draw]],
    *,
    workers: int,
    device: torch.device,
    add_up: Callable[[Tensor], Tensor],
) -> tuple[Scores, ValidationImages | None, list[Problem]]:
    """Score one set; every process takes a part of the batches and gets the scores of all.

    Args:
        batches: this process' part of `validation_plan`.
        add_up: sum of a tensor over all processes.
    Returns:
        The scores, some images of this process' first batch (None if it had none), and what was left out.
    """
    training = step.training
    step.eval()
    sums = torch.zeros(5, dtype=torch.float64, device=device)  # J, frames above 1/2, frames, criterion, batches
    images, problems = None, []
    loader = make_loader(PairDataset([source], None, seed=0), batches, workers, device)
    for loaded in loader:
        batch = loaded.batch.to(device)
        problems.extend(loaded.problems)
        predictions = step.predict(batch, points=step.loss.needs_points)
        truths = (batch.symmetrised() if step.symmetrise else batch).truths()
        dynamic = truths[0].dynamic
        j = jaccard(predictions[0].mask_logits > 0, dynamic == 1, ~dynamic.isnan())
        sums[:3] += torch.stack([j.sum(), (j > RECALL_THRESHOLD).sum(), torch.tensor(len(j), device=device)]).double()
        if step.loss.needs_points:
            sums[3] += validation_criterion(predictions, truths).double()
        sums[4] += 1
        if images is None:
            images = _validation_images(batch, dynamic, predictions[0].mask_logits)
    step.train(training)
    total_j, found, frames, criterion, count = add_up(sums).tolist()
    frames, count = max(frames, 1), max(count, 1)
    return Scores(source.name, total_j / frames, found / frames, criterion / count, int(frames)), images, problems


def _validation_images(batch: PairBatch, dynamic: Tensor, logits: Tensor, count: int = 4) -> ValidationImages:
    count = min(count, batch.view1.rgb.shape[0])
    return ValidationImages(
        rgb=batch.view1.rgb[:count].cpu(),
        truth=dynamic[:count].nan_to_num(0.5).cpu(),
        predicted=logits[:count].sigmoid().cpu(),
    )
