"""Settings of the network predictor, apart from the network: a cached scene is found, and help printed, without it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from das3r_ns.predictor.network.alignment import AlignmentConfig
from das3r_ns.predictor.network.pairs import PairGraph
from das3r_ns.predictor.network.windows import WindowConfig

DEFAULT_WEIGHTS = "Kai422kx/das3r"
"""Hub repository of the published weights (their licence forbids commercial use)."""

LONG_SIDE = 512


@dataclass(frozen=True)
class InferenceConfig:
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


@dataclass
class NetworkPredictorConfig:
    """Cameras, depth and moving things from the pairwise network. Wants a GPU and 2.4 GB of weights."""

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
    flow: Literal["auto", "raft", "dis"] = "auto"
    """Optical flow for the alignment: auto takes torchvision's RAFT when its weights are on disk, else OpenCV's DIS.
    alignment.flow_weight 0 needs none."""
    raft_weights: Path | None = None
    """Weights of torchvision's RAFT. None looks where torchvision keeps what it has downloaded; where there are none,
    `flow` raft fetches them (21 MB)."""
    max_points: int = 150_000
    """Size of the seed cloud."""
