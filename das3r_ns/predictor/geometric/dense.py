"""Depth, confidence and moving parts of every frame, given the cameras: the dense half of the geometric predictor.

In: cameras and flow. Out: `Maps` at map resolution in the cameras' world. Each frame's depth comes from its own flow
(`depth`), then frames that see the same point settle on one (`fusion`). What moves is decided by `masks.decide`. Frames
without a pose of their own get depth from an interpolated one, but say nothing about motion: the whole image would
seem to move.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from das3r_ns.predictor.base import DepthPrior, UserMaskMode
from das3r_ns.predictor.depth.fusion import fuse_inverse_depth
from das3r_ns.predictor.depth.inverse_depth import InverseDepth, relative_views
from das3r_ns.predictor.depth.posed_flow import PosedFlow
from das3r_ns.predictor.depth.prior import align_depth, join_depth
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.masks.decide import MaskInputs, decide_dynamic_prob, median_static_depth
from das3r_ns.predictor.masks.evidence import Evidence
from das3r_ns.predictor.masks.prompts.objects import PromptedObjects
from das3r_ns.predictor.masks.refiners.base import Refiner
from das3r_ns.runtime.memory import return_freed_memory
from das3r_ns.runtime.parallel import parallel_for, thread_count
from das3r_ns.runtime.progress import stage

MAX_DEPTH_RATIO = 100.0
"""Depths beyond this many times the median are cut there: their parallax is noise."""


@dataclass(frozen=True)
class Maps:
    """Per-frame maps in the cameras' world."""

    depth: Float32[np.ndarray, "n h w"]
    confidence: Float32[np.ndarray, "n h w"]
    dynamic_prob: Float32[np.ndarray, "n h w"]

    def median_static_depth(self, pose_known: Bool[np.ndarray, "n"] | None = None) -> float:
        """1 where no static pixel has a depth. Frames whose pose is a guess count where there are no others."""
        return median_static_depth(self.depth, self.confidence, self.dynamic_prob, pose_known)


MAX_PATH_DEPTHS = 3000.0
"""The path of the cameras, from its middle, is no longer than so many times the depth of any pixel."""


def estimate_depth_and_masks(
    posed: PosedFlow,
    map_image: Callable[[int], UInt8[np.ndarray, "h w 3"]],
    offsets: tuple[int, ...],
    config: MaskConfig,
    *,
    image: Callable[[int], UInt8[np.ndarray, "H W 3"]] | None = None,
    refiner: Refiner | None = None,
    prompted: PromptedObjects | None = None,
    static: Bool[np.ndarray, "n H W"] | None = None,
    static_given: Bool[np.ndarray, "n"] | None = None,
    mask_mode: UserMaskMode = "replace",
    overlay_mask: Bool[np.ndarray, "h w"] | None = None,
    blank: Bool[np.ndarray, "n"] | None = None,
    prior: DepthPrior | None = None,
) -> Maps:
    """Maps of all frames.

    Args:
        map_image: RGB frame at map resolution.
        offsets: distances in frames, both ways, over which depth is fitted.
        image: RGB frame at the clip's size, for the refiner; `map_image` where left out.
        prompted: finds the objects that the user named.
        static: what the user knows to stand still, of any resolution; taken as truth.
        static_given: in which frames it is known; None for all of them.
        mask_mode: what it does to what is found.
        overlay_mask: True where an overlay covers all images: no depth is known there.
        blank: True for frames that show nothing: they have no depth and nothing static.
        prior: depth from outside; brought to the scale of the cameras, and joined with what is triangulated.
    """
    with_evidence = static is None or mask_mode != "replace" or not (static_given is None or static_given.all())
    depth, confidence, evidence = _fit_frames(posed, map_image, offsets, config, with_evidence)
    aligned = None
    if prior is not None:
        aligned = align_depth(prior, depth, confidence)
        join_depth(aligned, depth, confidence)
    if overlay_mask is not None:
        depth[:, overlay_mask] = confidence[:, overlay_mask] = 0
    _fuse_frames(posed, depth, confidence, offsets)
    # From here on only neighbours are asked for; but refiners average over the same distances as the fit.
    posed.flow.forget_apart(asked_again=refiner is not None)
    return_freed_memory()
    dynamic, static_depth = decide_dynamic_prob(
        MaskInputs(
            posed, depth, confidence, map_image, image or map_image, evidence,
            user_static=static, user_given=static_given, user_mask_mode=mask_mode,
            overlay_mask=overlay_mask, blank=blank,
            prior_depth=None if aligned is None else aligned.depth,
            prior_confidence=None if aligned is None else aligned.confidence,
        ),
        config,
        refiner,
        prompted,
    )  # fmt: skip
    np.minimum(depth, MAX_DEPTH_RATIO * static_depth, out=depth)
    if blank is not None:
        depth[blank], confidence[blank] = 0, 0
    return Maps(depth, confidence, dynamic)


def _fit_frames(
    posed: PosedFlow,
    map_image: Callable[[int], UInt8[np.ndarray, "h w 3"]],
    offsets: tuple[int, ...],
    config: MaskConfig,
    with_evidence: bool,
) -> tuple[Float32[np.ndarray, "n h w"], Float32[np.ndarray, "n h w"], Evidence | None]:
    """Depth, confidence and evidence of motion of each frame by itself. The fit that gives all three is too large to be
    kept."""
    n, size = len(posed), posed.flow.map_size
    depth, confidence = (np.zeros((n, *size), np.float32) for _ in range(2))
    evidence = Evidence.empty(n, size) if with_evidence else None
    centres = posed.T_world_camera[posed.pose_known, :3, 3]
    path = np.linalg.norm(centres - np.median(centres, axis=0), axis=1).max() if len(centres) else 0.0
    nearest = float(path) / MAX_PATH_DEPTHS
    with stage(f"Flow and depth of {n} frames", n) as bar:

        def one_frame(i: int) -> None:
            fit = posed.fit(i, offsets)
            if fit is not None:
                depth[i], confidence[i] = depth_and_confidence(fit, nearest)
                if evidence is not None and posed.pose_known[i]:
                    evidence.set_frame(i, map_image(i), fit, config)
            bar.advance()

        parallel_for(one_frame, n)
    return depth, confidence, evidence


def depth_and_confidence(
    fit: InverseDepth, nearest: float = 0.0
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """z-depth (0 unknown) and its confidence: depth over its standard deviation, times the share of agreeing views.
    A pixel that a single view sees, or whose parallax is below the noise, has none.

    Args:
        nearest: least depth that is believed. Between cameras in one place any flow is explained by a depth of nothing.
    """
    d = np.nan_to_num(fit.inverse_depth)
    usable = (d > 0) & (fit.views >= 2) & (d * nearest < 1)
    depth = np.where(usable, 1 / np.maximum(d, 1e-12), 0).astype(np.float32)
    with np.errstate(invalid="ignore"):
        confidence = np.where(usable, fit.agreeing * np.minimum(d / fit.std, 100.0), 0)
    return depth, confidence.astype(np.float32)


def _fuse_frames(
    posed: PosedFlow,
    depth: Float32[np.ndarray, "n h w"],
    confidence: Float32[np.ndarray, "n h w"],
    offsets: tuple[int, ...],
) -> None:
    """Let each frame's depth agree with that of the posed frames at `offsets`, in place: all is averaged from maps as
    they came in, whose copies are kept until no later frame asks for them."""
    reach = max(offsets, default=0)
    before: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def keep_as_it_was(j: int) -> None:
        if j not in before:
            inverse = np.where(depth[j] > 0, 1 / np.maximum(depth[j], 1e-12), 0).astype(np.float32)
            before[j] = inverse, confidence[j].copy()

    def posed_around(i: int) -> list[int]:
        around = [i + sign * offset for offset in offsets for sign in (-1, 1)]
        return [j for j in around if 0 <= j < len(posed) and posed.pose_known[j]]

    def fuse(i: int) -> None:
        others = posed_around(i)
        if not others:
            return
        inverse, weight = before[i]
        maps = [before[j] for j in others]
        fused, agreeing = fuse_inverse_depth(
            inverse,
            weight,
            np.stack([values for values, _ in maps]),
            np.stack([weights for _, weights in maps]),
            *relative_views(posed.T_world_camera, posed.K, i, others),
        )
        depth[i] = np.where(fused > 0, 1 / np.maximum(fused, 1e-12), 0)
        confidence[i] = weight * agreeing

    n, block = len(posed), 2 * thread_count()
    with stage(f"One depth from {n} frames", n) as bar:
        for first in range(0, n, block):
            now = range(first, min(first + block, n))
            for i in now:
                for j in (i, *posed_around(i)):
                    keep_as_it_was(j)
            parallel_for(lambda k, first=first: fuse(first + k), len(now))
            bar.advance(len(now))
            for j in [j for j in before if j < now.stop - reach]:
                del before[j]


def on_a_sphere(maps: Maps, K_maps: Float64[np.ndarray, "n 3 3"]) -> Maps:
    """All pixels at distance 1. From the one place where the camera stands that looks like any true depth, and frames
    that overlap agree about it."""
    h, w = maps.depth.shape[1:]
    v, u = np.mgrid[:h, :w] + 0.5
    x = (u - K_maps[:, 0, 2, None, None]) / K_maps[:, 0, 0, None, None]
    y = (v - K_maps[:, 1, 2, None, None]) / K_maps[:, 1, 1, None, None]
    depth = (1 / np.sqrt(x**2 + y**2 + 1)).astype(np.float32)
    return replace(maps, depth=depth, confidence=np.ones_like(depth))
