"""What moves: every stage that decides `dynamic_prob`, in order, in `decide_dynamic_prob` and the functions it calls.

In: cameras, flow, depth and evidence of motion, from any predictor. Out: the probability that each pixel moves. To
change how a mask is decided, change a stage here; where a new cue goes is said in docs/architecture.md.

| stage | what it says | where |
|---|---|---|
| motion evidence | what no depth explains | `evidence`, collected before |
| temporal filter | evidence averaged along the flow, over place and colour, up to edges | `motion_probability` |
| motion probability | evidence against its threshold; what stands out decides doubt | `motion_probability` |
| free space | what other frames see through was there, and went | `free_space` |
| outlines | what flow says behind the outline of a depth from outside may be its neighbour's motion | `outside_depth` |
| hint | a map that the predictor's own network gave, as far as motion bears it out | here |
| refiner | where objects end, from what they look like | `refiners` |
| calibration | a probability of 0.8 means that four fifths of such pixels move | `calibration` |
| outside depth | where depth comes from outside: what is gone from its place, whatever flow says | `depth_agreement` |
| prompt | which objects the user named, as wholes, as far as they move | `prompts` |
| user masks | what the user says, in the frames of which they say it | here |
| overlays | an overlay is not part of the scene | here |
| blank frames | a frame that shows nothing shows nothing static | here |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from das3r_ns.predictor.base import UserMaskMode
from das3r_ns.predictor.depth.posed_flow import PosedFlow
from das3r_ns.predictor.masks.calibration import calibrated
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.masks.depth_agreement import depth_agreement
from das3r_ns.predictor.masks.evidence import Evidence
from das3r_ns.predictor.masks.free_space import add_free_space_violations
from das3r_ns.predictor.masks.motion_probability import camera_doubt, motion_probability, pool_evidence
from das3r_ns.predictor.masks.outside_depth import clean_outside_depth
from das3r_ns.predictor.masks.prompts.objects import PromptedObjects
from das3r_ns.predictor.masks.refiners.base import Refiner
from das3r_ns.predictor.masks.saliency_cues import log_odds, trust
from das3r_ns.runtime.progress import stage

MAX_MEDIAN_FRAMES = 200
"""A median over the clip is taken of at most so many frames."""

HINT_WEIGHT = np.float32(1.0)
"""Of the log-odds of a hint against those of motion, where they agree."""
HINT_BELIEVED = (0.4, 0.8)
"""Agreement of a hint with motion below which it says nothing, and above which all."""


@dataclass(frozen=True)
class MaskInputs:
    """All that `dynamic_prob` is decided from. Maps are at map resolution; images are asked for frame by frame."""

    posed: PosedFlow
    depth: Float32[np.ndarray, "n h w"]
    """z-depth in the world of `posed`, 0 where unknown."""
    confidence: Float32[np.ndarray, "n h w"]
    """About depth over its standard deviation, 0 where unknown."""
    map_image: Callable[[int], UInt8[np.ndarray, "h w 3"]]
    """RGB frame at map resolution."""
    image: Callable[[int], UInt8[np.ndarray, "H W 3"]]
    """RGB frame at the clip's size."""
    evidence: Evidence | None
    """Averaged in place: of a long clip there is no room for two. None where user masks replace everything."""
    prior_depth: Float32[np.ndarray, "n h w"] | None = None
    """z-depth that comes from outside (a network, a sensor, another program), not from this clip's flow; in the world
    of `posed`, 0 where unknown. None where there is none."""
    prior_confidence: Float32[np.ndarray, "n h w"] | None = None
    """Of `prior_depth`, in any unit, 0 where unknown: what it is worth is found out."""
    hint: Float32[np.ndarray, "n h w"] | None = None
    """Probability of motion by another source, as a network's own dynamic maps; one cue among others."""
    user_static: Bool[np.ndarray, "n H W"] | None = None
    """True where the user says that nothing moves; of any resolution."""
    user_given: Bool[np.ndarray, "n"] | None = None
    """Frames of which the user says anything; None for all of them."""
    user_mask_mode: UserMaskMode = "replace"
    overlay_mask: Bool[np.ndarray, "h w"] | None = None
    """True where an overlay covers every frame."""
    blank: Bool[np.ndarray, "n"] | None = None
    """True for frames that show nothing."""


class Decision(NamedTuple):
    """What `decide_dynamic_prob` found."""

    dynamic_prob: Float32[np.ndarray, "n h w"]
    static_depth: float
    """Median depth of what geometry, or the user in its place, calls static; 1 where there is none."""


def decide_dynamic_prob(
    inputs: MaskInputs, config: MaskConfig, refiner: Refiner | None = None, prompted: PromptedObjects | None = None
) -> Decision:
    """Probability that each pixel moves.

    Args:
        refiner: built by the caller, who wants to know before long work that one is missing.
        prompted: as well.

    Raises:
        ValueError: there is neither evidence nor a user mask that replaces it.
    """
    user = None if inputs.user_static is None else _resized(inputs.user_static, inputs.depth.shape[1:])
    given = np.ones(len(inputs.depth), bool) if inputs.user_given is None else inputs.user_given
    if user is not None and inputs.user_mask_mode == "replace" and given.all():
        dynamic = user
        static_depth = median_static_depth(inputs.depth, inputs.confidence, dynamic, inputs.posed.pose_known)
    elif inputs.evidence is None:
        raise ValueError("masks need evidence of motion, or user masks that replace it; neither was given")
    else:
        dynamic, static_depth = _found(inputs, inputs.evidence, config, refiner)
        if prompted is not None:
            dynamic = prompted(dynamic, inputs.image, inputs.posed.flow)
        if user is not None:
            dynamic[given] = combine_user_masks(dynamic[given], user[given], inputs.user_mask_mode)
    # No frame shows what is static under an overlay, and a blank frame shows it nowhere.
    if inputs.overlay_mask is not None:
        dynamic[:, inputs.overlay_mask] = 1
    if inputs.blank is not None:
        dynamic[inputs.blank] = 1
    return Decision(dynamic, static_depth)


def combine_user_masks(
    found: Float32[np.ndarray, "n h w"], user: Float32[np.ndarray, "n h w"], mode: UserMaskMode
) -> Float32[np.ndarray, "n h w"]:
    """What was found to move and what the user says moves, as one probability."""
    if mode == "replace":
        return user
    if mode == "add":
        return np.maximum(found, user)
    return np.minimum(found, 1 - user if mode == "subtract" else user)


def median_static_depth(
    depth: Float32[np.ndarray, "n h w"],
    confidence: Float32[np.ndarray, "n h w"],
    dynamic_prob: Float32[np.ndarray, "n h w"],
    pose_known: Bool[np.ndarray, "n"] | None = None,
) -> float:
    """Median depth of what is known and static; 1 where there is none. Of long clips some frames stand for all, and
    depths of frames whose pose is a guess are guesses too: they count where there is nothing else."""
    if pose_known is not None and pose_known.any() and not pose_known.all():
        found = median_static_depth(depth[pose_known], confidence[pose_known], dynamic_prob[pose_known])
        if found != 1.0:
            return found
    every = slice(None, None, -(-len(depth) // MAX_MEDIAN_FRAMES) or 1)
    static = (depth[every] > 0) & (dynamic_prob[every] < 0.5) & (confidence[every] > 0)
    return float(np.median(depth[every][static])) if static.any() else 1.0


def _found(
    inputs: MaskInputs, evidence: Evidence, config: MaskConfig, refiner: Refiner | None
) -> tuple[Float32[np.ndarray, "n h w"], float]:
    """Probability of motion from all that is not the user's, and the median depth of what geometry calls static."""
    posed, outside = inputs.posed, None
    if inputs.prior_depth is not None:
        outside = clean_outside_depth(posed, inputs.prior_depth, inputs.prior_confidence)
        # Where depths of many frames agree through these cameras, the cameras follow what stands still.
        posed = replace(posed, background_verified=posed.background_verified or outside.tells)
    dynamic, doubt = _from_motion(replace(inputs, posed=posed), evidence, config)
    if config.seen_through > 0:
        add_free_space_violations(dynamic, posed, inputs.depth, inputs.confidence, inputs.map_image, config)
    if outside is not None:
        for i, frame in enumerate(dynamic):
            frame *= 1 - outside.behind_outline(i)
    static_depth = median_static_depth(inputs.depth, inputs.confidence, dynamic, posed.pose_known)
    # What geometry says is still needed where depth comes from outside; of a long clip there is no room for two else.
    refined = dynamic if outside is None else dynamic.copy()
    if inputs.hint is not None:
        refined = _with_hint(refined, inputs.hint)
    if refiner is not None:
        refined = refiner(refined, inputs.image, posed.flow, doubt)
    refined = calibrated(refined, "none" if refiner is None else config.refiner)
    if outside is None:
        return refined, static_depth
    agreement = depth_agreement(posed, outside, inputs.map_image, config)
    for i in range(len(refined)):
        by_geometry = np.maximum(dynamic[i], agreement.gone[i])
        refined[i] += agreement.certain[i] * (by_geometry - refined[i])
    return refined, median_static_depth(inputs.depth, inputs.confidence, refined, posed.pose_known)


def _from_motion(
    inputs: MaskInputs, evidence: Evidence, config: MaskConfig
) -> tuple[Float32[np.ndarray, "n h w"], Float32[np.ndarray, "n"]]:
    """Probability of motion, and how far it is in doubt in each frame."""
    n = len(evidence)
    with stage(f"Dynamic maps of {n} frames", 2 * n, "steps") as bar:
        pool_evidence(evidence, inputs.map_image, inputs.posed.flow, config, bar.advance)
    dynamic = motion_probability(evidence, config, inputs.posed.background_verified)
    doubt = np.zeros(n, np.float32) if inputs.posed.background_verified else camera_doubt(evidence, config)[:, 0, 0]
    return dynamic, doubt


def _with_hint(
    dynamic: Float32[np.ndarray, "n h w"], hint: Float32[np.ndarray, "n h w"]
) -> Float32[np.ndarray, "n h w"]:
    """Motion and another source's map together: the map counts as far as what it marks moves and what moves is marked
    (the lesser of precision and recall around each frame's time). One that marks nothing, all, or the wrong half says
    nothing."""
    moving = log_odds(dynamic, 1e-4)
    precision, recall = trust(moving, hint), trust(log_odds(hint, 1e-4), dynamic)
    believed = np.minimum(precision, recall)
    believed = np.clip((believed - HINT_BELIEVED[0]) / (HINT_BELIEVED[1] - HINT_BELIEVED[0]), 0, 1)
    return 1 / (1 + np.exp(-moving - HINT_WEIGHT * believed * log_odds(hint, 0.05)))


def _resized(user_static: Bool[np.ndarray, "n H W"], size: tuple[int, ...]) -> Float32[np.ndarray, "n h w"]:
    """Share of each map pixel that the user calls moving."""
    width_height = (size[1], size[0])
    return np.stack(
        [1 - cv2.resize(mask.astype(np.float32), width_height, interpolation=cv2.INTER_AREA) for mask in user_static]
    )
