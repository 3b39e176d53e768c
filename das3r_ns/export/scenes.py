"""A scene folder in the layout that another program reads: cameras, images, points, and masks with the names and the
polarity that it expects.

| for | cameras and points | masks |
| --- | --- | --- |
| `colmap` | `sparse/0`, binary | `masks/NAME.png.png`, black = no features |
| `brush`, `lichtfeld` | `sparse/0`, binary | `masks/NAME.png`, white = used for training |
| `postshot` | `sparse/0`, binary | `masks/NAME.png`, white = used for training |
| `nerfstudio` | `transforms.json`, `sparse_pc.ply` | `masks/NAME.png`, black = ignored |
| `tum` | `trajectory.txt` (camera-to-world), `rgb.txt`, `calibration.txt` | none |

All of them mean by white what stands still, so only names differ.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pycolmap
from scipy.spatial.transform import Rotation

from das3r_ns.files.image_file import open_image
from das3r_ns.files.json_files import read_json_object, write_json
from das3r_ns.files.whole import check_room
from das3r_ns.scene import Scene, image_paths, read_scene, written_whole

Target = Literal["brush", "lichtfeld", "postshot", "colmap", "nerfstudio", "tum"]
"""Programs and formats that a scene is written for."""

MASKS_OF = {"brush": "{name}", "lichtfeld": "{name}", "postshot": "{name}", "colmap": "{name}.png"}
"""File of the mask of an image, in `masks`."""
MAX_POINTS = 500_000
REMEDY = "Make room, or choose another --out."

NOTES = {
    "brush": "Train: brush {out}",
    "lichtfeld": "Train: LichtFeld-Studio -d {out} -o {out}/output --mask-mode ignore",
    "postshot": "Drop it into Postshot with its masks, and look at one in the import preview: what is white is to be "
    "used. Its mask modes differ from version to version; --invert-masks writes them the other way round.",
    "colmap": "Features of what stands still: colmap feature_extractor --image_path {out}/images "
    "--ImageReader.mask_path {out}/masks --database_path {out}/database.db",
    "nerfstudio": "Train: ns-train splatfacto --data {out}",
    "tum": "Compare: evo_traj tum {out}/trajectory.txt",
}
"""What to do with it, a line each."""


def export_scene(
    scene_folder: Path, target: Target, out: Path, overwrite: bool = False, invert_masks: bool = False
) -> Path:
    """Write a scene folder for another program, whole or not at all.

    Args:
        out: a folder that is not there yet, or is empty.
        overwrite: replace what an earlier export wrote there.
        invert_masks: white where something moves.
    Raises:
        SceneFolderError: the scene is damaged.
        FileExistsError: there is something else at `out`.
        OSError: it cannot be written, or there is too little room.
    """
    scene = read_scene(scene_folder)
    images = image_paths(scene_folder)
    masks = _masks(scene_folder, images)
    _check_place(out, overwrite)
    needed = sum(path.stat().st_size for path in (*images, *masks.values())) + 64 * len(scene.points)
    check_room(out.absolute().parent, needed, "the scene", REMEDY)
    with written_whole(out, f"the scene for {target}", REMEDY) as folder:
        _WRITERS[target](scene, images, masks, folder, invert_masks)
        if target in MASKS_OF:
            _write_masks(masks, folder / "masks", MASKS_OF[target], invert_masks)
        (folder / MARK).write_text(f"Written by das3r export --for {target}.\n", encoding="utf-8")
    return out


MARK = ".das3r_export"
"""File that tells a folder that was exported, and may be replaced, from the user's own."""


def _check_place(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if overwrite and (out / MARK).is_file():
        return
    hint = "give --overwrite to replace it" if (out / MARK).is_file() else "it was not exported by das3r; move it away"
    raise FileExistsError(f"--out {out} is already there: {hint}, or choose another place.")


def _masks(folder: Path, images: list[Path]) -> dict[str, Path]:
    """Mask of each image, by the image's name; none where the scene's owner took them out."""
    content = read_json_object(folder / "transforms.json")
    frames = content["frames"]
    if not all(isinstance(frame.get("mask_path"), str) for frame in frames):
        return {}
    return {image.name: folder / frame["mask_path"] for image, frame in zip(images, frames)}


def _copy(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination)


def _write_masks(masks: dict[str, Path], folder: Path, pattern: str, invert: bool) -> None:
    for name, path in masks.items():
        destination = folder / pattern.format(name=name)
        if not invert:
            _copy(path, destination)
            continue
        from PIL import ImageOps

        destination.parent.mkdir(parents=True, exist_ok=True)
        with open_image(path) as mask:
            ImageOps.invert(mask.convert("L")).save(destination)


def _points(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Positions and colours of seed points, an even selection where there are too many."""
    step = max(1, -(-len(scene.points) // MAX_POINTS))
    return scene.points.xyz[::step].double().numpy(), scene.points.rgb[::step].numpy()


def _write_colmap(scene: Scene, images: list[Path], masks: dict[str, Path], folder: Path, invert_masks: bool) -> None:
    model = pycolmap.Reconstruction()
    height, width = scene.image_size
    lenses: dict[tuple[float, ...], int] = {}
    T_camera_world = np.linalg.inv(scene.T_world_camera.double().numpy())
    for i, path in enumerate(images):
        K = scene.K[i].double()
        params = tuple(float(value) for value in (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))
        if params not in lenses:
            lenses[params] = len(lenses) + 1
            camera = pycolmap.Camera(
                model="PINHOLE", width=width, height=height, params=params, camera_id=lenses[params]
            )
            model.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(name=path.name, camera_id=lenses[params], image_id=i + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(T_camera_world[i, :3]))
        _copy(path, folder / "images" / path.name)
    for xyz, rgb in zip(*_points(scene)):
        model.add_point3D(xyz, pycolmap.Track(), rgb)
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True)
    model.write_binary(str(sparse))
    _check_model(sparse, model)


def _check_model(folder: Path, model: pycolmap.Reconstruction) -> None:
    """See that a binary model is whole on the disk: pycolmap writes on where there is no room, and does not say so (and
    never comes to an end with what it then has to read).

    Raises:
        OSError: it is not.
    """
    names = [image.name for image in model.images.values()]
    sizes = {
        "cameras.bin": 8 + 56 * len(model.cameras),  # PINHOLE has four parameters
        "images.bin": 8 + sum(72 + len(name.encode()) + 1 for name in names),
        "points3D.bin": 8 + 51 * len(model.points3D),  # without tracks
    }
    for path in {folder / name for name in sizes} | set(folder.iterdir()):
        with path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size < sizes.get(path.name, 1):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            file.write(bytes(4096))  # a disk that was full is full now
            file.truncate(size)


def _write_nerfstudio(
    scene: Scene, images: list[Path], masks: dict[str, Path], folder: Path, invert_masks: bool
) -> None:
    source = images[0].parent
    while not (source / "transforms.json").is_file():
        source = source.parent
    content = json.loads((source / "transforms.json").read_text(encoding="utf-8"))
    for frame, image in zip(content["frames"], images):
        frame.pop("depth_file_path", None)  # of a size of its own, which nerfstudio's own methods do not take
        _copy(image, folder / frame["file_path"])
    if masks:
        for frame, image in zip(content["frames"], images):
            _write_masks({frame["mask_path"]: masks[image.name]}, folder, "{name}", invert_masks)
    if (source / "sparse_pc.ply").is_file():
        _copy(source / "sparse_pc.ply", folder / "sparse_pc.ply")
    else:
        content.pop("ply_file_path", None)
    write_json(folder / "transforms.json", content)


def _write_tum(scene: Scene, images: list[Path], masks: dict[str, Path], folder: Path, invert_masks: bool) -> None:
    times = scene.times_s or tuple(i / scene.fps for i in range(len(scene)))
    T = scene.T_world_camera.double().numpy()
    quaternions = Rotation.from_matrix(T[:, :3, :3]).as_quat()
    rows, listed = ["# timestamp tx ty tz qx qy qz qw"], ["# timestamp filename"]
    for time, matrix, quaternion, image in zip(times, T, quaternions, images):
        name = f"rgb/{time:.6f}{image.suffix}"
        _copy(image, folder / name)
        listed.append(f"{time:.6f} {name}")
        rows.append(f"{time:.6f} " + " ".join(f"{value:.9f}" for value in (*matrix[:3, 3], *quaternion)))
    K = scene.K[0].double()
    lens = " ".join(f"{float(value):.6f}" for value in (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))
    for name, lines in (("trajectory.txt", rows), ("rgb.txt", listed), ("calibration.txt", [lens])):
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


_WRITERS: dict[str, Callable[[Scene, list[Path], dict[str, Path], Path, bool], None]] = {
    "brush": _write_colmap,
    "lichtfeld": _write_colmap,
    "postshot": _write_colmap,
    "colmap": _write_colmap,
    "nerfstudio": _write_nerfstudio,
    "tum": _write_tum,
}
