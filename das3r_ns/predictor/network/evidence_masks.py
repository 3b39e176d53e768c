"""What moves in a clip whose cameras and depth the network found: the same stages as for the geometric predictor.

The network's depth is not fitted to this clip's flow, so it is depth from outside (`masks.depth_agreement`), and its
own dynamic maps are a hint, believed as far as motion bears them out.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.predictor.base import UserPriors
from das3r_ns.predictor.depth.posed_flow import PosedFlow
from das3r_ns.predictor.depth.prior import align_depth
from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames, FlowEstimator
from das3r_ns.predictor.flow.matcher_choice import resolve_matcher
from das3r_ns.predictor.flow.matches import ClipMatcher
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.masks.decide import MaskInputs, decide_dynamic_prob
from das3r_ns.predictor.masks.evidence import collect_evidence
from das3r_ns.predictor.masks.prompts.objects import PromptedObjects
from das3r_ns.predictor.masks.refiners.base import Refiner
from das3r_ns.predictor.network.pairs import PairPredictions
from das3r_ns.scene import DYNAMIC_THRESHOLD
from das3r_ns.video.clip import Clip

OFFSETS = (1, 2, 4, 8)
"""Distances in frames, both ways, over which flow is compared with cameras and depth."""
FLOW_MEMORY_BYTES = 1 << 30
MIN_OVERLAP = 0.6
"""Intersection over union of a network's own dynamic maps with those from motion, below which they contradict."""
MIN_UNION = 0.01
"""Share of the images that either calls moving, below which the alignment cannot have been led astray by it."""


def masks_from_evidence(
    clip: Clip,
    priors: UserPriors,
    T_world_camera: Float[Tensor, "n 4 4"],
    K: Float[Tensor, "n 3 3"],
    depth: Float[Tensor, "n h w"],
    confidence: Float[Tensor, "n h w"],
    hint: Float[Tensor, "n h w"] | None,
    estimator: FlowEstimator,
    config: MaskConfig,
    refiner: Refiner | None,
    prompted: PromptedObjects | None = None,
) -> Float32[np.ndarray, "n h w"]:
    """Probability that each pixel moves, at the size of `depth`.

    Args:
        K: in pixels of the clip.
        depth: z-depth in the world of the cameras, 0 where unknown.
        confidence: in any unit; tells what depth that the user gives is brought to the scale of.
        hint: the network's own dynamic maps; None where it has none.
        prompted: finds the objects that the user named.
    """
    size = (int(depth.shape[1]), int(depth.shape[2]))
    flow = _flow_at(clip, size, estimator)
    K_maps = geometry.rescale_intrinsics(K.double(), clip.size, size).numpy()
    posed = PosedFlow(flow, T_world_camera.double().numpy(), K_maps, np.ones(len(clip), bool))

    def map_image(i: int) -> UInt8[np.ndarray, "h w 3"]:
        return cv2.resize(clip.frames[i].numpy(), size[::-1], interpolation=cv2.INTER_AREA)

    given = priors.mask_given
    user = priors.dynamic_mask
    prior = depth.numpy()
    # The alignment takes the confidence of what other frames see through: of what moves, which is sought here. How
    # exact the depth is, is found out from how well frames agree.
    believed = np.where(prior > 0, np.float32(1), np.float32(0))
    if priors.depth is not None:  # it came with the cameras that are used, and is surer than ours
        aligned = align_depth(priors.depth, prior, confidence.numpy())
        prior, believed = aligned.depth, aligned.confidence
    evidence = None if priors.all_masks_given else collect_evidence(posed, map_image, OFFSETS, config)
    inputs = MaskInputs(
        posed,
        # Nothing was triangulated: what other frames see through is told by the depth from outside.
        np.zeros_like(prior),
        np.zeros_like(prior),
        map_image,
        lambda i: clip.frames[i].numpy(),
        evidence,
        prior_depth=prior,
        prior_confidence=believed,
        hint=None if hint is None else hint.numpy(),
        user_static=None if user is None else user.numpy() < 0.5,
        user_given=None if given is None else given.numpy(),
        user_mask_mode=priors.mask_mode,
    )
    return decide_dynamic_prob(inputs, config, None if priors.all_masks_given else refiner, prompted).dynamic_prob


def contradicts(hint: Float[Tensor, "n h w"], found: Float[Tensor, "n h w"]) -> bool:
    """Whether a network's own dynamic maps and those from motion overlap so little that what the alignment made of the
    former is in doubt."""
    a, b = hint > DYNAMIC_THRESHOLD, found > DYNAMIC_THRESHOLD
    union = float((a | b).float().mean())
    return union > MIN_UNION and float((a & b).float().mean()) < MIN_OVERLAP * union


def with_masks(pairs: PairPredictions, dynamic_prob: Float[Tensor, "n h w"]) -> PairPredictions:
    """The same pairs with the given dynamic maps of their first frames."""
    first = pairs.edges[:, 0]
    return replace(pairs, dynamic_prob1=dynamic_prob.to(pairs.dynamic_prob1)[first])


def _flow_at(clip: Clip, size: tuple[int, int], estimator: FlowEstimator) -> FlowBetweenFrames:
    """Flow between any two frames at map resolution, estimated at twice that, as DIS works at half the size."""
    flow_size = (2 * size[0], 2 * size[1])
    interpolation = cv2.INTER_AREA if flow_size[0] <= clip.size[0] else cv2.INTER_CUBIC

    def frame(i: int) -> UInt8[np.ndarray, "h w 3"]:
        return cv2.resize(clip.frames[i].numpy(), flow_size[::-1], interpolation=interpolation)

    matcher = ClipMatcher(frame, resolve_matcher("auto"))
    return FlowBetweenFrames(frame, size, estimator, FLOW_MEMORY_BYTES, matcher)
