"""What a benchmark measures and with what: the settings of `das3r bench` that decide what its figures mean."""

import platform
import shlex
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from rich import get_console

from das3r_ns import __version__
from das3r_ns.evaluation.bench.sets import FRAMES, FrameChoice
from das3r_ns.evaluation.bench.training import BASELINES
from das3r_ns.evaluation.bench.worker import Stage
from das3r_ns.runtime.shared_cores import available_cores

STAGES: tuple[Stage, ...] = ("masks", "poses", "psnr")


@dataclass(frozen=True)
class BenchProtocol:
    """What is measured, on which frames, and what is trained for it."""

    stages: tuple[Literal["masks", "poses", "psnr", "all"], ...] = ("all",)
    """What to measure. psnr trains; masks and poses need a prediction only."""
    methods: tuple[str, ...] = ("das3r",)
    """Nerfstudio methods to train: das3r, das3r-paper, das3r-lite."""
    baselines: bool = True
    """Train nerfstudio's splatfacto too, with and without masks, on the same scene folders. Needs a GPU."""
    steps: int | None = None
    """Training steps of every method, instead of its own number. For a quick look."""
    baseline_steps: int | None = None
    """Training steps of the baselines instead of their 30 000, schedules shortened in proportion."""
    max_frames: int | None = None
    """Instead of the protocol's number of frames."""
    every: int = 1
    """Only every so many-th of the protocol's frames, taken from the whole sequence: fast motion made from real
    footage."""
    longest_side: int | None = 512
    """Of the images, in pixels. None keeps their size; that is no longer the published protocol."""
    true_masks: bool = False
    """Put the true masks in place of the predicted ones, to see what the predictor's cost. Into another OUT than a run
    without; one that holds its scenes spares the prediction."""

    def chosen_stages(self) -> tuple[Stage, ...]:
        """What is measured, in order."""
        return STAGES if "all" in self.stages else tuple(stage for stage in STAGES if stage in self.stages)

    def frames_of(self, set_name: str) -> FrameChoice:
        """Which frames of a set's sequences are taken.

        Raises:
            ValueError: `every` is not 1 or more.
        """
        if self.every < 1:
            raise ValueError(f"--every must be 1 (all frames) or more, got {self.every}")
        frames = FRAMES.get(set_name, FRAMES["davis"])
        return FrameChoice(self.max_frames or frames.at_most, frames.stride * self.every)

    def trained_methods(self) -> tuple[str, ...]:
        """What is trained: nothing where PSNR is not measured, the baselines only where there is a GPU.

        Raises:
            ValueError: there is no such method.
        """
        if "psnr" not in self.chosen_stages():
            return ()
        with_baselines = self.baselines and torch.cuda.is_available()
        if self.baselines and not with_baselines:
            get_console().print("The splatfacto baselines are left out: they need a GPU.", style="yellow")
        methods = (*self.methods, *BASELINES) if with_baselines else self.methods
        _check_methods(methods)
        return methods

    def notes(self, predictor: str, methods: tuple[str, ...], frames: FrameChoice) -> dict[str, Any]:
        """What stands below the table, so that its figures can be judged and repeated."""
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        memory_gb = psutil.virtual_memory().total / 2**30
        baseline_steps = self.baseline_steps
        return {
            "command": shlex.join(["das3r", *sys.argv[1:]]) if Path(sys.argv[0]).name == "das3r" else "from Python",
            "date": datetime.now(timezone.utc).date().isoformat(),
            "machine": f"{available_cores()} CPU cores ({platform.machine()}), {memory_gb:.0f} GiB, "
            + (", ".join(gpus) if gpus else "no GPU"),
            "versions": f"das3r_ns {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
            "predictor": f"{predictor}, with the true masks in place of its own" if self.true_masks else predictor,
            "methods": ", ".join(methods) or "none trained",
            "frames": ("all" if frames.at_most is None else f"the first {frames.at_most} at most")
            + (f" of every {_ordinal(frames.stride)} one" if frames.stride > 1 else ""),
            "longest side": f"{self.longest_side} px" if self.longest_side else "as it is",
            **({"steps": self.steps} if self.steps is not None else {}),
            **({"steps of the baselines": f"{baseline_steps}, schedules in proportion"} if baseline_steps else {}),
        }


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _check_methods(methods: tuple[str, ...]) -> None:
    if not methods:
        return
    from nerfstudio.configs.method_configs import all_methods

    unknown = [method for method in methods if method not in all_methods and method not in BASELINES]
    if unknown:
        near = [name for name in all_methods if name.startswith("das3r")]
        raise ValueError(
            f"there is no method {unknown[0]!r}. Ours: {', '.join(near)}; baselines: {', '.join(BASELINES)}."
        )
