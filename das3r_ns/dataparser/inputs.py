"""From what the user gave to what a predictor takes: the clip, and what is known about it already.

Four kinds of data: a clip (video or folder of images), a plain nerfstudio dataset (a `transforms.json` with
cameras, and masks or not), a reconstruction by another program, with its images, and a scene folder, which needs no
prediction at all.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns.dataparser.camera_match import check_cameras, match_cameras
from das3r_ns.dataparser.clip_choice import with_frame_budget
from das3r_ns.dataparser.given_masks import masks_of
from das3r_ns.dataparser.input_frames import Source, read_source, stored_size
from das3r_ns.dataparser.input_kinds import given_reconstruction, kind_of, without_project
from das3r_ns.dataparser.known_cameras import NamedCameras, cameras_of_frames, read_cameras, subset
from das3r_ns.dataparser.known_masks import FrameMasks
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.dataparser.pinhole_images import intrinsics_at, undistort
from das3r_ns.dataparser.poses_check import shift_of
from das3r_ns.dataparser.reconstructions.assign import assign
from das3r_ns.dataparser.reconstructions.between import describe_reconstruction, with_frames_between
from das3r_ns.dataparser.reconstructions.frames import clip_of_array
from das3r_ns.dataparser.reconstructions.maps import depth_of_frames
from das3r_ns.dataparser.reconstructions.types import FrameArray, Reconstruction
from das3r_ns.dataparser.transforms_file import transforms_of
from das3r_ns.predictor.base import UserMaskMode, UserPriors
from das3r_ns.video.clip import Clip


def read_inputs(data: Path, options: PredictionOptions) -> tuple[Clip, UserPriors]:
    """Read the frames and everything the user brings along.

    Frames for which a given file of cameras has no camera are left out, with a line that says so.

    Raises:
        FileNotFoundError, ValueError: an input is missing, damaged, or does not fit the others.
    """
    clip, priors = _read(data, options)
    if options.prompt is not None and priors.all_masks_given:
        raise ValueError(
            "--masks-prompt says something about masks that are predicted, and every frame has a mask of its own: "
            "leave it out, or let the two go together (--masks-mode add, subtract or intersect)."
        )
    return clip, replace(priors, prompt=options.prompt)


def _read(data: Path, options: PredictionOptions) -> tuple[Clip, UserPriors]:
    data, options = without_project(data, options)
    kind = kind_of(data)
    reconstruction = given_reconstruction(data, options)
    if reconstruction is not None:
        return _read_with_reconstruction(data, options, reconstruction)
    models = None
    if options.cameras is not None:  # before the images, which take longer
        models = read_cameras(options.cameras, stored_size(data, kind), options.cameras_convention)
    has_cameras = models is not None or kind == "dataset"
    if has_cameras and options.fov_deg is not None:
        raise ValueError(f"{options.cameras or data} says what the field of view is: leave out --fov-deg.")
    # COLMAP and nerfstudio know nothing of EXIF orientation: their cameras are those of the images as stored.
    if kind == "clip":
        options = replace(options, video=with_frame_budget(data, options.video))
    source = read_source(data, options, upright=not has_cameras)
    if not has_cameras:
        masks = masks_of(source, options)
        focal_px = _focal_px(options.fov_deg, source.clip)
        return source.clip, _with_masks(UserPriors(focal_px=focal_px), masks, options.masks_mode)
    if models is None:
        assert source.entries is not None
        path = transforms_of(data)
        assert path is not None
        cameras = cameras_of_frames(path, source.entries, convention=options.cameras_convention)
    else:
        cameras, matched = match_cameras(models, source.clip, source.frames, data, options.numbering)
        kept = [i for i, row in enumerate(matched) if row is not None]
        if len(kept) < len(source.clip):
            names, place = source.clip.names, cameras.path
            gone = [names[i] for i in range(len(names)) if i not in set(kept)]
            print(f"{len(gone)} of {len(names)} frames have no camera in {place} and are left out: {gone[0]}, ...")
            source = source.only(kept)
        cameras = subset(cameras, [row for row in matched if row is not None])
    masks = masks_of(source, options)
    moving = None if masks is None else masks.moving
    clip, K, moving = undistort(source.clip, intrinsics_at(cameras, source.clip.size), cameras.distortion, moving)
    check_cameras(clip, K, cameras, moving, options.cameras_convention)
    if masks is not None and moving is not None:
        masks = replace(masks, moving=moving)
    return clip, _with_masks(_with_cameras(cameras, K), masks, options.masks_mode)


def _read_with_reconstruction(data: Path, options: PredictionOptions, given: Reconstruction) -> tuple[Clip, UserPriors]:
    """Frames, and what another program found out about them.

    Raises:
        as `read_inputs`.
    """
    if given.K is not None and options.fov_deg is not None:
        raise ValueError(f"{given.path} says what the field of view is: leave out --fov-deg.")
    own_frames = False
    if options.cameras is None and given.frames is None:
        raise ValueError(
            f"{given.path} ({given.tool}) holds no images. Give those that it was made of: --data CLIP --cameras "
            f"{given.path}"
        )
    if options.cameras is None and isinstance(given.frames, FrameArray):
        source = Source(*clip_of_array(given, given.frames, options.video))
        frame_size, own_frames = given.frames.read(0).shape[:2], True
    else:
        images = data if options.cameras is not None else given.frames
        assert isinstance(images, Path)
        kind = kind_of(images)
        if kind == "clip" and options.cameras is not None:
            options = replace(options, video=with_frame_budget(images, options.video))
        source = read_source(images, replace(options, cameras=given.path), upright=True)
        frame_size = stored_size(images, kind, upright=True) or source.clip.size
    assigned = assign(
        given,
        source.clip,
        source.frames,
        (frame_size[0], frame_size[1]),
        own_frames=own_frames,
        focal_px=_focal_px(options.fov_deg, source.clip),
        convention=options.cameras_convention,
        numbering=options.numbering,
    )
    with_camera = [i for i, row in enumerate(assigned.rows) if row is not None]
    print(describe_reconstruction(assigned, source.clip, options.masks is not None))
    rows = list(assigned.rows)
    if not assigned.reconstruction.keyframes and len(with_camera) < len(source.clip):
        print(f"{len(rows) - len(with_camera)} of {len(rows)} frames have no camera there and are left out.")
        source, rows = source.only(with_camera), [rows[i] for i in with_camera]
        with_camera = list(range(len(rows)))
    masks = masks_of(source, options)
    moving = None if masks is None else masks.moving
    known_rows = [row for row in rows if row is not None]
    cameras = subset(assigned.cameras, known_rows)
    part = source.clip if len(with_camera) == len(rows) else source.clip.take(with_camera)
    check_cameras(part, cameras.K, cameras, None if moving is None else moving[with_camera], options.cameras_convention)
    pose_known = None
    if len(with_camera) < len(rows):
        cameras, pose_known = with_frames_between(source.clip, cameras, with_camera, moving)
    priors = replace(_with_cameras(cameras, cameras.K), pose_known=pose_known, depth=depth_of_frames(assigned, rows))
    return source.clip, _with_masks(priors, masks, options.masks_mode)


def _with_cameras(cameras: NamedCameras, K: Float[Tensor, "n 3 3"]) -> UserPriors:
    T_world_camera = cameras.T_world_camera.copy()
    shift = shift_of(T_world_camera[:, :3, 3])
    T_world_camera[:, :3, 3] -= shift
    applied = np.eye(4)
    applied[:3, 3] = -shift
    if shift.any():
        print(
            f"Cameras: they stand around ({', '.join(f'{value:g}' for value in shift)}), too far from the origin for "
            "single precision. The scene is shifted there; exports are shifted back."
        )
    return UserPriors(
        T_world_camera=torch.from_numpy(T_world_camera).float(),
        K=K,
        applied_transform=torch.from_numpy(applied @ cameras.applied_transform),
    )


def _with_masks(priors: UserPriors, masks: FrameMasks | None, mode: UserMaskMode) -> UserPriors:
    if masks is None:
        return priors
    return replace(priors, dynamic_mask=masks.moving, mask_given=masks.given, mask_mode=mode)


def _focal_px(fov_deg: float | None, clip: Clip) -> float | None:
    return None if fov_deg is None else clip.size[1] / (2 * math.tan(math.radians(fov_deg) / 2))
