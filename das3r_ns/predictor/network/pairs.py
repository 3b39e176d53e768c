"""Which pairs of frames the network looks at, and what it says about them.

Each undirected pair is looked at twice, as (i, j) and as (j, i): the network is not symmetric, and the mask of a frame
comes from the pairs in which it is first. Distances 1, 3, 5, 7, 9 (`swinstride` with window 5) give near frames for
detail and far ones for parallax at half the price of a full window.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from das3r_ns.predictor.network.settings import Edge


@dataclass(frozen=True)
class PairPredictions:
    """What the network says about the directed pairs of a clip, on one device, float32."""

    edges: Int[Tensor, "e 2"]  # frame indices; both pointmaps are in the camera frame of the first
    pointmap1: Float[Tensor, "e h w 3"]
    pointmap2: Float[Tensor, "e h w 3"]
    confidence1: Float[Tensor, "e h w"]  # above 1
    confidence2: Float[Tensor, "e h w"]
    dynamic_prob1: Float[Tensor, "e h w"]
    descriptors: Float[Tensor, "n c"]  # one vector a frame, for finding frames that look alike

    def __len__(self) -> int:
        return self.edges.shape[0]


def loop_pairs(
    descriptors: Float[Tensor, "n c"], min_distance: int, max_pairs: int, min_similarity: float = 0.9
) -> tuple[Edge, ...]:
    """Pairs of frames far apart in time that look alike: the camera came back.

    The most alike pair is taken first; pairs close to a taken one in both frames add nothing and are passed over.

    Args:
        descriptors: one vector a frame, such as the mean of its encoder features; compared by the cosine of what
            remains when the clip's mean is taken away.
        min_distance: frames that must lie between the two, and the radius within which a taken pair speaks for others.
        max_pairs: how many pairs to return at most.
        min_similarity: cosine below which frames do not count as alike.
    """
    n = descriptors.shape[0]
    centred = descriptors.float() - descriptors.float().mean(0)
    unit = centred / centred.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    similarity = (unit @ unit.T).cpu()
    first, second = torch.triu_indices(n, n, offset=max(min_distance, 1))
    scores = similarity[first, second]
    taken: list[Edge] = []
    for index in scores.argsort(descending=True).tolist():
        if len(taken) == max_pairs or scores[index] < min_similarity:
            break
        i, j = int(first[index]), int(second[index])
        if all(max(abs(i - a), abs(j - b)) >= min_distance for a, b in taken):
            taken.append((i, j))
    return tuple(taken)
