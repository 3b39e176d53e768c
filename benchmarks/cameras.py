"""How exact and how fast the cameras from flow are: ATE, focal length, seconds, on clips whose truth is known.

    python benchmarks/cameras.py                        # synthetic clips, about two minutes on one core
    python benchmarks/cameras.py --clips ../shared/clips    # and composited/kitchen-dog of this folder

Cameras are found from nothing but flow (DIS) and pictures. A pan on the spot and a tripod are scored by their focal
length and by the kind of motion that was recognised.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from das3r_ns.evaluation.metrics.poses import pose_errors
from das3r_ns.predictor.bundle import CheckedFlow, FocalKnowledge, follow_grid
from das3r_ns.predictor.flow import DisFlow, FlowBetweenFrames
from das3r_ns.predictor.motion import find_cameras
from das3r_ns.synthetic import SyntheticConfig, make_clip

SYNTHETIC = {
    "handheld 0": SyntheticConfig(),
    "handheld 1": SyntheticConfig(seed=1),
    "handheld 2": SyntheticConfig(seed=2),
    "orbit": SyntheticConfig(camera="orbit"),
    "forward": SyntheticConfig(camera="forward"),
    "static room": SyntheticConfig(movers=0, seed=5),
    "pan": SyntheticConfig(camera="rotation"),
    "tripod": SyntheticConfig(camera="tripod"),
}
KITCHEN_FOCAL = 525.0
HEADER = (
    f"{'clip':14}{'kind':10}{'ATE % of path':>14}{'focal error %':>15}{'std %':>8}{'follow s':>10}{'cameras s':>11}"
)


@dataclass
class Options:
    """What to measure."""

    clips: Path | None = None
    """Folder with composited/kitchen-dog. None leaves it out."""
    only: tuple[str, ...] = ()
    """Names of the synthetic clips to measure; all when empty."""
    threads: int = 2
    """Processor threads."""


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    print(HEADER)
    for name, config in SYNTHETIC.items():
        if not options.only or name in options.only:
            clip = make_clip(config)
            print(row(name, lambda i, clip=clip: clip.frames[i].numpy(), clip.T_world_camera, float(clip.K[0, 0])))
    if options.clips is not None:
        folder = options.clips / "composited" / "kitchen-dog"
        files = sorted((folder / "images").iterdir())
        pictures = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]
        truth = torch.from_numpy(np.loadtxt(folder / "T_world_camera.txt").reshape(-1, 4, 4))
        print(row("kitchen-dog", lambda i: pictures[i], truth, KITCHEN_FOCAL))


def row(name: str, picture: Callable[[int], np.ndarray], truth: Float[Tensor, "n 4 4"], focal: float) -> str:
    """One line of the table."""
    height, width = picture(0).shape[:2]
    flow = between(picture, height, width)
    start = time.perf_counter()
    tracks = follow_grid(flow, len(truth), picture)
    followed = time.perf_counter()
    evidence, cameras = find_cameras(tracks, (height, width), FocalKnowledge())
    found = time.perf_counter()
    ate = f"{pose_errors(cameras.T_world_camera, truth).ate_percent:.3f}" if evidence.kind == "general" else "-"
    error = 100 * (cameras.focal_px / focal - 1)
    return (
        f"{name:14}{evidence.kind:10}{ate:>14}{error:>15.2f}{100 * cameras.focal_std:>8.2f}"
        f"{followed - start:>10.1f}{found - followed:>11.1f}"
    )


def between(picture: Callable[[int], np.ndarray], height: int, width: int) -> CheckedFlow:
    """Flow at no more than 432 pixels on the longer side, as the geometric predictor computes it."""
    factor = min(1.0, 432 / max(height, width))
    return FlowBetweenFrames(picture, (round(height * factor), round(width * factor)), DisFlow()).checked


if __name__ == "__main__":
    main(tyro.cli(Options))
