"""From what the user gave to what a predictor takes: the clip, and what is known about it already.

Three kinds of data: a clip (video or folder of pictures), a plain nerfstudio dataset (a `transforms.json` with
cameras, and masks or not), and a scene folder, which needs no prediction at all.
"""

import hashlib
import math
from pathlib import Path
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from das3r_ns.dataparser.known_cameras import cameras_of_clip, match_cameras, read_cameras, read_json, undistort
from das3r_ns.dataparser.known_masks import match_masks, read_masks
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.files.hashing import digest_of_file
from das3r_ns.predictor.base import UserPriors
from das3r_ns.scene import is_scene_folder
from das3r_ns.video import images as pictures
from das3r_ns.video.clip import Clip, choose_frames, digest, read_clip, read_pictures

FILES_OF_CAMERAS = frozenset(
    {"transforms.json"}
    | {f"{name}.{suffix}" for name in ("cameras", "images", "rigs", "frames") for suffix in ("bin", "txt")}
)
"""What decides cameras in a folder of them; a COLMAP workspace holds gigabytes of other things beside."""

DataKind = Literal["scene", "dataset", "clip"]


def kind_of(data: Path) -> DataKind:
    """What lies at `data`, by its name and the files in it."""
    if is_scene_folder(data):
        return "scene"
    if data.suffix == ".json" or (data / "transforms.json").is_file():
        return "dataset"
    return "clip"


def read_inputs(data: Path, options: PredictionOptions) -> tuple[Clip, UserPriors]:
    """Read the frames and everything the user brings along.

    Frames for which a given file of cameras has no camera are left out, with a line that says so.

    Raises:
        FileNotFoundError, ValueError: an input is missing, damaged, or does not fit the others.
    """
    cameras_file = _cameras_file(data, options)
    cameras = None if cameras_file is None else read_cameras(cameras_file)  # before the pictures, which take longer
    if cameras is not None and options.fov_deg is not None:
        raise ValueError(f"{cameras_file} says what the field of view is: leave out --fov-deg.")
    # COLMAP and nerfstudio know nothing of EXIF orientation: their cameras are those of the pictures as stored.
    upright = cameras is None
    if kind_of(data) == "dataset":
        paths, masks = _dataset_files(data, options)
        clip = read_pictures(paths, options.video, data, upright)
    else:
        clip = read_clip(data, options.video, upright)
        masks = match_masks(pictures.list_pictures(options.masks), clip.names, options.masks) if options.masks else None
    if cameras is None:
        known = UserPriors(
            focal_px=_focal_px(options.fov_deg, clip), dynamic_mask=_mask_maps(masks, clip, data, options)
        )
        return clip, known
    matched = match_cameras(cameras, clip.names)
    kept = [i for i, row in enumerate(matched) if row is not None]
    if len(kept) < len(clip):
        gone = [clip.names[i] for i in range(len(clip)) if i not in set(kept)]
        print(f"{len(gone)} of {len(clip)} frames have no camera in {cameras_file} and are left out: {gone[0]}, ...")
        clip = clip.take(kept)
        masks = None if masks is None else [masks[i] for i in kept]
    T_world_camera, K, distortion = cameras_of_clip(cameras, [row for row in matched if row is not None], clip.size)
    dynamic_mask = _mask_maps(masks, clip, data, options)
    clip, K, dynamic_mask = undistort(clip, K, distortion, dynamic_mask)
    return clip, UserPriors(T_world_camera=T_world_camera, K=K, dynamic_mask=dynamic_mask)


def digest_of_inputs(data: Path, options: PredictionOptions) -> str:
    """Digest of the content of everything that `read_inputs` would read. Decodes nothing.

    Raises:
        FileNotFoundError, ValueError: an input is missing.
    """
    if kind_of(data) == "dataset":
        paths, masks = _dataset_files(data, options)
        files = [*paths, *(masks or [])]
        parts = [f"{path.name} {digest_of_file(path)}" for path in files]
    else:
        parts = [digest(data, options.video)]
        if options.masks:
            parts += [f"{path.name} {digest_of_file(path)}" for path in pictures.list_pictures(options.masks)]
    cameras = _cameras_file(data, options)
    if cameras is not None:
        files = [cameras] if cameras.is_file() else sorted(p for p in cameras.rglob("*") if p.name in FILES_OF_CAMERAS)
        parts += [digest_of_file(path) for path in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _cameras_file(data: Path, options: PredictionOptions) -> Path | None:
    if options.cameras is not None or kind_of(data) != "dataset":
        return options.cameras
    return data if data.suffix == ".json" else data / "transforms.json"


def _dataset_files(data: Path, options: PredictionOptions) -> tuple[list[Path], list[Path] | None]:
    """Pictures of a nerfstudio dataset, chosen and in natural order, and their masks if it has any."""
    transforms = data if data.suffix == ".json" else data / "transforms.json"
    frames = read_json(transforms).get("frames")
    if not frames:
        raise ValueError(f"{transforms} lists no frames: it is no nerfstudio dataset.")
    try:
        frames = sorted(frames, key=lambda frame: pictures.natural_key(frame["file_path"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{transforms} lists a frame without a file_path: it is no nerfstudio dataset.") from error
    rate = options.video.folder_fps
    frames = [frames[i] for i in choose_frames(tuple(i / rate for i in range(len(frames))), options.video)]
    if len(frames) < 2:
        raise ValueError(f"{transforms} gives {len(frames)} frames, and at least 2 are needed.")
    paths = [transforms.parent / frame["file_path"] for frame in frames]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"{transforms} lists {len(missing)} pictures that do not exist (first: {missing[0]}).")
    if options.masks is not None:
        return paths, match_masks(
            pictures.list_pictures(options.masks), tuple(path.name for path in paths), options.masks
        )
    if all("mask_path" in frame for frame in frames):
        return paths, [transforms.parent / frame["mask_path"] for frame in frames]
    return paths, None


def _mask_maps(
    paths: list[Path] | None, clip: Clip, data: Path, options: PredictionOptions
) -> Float[Tensor, "n h w"] | None:
    if paths is None:
        return _mask_of_alpha(clip, options.video.alpha == "opaque-moves")
    from_dataset = options.masks is None and kind_of(data) == "dataset"  # then they have nerfstudio's meaning
    return read_masks(paths, clip.size, white_is_static=from_dataset or options.masks_white_is_static)


def _mask_of_alpha(clip: Clip, opaque_moves: bool) -> Float[Tensor, "n h w"] | None:
    if clip.alpha is None:
        return None
    opaque = clip.alpha.float() / 255
    return opaque if opaque_moves else 1 - opaque


def _focal_px(fov_deg: float | None, clip: Clip) -> float | None:
    return None if fov_deg is None else clip.size[1] / (2 * math.tan(math.radians(fov_deg) / 2))
