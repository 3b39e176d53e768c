"""Settings of the network predictor, apart from the network: a cached scene is found, and help printed, without it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from das3r_ns.files.saved_config import SavedConfig
from das3r_ns.predictor.base import Predictor, PredictorSettings
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.masks.refiners.choice import resolve_auto

DEFAULT_WEIGHTS = "Kai422kx/das3r"
"""Hub repository of the published weights (their licence forbids commercial use)."""

LONG_SIDE = 512


@dataclass(frozen=True)
class InferenceConfig(SavedConfig):
    """How the network is run. The results differ by rounding only."""

    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Arithmetic of the large products. auto: bfloat16 on GPUs that have it, float32 elsewhere. Outputs are always
    float32."""
    memory_gib: float | None = None
    """Device memory for activations. None takes half of what is free on a GPU, and 2 GiB on a CPU."""
    max_batch: int = 32
    """Pairs decoded at once, at most; beyond this a GPU gains nothing."""
    compile: bool = False
    """Fuse the decoders' small operations with torch.compile. Costs about a minute at the first clip of each size, so
    it pays for many clips or thousands of pairs only."""


Edge = tuple[int, int]
"""A directed pair of frame indices: both predictions are in the camera frame of the first."""


@dataclass(frozen=True)
class PairGraph(SavedConfig):
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
class WindowConfig(SavedConfig):
    """How long clips are cut."""

    frames: int = 80
    """Frames aligned at once, at most. Longer clips are cut into windows. Fewer need less memory and drift more."""
    overlap: int = 12
    """Frames that two neighbouring windows share, at least."""
    max_loops: int = 20
    """Pairs of far frames that look alike, tried to tie windows together. 0 looks for none."""

    def __post_init__(self) -> None:
        if self.overlap < 2 or self.frames < 3 * self.overlap:
            raise ValueError(
                f"windows of {self.frames} frames with an overlap of {self.overlap}: the overlap must be at least 2 "
                "and at most a third of the window"
            )


MIN_PIXELS = 2000
"""Of each frame, for the steps: enough for the noise of the pointmaps to average out."""


@dataclass(frozen=True)
class AlignmentConfig(SavedConfig):
    """How pairwise pointmaps are fused into one world."""

    num_steps: int = 300
    """Adam steps. Raise it when the printed cost is still falling at the end."""
    learning_rate: float = 0.02
    """Step size at the start, in the logarithmic units of the parameters."""
    final_learning_rate: float = 0.0001
    """Step size at the end."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """How the step size falls. cosine ends lower for the same number of steps."""
    smoothness_weight: float = 0.01
    """Weight of the camera-motion smoothness term, per frame. 0 turns it off."""
    shared_focal: bool = True
    """One focal length for the whole clip. Turn off for footage that zooms."""
    flow_weight: float = 0.03
    """Weight of the optical-flow term. More makes cameras sharper where the dynamic masks are right, and worse where
    they miss a mover. 0 turns it off, and no flow is computed."""
    flow_start: float = 0.1
    """Share of the steps before the flow term sets in: cameras must be roughly right first."""
    flow_max_distance: int = 3
    """Flow is measured between frames at most this many frames apart; farther ones cost as much and say less."""
    pixel_stride: int = 4
    """The steps use every n-th row and column (more of small images). 1 uses all pixels: ten times as long."""
    depth_rounds: int = 15
    """Reweighted means per pixel that set the final depth on all pixels. 0 keeps the depth of the steps, and then
    needs pixel_stride 1."""
    tolerance: float = 1e-5
    """Stop early when 25 steps lowered the objective by less than this share of it. 0 never stops early."""
    record_steps: bool = True
    """On CUDA devices, record a step as a CUDA graph and replay it: several times as fast, the same numbers."""
    cleaning_tolerance: float = 0.02
    """A point this share of the depth in front of what a surer frame sees there loses its confidence. The published
    value, 0.001, is below the noise of the pointmaps and takes away half of them."""

    def __post_init__(self) -> None:
        if self.pixel_stride > 1 and self.depth_rounds == 0:
            raise ValueError("pixel_stride above 1 leaves most pixels without depth: depth_rounds must be above 0")
        if self.num_steps < 1 or self.pixel_stride < 1:
            raise ValueError(f"num_steps {self.num_steps} and pixel_stride {self.pixel_stride}: both must be 1 or more")

    @classmethod
    def published(cls) -> AlignmentConfig:
        """The settings of the published implementation, for comparison: all pixels in every step. The flow term is
        ours all the same."""
        return cls(
            learning_rate=0.01,
            final_learning_rate=0.001,
            schedule="linear",
            flow_weight=0.01,
            flow_max_distance=9,
            pixel_stride=1,
            depth_rounds=0,
            tolerance=0.0,
            cleaning_tolerance=0.001,
        )

    def stride_for(self, height: int, width: int) -> int:
        """`pixel_stride`, less where an image would keep fewer than `MIN_PIXELS`."""
        return max(1, min(self.pixel_stride, int(math.sqrt(height * width / MIN_PIXELS))))

    def rate(self, step: int) -> float:
        """Step size of a step, counted from 0."""
        done = step / self.num_steps
        left = (1 + math.cos(math.pi * done)) / 2 if self.schedule == "cosine" else 1 - done
        return self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * left


@dataclass
class NetworkPredictorConfig(PredictorSettings):
    """Cameras, depth and moving objects from the pairwise network. Wants a GPU and 2.4 GB of weights."""

    weights: str = DEFAULT_WEIGHTS
    """A hub repository, a folder with config.json and model.safetensors, or a .pth training checkpoint."""
    device: str = "auto"
    """Where the network and the alignment run: auto takes a GPU when there is one."""
    long_side: int = LONG_SIDE
    """Pixels of the longer side of the network's input. It was trained at 512; fewer is faster and coarser."""
    pairs: PairGraph = field(default_factory=PairGraph)
    """Which frames are looked at together."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    """How the network is run."""
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    """How the pairs become one world."""
    windows: WindowConfig = field(default_factory=WindowConfig)
    """How long clips are cut."""
    masks_from: Literal["evidence", "network"] = "evidence"
    """What says what moves: `evidence`, flow and the network's depth against its cameras, with its own dynamic maps as
    one cue; `network`, these maps alone, as published."""
    masks: MaskConfig = field(default_factory=MaskConfig)
    """How that evidence becomes `dynamic_prob`, and what refines it."""
    flow: Literal["auto", "raft", "dis"] = "auto"
    """Optical flow for the alignment and the masks: auto takes torchvision's RAFT when its weights are on disk, else
    OpenCV's DIS."""
    raft_weights: Path | None = None
    """Weights of torchvision's RAFT. None looks where torchvision keeps what it has downloaded; where there are none,
    `flow` raft fetches them (21 MB)."""
    max_points: int = 150_000
    """Size of the seed cloud."""

    def resolve_auto(self) -> NetworkPredictorConfig:
        """The same with what `auto` means here and now, so that it can be recorded."""
        return replace(self, masks=replace(self.masks, refiner=resolve_auto(self.masks.refiner)))

    def asked_for(self) -> str:
        """Whoever names weights wants them used. The published ones are never taken unasked: their licence forbids
        commercial use."""
        return "" if self.weights == DEFAULT_WEIGHTS else "since --network.weights names its weights"

    def offer(self) -> str:
        """Only where the weights are on this machine already."""
        from das3r_ns.predictor.network.weights_source import weights_available

        if not weights_available(self.weights):
            return ""
        licence = " (their licence forbids commercial use)" if self.weights == DEFAULT_WEIGHTS else ""
        return (
            f"The weights of the network predictor are here{licence}: --predictor network may do better on this clip."
        )

    def weight_files(self) -> dict[str, Path]:
        """The network's and RAFT's, as far as they are files here."""
        given = {"network.weights": self.weights, "network.raft-weights": self.raft_weights}
        return {option: Path(value) for option, value in given.items() if value is not None}

    def build(self) -> Predictor:
        """See `PredictorSettings`.

        Raises:
            WeightsError: the weights are neither here nor to be fetched; the message says how to bring them.
        """
        from das3r_ns.predictor.network.predictor import NetworkPredictor
        from das3r_ns.predictor.network.weights_source import locate_weights

        locate_weights(self.weights)  # before the long work
        return NetworkPredictor(self)
