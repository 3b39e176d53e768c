"""Where predicted scenes are kept, and how one is found again.

A scene lies in `<cache>/<clip name>-<content>-<options>`: a digest of the input files and one of the options, the
predictor's name and the scene format. Every nerfstudio command builds the dataparser (twice) and finds the scene
there without decoding a frame or importing a predictor. One run at a time predicts a scene; others wait for it.
"""

import glob as globbing
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from das3r_ns import geometry
from das3r_ns.dataparser.clip_choice import choose_shot
from das3r_ns.dataparser.inputs import digest_of_inputs, kind_of, read_inputs
from das3r_ns.dataparser.naming import clip_name
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.files.hashing import digest_of_file
from das3r_ns.files.json_files import read_json_object, to_jsonable
from das3r_ns.predictor.registry import PROBLEMS, build_predictor, meant_by, resolve, settings_of
from das3r_ns.runtime.progress import recorded_seconds
from das3r_ns.runtime.shared_cores import share_cores
from das3r_ns.scene import DYNAMIC_THRESHOLD, FORMAT_VERSION, Scene, is_scene_folder, working_name, write_scene
from das3r_ns.video.clip import Clip

DEFAULT_CACHE = Path("outputs") / "das3r_scenes"
"""Beside nerfstudio's own outputs."""


def cached_scene(data: Path, options: PredictionOptions, cache: Path) -> Path:
    """The scene folder of `data`: itself if it is one, else from the cache, else predicted now and kept there.

    Raises:
        FileNotFoundError, ValueError: the data or an option are not as they must be.
        OSError: the cache cannot be written or has too little room; said before the prediction starts.
        PredictionError: the predictor cannot reconstruct the clip.
    """
    options.check()
    if kind_of(data) == "scene":
        if options.masks is not None or options.cameras is not None or options.fov_deg is not None:
            raise ValueError(
                f"{data} is a scene folder, predicted before: --masks, --cameras and --fov-deg cannot change it. "
                f"Replace the images in {data / 'masks'} or the cameras in its transforms.json instead."
            )
        return data
    if not data.exists():
        return scene_of_lost_data(data, options, cache)
    content = digest_of_inputs(data, options)
    for name in meant_by(options):
        found = _scene_of_content(data, content, options, name, cache)
        if found is not None:
            tell_once(f"Using the predicted scene in {found} (delete it to predict again).")
            _tell_of_other_weights(found, _digests_of_weights(options, name))
            return found
    name = resolve_auto(options)
    folder = cache / _folder_name(data, content, options, name)
    check_writable(cache)
    with only_one_at_a_time(folder):
        if not is_scene_folder(folder):  # another run may have predicted it while this one waited
            predict_scene(data, replace(options, predictor=name), folder, content=content)
    return folder


def scene_names(data: Path, options: PredictionOptions) -> list[str]:
    """Names that the scene of `data`, which is there, may have in a cache.

    Raises:
        FileNotFoundError, ValueError: an input is missing.
    """
    content = digest_of_inputs(data, options)
    return [_folder_name(data, content, options, name) for name in meant_by(options)]


def resolve_auto(options: PredictionOptions) -> str:
    """The predictor that the options mean; says which `auto` came to mean, and why."""
    for problem in PROBLEMS:
        tell_once(problem)
    name, reason = resolve(options)
    if options.predictor == "auto":
        print(f"Predictor: {name}, {reason}.")
    if line := settings_of(options, name).announcement(options.masks is not None):
        print(line)
    return name


def predict_scene(
    data: Path, options: PredictionOptions, folder: Path, overwrite: bool = False, content: str | None = None
) -> Scene:
    """Read `data`, predict, and write the scene folder.

    Args:
        content: `digest_of_inputs`, if it is known already.
    Raises:
        as `cached_scene`.
    """
    predictor, _ = build_predictor(options)
    clip, known = read_inputs(data, options)
    clip, known, shot = choose_shot(clip, known, options.video, options.geometric.matching)
    check_free_space(folder.parent, clip)
    meant, _ = resolve(options)
    digests = _digests_of_weights(options, meant)
    with recorded_seconds() as seconds, share_cores():
        scene = predictor(clip, known)
    assert len(scene) == len(clip), f"{predictor.name} gave {len(scene)} frames for {len(clip)}"
    assert scene.image_size == clip.size, f"{predictor.name} changed the size of the frames"
    provenance = {
        "predictor": predictor.name,
        **scene.provenance,
        "seconds": seconds,
        "weights_digests": digests,
        "input": str(data),
        "input_digest": content or digest_of_inputs(data, options),
        "options_digest": _digest_of_options(options, meant),
        "cameras_given": known.T_world_camera is not None,
        "masks_given": known.dynamic_mask is not None,
        "shot": shot,
        "options": {o.name: to_jsonable(getattr(options, o.name)) for o in fields(PredictionOptions)},
    }
    scene = replace(scene, provenance=provenance, times_s=clip.times_s, applied_transform=known.applied_transform)
    frames = clip.frames if scene.lens is None else scene.lens.undistort_frames(clip.frames)
    write_scene(scene, frames, folder, overwrite=overwrite)
    print(summary(scene, folder))
    for line in quality_lines(scene):
        print(line)
    return scene


def summary(scene: Scene, folder: Path) -> str:
    """One line about a scene: how many frames were posed, the lens, how much moves, where it lies."""
    focal, width = scene.K[:, 0, 0].mean().item(), float(scene.image_size[1])
    shortest, longest = scene.K[:, 0, 0].min().item(), scene.K[:, 0, 0].max().item()
    lens = f"{shortest:.0f} to {longest:.0f} px" if longest > 1.001 * shortest else f"{focal:.0f} px"
    bent = "" if scene.lens is None else f", without {scene.lens}"
    known = scene.depth > 0
    moving = float((scene.dynamic_prob > DYNAMIC_THRESHOLD).float().mean())
    return (
        f"{int(scene.pose_known.sum())} of {len(scene)} frames posed, focal length {lens} "
        f"({geometry.field_of_view(focal, width):.0f} degrees across){bent}, {moving:.0%} of the images "
        f"moving, depth for {float(known.float().mean()):.0%}: {folder}"
    )


def quality_lines(scene: Scene) -> list[str]:
    """Three lines about how far the cameras are to be believed; none where the predictor left no record of it."""
    quality = scene.provenance.get("quality")
    if not quality:
        return []
    clip, distrusted = quality["clip"], quality["distrusted_frames"]
    second = "no second estimate"
    if clip["path_difference"] is not None:
        second = (
            f"other points lead to a path {clip['path_difference']:.0%} of that away and a focal length "
            f"{clip['focal_difference']:+.1%} off"
        )
    names = ", ".join(str(i + 1) for i in distrusted[:12]) + (", ..." if len(distrusted) > 12 else "")
    return [
        f"Cameras ({clip['motion_model']}): reprojection error {clip['reprojection_error_px']:.2f} px, "
        f"{clip['explained_share']:.0%} of what was followed explained.",
        f"Path: spread over {clip['spread_depths']:.2g} depths of the scene; {second}.",
        ("Doubts: " + "; ".join(clip["doubts"]) if clip["doubts"] else "No doubts")
        + (f". Frames that count less in training: {names}." if distrusted else "; every frame counts in training."),
    ]


def check_writable(folder: Path) -> None:
    """
    Raises:
        OSError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written ({error.strerror or error}), and predicted scenes are kept there. "
            "Choose another place with --cache-dir, or --out of das3r predict."
        ) from error


def check_free_space(folder: Path, clip: Clip) -> None:
    """
    Raises:
        OSError: less room is left than the scene of `clip` may take.
    """
    pixels = clip.frames.shape[0] * clip.frames.shape[1] * clip.frames.shape[2]
    needed = pixels * (3 + 1 + 8)  # image and mask as PNG at worst; depth, confidence, dynamic map: 4 + 2 + 2 bytes
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{folder} has {free / 2**20:.0f} MiB left, and the scene of {len(clip)} frames of {clip.size[1]}x"
            f"{clip.size[0]} may take {needed / 2**20:.0f} MiB. Make room, choose another place with --cache-dir (or "
            "--out), or read less with --video.max-frames or --video.longest-side."
        )


@contextmanager
def only_one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the lock of a scene folder that is about to be written, and clear away what killed runs left beside it."""
    folder = folder.absolute()
    lock = _lock_of(folder.parent, working_name(folder))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Another run is predicting {folder}; waiting for it.")
        lock.acquire()
    try:
        _clear_after_killed_runs(folder)
        yield
    finally:
        lock.release()


def _lock_of(parent: Path, name: str) -> FileLock:
    return FileLock(parent / f".{name}.lock")


def _clear_after_killed_runs(folder: Path) -> None:
    """Remove temporary folders (`scene.written_whole` makes them) whose writer is gone: its lock is free. What had been
    moved aside for a scene that never came goes back to its place."""
    own = working_name(folder)
    for retired in folder.parent.glob(f".{globbing.escape(own)}.*.old"):
        if not folder.exists() and (retired / "old").exists():
            os.replace(retired / "old", folder)
        shutil.rmtree(retired, ignore_errors=True)
    for stale in folder.parent.glob(".*.part"):
        name = stale.name[1:].rsplit(".", 2)[0]
        if name == own:  # this run holds the lock and has not begun to write
            shutil.rmtree(stale, ignore_errors=True)
        elif (folder.parent / f".{name}.lock").exists():
            with suppress(Timeout), _lock_of(folder.parent, name).acquire(timeout=0):
                shutil.rmtree(stale, ignore_errors=True)


def _folder_name(data: Path, content: str, options: PredictionOptions, predictor: str) -> str:
    return f"{clip_name(data)}-{content[:10]}-{_digest_of_options(options, predictor)}"


def _scene_of_content(data: Path, content: str, options: PredictionOptions, predictor: str, cache: Path) -> Path | None:
    """The scene predicted from the same input with the same options, whatever the clip or the scene is called now."""
    folder = cache / _folder_name(data, content, options, predictor)
    if is_scene_folder(folder):
        return folder
    digest = _digest_of_options(options, predictor)
    others = sorted(cache.iterdir()) if cache.is_dir() else []
    for other in others:
        if other.name.startswith(".") or not is_scene_folder(other):
            continue
        if other.name.endswith(f"-{content[:10]}-{digest}"):
            return other
        info = _provenance(other)
        if info.get("input_digest") == content and info.get("options_digest") == digest:
            return other
    return None


def _provenance(folder: Path) -> dict[str, Any]:
    """What a scene folder says about how it was made; nothing if that cannot be read, for reading it says why."""
    try:
        return read_json_object(folder / "predictor.json")
    except (OSError, ValueError):
        return {}


def _digest_of_options(options: PredictionOptions, predictor: str) -> str:
    settings = {
        "format": FORMAT_VERSION,
        "predictor": predictor,
        "settings": settings_of(options, predictor).cache_key(),
        "video": {k: v for k, v in asdict(options.video).items() if k != "shot" or v is not None},
        "masks": options.masks is not None,
        "masks_white_is_static": options.masks_white_is_static,
        "cameras": options.cameras is not None,
        "fov_deg": options.fov_deg,
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:6]


def scene_of_lost_data(data: Path, options: PredictionOptions, cache: Path) -> Path:
    """The scene of a clip that is not there any more, if exactly one in the cache fits its name and the options.

    Raises:
        FileNotFoundError: there is none, or several.
    """
    candidates = [
        folder
        for name in meant_by(options)
        for folder in sorted(cache.glob(f"{clip_name(data)}-*-{_digest_of_options(options, name)}"))
        if is_scene_folder(folder)
    ]
    if len(candidates) == 1:
        tell_once(f"{data} is not here; using the scene predicted from it before, {candidates[0]}.")
        return candidates[0]
    where = "" if data.is_absolute() else f" in {Path.cwd()}"
    several = f" (the cache {cache} holds {len(candidates)} scenes of that name)" if candidates else ""
    raise FileNotFoundError(
        f"{data} does not exist{where}{several}. Give a video file, a folder of images, a nerfstudio dataset or a "
        "scene folder"
        + (
            "; a run that is loaded again looks for it where it was trained from: go to that folder first."
            if not data.is_absolute()
            else "."
        )
    )


def _digests_of_weights(options: PredictionOptions, predictor: str) -> dict[str, str]:
    """Digests of the weights that are files here, by option. Not part of a scene's name: the scene outlives them."""
    paths = {o: path.expanduser() for o, path in settings_of(options, predictor).weight_files().items()}
    files = {option: path / "model.safetensors" if path.is_dir() else path for option, path in paths.items()}
    return {option: digest_of_file(file) for option, file in files.items() if file.is_file()}


def _tell_of_other_weights(folder: Path, digests: dict[str, str]) -> None:
    """Say if a scene was predicted with other weights than those that lie at their place now, as after more training.
    It stays: runs that were trained on it are evaluated on it."""
    then = _provenance(folder).get("weights_digests", {})
    changed = [option for option, digest in digests.items() if then.get(option, digest) != digest]
    if changed:
        options = " and ".join(f"--{option}" for option in changed)
        tell_once(f"{options} has changed since that scene was predicted: delete {folder} to predict with the new one.")


_told: set[str] = set()


def tell_once(text: str) -> None:
    """Say a sentence, once in a process."""
    if text not in _told:  # nerfstudio builds the dataparser twice a run
        _told.add(text)
        print(text)
