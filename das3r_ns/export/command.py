"""`das3r export`: the splat of a run as a file, or a scene for another program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from das3r_ns.export.scenes import NOTES, REMEDY, Target, export_scene
from das3r_ns.export.splats import check_package, convert_splat, kind_of_splat
from das3r_ns.files.whole import WRITING, check_output, claimed_folder, sweep, telling_of_full_disk
from das3r_ns.scene import is_scene_folder


def export(
    load_config: Path | None = None,
    data: Path | None = None,
    target: Annotated[Target | None, tyro.conf.arg(name="for")] = None,
    out: Path | None = None,
    keep_dynamic: bool = False,
    overwrite: bool = False,
    invert_masks: bool = False,
) -> Path:
    """Write the splat of a run, or, with --for, the cameras, images, points and masks that another program trains on.

    Args:
        load_config: config.yml of a finished training run.
        data: a scene folder (das3r predict), in the place of a run, with --for.
        target: the program or format that the scene is written for. None writes the splat.
        out: file of the splat (.ply, .compressed.ply or .spz), by default exports/splat.ply; with --for the folder, by
            default exports/PROGRAM.
        keep_dynamic: in a splat, keep Gaussians that are not static as well.
        overwrite: replace an earlier export at `out`.
        invert_masks: with --for, write masks that are white where something moves.

    Raises:
        RunError: there is no such run, or it is of another method.
        ValueError, FileExistsError, ImportError, OSError: what was given does not fit, or cannot be written.
    """
    if (load_config is None) == (data is None):
        raise ValueError("give either a run (--load-config CONFIG) or, with --for, a scene folder (--data SCENE).")
    if target is None:
        return _export_splat(load_config, out or Path("exports/splat.ply"), keep_dynamic)
    if keep_dynamic:
        raise ValueError("--keep-dynamic is about the splat: leave it out, or leave out --for.")
    scene = data if load_config is None else _scene_of(load_config)
    assert scene is not None
    if not is_scene_folder(scene):
        raise ValueError(f"--data {scene} is not a scene folder. Predict one: das3r predict --data {scene} --out SCENE")
    out = export_scene(scene, target, out or Path("exports") / target, overwrite, invert_masks)
    print(f"{out}: {scene} for {target}. {NOTES[target].format(out=out)}")
    return out


def _export_splat(load_config: Path | None, out: Path, keep_dynamic: bool) -> Path:
    if load_config is None:
        raise ValueError("a scene folder has no splat: train on it first, or say what it is for (--for colmap, ...).")
    kind = kind_of_splat(out)
    check_package(kind)  # before the run is loaded
    from das3r_ns.render.splat import export_splat

    if kind == ".ply":
        return export_splat(load_config, out, keep_dynamic)
    check_output(out, 0, "the splat")
    sweep(out.parent, WRITING)
    with telling_of_full_disk(out.parent, "the splat", REMEDY), claimed_folder(out.parent, WRITING) as folder:
        return convert_splat(export_splat(load_config, folder / "splat.ply", keep_dynamic), out)


def _scene_of(load_config: Path) -> Path:
    from das3r_ns.runs.loading import read_run_config

    config = read_run_config(load_config)
    return Path(config.pipeline.datamanager.data or config.pipeline.datamanager.dataparser.data)
