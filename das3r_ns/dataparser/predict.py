"""`das3r predict`: a video in, a scene folder out, which `ns-train das3r --data SCENE` and every other nerfstudio
method read, and which can be corrected by hand in between."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from das3r_ns.dataparser.cache import predict_scene, resolve_auto
from das3r_ns.dataparser.cache_folder import check_writable, only_one_at_a_time
from das3r_ns.dataparser.input_kinds import kind_of
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.scene import is_scene_folder


def predict(
    data: Path,
    out: Path,
    options: Annotated[PredictionOptions, tyro.conf.arg(name="")] = PredictionOptions(),  # noqa: B008  (never changed)
    overwrite: bool = False,
) -> Path:
    """Predict cameras, depth and moving parts of a clip and write them to a scene folder.

    Args:
        data: video file, folder of images, or folder with a transforms.json whose cameras are kept.
        out: the scene folder to write; its parent folders are made.
        options: how to read and predict.
        overwrite: replace a scene folder that is already at `out`.

    Returns:
        The scene folder.

    Raises:
        FileExistsError: there is something at `out`.
        FileNotFoundError, ValueError: the data or an option are not as they must be.
        OSError: `out` cannot be written or has too little room; said before the prediction starts.
        PredictionError: the predictor cannot reconstruct the clip.
    """
    options.check()
    if not data.exists():
        raise FileNotFoundError(f"--data {data} does not exist. Give a video file or a folder of images.")
    if kind_of(data) == "scene":
        raise ValueError(f"--data {data} is a scene folder already. Train from it: ns-train das3r --data {data}")
    _check_place(out, overwrite)
    check_writable(out.parent)
    name = resolve_auto(options)
    with only_one_at_a_time(out):
        _check_place(out, overwrite)  # another run may have written it while this one waited
        predict_scene(data, replace(options, predictor=name), out, overwrite=overwrite)
    return out


def _check_place(out: Path, overwrite: bool) -> None:
    empty = out.is_dir() and not any(out.iterdir())
    if out.exists() and not empty and not (overwrite and is_scene_folder(out)):
        hint = "give --overwrite to replace it" if is_scene_folder(out) else "it is not a scene folder; move it away"
        raise FileExistsError(f"--out {out} is already there: {hint}, or choose another place.")
