"""Frames that another program did not pose: SLAM programs write keyframes only. And a line about what was read."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from das3r_ns.dataparser.known_cameras import NamedCameras
from das3r_ns.dataparser.reconstructions.assign import Assigned
from das3r_ns.video.clip import Clip


def describe_reconstruction(assigned: Assigned, clip: Clip, masks_given: bool) -> str:
    """One line: which program, how many frames have a camera, what else is there."""
    given = assigned.reconstruction
    count = sum(row is not None for row in assigned.rows)
    parts = [f"cameras of {count} of {len(clip)} frames"]
    parts += ["depth"] if given.depth is not None else []
    line = f"{given.path} was written by {given.tool}: {' and '.join(parts)} are taken from it"
    if given.moving is not None and not masks_given:
        line += f". Its masks are not: what moves is found here (--masks {given.path} takes them)"
    return line + "."


def with_frames_between(
    clip: Clip, cameras: NamedCameras, places: Sequence[int], moving: Float[Tensor, "n h w"] | None
) -> tuple[NamedCameras, Bool[Tensor, "n"]]:
    """Cameras of all frames of a clip, from those of some.

    Args:
        cameras: of the frames at `places`, in pixels of the clip.
        moving: 1 where something moves, of all frames, as far as that is known.

    Returns:
        Cameras, and False where a pose could only be interpolated.
    """
    from das3r_ns.predictor.cameras.between import find_poses_between
    from das3r_ns.predictor.flow.dis import DisFlow
    from das3r_ns.predictor.geometric.clip_flow import flow_between
    from das3r_ns.predictor.geometric.config import GeometricPredictorConfig

    n = len(clip)
    given = np.zeros(n, bool)
    given[list(places)] = True
    nearest = np.abs(np.arange(n)[:, None] - np.array(places)[None]).argmin(axis=1)
    T = cameras.T_world_camera[nearest]
    K = cameras.K[torch.from_numpy(nearest)]
    centre = T[given, :3, 3].mean(axis=0)  # map coordinates would lose their digits in products
    T[:, :3, 3] -= centre
    found = find_poses_between(
        flow_between(clip, DisFlow(), GeometricPredictorConfig()).checked,
        lambda i: clip.frames[i].numpy(),
        T,
        K.double().numpy(),
        given,
        None if moving is None else 1 - moving,
    )
    T = found.T_world_camera.numpy().copy()
    T[:, :3, 3] += centre
    missing = int((~found.pose_known).sum())
    line = f"Cameras: those of the {n - len(places)} frames between were found by what the {len(places)} given ones see"
    print(line + (f"; {missing} of them are interpolated, for too little was seen." if missing else "."))
    whole = replace(
        cameras,
        names=clip.names,
        matrices=T,
        convention="opencv",
        K=K,
        sizes=(clip.size,) * n,
        distortion=torch.zeros(n, 5),
    )
    return whole, found.pose_known
