"""Memory and time of the geometric predictor on a long clip.

    python benchmarks/long_clip.py                                          # 1000 frames at 854x480
    python benchmarks/long_clip.py --num-frames 100 1000 --size 90 160      # how both grow

The clip is a synthetic one of 50 frames that is walked through there and back again until it is long enough: every
frame is read, matched, given a camera, depth and masks as any other. Memory is what the process holds at its
peak (libraries included); of it, what the frames themselves take is told apart. Drift shows in the ATE, which is given
in percent of one way, not of all there and back. After the table come the seconds of each stage.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import tyro

from das3r_ns.evaluation.bench.meter import metered
from das3r_ns.evaluation.metrics.poses import pose_errors
from das3r_ns.predictor.base import UserPriors
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.geometric.predictor import GeometricPredictor
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.runtime.progress import recorded_seconds
from das3r_ns.scene import Scene
from das3r_ns.synthetic import SyntheticClip, SyntheticConfig, make_clip
from das3r_ns.video.clip import Clip

GIB = 2**30
HEADER = (
    "| frames | s a frame | CPU s a frame | posed | ATE, % of one way | focal error, % "
    "| peak, GiB | of it the frames, GiB |"
)


@dataclass
class Options:
    """What to measure."""

    num_frames: tuple[int, ...] = (1000,)
    """Lengths of the clip."""
    size: tuple[int, int] = (480, 854)
    """Height and width of the frames."""
    distinct: int = 50
    """Frames of the synthetic clip that is repeated."""
    known_cameras: bool = False
    """Give the true cameras: only depth and masks are then predicted."""
    refiner: str = "none"
    """Of the masks: none, or salience."""
    threads: int = 2
    """Processor threads."""
    out: Path | None = None
    """File that a line is added to after each length."""


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    height, width = options.size
    truth = make_clip(SyntheticConfig(num_frames=options.distinct, height=height, width=width))
    config = GeometricPredictorConfig(masks=MaskConfig(refiner=options.refiner))  # type: ignore[arg-type]
    print(HEADER, "|---" * 8 + "|", sep="\n", flush=True)
    for n in options.num_frames:
        clip, priors = there_and_back(truth, n, options.known_cameras)
        start = time.process_time()
        with metered() as cost, recorded_seconds() as stages:
            scene = GeometricPredictor(config)(clip, priors)
        processor = time.process_time() - start
        of_frames = clip.frames.numel() / GIB
        peak = cost.peak_memory_gb * 1e9 / GIB
        ate, focal = camera_errors(truth, scene)
        line = (
            f"| {n} | {cost.seconds / n:.2f} | {processor / n:.2f} | {int(scene.pose_known.sum())} | {ate:.2f} | "
            f"{focal:+.2f} | {peak:.2f} | {of_frames:.2f} |"
        )
        print(line, stages, sep="\n", flush=True)
        if options.out is not None:
            with options.out.open("a") as file:
                file.write(line + "\n")
        del clip, scene


def camera_errors(truth: SyntheticClip, scene: Scene) -> tuple[float, float]:
    """ATE in percent of the truth's path, which is one way of the clip's, and error of the focal length in percent."""
    T_true = truth.T_world_camera[walk(len(truth), len(scene))].double()
    one_way = float(truth.T_world_camera[:, :3, 3].diff(dim=0).norm(dim=1).sum())
    ate = pose_errors(scene.T_world_camera.double(), T_true).ate
    return 100 * ate / one_way, 100 * (float(scene.K[0, 0, 0] / truth.K[0, 0]) - 1)


def walk(distinct: int, num_frames: int) -> torch.Tensor:
    """Which of the distinct frames each frame shows."""
    period = 2 * (distinct - 1)
    return torch.from_numpy(np.array([min(i % period, period - i % period) for i in range(num_frames)]))


def there_and_back(truth: SyntheticClip, num_frames: int, known_cameras: bool) -> tuple[Clip, UserPriors]:
    """The clip walked through until it has `num_frames` frames, neighbours always neighbours."""
    index = walk(len(truth), num_frames)
    clip = Clip(truth.frames[index], truth.fps, tuple(f"{i:05d}" for i in range(num_frames)))
    if not known_cameras:
        return clip, UserPriors()
    K = truth.K.expand(num_frames, 3, 3).clone()
    return clip, UserPriors(T_world_camera=truth.T_world_camera[index], K=K)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
