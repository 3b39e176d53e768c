"""Cameras and rigid motion: the formulas every later room shares.

Conventions, throughout the package: camera axes are OpenCV's (x right, y down, z forward); `T_a_b` takes points
of frame b to frame a; `K` is in pixels and the centre of the first pixel is (0.5, 0.5), as in COLMAP and
nerfstudio. OpenCV's own functions put that centre at (0, 0): shift by 0.5 before calling them.
Everything works on float32 and float64, on any device, and is differentiable.
"""

import math
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def pixel_grid(
    height: int, width: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Float[Tensor, "h w 2"]:
    """Coordinates (u, v) of the pixel centres: (0.5, 0.5) for the first pixel."""
    v, u = torch.meshgrid(
        torch.arange(height, device=device, dtype=dtype) + 0.5,
        torch.arange(width, device=device, dtype=dtype) + 0.5,
        indexing="ij",
    )
    return torch.stack((u, v), dim=-1)


def intrinsics(focal_px: float, height: int, width: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "3 3"]:
    """Pinhole matrix with square pixels and the principal point in the middle of the image."""
    return torch.tensor([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]], dtype=dtype)


def rescale_intrinsics(
    K: Float[Tensor, "*n 3 3"], from_size: tuple[int, int], to_size: tuple[int, int]
) -> Float[Tensor, "*n 3 3"]:
    """Intrinsics after the image was resized. Sizes are (height, width)."""
    scaled = K.clone()
    scaled[..., 0, :] *= to_size[1] / from_size[1]
    scaled[..., 1, :] *= to_size[0] / from_size[0]
    return scaled


def field_of_view(focal_px: float, side_px: float) -> float:
    """Angle in degrees that a side of `side_px` pixels covers."""
    return math.degrees(2 * math.atan(side_px / (2 * focal_px)))


def transform(T_a_b: Float[Tensor, "*n 4 4"], points_b: Float[Tensor, "*m 3"]) -> Float[Tensor, "*o 3"]:
    """Points of frame b in frame a. Leading dimensions broadcast, the points' against the transform's."""
    return (T_a_b[..., :3, :3] @ points_b[..., None])[..., 0] + T_a_b[..., :3, 3]


def invert(T_a_b: Float[Tensor, "*n 4 4"]) -> Float[Tensor, "*n 4 4"]:
    """T_b_a of a rigid or similarity transform; exact for both (the linear part is inverted as s R)."""
    linear = T_a_b[..., :3, :3]
    scale_squared = linear.square().sum(dim=(-2, -1), keepdim=True) / 3
    inverse = linear.transpose(-1, -2) / scale_squared
    T_b_a = torch.zeros_like(T_a_b)
    T_b_a[..., :3, :3] = inverse
    T_b_a[..., :3, 3] = -(inverse @ T_a_b[..., :3, 3:])[..., 0]
    T_b_a[..., 3, 3] = 1
    return T_b_a


def unproject(depth: Float[Tensor, "*n h w"], K: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n h w 3"]:
    """Lift z-depth to points in the camera frame.

    Args:
        depth: z-depth in world units, not distance along the ray. 0 means unknown and gives the camera's centre.
        K: pinhole intrinsics in pixels of the depth map.
    """
    h, w = depth.shape[-2:]
    grid = pixel_grid(h, w, depth.device, depth.dtype)
    x = (grid[..., 0] - K[..., 0, 2, None, None]) / K[..., 0, 0, None, None] * depth
    y = (grid[..., 1] - K[..., 1, 2, None, None]) / K[..., 1, 1, None, None] * depth
    return torch.stack((x, y, depth), dim=-1)


def project(
    points: Float[Tensor, "*n 3"], K: Float[Tensor, "3 3"]
) -> tuple[Float[Tensor, "*n 2"], Float[Tensor, "*n"]]:
    """Pixels (u, v) and z-depth of points in the camera frame. Points at or behind the camera give pixels of no use:
    look at the sign of the depth."""
    z = points[..., 2]
    safe = torch.where(z.abs() < 1e-9, torch.full_like(z, 1e-9), z)
    u = points[..., 0] / safe * K[0, 0] + K[0, 2]
    v = points[..., 1] / safe * K[1, 1] + K[1, 2]
    return torch.stack((u, v), dim=-1), z


def rigid_flow(
    depth: Float[Tensor, "h w"],
    K_source: Float[Tensor, "3 3"],
    K_target: Float[Tensor, "3 3"],
    T_target_source: Float[Tensor, "4 4"],
) -> tuple[Float[Tensor, "h w 2"], Bool[Tensor, "h w"]]:
    """Optical flow that camera motion alone causes, in pixels, and where it is defined.

    It is undefined where the depth is unknown (0) or the point lies behind the target camera; the flow is 0 there.
    """
    h, w = depth.shape
    points = transform(T_target_source, unproject(depth, K_source))
    pixels, z = project(points, K_target)
    valid = (depth > 0) & (z > 0)
    flow = pixels - pixel_grid(h, w, depth.device, depth.dtype)
    return torch.where(valid[..., None], flow, torch.zeros_like(flow)), valid


def similarity(
    source: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"], weights: Float[Tensor, "n"] | None = None
) -> Float[Tensor, "4 4"]:
    """Least-squares similarity T_target_source (upper block s R) between matched points (Umeyama, PAMI 1991).

    Raises:
        ValueError: fewer than three points.
    """
    # Here and below, not above: it brings torch._dynamo, as long to import as torch itself and 160 MiB.
    import roma

    if source.shape[0] < 3:
        raise ValueError(f"a similarity needs at least 3 matched points, got {source.shape[0]}")
    R, t, s = cast(
        tuple[Tensor, Tensor, Tensor],
        roma.rigid_points_registration(source, target, weights=weights, compute_scaling=True),
    )
    T = torch.eye(4, dtype=source.dtype, device=source.device)
    T[:3, :3] = s * R
    T[:3, 3] = t
    return T


def apply_similarity(
    T_new_old: Float[Tensor, "4 4"], T_old_camera: Float[Tensor, "*n 4 4"]
) -> tuple[Float[Tensor, "*n 4 4"], float]:
    """Cameras in a world moved by a similarity, and the factor by which depths grow.

    The rotation of a camera stays a rotation: the scale goes into its position.
    """
    scale = float(torch.linalg.det(T_new_old[:3, :3].double()) ** (1 / 3))
    T_new_camera = T_new_old.to(T_old_camera) @ T_old_camera
    T_new_camera[..., :3, :3] /= scale
    return T_new_camera, scale


def interpolate_poses(T_world_camera: Float[Tensor, "n 4 4"], known: Bool[Tensor, "n"]) -> Float[Tensor, "n 4 4"]:
    """Fill the frames whose pose is not known: slerp and straight line between the known neighbours in time, the
    nearest known pose before the first and after the last.

    Raises:
        ValueError: no pose is known.
    """
    index = torch.nonzero(known)[:, 0]
    if len(index) == 0:
        raise ValueError("no frame has a pose: there is nothing to interpolate from")
    filled = T_world_camera.clone()
    if len(index) == len(filled):
        return filled
    import roma

    for i in torch.nonzero(~known)[:, 0].tolist():
        before, after = index[index < i], index[index > i]
        if len(before) == 0 or len(after) == 0:
            filled[i] = T_world_camera[after[0] if len(before) == 0 else before[-1]]
            continue
        a, b = T_world_camera[before[-1]], T_world_camera[after[0]]
        t = float(i - before[-1]) / float(after[0] - before[-1])
        q_a, q_b = roma.rotmat_to_unitquat(a[:3, :3]), roma.rotmat_to_unitquat(b[:3, :3])
        steps = torch.tensor([t], dtype=q_a.dtype, device=q_a.device)
        filled[i, :3, :3] = roma.unitquat_to_rotmat(roma.unitquat_slerp(q_a, q_b, steps, shortest_arc=True)[0])
        filled[i, :3, 3] = (1 - t) * a[:3, 3] + t * b[:3, 3]
    return filled


def camera_motion(T_world_camera: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n 6"]:
    """How the scene moves past each camera of a clip in one frame interval, in that camera's axes: rotation vector and
    translation. By differences over two frames each way (a hand shakes almost as fast as frames follow one another),
    over one next to the ends, one-sided at them.

    A frame that stands exactly where its predecessor does is the same image shown twice: intervals are those between
    frames that differ.
    """
    T_camera_world = invert(T_world_camera.double())
    differs = (T_camera_world[1:] != T_camera_world[:-1]).flatten(1).any(dim=1)
    distinct = torch.cat((torch.zeros(1, dtype=torch.long, device=differs.device), torch.nonzero(differs)[:, 0] + 1))
    if len(distinct) < 2:
        return torch.zeros(len(T_world_camera), 6, dtype=T_world_camera.dtype, device=T_world_camera.device)
    stands = T_camera_world[distinct]
    motion = _mean_motion(stands, 1)
    if len(distinct) > 4:
        motion[2:-2] += (motion - _mean_motion(stands, 2))[2:-2] / 3  # exact for motion of third degree in time
    place = torch.cat((torch.zeros(1, dtype=torch.long, device=differs.device), differs.long().cumsum(dim=0)))
    return motion[place].to(T_world_camera.dtype)


def _mean_motion(T_camera_world: Float[Tensor, "n 4 4"], reach: int) -> Float[Tensor, "n 6"]:
    """Rotation vector and translation of the scene in an interval, mean over `reach` intervals each way, fewer at the
    ends."""
    import roma

    step = torch.arange(len(T_camera_world), device=T_camera_world.device)
    before, after = (step - reach).clamp_min(0), (step + reach).clamp_max(len(step) - 1)
    change = T_camera_world[after] @ invert(T_camera_world[before])
    twist = torch.cat((roma.rotmat_to_rotvec(change[:, :3, :3]), change[:, :3, 3]), dim=-1)
    return twist / (after - before)[:, None]


def to_opengl(T_world_camera: Float[Tensor, "*n 4 4"]) -> Float[Tensor, "*n 4 4"]:
    """Same camera with OpenGL axes (x right, y up, z back), as nerfstudio wants it. Its own inverse."""
    flip = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=T_world_camera.dtype, device=T_world_camera.device)
    return T_world_camera * flip


def level_world(T_world_camera: Float[Tensor, "n 4 4"], typical_depth: float) -> Float[Tensor, "4 4"]:
    """Similarity T_level_world to a world that viewers like: z up, cameras around the origin, typical depth 1.

    Up is the mean of the cameras' up directions (people hold cameras upright); the origin is the mean camera
    position; x is the first camera's right, levelled.

    Raises:
        ValueError: the typical depth is not positive and finite.
    """
    if not (math.isfinite(typical_depth) and typical_depth > 0):
        raise ValueError(f"the typical depth must be positive, got {typical_depth}")
    up = -T_world_camera[:, :3, 1].mean(dim=0)
    if up.norm() < 1e-3:  # a camera that rolled over: no direction is more "up" than the first one's
        up = -T_world_camera[0, :3, 1]
    z = up / up.norm()
    right = T_world_camera[0, :3, 0]
    x = right - (right @ z) * z
    if x.norm() < 1e-3:
        forward = T_world_camera[0, :3, 2]
        x = torch.linalg.cross(forward, z)
    x = x / x.norm()
    R = torch.stack((x, torch.linalg.cross(z, x), z))
    T = torch.eye(4, dtype=T_world_camera.dtype, device=T_world_camera.device)
    T[:3, :3] = R / typical_depth
    T[:3, 3] = -T[:3, :3] @ T_world_camera[:, :3, 3].mean(dim=0)
    return T
