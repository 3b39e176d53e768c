"""COLMAP's cameras beside those from flow: keyframes are mapped by point features, and all frames refined with what was
followed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from das3r_ns.predictor.base import PredictionError
from das3r_ns.predictor.cameras.colmap import CameraPath
from das3r_ns.predictor.cameras.config import Mapper
from das3r_ns.predictor.cameras.sfm import (
    CameraEstimate,
    refine_cameras,
)
from das3r_ns.predictor.cameras.tracked_clip import TrackedClip
from das3r_ns.runtime.progress import stage

MAX_KEYFRAMES = 100
"""Keyframes that are mapped. Twice as many take global mapping over ten times as long."""

FromFeatures = Callable[[Mapper, Sequence[int]], CameraPath]
"""Cameras of a clip by point features of the given keyframes and the named mapper; raises `PredictionError`."""


@dataclass(frozen=True)
class SecondOpinions:
    """COLMAP's cameras of the keyframes, refined with all that was followed, beside those that there are."""

    tracked: TrackedClip
    keyframes: list[int]
    from_features: FromFeatures
    candidates: list[CameraEstimate]
    failures: list[str]

    def ask(self, mapper: Mapper) -> None:
        """Add its cameras to the candidates, or why it has none to the failures."""
        tracks, shown, size = self.tracked.tracks, self.tracked.shown, self.tracked.size
        left_out = max(len(self.keyframes) - MAX_KEYFRAMES, 0)
        mapped = self.keyframes[left_out // 2 :][:MAX_KEYFRAMES]  # flow grows from the middle both ways
        try:
            path = self.from_features(mapper, [shown[k] for k in mapped])
        except PredictionError as e:
            self.failures.insert(0, str(e))
            return
        T, registered = torch.from_numpy(path.T_world_camera[shown]), torch.from_numpy(path.registered[shown])
        with stage("Bundle adjustment of mapped cameras", None):
            refined = refine_cameras(tracks, size, T, path.focal_px, registered, self.tracked.focal)
        self.candidates.append(refined)
