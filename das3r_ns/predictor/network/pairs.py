"""Which pairs of frames the network looks at, and what it says about them.

Each undirected pair is looked at twice, as (i, j) and as (j, i): the network is not symmetric, and the mask of a frame
comes from the pairs in which it is first. Distances 1, 3, 5, 7, 9 (`swinstride` with window 5) give near frames for
detail and far ones for parallax at half the price of a full window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Edge = tuple[int, int]
"""A directed pair of frame indices: both predictions are in the camera frame of the first."""


@dataclass(frozen=True)
class PairGraph:
    """Which frames are paired. The default suits clips of any length."""

    kind: Literal["swinstride", "swin", "logspaced", "complete"] = "swinstride"
    """swinstride: every other distance, 1, 3, 5, ...; swin: every distance, 1, 2, 3, ...; logspaced: distances
    1, 2, 4, 8, ...; complete: all frames with all (short clips only: pairs grow with the square)."""
    window: int = 5
    """How many distances each frame looks ahead. No effect on `complete`."""
    cyclic: bool = False
    """Whether the clip closes on itself, so that the last frames pair with the first."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window is {self.window}; every frame needs at least 1 distance to look ahead")

    def distances(self) -> list[int]:
        """Distances in frames; of no meaning for `complete`."""
        if self.kind == "swinstride":
            return [2 * k + 1 for k in range(self.window)]
        if self.kind == "swin":
            return [k + 1 for k in range(self.window)]
        return [2**k for k in range(self.window)]

    def edges(self, num_frames: int, loops: tuple[Edge, ...] = ()) -> list[Edge]:
        """Directed pairs of a clip, forward ones first and in order of time, then the same reversed.

        Args:
            loops: further pairs of frames that see the same place at different times (see `loop_pairs`).

        Raises:
            ValueError: fewer than two frames, or a loop names a frame that is not there.
        """
        if num_frames < 2:
            raise ValueError(f"{num_frames} frame: pairs need at least 2. Give a longer clip or a higher frame rate.")
        forward: set[Edge] = set()
        for i in range(num_frames):
            ahead = range(1, num_frames) if self.kind == "complete" else self.distances()
            for distance in ahead:
                j = i + distance
                if j >= num_frames and not (self.cyclic and self.kind != "complete"):
                    continue
                j %= num_frames
                if j != i:
                    forward.add((min(i, j), max(i, j)))
        for i, j in loops:
            if not (0 <= i < num_frames and 0 <= j < num_frames and i != j):
                raise ValueError(f"loop pair ({i}, {j}) does not fit a clip of {num_frames} frames")
            forward.add((min(i, j), max(i, j)))
        ordered = sorted(forward)
        return ordered + [(j, i) for i, j in ordered]


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
