"""What a path that the user gave is: a scene folder, a dataset, another program's reconstruction, or a clip."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from das3r_ns.dataparser.colmap_model import find_models
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.dataparser.reconstructions.table import find_reader, read_reconstruction
from das3r_ns.dataparser.reconstructions.types import Reconstruction
from das3r_ns.dataparser.transforms_file import transforms_of
from das3r_ns.scene import is_scene_folder

IMAGES_OF_PROJECT = ("images", "input_images", "input")
"""Folders beside a COLMAP model in which its images lie."""


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


def without_project(data: Path, options: PredictionOptions) -> tuple[Path, PredictionOptions]:
    """Images and cameras of a COLMAP project that is given as data, as if they had been given one by one."""
    if is_scene_folder(data) or transforms_of(data) is not None or find_reader(data) is not None:
        return data, options
    images = _images_of_project(data)
    if images is None:
        return data, options
    return images, options if options.cameras is not None else replace(options, cameras=data)


def given_reconstruction(data: Path, options: PredictionOptions) -> Reconstruction | None:
    """What another program found, if `--cameras` or `--data` are its files.

    Raises:
        ValueError: they are damaged or of another version.
    """
    path = options.cameras if options.cameras is not None else data
    return None if transforms_of(path) is not None or is_scene_folder(path) else read_reconstruction(path)
