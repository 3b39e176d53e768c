"""How long and how finely a clip is trained: a budget and what the clip is like in, every number of the schedule out.

A method's own settings are made for a clip of `REFERENCE_FRAMES` frames. A longer clip, or a larger budget, gets more
steps, and with them every schedule is stretched; a scene of more surface gets more Gaussians. One pure function, so
that a plan can be worked out by hand; `planning` measures the clip and puts the plan into the settings of a run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

BudgetName = Literal["quick", "normal", "best"]

REFERENCE_FRAMES = 50
"""Training frames that the steps of a method's own settings are made for."""
STEPS_PER_FRAME = {"quick": 1 / 6, "normal": 1.0, "best": 4.0}
"""Steps that a frame adds, as a share of the method's own steps a reference frame."""
MIN_STEPS = {"quick": 0.5, "normal": 1.0, "best": 2.0}
"""Fewest steps, as a share of the method's own."""
MAX_CPU_S = {"quick": 90.0, "normal": 300.0, "best": 1200.0}
"""Seconds that training on a CPU may take beyond the fewest steps; a clip's frames alone would ask for hours."""
GAUSSIANS = {"quick": 0.5, "normal": 1.0, "best": 2.0}
"""Gaussians that a budget allows, as a share of what the surface asks for; never fewer than the method's own."""
GPU_STEP_MS = 20 / 3
"""Step that budgets are made for: 300 frames are 2 minutes at `normal`. Where a step takes longer there are fewer."""
PIXELS_PER_GAUSSIAN = 10.0
"""Pixels of distinct surface that one Gaussian of the ceiling stands for."""
MAX_GROWTH = {"gpu": 6.0, "cpu": 2.0}
"""The ceiling of the Gaussians rises at most this many times above the method's own."""
BYTES_PER_GAUSSIAN = 1600
"""On the GPU: parameters, gradients, two moments of Adam, and what a render keeps of each."""
GAUSSIAN_MEMORY_SHARE = 0.4
"""Of the GPU's memory that Gaussians may take."""
LONG_TRAINING_STEPS = 30_000
"""Steps that 3D Gaussian splatting's learning rates are made for; those of `das3r`, for 3000, are three times as
high."""
MIN_RATE = 1 / 3
"""Learning rates of the longest trainings, as a share of the method's own."""


@dataclass(frozen=True)
class ClipMeasures:
    """What a plan depends on."""

    frames: int
    """Frames that are trained on."""
    pixels: int
    """Of one frame."""
    path_over_depth: float
    """Length of the camera's path by the median depth of the scene."""
    surface: float
    """Static surface that the clip shows, each part counted once, in images: 1 is a camera that stands still."""


@dataclass(frozen=True)
class MethodSteps:
    """A method's own settings, made for `REFERENCE_FRAMES` frames."""

    steps: int
    max_gaussians: int
    max_points: int
    refine_every: int
    steps_per_save: int


@dataclass(frozen=True)
class TrainingPlan:
    """The numbers of one training. Step numbers of the method's own settings are multiplied by `stretch`."""

    budget: str
    """`quick`, `normal`, `best`, or "steps" where the user gave their number."""
    clip: ClipMeasures
    steps: int
    stretch: float
    """Steps, by the method's own: what schedules of resolution, harmonics, density and learning rates are
    stretched by."""
    max_gaussians: int
    max_points: int
    refine_every: int
    """Steps between two turns of density control: every frame is seen about once meanwhile."""
    learning_rate: float
    """Factor on the learning rates of the Gaussians."""
    steps_per_save: int
    seconds: float
    """About how long the steps take, on an H200 or on two cores."""

    def line(self) -> str:
        """The plan in one line."""
        clip, minutes = self.clip, self.seconds / 60
        about = f"{self.seconds:.0f} s" if self.seconds < 90 else f"{minutes:.0f} min"
        return (
            f"Plan ({self.budget}): {clip.frames} frames of {clip.pixels / 1e6:.2f} MP, path "
            f"{clip.path_over_depth:.1f} x depth, {clip.surface:.1f} images of surface -> {self.steps} steps, at most "
            f"{self.max_gaussians} Gaussians from {self.max_points} points, learning rates x {self.learning_rate:.2f}; "
            f"about {about} of steps"
        )


def check_budget(budget: object) -> None:
    """
    Raises:
        ValueError: it is neither a name nor a number of steps.
    """
    steps = isinstance(budget, int) and not isinstance(budget, bool) and budget >= 1
    if budget is not None and not steps and budget not in STEPS_PER_FRAME:
        raise ValueError(f"--budget must be quick, normal, best or a number of steps of 1 or more, got {budget}.")


def make_plan(
    clip: ClipMeasures,
    budget: BudgetName | int,
    own: MethodSteps,
    on_gpu: bool = True,
    max_gaussians: int | None = None,
    gpu_bytes: int | None = None,
) -> TrainingPlan:
    """The plan of one training.

    Args:
        budget: by name, or the number of steps.
        own: settings of the method.
        max_gaussians: what the user set; None plans it.
        gpu_bytes: memory of the GPU, if it is known.

    Raises:
        ValueError: fewer than one step.
    """
    check_budget(budget)
    named = budget if isinstance(budget, str) else "normal"
    if max_gaussians is None:
        wanted = clip.surface * clip.pixels / (PIXELS_PER_GAUSSIAN * own.max_gaussians)
        # A short clip keeps the method's own ceiling, however large its images: that is what its figures are of.
        growth = max(1.0, min(wanted, clip.frames / REFERENCE_FRAMES, MAX_GROWTH["gpu" if on_gpu else "cpu"]))
        gaussians = round(own.max_gaussians * max(1.0, GAUSSIANS[named] * growth))
        if on_gpu and gpu_bytes is not None:
            fitting = int(GAUSSIAN_MEMORY_SHARE * gpu_bytes / BYTES_PER_GAUSSIAN)
            gaussians = max(min(gaussians, fitting), own.max_gaussians)
    else:
        gaussians = max_gaussians
    step_ms = step_milliseconds(gaussians, clip.pixels, on_gpu)
    steps = budget if isinstance(budget, int) else _steps(clip, budget, own, step_ms, on_gpu)
    stretch = steps / own.steps
    # Log-linear between the method's own steps (1) and those that the published rates are made for (a third).
    slope = math.log(MIN_RATE) / math.log(LONG_TRAINING_STEPS / 3000)
    rate = min(1.0, max(MIN_RATE, stretch**slope))
    return TrainingPlan(
        budget=str(budget) if isinstance(budget, str) else "steps",
        clip=clip,
        steps=steps,
        stretch=stretch,
        max_gaussians=gaussians,
        max_points=max(1, min(round(own.max_points * max(gaussians / own.max_gaussians, 1.0)), 2_400_000)),
        # Twice the frames' number would be safer still, and density would come too late in short trainings.
        refine_every=max(own.refine_every, min(clip.frames, round(own.refine_every * max(stretch, 1.0)))),
        learning_rate=rate,
        steps_per_save=max(own.steps_per_save, math.ceil(steps / 6)),
        seconds=steps * step_ms / 1000,
    )


def step_milliseconds(gaussians: int, pixels: int, on_gpu: bool) -> float:
    """About how long a step takes: a straight line through the table of `benchmarks/model_step.py` (H100, 0.1 to 3
    million Gaussians, 480p to 1080p). On a CPU through four trainings of `das3r-lite` on two cores: 55, 72, 103 and 127
    ms (320x180 and 512x288, 20 000 and 80 000 Gaussians at most)."""
    if on_gpu:
        return max(5.0, 2.5 + 4.0 * pixels / 1e6 + 4.0 * gaussians / 1e6)
    return 18.0 + 0.54 * pixels / 1e3 + 0.34 * gaussians / 1e3


def _steps(clip: ClipMeasures, budget: BudgetName, own: MethodSteps, step_ms: float, on_gpu: bool) -> int:
    fewest = MIN_STEPS[budget] * own.steps
    wanted = STEPS_PER_FRAME[budget] * own.steps / REFERENCE_FRAMES * clip.frames
    if on_gpu:
        wanted *= min(1.0, GPU_STEP_MS / step_ms)
    else:
        wanted = min(wanted, 1000 * MAX_CPU_S[budget] / step_ms)
    return round(max(fewest, wanted))
