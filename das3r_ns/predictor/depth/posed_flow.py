"""Flow of a clip together with its cameras, and the inverse depth that explains a frame's flow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from das3r_ns.predictor.depth.inverse_depth import InverseDepth, fit_inverse_depth, relative_views
from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames

NOISE_PX = (0.5, 0.15)
"""Standard deviation of the flow in map pixels: this much, and this much more a frame of distance."""
ROUND_TRIP = (1.5, 0.1)
"""A view sees a pixel up to this round-trip error: map pixels, plus this share of the flow's length."""


@dataclass(frozen=True)
class PosedFlow:
    """What the maps are made of: the flow of a clip and its cameras."""

    flow: FlowBetweenFrames
    T_world_camera: Float64[np.ndarray, "n 4 4"]
    K: Float64[np.ndarray, "n 3 3"]
    """Map pixels."""
    pose_known: Bool[np.ndarray, "n"]
    sure: bool = False
    """As of `CameraPath`."""

    def __len__(self) -> int:
        return len(self.T_world_camera)

    def fit(self, source: int, offsets: tuple[int, ...]) -> InverseDepth | None:
        """Inverse depth and residual of a frame from the posed frames at `offsets` both ways; None if there is none."""
        around = [source + sign * offset for offset in offsets for sign in (-1, 1)]
        targets = [j for j in around if 0 <= j < len(self) and self.pose_known[j]]
        T = self.T_world_camera
        if not (T[0] == T).all():  # a picture shown twice has one camera, and is no view of itself
            targets = [j for j in targets if not np.array_equal(T[j], T[source])]
        if not targets:
            return None
        flows, noises = [], []
        for target in targets:
            forward, error = self.flow.checked(source, target)
            noise = np.full(error.shape, NOISE_PX[0] + NOISE_PX[1] * abs(target - source), np.float32)
            noise[error > ROUND_TRIP[0] + ROUND_TRIP[1] * np.linalg.norm(forward, axis=-1)] = np.inf
            flows.append(forward)
            noises.append(noise)
        views = relative_views(self.T_world_camera, self.K, source, targets)
        steps = np.array([float(target - source) for target in targets])
        return fit_inverse_depth(np.stack(flows), np.stack(noises), *views, steps)
