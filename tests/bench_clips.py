"""Small clips, scenes and jobs for the tests of `das3r bench`."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from das3r_ns import geometry
from das3r_ns.datasets import read_image
from das3r_ns.evaluation.bench.prepared import prepared_clip
from das3r_ns.evaluation.bench.sets import FrameChoice, SequenceSource
from das3r_ns.evaluation.bench.worker import Job
from das3r_ns.predictor.registry import PredictorOptions
from das3r_ns.scene import PointCloud, Scene

N, H, W = 12, 32, 48


def small_clip(folder: Path, n: int = N, height: int = H, width: int = W, poses: bool = True) -> Path:
    rng = np.random.default_rng(1)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (height, width + n, 3), np.uint8), (7, 7), 0)
    for name in ("images", "dynamic_masks", "clean"):
        (folder / name).mkdir(parents=True)
    for i in range(n):
        clean = np.ascontiguousarray(texture[:, i : i + width])
        mask = np.zeros((height, width), np.uint8)
        mask[height // 4 : height // 2, width // 4 : width // 2] = 255
        cv2.imwrite(str(folder / "clean" / f"{i:05d}.png"), clean)
        cv2.imwrite(str(folder / "images" / f"{i:05d}.png"), np.where(mask[..., None] > 0, 255, clean))
        cv2.imwrite(str(folder / "dynamic_masks" / f"{i:05d}.png"), mask)
    if poses:
        T = np.tile(np.eye(4), (n, 1, 1))
        T[:, 0, 3], T[:, 1, 3] = np.arange(n) * 0.1, 0.05 * np.sin(np.arange(n))
        np.savetxt(folder / "T_world_camera.txt", T.reshape(n, 16))
    return folder


def scene_of(truth_folder: Path) -> tuple[Scene, torch.Tensor]:
    """A scene as the truth has it: a wall at depth 3."""
    clip = prepared_clip(truth_folder)
    frames = torch.stack([read_image(path) for path in clip.images])
    n, h, w = frames.shape[:3]
    masks = torch.stack([clip.dynamic_mask(i) for i in range(n)])
    scene = Scene(
        T_world_camera=clip.T_world_camera.float(),
        K=geometry.intrinsics(40.0, h, w).repeat(n, 1, 1),
        image_size=(h, w),
        depth=torch.full((n, h, w), 3.0),
        confidence=torch.ones(n, h, w),
        dynamic_prob=masks.float() * 0.65,  # moving at thresholds up to 0.6
        points=PointCloud(
            torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.uint8), torch.ones(1), torch.zeros(1, dtype=torch.int32)
        ),
        pose_known=torch.ones(n, dtype=torch.bool),
        names=tuple(f"{i:05d}" for i in range(n)),
    )
    return scene, frames


def bench_job(out: Path, source: SequenceSource, **changes) -> Job:
    job = Job(
        source=source,
        frames=FrameChoice(50),
        longest_side=None,
        stages=("masks", "poses"),
        predictors=PredictorOptions(predictor="geometric"),
        methods=(),
        baseline_steps=None,
        steps=None,
        out=out,
        again=False,
    )
    return replace(job, **changes)
