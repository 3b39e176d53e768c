"""A steadier camera path: the way the camera went, without the shake of the hand.

Positions, rotations and focal lengths are smoothed over time by local linear regression with a Gaussian kernel (Fan,
"Design-adaptive nonparametric regression", JASA 1992; rotations in the tangent space of the frame's own). It keeps what
moves and turns at an even speed exactly, also at the ends of the clip and at uneven frame times, where a running mean
would lag or stop early.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

KERNEL_REACH = 4.0
"""Standard deviations of the kernel beyond which a frame does not count."""


def stabilise(
    T_world_camera: Float[Tensor, "n 4 4"], times_s: Sequence[float], sigma_s: float
) -> Float[Tensor, "n 4 4"]:
    """Cameras on a smoother path, one for each frame at its own time.

    Args:
        times_s: when each frame was taken, seconds, ascending.
        sigma_s: standard deviation of the kernel, seconds.

    Raises:
        ValueError: the standard deviation is not a positive number, or there is not a time for each camera.
    """
    import roma

    smooth = T_world_camera.double().clone()
    rotations, positions = smooth[:, :3, :3].clone(), smooth[:, :3, 3].clone()
    for i, (near, weights) in enumerate(_local_weights(times_s, sigma_s, len(smooth))):
        weights = weights.to(smooth)[:, None]
        turns = roma.rotmat_to_rotvec(rotations[i].T @ rotations[near])
        smooth[i, :3, :3] = rotations[i] @ roma.rotvec_to_rotmat((weights * turns).sum(dim=0))
        smooth[i, :3, 3] = (weights * positions[near]).sum(dim=0)
    return smooth.to(T_world_camera.dtype)


def stabilise_focal(focal_px: Float[Tensor, "n 2"], times_s: Sequence[float], sigma_s: float) -> Float[Tensor, "n 2"]:
    """Focal lengths (fx, fy) of a lens that zooms, smoothed like the path; those of a fixed lens stay as they are.

    Raises:
        ValueError: as `stabilise`.
    """
    logs = focal_px.double().log()
    smooth = [
        (weights.to(logs)[:, None] * logs[near]).sum(dim=0)
        for near, weights in _local_weights(times_s, sigma_s, len(logs))
    ]
    return torch.stack(smooth).exp().to(focal_px.dtype)


def check_sigma(sigma_s: float) -> None:
    """
    Raises:
        ValueError: a path cannot be smoothed over so many seconds.
    """
    if not (math.isfinite(sigma_s) and sigma_s > 0):
        raise ValueError(f"a path is smoothed over a positive number of seconds, not {sigma_s:g}")


def _local_weights(times_s: Sequence[float], sigma_s: float, num_frames: int) -> list[tuple[slice, Float[Tensor, "m"]]]:
    """For each frame the frames that count, and their weights in the value at its time of the line that fits them best
    (they sum to 1, and their first moment about that time is 0)."""
    check_sigma(sigma_s)
    if len(times_s) != num_frames:
        raise ValueError(f"{num_frames} cameras and {len(times_s)} times")
    times = torch.as_tensor(times_s, dtype=torch.float64)
    result = []
    for i in range(num_frames):
        first = int(torch.searchsorted(times, times[i] - KERNEL_REACH * sigma_s))
        last = int(torch.searchsorted(times, times[i] + KERNEL_REACH * sigma_s, right=True))
        since = (times[first:last] - times[i]) / sigma_s
        kernel = torch.exp(-since.square() / 2)
        moments = [float((kernel * since**k).sum()) for k in range(3)]
        spread = moments[0] * moments[2] - moments[1] ** 2
        if spread <= 1e-12:  # no other frame is near enough to count: this one stays
            weights = (torch.arange(first, last) == i).double()
        else:
            weights = kernel * (moments[2] - since * moments[1]) / spread
        result.append((slice(first, last), weights))
    return result
