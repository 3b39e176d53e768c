"""Everything that `das3r train-predictor` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from das3r_ns.predictor.network.config import PairwiseNetworkConfig
from das3r_ns.predictor.training.data.views import AugmentConfig
from das3r_ns.predictor.training.features.store import FeatureConfig
from das3r_ns.predictor.training.loop.losses import LossConfig
from das3r_ns.predictor.training.loop.parts import TrainedPart
from das3r_ns.predictor.training.loop.schedule import OptimConfig

MONST3R_WEIGHTS = "Junyi42/MonST3R_PO-TA-S-W_ViTLarge_BaseDecoder_512_dpt"
SCRATCH = "scratch"


@dataclass
class DataConfig:
    """Where pairs come from, and how they are drawn. Give at least one set to train on."""

    pointodyssey: Path | None = None
    """Folder of PointOdyssey, prepared by `das3r prepare pointodyssey`. Trains on its train/, validates on test/."""
    clips: Path | None = None
    """Folder of clips with truth, such as `das3r prepare synthetic` renders. Trains on its train/, validates on
    val/."""
    sintel: Path | None = None
    """Folder of MPI-Sintel with depth, cameras and flow. Validation only."""
    pairs_per_epoch: int = 10_000
    """Pairs drawn in an epoch. Several sets give equal shares."""
    max_stride: int = 9
    """Frames of a pair are 1 to this many frames apart, the longer distances more often."""
    sizes: tuple[tuple[int, int], ...] = ((288, 512), (384, 512), (336, 512))
    """Rows and columns of the views, multiples of 16; one size is drawn for each step."""
    val_pairs: int = 400
    """Pairs of each set to validate on, spread evenly over it, always the same."""
    workers: int = 8
    """Processes that read and crop, for each training process. 0 reads in the training process itself."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        if self.pointodyssey is None and self.clips is None:
            raise ValueError(
                "there is nothing to train on: give --data.pointodyssey FOLDER (see `das3r prepare pointodyssey`) or "
                "--data.clips FOLDER (`das3r prepare synthetic FOLDER` renders one)"
            )
        odd = [size for size in self.sizes if size[0] % 16 or size[1] % 16 or min(size) < 32]
        if odd or not self.sizes:
            raise ValueError(f"sizes of views are {self.sizes}; both sides must be multiples of 16 and at least 32")
        if self.max_stride < 1 or self.val_pairs < 1:
            raise ValueError(f"max_stride {self.max_stride} and val_pairs {self.val_pairs} must be at least 1")


@dataclass
class TrainPredictorConfig:
    """Train the dynamic predictor. The defaults are the published recipe."""

    out: Path
    """Folder of the run: checkpoints, logs, and the weights `best` and `final`, which the predictor loads as they
    are. On a shared file system if several nodes take part."""
    data: DataConfig
    weights: str = MONST3R_WEIGHTS
    """Where to start: a hub repository, a folder or a .pth of MonST3R, DUSt3R or DAS3R; or `scratch` for random
    weights of --network."""
    network: PairwiseNetworkConfig = field(default_factory=PairwiseNetworkConfig)
    """Only for `--weights scratch`: other weights bring their own."""
    train: TrainedPart = "heads"
    """What learns. heads: the two mask heads (published); decoder: everything but the encoder; all: everything."""
    batch_size: int = 8
    """Pairs that one process takes at once; each counts in both directions."""
    accumulate: int = 1
    """Batches whose gradients are added before a step."""
    symmetrise: bool = True
    """Use each pair in both directions."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Arithmetic of the large products; weights and losses are float32. auto: bfloat16 on GPUs that have it, float32
    elsewhere. float32 uses TF32 on GPUs, as published."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """auto takes a GPU if there is one."""
    compile: bool = False
    """Fuse small operations with torch.compile. Costs minutes at the start."""
    seed: int = 0
    """Start weights, order of the pairs, crops and dropout follow from it."""
    resume: bool = False
    """Go on from the last checkpoint in OUT; begin if there is none. The same command may then simply be repeated."""
    stop_after_steps: int | None = None
    """Save and stop when the run has made so many steps in all: for queues with a time limit. The schedule stays that
    of the whole run."""
    log_every: int = 20
    """Steps between log lines."""
    validate_every: int = 0
    """Steps between validations. 0 validates once an epoch. The end is always validated."""
    checkpoint_every: int = 500
    """Steps between checkpoints. The end is always saved."""
    features: FeatureConfig = field(default_factory=FeatureConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.train == "heads" and self.loss.mask_weight == 0:
            raise ValueError("only the mask heads learn, and --loss.mask-weight 0 gives them nothing to learn")
        if self.features.epochs and self.train != "heads":
            raise ValueError(
                f"--features.epochs {self.features.epochs} keeps what a frozen network computes, and --train "
                f"{self.train} changes it: --train heads, or --features.epochs 0"
            )
        if self.features.epochs >= self.optim.epochs:
            raise ValueError(
                f"--features.epochs {self.features.epochs} of --optim.epochs {self.optim.epochs}: no pair would recur, "
                "so there is nothing to keep features for. Lower the first or raise the second."
            )
