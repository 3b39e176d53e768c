"""The clip's frames in the scene: clickable frusta of a size that fits, coloured by how far each camera is trusted."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import viser
from jaxtyping import Float, UInt8
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer

from das3r_ns.scene.trust import colour_of_trust
from das3r_ns.viewer.frames import ClipFrames

ROOT = "/cameras"
THUMBNAIL_PX = 100
"""Shorter side."""
MIN_SIZE_DEPTHS, MAX_SIZE_DEPTHS = 0.01, 0.05
"""Bounds of a frustum's size, in typical depths of the scene."""
SIZE_SPACINGS = 1.5
"""Size of a frustum, in median distances between neighbouring ones that are drawn."""


def frustum_size(positions: Float[np.ndarray, "n 3"], depth: float) -> float:
    """Size of the frusta, world units: about as large as the frames are apart, within shares of the scene's depth."""
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    spacing = float(np.median(steps)) if len(steps) else 0.0
    return float(np.clip(SIZE_SPACINGS * spacing, MIN_SIZE_DEPTHS * depth, MAX_SIZE_DEPTHS * depth))


def draw_frusta(
    server: viser.ViserServer,
    frames: ClipFrames,
    places: list[int],
    depth: float,
    on_click: Callable[[int, viser.ClientHandle | None], None],
) -> dict[int, viser.CameraFrustumHandle]:
    """Draw frames of the clip.

    Args:
        places: which.
        on_click: is told the place of a frame that was clicked, and by whom.

    Returns:
        The frusta by place.
    """
    poses = [frames.pose(place) for place in places]
    size = frustum_size(np.stack([T[:3, 3] for T in poses]), depth)
    with ThreadPoolExecutor(4) as pool:
        thumbnails = list(pool.map(lambda place: _thumbnail(frames.image(place)), places))
    handles = {}
    for place, T_world_camera, thumbnail in zip(places, poses, thumbnails):
        height, width = thumbnail.shape[:2]
        camera = frames.camera(place)
        handle = server.scene.add_camera_frustum(
            name=f"{ROOT}/frame_{place + 1:05d}",
            fov=float(2 * np.arctan(float(camera.height) / 2 / float(camera.fy))),
            aspect=width / height,
            scale=size * VISER_NERFSTUDIO_SCALE_RATIO,
            color=colour_of_trust(frames.trust[place]),
            image=thumbnail,
            wxyz=viser.transforms.SO3.from_matrix(T_world_camera[:3, :3]).wxyz,
            position=T_world_camera[:3, 3] * VISER_NERFSTUDIO_SCALE_RATIO,
        )
        handle.on_click(lambda event, place=place: on_click(place, event.client))
        handles[place] = handle
    return handles


def _thumbnail(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    factor = min(1.0, THUMBNAIL_PX / min(image.shape[:2]))
    size = tuple(max(1, round(side * factor)) for side in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


class ClipViewer(Viewer):
    """Nerfstudio's viewer whose training cameras are the frames of the clip. The host makes a `Viewer`; the panel turns
    it into this one, since the host has no place to say which."""

    panel: Any

    def init_scene(self, train_dataset: Any, train_state: Any, eval_dataset: Any = None) -> None:
        """Draw the frames instead of the host's cameras of fixed size."""
        del train_dataset, eval_dataset  # the panel knows both
        self.panel.draw_frames()
        self.train_state, self.train_util = train_state, 0.9

    def set_camera_visibility(self, visible: bool) -> None:
        """What the host's buttons `Hide Train Cams` and `Show Train Cams` do."""
        self.panel.show_frames(visible)

    def update_camera_poses(self) -> None:
        """Move the frusta with their cameras, where training refines those."""
        if self.pipeline.model.camera_optimizer.learns:
            super().update_camera_poses()
