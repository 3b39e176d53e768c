"""The scene that a run was trained on, wherever run and scene lie now.

Training writes `scene.json` into the run's folder: where the scene was and a digest of its `predictor.json`, which no
two predictions share. A run of an earlier release has none: its scene is told by the clip's name, content and options,
as the cache does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from das3r_ns.dataparser.cache import scene_names, tell_once
from das3r_ns.dataparser.cache_folder import DEFAULT_CACHE
from das3r_ns.dataparser.input_kinds import kind_of
from das3r_ns.dataparser.naming import clip_name
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.files.json_files import to_jsonable, write_json
from das3r_ns.scene import is_scene_folder

if TYPE_CHECKING:
    from das3r_ns.dataparser.parser import Das3rDataParserConfig

RECORD = "scene.json"
MAX_FOLDERS = 1000
"""Folders looked into beside a run, at most."""
LEVELS = 5
"""Folders above the run's own in which its scene may lie: outputs/CLIP/METHOD/TIME, and the one that holds outputs."""


def identity(scene: Path) -> str:
    """Digest that tells one prediction from every other, though masks or cameras were corrected by hand since."""
    return hashlib.sha256((Path(scene) / "predictor.json").read_bytes()).hexdigest()


def record_scene(run: Path, scene: Path) -> None:
    """Note in a run's folder which scene it is trained on."""
    scene = Path(scene).absolute()
    write_json(
        run / RECORD,
        {"scene": scene, "relative": os.path.relpath(scene, Path(run).absolute()), "identity": identity(scene)},
    )


def find_scene(run: Path, config: Das3rDataParserConfig) -> Path | None:
    """The scene folder that a run was trained on.

    Args:
        run: folder of the run's `config.yml`.
        config: what that says about the data.

    Returns:
        None where it is nowhere to be found; the caller may predict it again from the data.
    """
    run = Path(run).absolute()
    record = _read_record(run)
    named = _as_named(config)
    if record is not None:
        wanted = str(record["identity"])
        places = [Path(str(record["scene"])), run / str(record["relative"]), *([named] if named else [])]
        found = _first(scene for scene in (*places, *_nearby(run, config)) if _is(scene, wanted))
        if found is not None:
            return found
        if is_scene_folder(places[0]):
            tell_once(
                f"{places[0]} was predicted again since this run was trained on it: cameras and masks may differ from "
                "those of the training."
            )
            return places[0]
    if named is not None:
        return named
    return _by_name(run, config)


def _as_named(config: Das3rDataParserConfig) -> Path | None:
    """The scene that the config leads to from the current folder, as in training."""
    data = config.data
    if kind_of(data) == "scene":
        return data
    if not data.exists():
        return None
    return _first(
        config.cache_dir / name for name in scene_names(data, config) if is_scene_folder(config.cache_dir / name)
    )


def _by_name(run: Path, config: Das3rDataParserConfig) -> Path | None:
    """A scene of the same clip and options in the folders about the run; what a scene says of itself decides."""
    data = config.data
    exact = set(scene_names(data, config)) if data.exists() and kind_of(data) != "scene" else set()
    alike: list[Path] = []
    for scene in _nearby(run, config):
        if scene.name in exact or (kind_of(data) == "scene" and scene.name == data.name):
            return scene
        if scene.parent == run or scene.name == data.name or _is_of_clip(scene, data):
            alike.append(scene)
    fitting = [scene for scene in alike if _options_agree(scene, config)]
    if len({identity(scene) for scene in fitting}) == 1:
        return fitting[0]
    return None


def _nearby(run: Path, config: Das3rDataParserConfig) -> Iterator[Path]:
    """Scene folders in the run's folder, beside it and the folders that hold it, and in the caches there, nearest
    first."""
    left = MAX_FOLDERS
    seen: set[Path] = set()
    cache = config.cache_dir
    for level in (run, *list(run.parents)[:LEVELS], Path.cwd()):
        for place in (level, level / cache, level / cache.name, level / DEFAULT_CACHE.name, level / DEFAULT_CACHE):
            if place in seen or not place.is_dir():
                continue
            seen.add(place)
            with os.scandir(place) as entries:
                names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
            for name in names:
                left -= 1
                if left < 0:
                    return
                if is_scene_folder(place / name):
                    yield place / name


def _is_of_clip(scene: Path, data: Path) -> bool:
    return scene.name.startswith(f"{clip_name(data)}-") or Path(str(_said(scene).get("input", ""))).name == data.name


def _options_agree(scene: Path, config: PredictionOptions) -> bool:
    """Whether a scene was predicted with the options of a run, as far as both speak of them: an option that came with a
    later release stands in neither."""
    said = _said(scene)
    options = said.get("options")
    if not isinstance(options, dict):
        return True
    predictor = said.get("predictor", config.predictor)
    if config.predictor not in ("auto", predictor):
        return False
    for name in ("video", "fov_deg", "masks_white_is_static", "network" if predictor == "network" else "geometric"):
        if name in options and not _agree(options[name], to_jsonable(getattr(config, name))):
            return False
    return all((options.get(name) is None) == (getattr(config, name) is None) for name in ("masks", "cameras"))


def _agree(said: Any, wanted: Any) -> bool:
    if isinstance(said, dict) and isinstance(wanted, dict):
        return all(_agree(said[name], wanted[name]) for name in said.keys() & wanted.keys())
    return said == wanted or "auto" in (said, wanted)


def _said(scene: Path) -> dict[str, Any]:
    try:
        said = json.loads((scene / "predictor.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _read_record(run: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((run / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    complete = isinstance(record, dict) and all(
        isinstance(record.get(n), str) for n in ("scene", "relative", "identity")
    )
    return record if complete else None


def _is(scene: Path, wanted: str) -> bool:
    return is_scene_folder(scene) and identity(scene) == wanted


def _first(scenes: Iterator[Path]) -> Path | None:
    return next(iter(scenes), None)


def use_scene(config: Das3rDataParserConfig, scene: Path) -> None:
    """Let a config that is loaded for evaluation read a scene as it is: what was said about predicting it is done."""
    config.data = scene
    blank = PredictionOptions()
    for field in fields(PredictionOptions):
        if field.name in ("masks", "cameras", "fov_deg", "masks_white_is_static"):
            setattr(config, field.name, getattr(blank, field.name))
