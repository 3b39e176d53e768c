"""How well masks are found when the cameras and the depth come from outside: J on synthetic clips.

    python benchmarks/masks_from_truth.py                                  # 256x144, 50 frames a clip
    python benchmarks/masks_from_truth.py --geometry network --hints inverted nothing
    python benchmarks/masks_from_truth.py --height 288 --width 512         # the size of `das3r bench synthetic`

Three kinds of geometry: `truth`, the cameras and the depth that the clip was drawn with; `noisy`, the same cameras
with depth of 5 % noise (of single pixels, and in a second row of whole regions) of which 10 % of the pixels are
outliers; `network`, cameras and depth that the global alignment finds from pairs with the errors of a network
(`simulated_pairs`), whose own dynamic maps say the truth, its inverse, nothing or everything.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import cv2
import numpy as np
import torch
import tyro
from torch import Tensor

from das3r_ns.evaluation.bench.synthetic_set import CLIPS
from das3r_ns.evaluation.metrics.masks import mask_scores
from das3r_ns.evaluation.metrics.poses import pose_errors
from das3r_ns.predictor.base import DepthPrior, UserPriors
from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.flow.dis import DisFlow
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.geometric.predictor import GeometricPredictor
from das3r_ns.predictor.masks.config import MaskConfig, RefinerName
from das3r_ns.predictor.masks.refiners.build import build_refiner
from das3r_ns.predictor.network.alignment import Alignment, align
from das3r_ns.predictor.network.evidence_masks import contradicts, masks_from_evidence, with_masks
from das3r_ns.predictor.network.settings import AlignmentConfig, PairGraph
from das3r_ns.predictor.network.simulated_pairs import simulate_pairs
from das3r_ns.synthetic import SyntheticClip, make_clip
from das3r_ns.video.clip import Clip

Hint = Literal["truth", "inverted", "nothing", "everything"]
NOISE = {"truth": ((0.0, 0.0, 0.0),), "noisy": ((0.05, 0.0, 0.1), (0.0, 0.05, 0.1))}
"""Relative standard deviation of each pixel's depth and of whole regions', and the share of outliers."""


@dataclass
class Options:
    """What to measure."""

    clips: tuple[str, ...] = ("handheld", "orbit", "crowded", "waiting")
    """Of the synthetic set."""
    geometry: tuple[Literal["truth", "noisy", "network"], ...] = ("truth", "noisy", "network")
    """Where cameras and depth come from."""
    hints: tuple[Hint, ...] = ("truth", "inverted", "nothing", "everything")
    """What the network's own dynamic maps say."""
    refiners: tuple[RefinerName, ...] = ("none",)
    """Each is measured."""
    frames: int = 50
    """Frames of each clip."""
    height: int = 144
    """Rows of the frames."""
    width: int = 256
    """Columns of the frames."""


def main(options: Options) -> None:
    """Measure and print a table."""
    print("| clip | geometry | refiner | J | moving marked | static marked | ATE, % of path | s |\n|" + "---|" * 8)
    for name in options.clips:
        size = {"num_frames": options.frames, "height": options.height, "width": options.width}
        truth = make_clip(replace(CLIPS[name], **size))
        clip = Clip(truth.frames, truth.fps, tuple(f"{i:05d}" for i in range(len(truth))))
        for refiner in options.refiners:
            for geometry in options.geometry:
                if geometry == "network":
                    for hint in options.hints:
                        way = partial(by_network, truth, clip, hint, refiner)
                        row(name, f"network, maps say {hint}", refiner, truth, way)
                    continue
                for noise in NOISE[geometry]:
                    what = "{:.0%} noise a pixel, {:.0%} a region, {:.0%} outliers".format(*noise)
                    row(name, what, refiner, truth, partial(with_depth, truth, clip, noise, refiner))


def row(name: str, what: str, refiner: str, truth: SyntheticClip, run) -> None:
    """Print a row of the table."""
    begin = time.perf_counter()
    found, cameras = run()
    scores = mask_scores(found > 0.5, truth.dynamic_mask)
    ate = "" if cameras is None else f"{pose_errors(cameras, truth.T_world_camera).ate_percent:.2f}"
    print(
        f"| {name} | {what} | {refiner} | {scores.j_mean:.3f} | {scores.moving_marked_mean:.3f} | "
        f"{scores.static_marked_mean:.4f} | {ate} | {time.perf_counter() - begin:.0f} |",
        flush=True,
    )


def with_depth(
    truth: SyntheticClip, clip: Clip, noise: tuple[float, float, float], refiner: RefinerName
) -> tuple[Tensor, None]:
    """Maps of the geometric predictor with the true cameras and a depth that is given."""
    depth = torch.from_numpy(spoilt(truth.depth.numpy(), *noise))
    priors = UserPriors(
        T_world_camera=truth.T_world_camera,
        K=truth.K.float().expand(len(truth), 3, 3).clone(),
        depth=DepthPrior(depth, torch.ones_like(depth)),
    )
    config = GeometricPredictorConfig(masks=MaskConfig(refiner=refiner), map_longest_side=max(clip.size))
    return GeometricPredictor(config)(clip, priors).dynamic_prob, None


def spoilt(depth: np.ndarray, of_pixels: float, of_regions: float, outliers: float) -> np.ndarray:
    """A depth with errors."""
    rng = np.random.default_rng(0)
    out = depth * np.exp(of_pixels * rng.normal(size=depth.shape))
    for frame in out:
        coarse = rng.normal(size=(4, 6))
        frame *= np.exp(of_regions * cv2.resize(coarse, frame.shape[::-1], interpolation=cv2.INTER_CUBIC))
    wrong = rng.random(depth.shape) < outliers
    out[wrong] = np.exp(rng.uniform(np.log(depth.min()), np.log(depth.max()), int(wrong.sum())))
    return out.astype(np.float32)


def by_network(truth: SyntheticClip, clip: Clip, hint: Hint, refiner: RefinerName) -> tuple[Tensor, Tensor]:
    """Maps from what the alignment makes of simulated pairs, and the cameras."""
    says = {
        "truth": truth.dynamic_mask,
        "inverted": ~truth.dynamic_mask,
        "nothing": torch.zeros_like(truth.dynamic_mask),
        "everything": torch.ones_like(truth.dynamic_mask),
    }[hint]
    edges = PairGraph().edges(len(truth))
    pairs = simulate_pairs(truth.depth, says, truth.T_world_camera, truth.K.float(), edges)
    frames = truth.frames.numpy()
    flow = FlowBetweenFrames(lambda i: frames[i], clip.size, DisFlow())
    found = align(pairs, len(truth), AlignmentConfig(), flow=flow.checked)
    own = found.dynamic_prob
    maps = evidence(clip, found, own, refiner)
    if contradicts(own, maps):  # as `NetworkPredictor` does
        found = align(with_masks(pairs, maps), len(truth), AlignmentConfig(), flow=flow.checked)
        maps = evidence(clip, found, None, refiner)
    return maps, found.T_world_camera


def evidence(clip: Clip, found: Alignment, hint: Tensor | None, refiner: RefinerName) -> Tensor:
    """Maps from an alignment's cameras and depth."""
    return torch.from_numpy(
        masks_from_evidence(
            clip, UserPriors(), found.T_world_camera, found.K, found.depth, found.confidence, hint,
            DisFlow(), MaskConfig(refiner=refiner), build_refiner(refiner),
        )
    )  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
