"""The cameras that a static video is rendered from: those of the clip, as large as asked for, on a steadier path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from das3r_ns.render.stabilised import stabilise, stabilise_focal

if TYPE_CHECKING:
    from nerfstudio.cameras.cameras import Cameras

MIN_HEIGHT_PX = 16
MAX_HEIGHT_PX = 4320
"""8K: more is a slip of the hand."""


def sharp(camera: Cameras) -> Cameras:
    """A camera of the clip that leaves no motion blur; its exposure stays."""
    kept = {name: value for name, value in (camera.metadata or {}).items() if name != "camera_motion"}
    return replace(camera, metadata=kept)


def refined_camera(model: Any, camera: Cameras) -> Cameras:
    """A camera of the clip, a batch of one and free to be changed, as training has refined it by now."""
    index = (camera.metadata or {}).get("frame_index")
    if index is not None:
        poses, factors = model.camera_optimizer.refine(camera.to(model.device), index)
        camera.camera_to_worlds = poses.detach().to(camera.camera_to_worlds)
        camera.fx, camera.fy = (focal * factors.to(focal)[:, None] for focal in (camera.fx, camera.fy))
    return camera


def stabilised_cameras(
    model: Any, cameras: Sequence[Cameras], times_s: Sequence[float], sigma_s: float
) -> list[Cameras]:
    """The cameras of a clip, each a batch of one, as training has refined them and on a smoother path. Each is exposed
    as its frame.

    Args:
        times_s, sigma_s: as in `stabilise`.

    Raises:
        ValueError: as `stabilise`.
    """
    refined = [refined_camera(model, camera) for camera in cameras]
    T_world_camera = torch.eye(4, dtype=torch.float64).repeat(len(refined), 1, 1)
    T_world_camera[:, :3] = torch.cat([camera.camera_to_worlds.double().cpu() for camera in refined])
    focal_px = torch.stack([torch.stack((camera.fx, camera.fy), dim=-1).flatten() for camera in refined]).cpu()
    path = stabilise(T_world_camera, times_s, sigma_s)[:, :3]
    focal_px = stabilise_focal(focal_px, times_s, sigma_s)
    for i, camera in enumerate(refined):
        camera.camera_to_worlds = path[i : i + 1].to(camera.camera_to_worlds)
        camera.fx, camera.fy = (focal_px[i : i + 1, k : k + 1].to(camera.fx) for k in range(2))
        # The model refines the camera of a frame and exposes its render; these are refined already.
        metadata = dict(camera.metadata or {})
        place = metadata.pop("frame_index", None)
        camera.metadata = metadata if place is None else {**metadata, "exposure_index": place}
    return refined


def check_height(height_px: int) -> None:
    """
    Raises:
        ValueError: no video is that high.
    """
    if not MIN_HEIGHT_PX <= height_px <= MAX_HEIGHT_PX:
        raise ValueError(
            f"a video of {height_px} rows: give between {MIN_HEIGHT_PX} and {MAX_HEIGHT_PX}, such as 2160 for 4K"
        )


def at_height(camera: Cameras, height_px: int) -> Cameras:
    """A camera, a batch of one, that renders `height_px` rows of the same view."""
    camera = replace(camera)
    camera.rescale_output_resolution(height_px / int(camera.height), "round")
    return camera
