"""The flow between frames of a clip as the settings ask for it."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

from das3r_ns.predictor.flow.best_of import BestOfFlow
from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.flow.dis import DisFlow
from das3r_ns.predictor.flow.estimator import FlowEstimator
from das3r_ns.predictor.flow.matches import ClipMatcher
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.video.clip import Clip


def flow_between(clip: Clip, estimator: FlowEstimator, config: GeometricPredictorConfig) -> FlowBetweenFrames:
    """Flow between any two frames of a clip, at map resolution, as the predictor takes it."""
    factor = min(1.0, config.map_longest_side / max(clip.size))
    map_size = (round(clip.size[0] * factor), round(clip.size[1] * factor))
    # Flow at twice the resolution of the maps: finer finds no more, coarser loses thin and small objects. Small
    # images are enlarged, for DIS works at half the size and its patches are 8 pixels wide.
    flow_size = (2 * map_size[0], 2 * map_size[1])
    interpolation = cv2.INTER_AREA if flow_size[0] <= clip.size[0] else cv2.INTER_CUBIC

    def frame(i: int) -> UInt8[np.ndarray, "h w 3"]:
        return cv2.resize(clip.frames[i].numpy(), flow_size[::-1], interpolation=interpolation)

    matcher = ClipMatcher(frame, config.matching)
    return FlowBetweenFrames(frame, map_size, estimator, config.flow_memory_mb << 20, matcher)


def _flow_estimator(config: GeometricPredictorConfig) -> FlowEstimator:
    """For settings whose `auto` is resolved."""
    if config.flow == "dis":
        return DisFlow()
    if config.flow in ("learned", "best"):
        from das3r_ns.predictor.flow.learned import LearnedFlow

        assert config.flow_weights is not None  # `check`
        learned = LearnedFlow(config.flow_weights)
        return learned if config.flow == "learned" else BestOfFlow((DisFlow(), learned))
    from das3r_ns.predictor.flow.raft import RaftFlow  # torchvision is slow to import

    return RaftFlow(config.raft_weights)
