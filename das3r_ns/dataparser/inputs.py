"""From what the user gave to what a predictor takes: the clip, and what is known about it already.

Four kinds of data: a clip (video or folder of images), a plain nerfstudio dataset (a `transforms.json` with
cameras, and masks or not), a reconstruction by another program, with its images, and a scene folder, which needs no
prediction at all.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns.dataparser.camera_match import check_cameras, match_cameras
from das3r_ns.dataparser.clip_choice import with_frame_budget
from das3r_ns.dataparser.colmap_model import find_models
from das3r_ns.dataparser.file_names import bare_name, last_number
from das3r_ns.dataparser.known_cameras import NamedCameras, cameras_of_frames, read_cameras, subset
from das3r_ns.dataparser.known_masks import FrameMasks, describe, match_masks, read_masks
from das3r_ns.dataparser.mask_files import MaskFiles, list_masks, of_files, open_masks
from das3r_ns.dataparser.matching_result import ClipFrames
from das3r_ns.dataparser.options import Numbering, PredictionOptions
from das3r_ns.dataparser.pinhole_images import intrinsics_at, undistort
from das3r_ns.dataparser.poses_check import shift_of
from das3r_ns.dataparser.reconstructions.assign import assign
from das3r_ns.dataparser.reconstructions.between import describe_reconstruction, with_frames_between
from das3r_ns.dataparser.reconstructions.frames import clip_of_array
from das3r_ns.dataparser.reconstructions.maps import depth_of_frames, moving_of_frames
from das3r_ns.dataparser.reconstructions.table import find_reader, read_reconstruction
from das3r_ns.dataparser.reconstructions.types import FrameArray, Reconstruction
from das3r_ns.dataparser.transforms_file import TransformsFrame, read_transforms, transforms_of
from das3r_ns.files.hashing import digest_of_file
from das3r_ns.files.json_files import read_json_object
from das3r_ns.predictor.base import UserMaskMode, UserPriors
from das3r_ns.scene import is_scene_folder
from das3r_ns.video.clip import Clip, choose_frames, digest, read_clip, read_images
from das3r_ns.video.image_folder import list_images
from das3r_ns.video.images import image_size

READING = 2
"""Raised whenever masks or cameras that somebody gave come to mean something else, so that scenes predicted from them
before are not used again."""

FILES_OF_CAMERAS = ("cameras", "images", "rigs", "frames")
"""Files of a COLMAP model that decide cameras; a workspace holds gigabytes of other files beside."""

IMAGES_OF_PROJECT = ("images", "input_images", "input")
"""Folders beside a COLMAP model in which its images lie."""

DOUBTFUL_SHARE = 0.6
"""Share of the images that masks of another program cover, from which they are doubted."""

DataKind = Literal["scene", "dataset", "reconstruction", "clip"]


def kind_of(data: Path) -> DataKind:
    """What lies at `data`, by its name and the files in it."""
    if is_scene_folder(data):
        return "scene"
    if transforms_of(data) is not None:
        return "dataset"
    return "clip" if find_reader(data) is None and _images_of_project(data) is None else "reconstruction"


def _images_of_project(data: Path) -> Path | None:
    """Images of a COLMAP project; None where `data` is something else."""
    if not data.is_dir():
        return None
    images = next((data / name for name in IMAGES_OF_PROJECT if (data / name).is_dir()), None)
    return images if images is not None and find_models(data) else None


def _without_project(data: Path, options: PredictionOptions) -> tuple[Path, PredictionOptions]:
    """Images and cameras of a COLMAP project that is given as data, as if they had been given one by one."""
    if is_scene_folder(data) or transforms_of(data) is not None or find_reader(data) is not None:
        return data, options
    images = _images_of_project(data)
    if images is None:
        return data, options
    return images, options if options.cameras is not None else replace(options, cameras=data)


def _given_reconstruction(data: Path, options: PredictionOptions) -> Reconstruction | None:
    """What another program found, if `--cameras` or `--data` are its files.

    Raises:
        ValueError: they are damaged or of another version.
    """
    path = options.cameras if options.cameras is not None else data
    return None if transforms_of(path) is not None or is_scene_folder(path) else read_reconstruction(path)


@dataclass(frozen=True)
class Source:
    """The frames of a clip with what they are called and where they come from."""

    clip: Clip
    frames: ClipFrames
    entries: list[TransformsFrame] | None = None
    """Of a dataset, the entry of each frame of the clip."""

    def only(self, kept: list[int]) -> "Source":
        """The same without the other frames, which slow the clip down by being left out."""
        return Source(
            self.clip.take(kept),
            replace(self.frames, numbers=tuple(self.frames.numbers[i] for i in kept)),
            None if self.entries is None else [self.entries[i] for i in kept],
        )


def read_inputs(data: Path, options: PredictionOptions) -> tuple[Clip, UserPriors]:
    """Read the frames and everything the user brings along.

    Frames for which a given file of cameras has no camera are left out, with a line that says so.

    Raises:
        FileNotFoundError, ValueError: an input is missing, damaged, or does not fit the others.
    """
    data, options = _without_project(data, options)
    kind = kind_of(data)
    reconstruction = _given_reconstruction(data, options)
    if reconstruction is not None:
        return _read_with_reconstruction(data, options, reconstruction)
    models = None
    if options.cameras is not None:  # before the images, which take longer
        models = read_cameras(options.cameras, _stored_size(data, kind), options.cameras_convention)
    has_cameras = models is not None or kind == "dataset"
    if has_cameras and options.fov_deg is not None:
        raise ValueError(f"{options.cameras or data} says what the field of view is: leave out --fov-deg.")
    # COLMAP and nerfstudio know nothing of EXIF orientation: their cameras are those of the images as stored.
    if kind == "clip":
        options = replace(options, video=with_frame_budget(data, options.video))
    source = _read_source(data, options, upright=not has_cameras)
    if not has_cameras:
        masks = _masks(source, options)
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
    masks = _masks(source, options)
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
        source = _read_source(images, replace(options, cameras=given.path), upright=True)
        frame_size = _stored_size(images, kind, upright=True) or source.clip.size
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
    masks = _masks(source, options)
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


def _with_masks(known: UserPriors, masks: FrameMasks | None, mode: UserMaskMode) -> UserPriors:
    if masks is None:
        return known
    return replace(known, dynamic_mask=masks.moving, mask_given=masks.given, mask_mode=mode)


def _read_source(data: Path, options: PredictionOptions, upright: bool) -> Source:
    """Frames of the data, and which of all frames they are."""
    if kind_of(data) == "dataset":
        entries, chosen = _dataset_frames(data, options)
        images = [entry.image for entry in entries if entry.image is not None]
        clip = read_images([images[i] for i in chosen], options.video, data, upright)
        frames = ClipFrames(tuple(chosen), len(entries), tuple(path.name for path in images))
        if len(set(clip.names)) < len(clip):  # images of one name in two folders
            clip = replace(clip, names=tuple(entries[i].name for i in chosen))
        return Source(clip, frames, [entries[i] for i in chosen])
    clip = read_clip(data, options.video, upright)
    if options.masks is None and options.cameras is None:
        return Source(clip, ClipFrames(tuple(range(len(clip))), len(clip)))  # nothing has to be matched
    if data.is_dir():
        names = tuple(path.name for path in list_images(data))
        place = {name: i for i, name in enumerate(names)}
        return Source(clip, ClipFrames(tuple(place[name] for name in clip.names), len(names), names))
    from das3r_ns.video.video_file import index_file

    times = index_file(data).times_s
    numbers = tuple(int(name.rsplit("_", 1)[-1]) - 1 for name in clip.names)
    return Source(clip, ClipFrames(numbers, len(times), times_s=tuple(times)))


def _stored_size(data: Path, kind: DataKind, upright: bool = False) -> tuple[int, int] | None:
    """Height and width of the frames as they are stored; None where they lie in a dataset, whose files say it.

    Args:
        upright: of images, after they were turned as their EXIF orientation says.
    """
    if kind == "dataset" or not data.exists():
        return None
    if data.is_dir():
        return image_size(list_images(data)[0], upright=upright)
    from das3r_ns.video.video_file import index_file

    return index_file(data).size


def _dataset_frames(data: Path, options: PredictionOptions) -> tuple[list[TransformsFrame], list[int]]:
    """Frames of a nerfstudio dataset whose images exist, in order, and which of them are chosen."""
    transforms = transforms_of(data)
    assert transforms is not None
    listed = read_transforms(transforms)
    entries = [entry for entry in listed if entry.image is not None]
    missing = [entry.name for entry in listed if entry.image is None]
    if len(entries) < 2:
        raise FileNotFoundError(
            f"{transforms} lists {len(missing)} images that do not exist (first: {transforms.parent / missing[0]})."
            if missing
            else f"{transforms} gives {len(entries)} frames, and at least 2 are needed."
        )
    if missing:
        print(f"{transforms}: {len(missing)} of {len(listed)} images do not exist and are left out: {missing[0]}, ...")
    rate = options.video.folder_fps
    chosen = choose_frames(tuple(i / rate for i in range(len(entries))), options.video)
    if len(chosen) < 2:
        raise ValueError(f"{transforms} gives {len(chosen)} frames, and at least 2 are needed.")
    return entries, chosen


def _masks(source: Source, options: PredictionOptions) -> FrameMasks | None:
    """The user's masks of the frames, those of the dataset, or the transparency of the frames themselves."""
    size, alpha = source.clip.size, source.clip.alpha
    of_other = None if options.masks is None else read_reconstruction(options.masks)
    if of_other is not None:
        return _masks_of_reconstruction(of_other, source, options)
    if options.masks is not None:
        masks = open_masks(options.masks)
        inside_scene = options.masks.is_dir() and is_scene_folder(options.masks.parent)
        numbering = options.numbering
        if inside_scene and numbering == "auto":
            masks, numbering = _named_by_scene(masks, options.masks.parent, source.frames)
        matching = match_masks(masks, source.frames, numbering)
        if not any(row is not None for row in matching.rows):
            raise ValueError(f"none of the {len(source.clip)} frames that are read has a mask in {options.masks}.")
        line = describe(matching, source.frames, options.masks)
        if line is not None:
            print(line)
        if inside_scene and not options.masks_white_is_static:
            print(f"Masks: {options.masks} belongs to a scene folder, where white is static.")
        return read_masks(masks, matching.rows, size, options.masks_white_is_static or inside_scene)
    if source.entries is None or not any(entry.mask for entry in source.entries):
        if alpha is None:
            return None
        opaque = alpha.float() / 255
        moving = opaque if options.video.alpha == "opaque-moves" else 1 - opaque
        return FrameMasks(moving, torch.ones(len(alpha), dtype=torch.bool))
    with_mask = [i for i, entry in enumerate(source.entries) if entry.mask is not None]
    paths = [source.entries[i].mask for i in with_mask]
    missing = [path for path in paths if path is not None and not path.exists()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} does not exist, and is the mask of a frame ({len(missing)} such).")
    rows: list[int | None] = [None] * len(source.entries)
    for k, i in enumerate(with_mask):
        rows[i] = k
    if len(with_mask) < len(rows):
        print(f"Masks: {len(with_mask)} of {len(rows)} frames have one; in the others what moves is predicted.")
    files = of_files(source.clip.source or Path(), [path for path in paths if path is not None])
    return read_masks(files, tuple(rows), size, white_is_static=True, is_dataset=True)


def _masks_of_reconstruction(given: Reconstruction, source: Source, options: PredictionOptions) -> FrameMasks:
    """Masks of what moves by another program, in its own polarity."""
    if options.masks_white_is_static:
        raise ValueError(
            f"{given.path} ({given.tool}) has a polarity of its own: leave out --masks-white-is-static, or give the "
            "files of the masks themselves."
        )
    size = (source.clip.size[0], source.clip.size[1])
    assigned = assign(given, source.clip, source.frames, size, numbering=options.numbering)
    moving = moving_of_frames(assigned, size)
    given_of = torch.tensor([row is not None for row in assigned.rows])
    share = float(moving[given_of].mean())
    print(f"Masks: {given.tool}, {int(given_of.sum())} of {len(moving)} frames, {share:.0%} of their pixels move.")
    if share > DOUBTFUL_SHARE:
        print(f"Masks: more than {DOUBTFUL_SHARE:.0%} of the images would move. Are they inverted?")
    return FrameMasks(moving, given_of)


def _named_by_scene(masks: MaskFiles, scene: Path, frames: ClipFrames) -> tuple[MaskFiles, Numbering]:
    """Masks of a scene folder under the names that their frames have in the clip: the folder numbers its own frames,
    which need not be all of the clip's."""
    names = read_json_object(scene / "predictor.json").get("names")
    numbers = [last_number(bare_name(name)) for name in masks.names or ()]
    if not isinstance(names, list) or not all(n is not None and 1 <= n <= len(names) for n in numbers):
        return masks, "auto"
    renamed = tuple(str(names[n - 1]) for n in numbers if n is not None)
    return replace(masks, names=renamed), "from-1" if frames.names is None else "by-name"


def digest_of_inputs(data: Path, options: PredictionOptions) -> str:
    """Digest of the content of everything that `read_inputs` would read. Decodes nothing.

    Raises:
        FileNotFoundError, ValueError: an input is missing.
    """
    data, options = _without_project(data, options)
    brought = options.masks is not None or options.cameras is not None
    kind = kind_of(data)
    if kind == "reconstruction":
        brought, given = True, read_reconstruction(data)
        assert given is not None
        parts = [f"{path.name} {digest_of_file(path)}" for path in given.files]
        if isinstance(given.frames, Path):
            parts.append(digest(given.frames, options.video))
        else:
            parts.append(repr(sorted(asdict(options.video).items())))
    elif kind == "dataset":
        brought = True
        entries, chosen = _dataset_frames(data, options)
        files = [path for i in chosen for path in (entries[i].image, entries[i].mask) if path is not None]
        transforms = transforms_of(data)
        assert transforms is not None
        parts = [f"{path.name} {digest_of_file(path)}" for path in files if path.is_file()]
        parts.append(digest_of_file(transforms))
    else:
        parts = [digest(data, options.video)]
    if options.masks is not None:
        of_other = read_reconstruction(options.masks)
        if of_other is not None:
            masks = list(of_other.files)
        else:
            masks = list_masks(options.masks) if options.masks.is_dir() else [options.masks]
        parts += [f"{path.name} {digest_of_file(path)}" for path in masks if path.is_file()]
    if options.cameras is not None:
        parts += [digest_of_file(path) for path in _camera_files(options.cameras)]
    if brought:
        parts.append(f"reading {READING} {options.numbering} {options.cameras_convention}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _camera_files(cameras: Path) -> list[Path]:
    transforms = transforms_of(cameras)
    if transforms is not None:
        return [transforms]
    given = read_reconstruction(cameras)
    if given is not None:
        return list(given.files)
    files: Sequence[Path] = [
        model / f"{name}.{ending}"
        for model in find_models(cameras.parent if cameras.is_file() else cameras)
        for name in FILES_OF_CAMERAS
        for ending in ("bin", "txt")
    ]
    return [path for path in files if path.is_file()]


def _focal_px(fov_deg: float | None, clip: Clip) -> float | None:
    return None if fov_deg is None else clip.size[1] / (2 * math.tan(math.radians(fov_deg) / 2))
