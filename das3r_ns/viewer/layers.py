"""What the viewer shows beside the render: the frame's image and maps, seen from wherever the visitor stands.

A frame is laid over the render by projection: each pixel of the view has a point on the rendered surface, and that
point a place in the frame. From the frame's own position this is the image itself, whatever the depth.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from das3r_ns.viewer.frames import FrameView

MOVING_OPACITY = 0.6
"""Of what was removed, laid over the static render."""
TINT_RGB = (1.0, 0.25, 0.2)
"""What was removed is drawn towards this, so that it is told from what is there."""
TINT = 0.35
MIN_DEPTH = 1e-4
"""World units in front of a camera."""


def frame_coordinates(
    camera: Cameras, depth: Float[Tensor, "h w 1"], frame: FrameView
) -> tuple[Float[Tensor, "h w 2"], Float[Tensor, "h w 1"]]:
    """Where each pixel of a view lies in a frame.

    Args:
        camera: the view, a batch of one, OpenGL axes.
        depth: z-depth of the render, world units.

    Returns:
        Coordinates as `grid_sample` takes them, -1..1 over the whole image, and 1 where they are inside it.
    """
    height, width = depth.shape[:2]
    K = camera.get_intrinsics_matrices()[0].to(depth)
    T_world_camera = torch.eye(4, device=depth.device, dtype=depth.dtype)
    T_world_camera[:3] = camera.camera_to_worlds[0].to(depth)
    T_world_camera[:, 1:3] *= -1  # to OpenCV axes
    rows, columns = torch.meshgrid(
        torch.arange(height, device=depth.device) + 0.5, torch.arange(width, device=depth.device) + 0.5, indexing="ij"
    )
    rays = torch.stack(((columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1], torch.ones_like(rows)), dim=-1)
    T_frame_camera = frame.T_camera_world.to(depth) @ T_world_camera
    points = (rays * depth) @ T_frame_camera[:3, :3].T + T_frame_camera[:3, 3]
    z = points[..., 2:].clamp_min(MIN_DEPTH)
    pixels = points[..., :2] / z * frame.K.to(depth)[[0, 1], [0, 1]] + frame.K.to(depth)[:2, 2]
    size = depth.new_tensor((frame.image.shape[1], frame.image.shape[0]))
    places = 2 * pixels / size - 1
    inside = (places.abs() <= 1).all(dim=-1, keepdim=True) & (points[..., 2:] > MIN_DEPTH)
    return places, inside.to(depth)


def sample(values: Float[Tensor, "h w c"], places: Float[Tensor, "H W 2"]) -> Float[Tensor, "H W c"]:
    """Values of a frame, at image or map resolution, at `frame_coordinates`."""
    found = F.grid_sample(
        values.permute(2, 0, 1)[None], places[None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return found[0].permute(1, 2, 0)


def layers(
    camera: Cameras,
    rgb: Float[Tensor, "h w 3"],
    depth: Float[Tensor, "h w 1"],
    background: Float[Tensor, "h w 3"],
    frame: FrameView,
    culled: Float[Tensor, "h w 4"] | None,
) -> dict[str, Tensor]:
    """The viewer's outputs that belong to a frame, as large as the render.

    Args:
        rgb: the static render.
        background: what shows where the frame saw nothing.
        culled: the Gaussians that the cut of staticness takes away (see `Das3rModel.culled_layer`).

    Returns:
        `dynamic_prob` [h w 1], `removed`, `input_beside_render` and `input` [h w 3]; `input` is the last, which is
        where the host's split screen begins.
    """
    places, inside = frame_coordinates(camera, depth, frame)
    image = sample(torch.from_numpy(frame.image).to(rgb) / 255, places)
    seen = image * inside + background * (1 - inside)
    moving = sample(frame.left_out[..., None].to(rgb), places) * inside
    removed = torch.lerp(rgb, _tinted(image), MOVING_OPACITY * moving)
    if culled is not None:
        alpha = culled[..., 3:]
        removed = torch.lerp(removed, _tinted(culled[..., :3] / alpha.clamp_min(1e-6)), MOVING_OPACITY * alpha)
    return {
        "dynamic_prob": sample(frame.dynamic_prob[..., None].to(rgb), places) * inside,
        "removed": removed,
        "input_beside_render": beside(seen, rgb, background),
        "input": seen,
    }


def beside(
    left: Float[Tensor, "h w 3"], right: Float[Tensor, "h w 3"], background: Float[Tensor, "h w 3"]
) -> Float[Tensor, "h w 3"]:
    """Two images whole and side by side at half their size, in the middle of one as large as either."""
    height, width = left.shape[:2]
    half_height, half_width = max(1, height // 2), max(1, width // 2)
    pair = torch.stack((left, right)).permute(0, 3, 1, 2)
    small = F.interpolate(pair, (half_height, half_width), mode="area").permute(0, 2, 3, 1)
    result = background.clone()
    top = (height - half_height) // 2
    result[top : top + half_height, :half_width] = small[0]
    result[top : top + half_height, width - half_width :] = small[1]
    return result


def _tinted(colour: Tensor) -> Tensor:
    return torch.lerp(colour, colour.new_tensor(TINT_RGB).expand_as(colour), TINT)
