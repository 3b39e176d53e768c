"""What one step computes: frozen features without a graph, then the parts that learn, then the loss.

Where only the mask heads learn, encoder, decoders and point heads run in inference mode (in bfloat16 on GPUs, from
weights cast once): a step costs their forward pass once and three passes of the mask heads, or, with features that were
kept (`feature_store`), those three passes alone. Each frame is encoded once, though a symmetrised pair uses it in two
directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from das3r_ns.predictor.network.casting import bfloat16_copy
from das3r_ns.predictor.network.heads import DptHead
from das3r_ns.predictor.network.model import PairwiseNetwork, points_and_confidence
from das3r_ns.predictor.training.data.loading import PairBatch
from das3r_ns.predictor.training.features.frozen import FeatureBatch, FrozenFeatures, frozen_loss, frozen_views
from das3r_ns.predictor.training.loop.losses import LossConfig, ViewLoss, ViewPrediction, pair_loss
from das3r_ns.predictor.training.loop.parts import TrainedPart, compile_parts


class StepResult(NamedTuple):
    """The loss of a micro-batch and its parts."""

    loss: Float[Tensor, ""]
    views: tuple[ViewLoss, ...]


class _Trunk(NamedTuple):
    tokens: tuple[list[Tensor], list[Tensor]]
    """Per view, the four sets that its heads read."""
    points: Sequence[tuple[Tensor | None, ...]]
    """Per view, pointmap and confidence, if they were wanted."""
    grid: tuple[int, int]


class TrainingStep(nn.Module):
    """The network as the optimiser sees it: a batch of pairs in, the loss out."""

    def __init__(
        self, network: PairwiseNetwork, train: TrainedPart, loss: LossConfig, symmetrise: bool, compile: bool = False
    ) -> None:
        super().__init__()
        self.network, self.loss, self.symmetrise, self.fused = network, loss, symmetrise, compile
        if compile:
            compile_parts(network)
        self.encoder_frozen = train != "all"
        self.trunk_frozen = train == "heads"
        """Decoders and point heads."""
        self._cast: list[PairwiseNetwork] = []
        """The network with its frozen weights in bfloat16, once it was needed; a list keeps it out of the model."""

    def forward(self, batch: PairBatch | FeatureBatch) -> StepResult:
        """Loss of a batch; symmetrised, each pair counts in both directions.

        Args:
            batch: pairs, or, where only the mask heads learn, what was kept of them.
        """
        if isinstance(batch, FeatureBatch):
            return self._learn(batch.features())
        if self.trunk_frozen:
            return self._learn(self.freeze(batch))
        predictions = self.predict(batch, self.loss.needs_points)
        truths = (batch.symmetrised() if self.symmetrise else batch).truths()
        return StepResult(*pair_loss(predictions, truths, self.loss))

    def predict(self, batch: PairBatch, points: bool) -> tuple[ViewPrediction, ViewPrediction]:
        """What the network says about both views of a batch (of `batch.symmetrised()`, if the step symmetrises).

        Args:
            points: whether the point heads are wanted too.
        """
        trunk = self._trunk(batch, points)
        logits = self._logits(trunk.tokens, trunk.grid)
        first, second = (ViewPrediction(of_view, *view) for of_view, view in zip(logits, trunk.points))
        return first, second

    def freeze(self, batch: PairBatch) -> FrozenFeatures:
        """What a batch contributes where only the mask heads learn."""
        trunk = self._trunk(batch, self.loss.needs_points)
        with torch.no_grad():
            truths = (batch.symmetrised() if self.symmetrise else batch).truths()
            no_logits = trunk.tokens[0][0].new_zeros(())
            points = tuple(ViewPrediction(no_logits, *view) for view in trunk.points)
            return FrozenFeatures(*frozen_views(trunk.tokens, truths, (points[0], points[1])), trunk.grid)

    def _learn(self, features: FrozenFeatures) -> StepResult:
        logits = self._logits((features.view1.tokens, features.view2.tokens), features.grid)
        return StepResult(*frozen_loss(logits, features, self.loss))

    def _logits(self, tokens: tuple[list[Tensor], list[Tensor]], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Mask logits of both views. Each view has a head of its own, which takes all directions at once."""
        first, second = self.network.downstream_head_dynamic_mask1, self.network.downstream_head_dynamic_mask2
        return first(tokens[0], grid)[:, 0].float(), second(tokens[1], grid)[:, 0].float()

    def _trunk(self, batch: PairBatch, points: bool) -> _Trunk:
        """All but the mask heads, without a graph where it does not learn."""
        images = torch.cat([batch.view1.images(), batch.view2.images()])
        if images.device.type == "cuda":
            images = images.contiguous(memory_format=torch.channels_last)
        network = self._network_for(images.device)
        grid = network.grid(images)
        with _frozen(self.encoder_frozen):
            features, positions = network.encode(images)
        if self.encoder_frozen and not self.trunk_frozen:
            features, positions = features.clone(), positions.clone()
        with _frozen(self.trunk_frozen):
            first, second = features.chunk(2)
            if self.symmetrise:
                first, second = torch.cat([first, second]), torch.cat([second, first])
            tokens1, tokens2 = map(network.select, network.decode(first, positions, second, positions))
            heads = (network.downstream_head1, network.downstream_head2)
            views = [_points(head, tokens, grid) if points else None for head, tokens in zip(heads, (tokens1, tokens2))]
        if self.trunk_frozen:
            # What was made in inference mode cannot be kept for a backward pass; a copy can.
            tokens1, tokens2 = [t.clone() for t in tokens1], [t.clone() for t in tokens2]
            views = [None if view is None else tuple(values.clone() for values in view) for view in views]
        return _Trunk((tokens1, tokens2), [view or (None, None) for view in views], grid)

    def _network_for(self, device: torch.device) -> PairwiseNetwork:
        """The network itself, or, under bfloat16 autocast, a copy that shares what learns and has the rest cast."""
        bfloat16 = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == torch.bfloat16
        if not bfloat16 or not self.encoder_frozen:
            return self.network
        if not self._cast:
            own = self.network
            learning: list[nn.Module] = [*own.mask_heads]
            if not self.trunk_frozen:
                learning += [own.decoder_embed, own.dec_blocks, own.dec_blocks2, own.dec_norm]
                learning += [own.downstream_head1, own.downstream_head2]
            self._cast = [bfloat16_copy(own, learning)]
            if self.fused:
                compile_parts(self._cast[0])
        return self._cast[0]


@contextmanager
def _frozen(frozen: bool) -> Iterator[None]:
    """Inference mode for what does not learn."""
    if not frozen:
        yield
        return
    with torch.inference_mode():
        yield


def _points(head: DptHead, tokens: Sequence[Tensor], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    return points_and_confidence(head(tokens, grid))
