"""A clip whose cameras are sought: what was followed through which of its frames, and the way back to all frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, UInt8

from das3r_ns.predictor.cameras.colmap import CameraPath
from das3r_ns.predictor.cameras.quality import CameraQuality
from das3r_ns.predictor.cameras.sfm import CameraEstimate, FocalKnowledge, LensEstimate, Tracks, follow_grid, weigh
from das3r_ns.predictor.flow.checked import CheckedFlow
from das3r_ns.predictor.preprocess.blank_frames import blank
from das3r_ns.predictor.preprocess.duplicate_frames import unique_frames
from das3r_ns.runtime.progress import stage
from das3r_ns.video.clip import Clip


@dataclass(frozen=True)
class TrackedClip:
    """A clip, tracks through the frames of it that show something new, and what is known of its focal length."""

    clip: Clip
    tracks: Tracks
    shown: list[int]
    """Which frames of the clip the tracks' are."""
    focal: FocalKnowledge

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.clip.size

    def image(self, k: int) -> UInt8[np.ndarray, "H W 3"]:
        """Of frame k of the tracks."""
        return self.clip.frames[self.shown[k]].numpy()

    def path(self, estimate: CameraEstimate, quality: CameraQuality, bent: LensEstimate | None = None) -> CameraPath:
        """Cameras of all frames of the clip, a repeat's being that of the frame it repeats. One that shows nothing has
        none."""
        clip, shown = self.clip, self.shown
        original = np.maximum(np.searchsorted(shown, np.arange(len(clip)), side="right") - 1, 0)
        frame = np.array(shown)[estimate.point_frame.numpy()]
        zoom = np.ones(len(shown)) if bent is None else bent.lens.zoom(len(shown))
        middle = np.array([clip.size[1], clip.size[0]]) / 2
        pixel = middle + (estimate.point_pixel.numpy() - middle) * zoom[estimate.point_frame.numpy()][:, None]
        return CameraPath(
            estimate.T_world_camera.numpy()[original],
            estimate.pose_known.numpy()[original] & ~blank(clip.frames),
            estimate.focal_px,
            estimate.points.numpy(),
            _colours(clip, frame, pixel),
            float(estimate.reprojection_error_px[estimate.pose_known].median()),
            zoom[original] if bent is not None and bent.zooms else None,
            0.0 if bent is None else bent.lens.readout,
            quality=quality.expanded(original, ~blank(clip.frames)),
        )


def follow(clip: Clip, flow: CheckedFlow, static_mask: Bool[np.ndarray, "n h w"] | None) -> tuple[Tracks, list[int]]:
    """Tracks through the frames that show something and are not repeats, and which frames of the clip those are."""
    lit = np.flatnonzero(~blank(clip.frames)).tolist()
    with stage(f"Following points of {len(clip)} frames", len(clip)) as bar:
        shown = [lit[k] for k in unique_frames(lambda i, j: flow(lit[i], lit[j]), len(lit))]
        bar.advance(len(clip) - len(shown))
        tracks = follow_grid(
            lambda i, j: flow(shown[i], shown[j]),
            len(shown),
            lambda i: clip.frames[shown[i]].numpy(),
            advance=bar.advance,
        )
    if static_mask is not None:
        tracks = weigh(tracks, torch.from_numpy(static_mask[shown].astype(np.float32)))
    return tracks, shown


def _colours(clip: Clip, frame: np.ndarray, pixel: Float64[np.ndarray, "m 2"]) -> UInt8[np.ndarray, "m 3"]:
    column = np.clip(np.floor(pixel[:, 0]).astype(int), 0, clip.size[1] - 1)
    row = np.clip(np.floor(pixel[:, 1]).astype(int), 0, clip.size[0] - 1)
    return clip.frames[torch.from_numpy(frame), torch.from_numpy(row), torch.from_numpy(column)].numpy()
