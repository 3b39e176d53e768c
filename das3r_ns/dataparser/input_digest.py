"""What a cached scene was made of: digests of all files that `read_inputs` would read."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from das3r_ns.dataparser.colmap_model import find_models
from das3r_ns.dataparser.input_frames import dataset_frames
from das3r_ns.dataparser.input_kinds import kind_of, without_project
from das3r_ns.dataparser.mask_files import list_masks
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.dataparser.reconstructions.table import read_reconstruction
from das3r_ns.dataparser.transforms_file import transforms_of
from das3r_ns.files.hashing import digest_of_file
from das3r_ns.video.clip import digest

READING = 3
"""Raised whenever masks or cameras that somebody gave come to mean something else, so that scenes predicted from them
before are not used again."""


FILES_OF_CAMERAS = ("cameras", "images", "rigs", "frames")
"""Files of a COLMAP model that decide cameras; a workspace holds gigabytes of other files beside."""


def digest_of_inputs(data: Path, options: PredictionOptions) -> str:
    """Digest of the content of everything that `read_inputs` would read. Decodes nothing.

    Raises:
        FileNotFoundError, ValueError: an input is missing.
    """
    data, options = without_project(data, options)
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
        entries, chosen = dataset_frames(data, options)
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
