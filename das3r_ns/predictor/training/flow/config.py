"""Everything that `das3r train-flow` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from das3r_ns.predictor.flow.network_config import MIN_SIDE


@dataclass
class FlowDataConfig:
    """The worlds that are drawn."""

    size: tuple[int, int] = (320, 448)
    """Rows and columns of the images, multiples of 8."""
    textures: int = 1024
    """Textures drawn at the start."""
    texture_side: int = 512
    """Pixels on the side of a texture, a power of 2."""
    val_pairs: int = 128
    """Pairs to validate on, always the same, of other textures and photographs than those trained on."""

    def __post_init__(self) -> None:
        if min(self.size) < MIN_SIDE or self.size[0] % 8 or self.size[1] % 8:
            raise ValueError(f"--data.size is {self.size}; both must be multiples of 8 and at least {MIN_SIDE}")
        if self.texture_side < 32 or self.texture_side & (self.texture_side - 1):
            raise ValueError(f"--data.texture-side is {self.texture_side}; expected a power of 2 from 32 on")
        if self.textures < 1 or self.val_pairs < 1:
            raise ValueError(
                f"--data.textures {self.textures} and --data.val-pairs {self.val_pairs} must be at least 1"
            )


@dataclass
class FlowOptimConfig:
    """AdamW, one rise and one fall of the learning rate."""

    steps: int = 30_000
    """Length of training, which the schedule is planned for."""
    minutes: float | None = None
    """Plan the schedule by the clock instead: for machines that are lent for so long. Such a run cannot be repeated
    exactly."""
    learning_rate: float = 8e-4
    """Highest learning rate."""
    warmup_share: float = 0.04
    """Share of the training in which it rises."""
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0
    """Gradients longer than this are shortened to it."""
    ema_decay: float = 0.999
    """The weights are averaged over about 1 / (1 - ema_decay) steps; the average is validated and written."""

    def __post_init__(self) -> None:
        if self.steps < 1 or (self.minutes is not None and self.minutes <= 0):
            raise ValueError(f"--optim.steps {self.steps} and --optim.minutes {self.minutes} must be above 0")
        if not 0 < self.warmup_share < 1:
            raise ValueError(f"--optim.warmup-share is {self.warmup_share}; expected a number between 0 and 1")
        if not 0 < self.ema_decay < 1:
            raise ValueError(f"--optim.ema-decay is {self.ema_decay}; expected a number between 0 and 1")


@dataclass
class TrainFlowConfig:
    """Train the optical-flow network on drawn worlds. Needs no data."""

    out: Path
    """Folder of the run: checkpoint, logs, images, and the weights `flow.safetensors`."""
    data: FlowDataConfig = field(default_factory=FlowDataConfig)
    optim: FlowOptimConfig = field(default_factory=FlowOptimConfig)
    weights: Path | None = None
    """Weights of an earlier run (flow.safetensors) to start from instead of random ones. Optimizer and schedule begin
    anew; to go on with an interrupted run, use `resume`."""
    batch_size: int = 32
    """Pairs that one process takes at once."""
    updates: int = 6
    """Updates of the recurrent unit."""
    refinements: int = 2
    """Updates at a quarter of the image."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Arithmetic of the convolutions. auto: bfloat16 on GPUs that have it, float32 elsewhere."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """auto takes a GPU if there is one."""
    compile: bool = False
    """Fuse small operations with torch.compile. Costs a minute at the start; what cannot be compiled runs as it is."""
    record: bool = True
    """Record a step as one CUDA graph, on a GPU: more than twice as fast. Off: to look for errors in a step."""
    seed: int = 0
    """Start weights and worlds follow from it."""
    resume: bool = False
    """Go on from the checkpoint in OUT; begin if there is none. The same command may then simply be repeated."""
    stop_after_steps: int | None = None
    """Save and stop when the run has made so many steps in all. The schedule stays that of the whole run."""
    stop_after_minutes: float | None = None
    """Save and stop when the run has trained for so long in all, earlier parts counted in."""
    log_every: int = 20
    """Steps between log lines."""
    validate_every_s: float = 60.0
    """Seconds between validations, each with a checkpoint. The end is always validated."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "updates", "refinements", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
