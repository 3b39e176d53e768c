"""How exact the depth, the cameras and the masks of the geometric predictor are on clips whose truth is known.

    python benchmarks/depth.py                                # synthetic clips: two camera motions, three seeds
    python benchmarks/depth.py --seeds 0 --cameras handheld
    python benchmarks/depth.py --seeds --bench forward exposure crowded       # clips of `das3r bench synthetic`

Depth is compared on the pixels that truly stand still, after the one scale of the similarity that aligns the cameras
(`evaluation.metrics.poses`); abs-rel is |d - d*| / d*. The second table says where the error sits, the third whether
confidence tells. Seconds are of processor time, all threads together, so they hold on a shared machine too.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
import tyro
from jaxtyping import Bool, Float32

from das3r_ns.evaluation.bench.synthetic_set import CLIPS
from das3r_ns.evaluation.metrics.masks import mask_scores
from das3r_ns.evaluation.metrics.poses import pose_errors
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.geometric.predictor import GeometricPredictor
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.scene import Scene
from das3r_ns.synthetic import SyntheticClip, SyntheticConfig, make_clip
from das3r_ns.video.clip import Clip

EDGE_JUMP = 0.05
"""Relative jump of the true depth between neighbouring pixels that makes an edge."""
NEAR_PX = 5
"""Pixels around an edge, a moving object, or along the image's border that count as near it."""
CONFIDENCE = (0.0, 2.0, 5.0, 10.0, 20.0, np.inf)
"""Bounds of the bins of confidence."""
HEADER = (
    "| clip | ATE, % of the path | focal error, % | J | abs-rel mean, % | median, % | valid, % | CPU s a frame |",
    "| where | share of static pixels, % | abs-rel mean, % | part of the mean, % |",
    "| confidence | share of valid pixels, % | abs-rel mean, % | median, % |",
)


@dataclass
class Options:
    """What to measure."""

    cameras: tuple[Literal["handheld", "orbit"], ...] = ("handheld", "orbit")
    """Motions of the camera."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the synthetic clips."""
    num_frames: int = 40
    """Frames of each of these clips."""
    bench: tuple[str, ...] = ()
    """Clips of the set `synthetic` besides, by name."""
    threads: int = 2
    """Processor threads."""


@dataclass(frozen=True)
class DepthErrors:
    """Values of the truly static pixels of one clip, in one row each."""

    relative: Float32[np.ndarray, "p"]
    """|d - d*| / d*; NaN where there is no depth."""
    confidence: Float32[np.ndarray, "p"]
    near_edge: Bool[np.ndarray, "p"]
    """Within `NEAR_PX` of a jump of the true depth."""
    near_moving: Bool[np.ndarray, "p"]
    """Within `NEAR_PX` of a moving object."""
    at_border: Bool[np.ndarray, "p"]
    """Within `NEAR_PX` of the image's border."""


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    print(HEADER[0], "|---" * 8 + "|", sep="\n", flush=True)
    # Motion alone, whatever extras are installed: J would depend on them.
    predictor = GeometricPredictor(GeometricPredictorConfig(masks=MaskConfig(refiner="none")))
    found = []
    for name, config in clips(options).items():
        truth = make_clip(config)
        start = time.process_time()
        scene = predictor(Clip(truth.frames, truth.fps, tuple(f"{i:05d}" for i in range(len(truth)))))
        seconds = (time.process_time() - start) / len(truth)
        found.append(depth_errors(scene, truth))
        print(row(name, scene, truth, found[-1], seconds), flush=True)
    print("", HEADER[1], "|---" * 4 + "|", *rows_by_place(found), sep="\n")
    print("", HEADER[2], "|---" * 4 + "|", *rows_by_confidence(found), sep="\n")


def clips(options: Options) -> dict[str, SyntheticConfig]:
    """What to draw, by name."""
    unknown = set(options.bench) - set(CLIPS)
    if unknown:
        raise SystemExit(f"no clip of the set synthetic is called {', '.join(sorted(unknown))}; it has {list(CLIPS)}")
    drawn = {
        f"{camera} {seed}": SyntheticConfig(camera=camera, seed=seed, num_frames=options.num_frames)
        for camera in options.cameras
        for seed in options.seeds
    }
    return drawn | {name: CLIPS[name] for name in options.bench}


def depth_errors(scene: Scene, truth: SyntheticClip) -> DepthErrors:
    """Errors of a scene's depth, at the resolution of its maps."""
    T = pose_errors(scene.T_world_camera, truth.T_world_camera).T_truth_predicted
    depth = scene.depth.numpy() * float(torch.linalg.det(T[:3, :3].double()) ** (1 / 3))
    size = scene.map_size

    def resized(maps: torch.Tensor) -> np.ndarray:
        small = [cv2.resize(m.numpy(), size[::-1], interpolation=cv2.INTER_NEAREST) for m in maps.float()]
        return np.stack(small)

    true, moving = resized(truth.depth), resized(truth.dynamic_mask) > 0.5
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * NEAR_PX + 1, 2 * NEAR_PX + 1))
    edge = np.stack([cv2.dilate(_jumps(d), disk) > 0 for d in true])
    around = np.stack([cv2.dilate(m.astype(np.uint8), disk) > 0 for m in moving])
    border = np.ones(size, bool)
    border[NEAR_PX:-NEAR_PX, NEAR_PX:-NEAR_PX] = False
    static = ~moving
    relative = np.where(depth > 0, np.abs(depth - true) / true, np.nan)
    return DepthErrors(
        relative[static].astype(np.float32),
        scene.confidence.numpy()[static],
        edge[static],
        around[static],
        np.broadcast_to(border, static.shape)[static],
    )


def row(name: str, scene: Scene, truth: SyntheticClip, errors: DepthErrors, seconds: float) -> str:
    """One clip's line of the first table."""
    poses = pose_errors(scene.T_world_camera, truth.T_world_camera)
    focal = 100 * (float(scene.K[0, 0, 0]) / float(truth.K[0, 0]) - 1)
    moving = torch.from_numpy(
        np.stack([cv2.resize(m.numpy(), tuple(truth.frames.shape[2:0:-1])) for m in scene.dynamic_prob])
    )
    j = mask_scores(moving > 0.5, truth.dynamic_mask).j_mean
    valid = np.isfinite(errors.relative)
    return (
        f"| {name} | {poses.ate_percent:.2f} | {focal:+.2f} | {j:.3f} | {100 * errors.relative[valid].mean():.2f} | "
        f"{100 * np.median(errors.relative[valid]):.2f} | {100 * valid.mean():.1f} | {seconds:.2f} |"
    )


def rows_by_place(found: list[DepthErrors]) -> list[str]:
    """Where the error sits, over all clips; each pixel counts for the first place that fits."""
    relative = np.concatenate([e.relative for e in found])
    valid = np.isfinite(relative)
    left = valid.copy()
    rows = []
    for name, here in (
        ("within 5 px of a moving object", np.concatenate([e.near_moving for e in found])),
        ("within 5 px of a depth edge", np.concatenate([e.near_edge for e in found])),
        ("within 5 px of the border", np.concatenate([e.at_border for e in found])),
        ("elsewhere", np.ones_like(valid)),
    ):
        chosen = here & left
        left &= ~here
        part = relative[chosen].sum() / relative[valid].sum()
        share = chosen.sum() / valid.sum()
        rows.append(f"| {name} | {100 * share:.1f} | {100 * relative[chosen].mean():.2f} | {100 * part:.0f} |")
    return rows


def rows_by_confidence(found: list[DepthErrors]) -> list[str]:
    """Whether less confident pixels are less exact, over all clips."""
    relative = np.concatenate([e.relative for e in found])
    confidence = np.concatenate([e.confidence for e in found])
    valid = np.isfinite(relative)
    rows = []
    for low, high in itertools.pairwise(CONFIDENCE):
        here = valid & (confidence >= low) & (confidence < high)
        if here.any():
            name = f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} and more"
            rows.append(
                f"| {name} | {100 * here.sum() / valid.sum():.1f} | {100 * relative[here].mean():.2f} | "
                f"{100 * np.median(relative[here]):.2f} |"
            )
    return rows


def _jumps(depth: Float32[np.ndarray, "h w"]) -> np.ndarray:
    """1 where a pixel differs from the one to the right or below by more than a slanted plane would."""
    inverse = 1 / depth
    jumps = np.zeros(depth.shape, np.uint8)
    for axis in (0, 1):
        step = np.abs(np.diff(inverse, axis=axis)) / np.minimum(
            np.take(inverse, range(depth.shape[axis] - 1), axis), np.take(inverse, range(1, depth.shape[axis]), axis)
        )
        part = (slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))
        jumps[part] |= (step > EDGE_JUMP).astype(np.uint8)
    return jumps


if __name__ == "__main__":
    main(tyro.cli(Options))
