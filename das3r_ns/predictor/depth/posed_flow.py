"""Flow of a clip together with its cameras, and the inverse depth that explains a frame's flow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64

from das3r_ns.predictor.depth.inverse_depth import InverseDepth, fit_inverse_depth, relative_views
from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames

NOISE_PX = (0.5, 0.15)
"""Standard deviation of the flow at its best, in map pixels: this much, and this much more a frame of distance."""
ERROR_NOISE = 1.0
"""Standard deviation that each pixel of round-trip error around adds. Flow that does not lead back is about as wrong as
that, on near and far, fast and slow surfaces alike (docs/what_was_tried.md has the measured errors)."""
ERROR_REACH = 0.01
"""Standard deviation of the blur that gives the error around, as a share of the longer side."""
MAX_ERROR_PX = 8.0
"""Round-trip errors are cut here: flow that is lost has any error."""
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
    background_verified: bool = False
    """As of `CameraPath`."""

    def __len__(self) -> int:
        return len(self.T_world_camera)

    def fit(self, source: int, offsets: tuple[int, ...]) -> InverseDepth | None:
        """Inverse depth and residual of a frame from the posed frames at `offsets` both ways; None if there is none."""
        around = [source + sign * offset for offset in offsets for sign in (-1, 1)]
        targets = [j for j in around if 0 <= j < len(self) and self.pose_known[j]]
        T = self.T_world_camera
        if not (T[0] == T).all():  # an image shown twice has one camera, and is no view of itself
            targets = [j for j in targets if not np.array_equal(T[j], T[source])]
        if not targets:
            return None
        flows, noises, reliability = [], [], np.zeros(self.flow.map_size, np.float32)
        for target in targets:
            forward, error = self.flow.checked(source, target)
            best = NOISE_PX[0] + NOISE_PX[1] * abs(target - source)
            noise = np.hypot(np.float32(best), ERROR_NOISE * error_around(error))
            noise[error > ROUND_TRIP[0] + ROUND_TRIP[1] * np.linalg.norm(forward, axis=-1)] = np.inf
            reliability += (best / noise) ** 2 / len(targets)
            flows.append(forward)
            noises.append(noise)
        views = relative_views(self.T_world_camera, self.K, source, targets)
        steps = np.array([float(target - source) for target in targets])
        fit = fit_inverse_depth(np.stack(flows), np.stack(noises), *views, steps)
        return replace(fit, reliability=reliability)


def error_around(error: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Round-trip error around each pixel: that of a single pixel is small by chance, too."""
    return cv2.GaussianBlur(np.minimum(error, np.float32(MAX_ERROR_PX)), (0, 0), ERROR_REACH * max(error.shape))
