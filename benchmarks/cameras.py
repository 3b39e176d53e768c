"""How exact and how fast the cameras of the geometric predictor are: ATE, focal length, seconds.

    python benchmarks/cameras.py                            # synthetic clips, whose truth is known
    python benchmarks/cameras.py --clips CLIPS              # kitchen-dog and davis of this folder as well
    python benchmarks/cameras.py --clips CLIPS --only kitchen-dog camel

Cameras are found as the predictor finds them, without depth and masks. DAVIS has no true cameras: there the field of
view and the reprojection error say whether they make sense. Seconds are of processor time, all threads together, so
they hold on a shared machine too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import tyro

from das3r_ns.evaluation.metrics.poses import pose_errors
from das3r_ns.predictor.base import PredictionError
from das3r_ns.predictor.geometric.predictor import GeometricPredictor
from das3r_ns.synthetic import SyntheticConfig, make_clip
from das3r_ns.video.clip import Clip, read_clip
from das3r_ns.video.config import VideoConfig

SYNTHETIC = {
    **{
        f"{camera} {seed}": SyntheticConfig(camera=camera, seed=seed)
        for camera in ("handheld", "orbit", "forward")
        for seed in range(3)
    },
    "static room": SyntheticConfig(movers=0, seed=5),
    "pan": SyntheticConfig(camera="rotation"),
    "tripod": SyntheticConfig(camera="tripod"),
}
KITCHEN_FOCAL = 525.0
HEADER = "| clip | frames | posed | ATE, % of the path | focal error, % | field of view | error, px | CPU s a frame |"


@dataclass
class Options:
    """What to measure."""

    clips: Path | None = None
    """Folder with composited/kitchen-dog and davis. None leaves them out."""
    only: tuple[str, ...] = ()
    """Names of the clips to measure; all when empty."""
    threads: int = 2
    """Processor threads."""


@dataclass(frozen=True)
class Subject:
    """A clip and what is known about its cameras."""

    clip: Clip
    T_world_camera: torch.Tensor | None = None
    focal_px: float | None = None


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    print(HEADER, "|---" * 8 + "|", sep="\n", flush=True)
    for name, subject in subjects(options):
        print(row(name, subject), flush=True)


def subjects(options: Options) -> Iterator[tuple[str, Subject]]:
    """The clips, each made or read when its turn comes."""

    def wanted(name: str) -> bool:
        return not options.only or name in options.only

    if options.clips is not None:
        folder = options.clips / "composited" / "kitchen-dog"
        if wanted("kitchen-dog"):
            T = torch.from_numpy(np.loadtxt(folder / "T_world_camera.txt").reshape(-1, 4, 4))
            yield "kitchen-dog", Subject(read_clip(folder / "images", VideoConfig(max_frames=None)), T, KITCHEN_FOCAL)
        for folder in sorted((options.clips / "davis").iterdir()):
            if wanted(folder.name):
                yield folder.name, Subject(read_clip(folder / "images"))
    for name, config in SYNTHETIC.items():
        if wanted(name):
            made = make_clip(config)
            names = tuple(f"{i:05d}" for i in range(len(made)))
            yield name, Subject(Clip(made.frames, made.fps, names), made.T_world_camera, float(made.K[0, 0]))


def row(name: str, subject: Subject) -> str:
    """One line of the table."""
    clip = subject.clip
    start = time.process_time()
    try:
        cameras = GeometricPredictor().cameras(clip)
    except PredictionError as e:
        return f"| {name} | {len(clip)} | {e} |"
    seconds = (time.process_time() - start) / len(clip)
    angle = math.degrees(2 * math.atan(max(clip.size) / (2 * cameras.focal_px)))
    ate = focal = "-"
    if subject.T_world_camera is not None and cameras.parallax:
        ate = f"{pose_errors(torch.from_numpy(cameras.T_world_camera), subject.T_world_camera).ate_percent:.2f}"
    if subject.focal_px is not None:
        focal = f"{100 * (cameras.focal_px / subject.focal_px - 1):+.2f}"
    shown = name if cameras.parallax else f"{name} (one place)"
    return (
        f"| {shown} | {len(clip)} | {int(cameras.registered.sum())} | {ate} | {focal} | {angle:.1f}° | "
        f"{cameras.error_px:.2f} | {seconds:.2f} |"
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
