"""Where predicted scenes are kept, and how one is found again.

A scene lies in `<cache>/<clip name>-<content>-<options>`: a digest of the input files and one of the options, the
predictor's name and the scene format. Every nerfstudio command builds the dataparser (twice) and finds the scene
there without decoding a frame or importing a predictor (`scene_keys`). One run at a time predicts a scene; others wait
for it (`cache_folder`).
"""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from das3r_ns import __version__
from das3r_ns.dataparser.cache_folder import check_free_space, check_writable, only_one_at_a_time
from das3r_ns.dataparser.clip_choice import choose_shot
from das3r_ns.dataparser.input_digest import digest_of_inputs
from das3r_ns.dataparser.input_kinds import kind_of
from das3r_ns.dataparser.inputs import read_inputs
from das3r_ns.dataparser.naming import clip_name
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.dataparser.scene_keys import SceneKey, digest_of_options, folder_name, keys_of, options_of_0_1_0
from das3r_ns.dataparser.scene_summary import quality_lines, summary
from das3r_ns.files.hashing import digest_of_file
from das3r_ns.files.json_files import read_json_object, to_jsonable
from das3r_ns.predictor.registry import PREDICTORS, PROBLEMS, build_predictor, meant_by, resolve, settings_of
from das3r_ns.runtime.progress import recorded_seconds, timed
from das3r_ns.runtime.shared_cores import share_cores
from das3r_ns.scene import Scene, is_scene_folder, write_scene


def cached_scene(data: Path, options: PredictionOptions, cache: Path) -> Path:
    """The scene folder of `data`: itself if it is one, else from the cache, else predicted now and kept there.

    Raises:
        FileNotFoundError, ValueError: the data or an option are not as they must be.
        OSError: the cache cannot be written or has too little room; said before the prediction starts.
        PredictionError: the predictor cannot reconstruct the clip.
        ImportError, RuntimeError: a package or weights that an option needs are missing.
    """
    options.check()
    if kind_of(data) == "scene":
        given = (options.masks, options.masks_prompt, options.cameras, options.fov_deg)
        if any(option is not None for option in given):
            raise ValueError(
                f"{data} is a scene folder, predicted before: --masks, --masks-prompt, --cameras and --fov-deg cannot "
                "change it. "
                f"Replace the images in {data / 'masks'} or the cameras in its transforms.json instead."
            )
        return data
    if not data.exists():
        return scene_of_lost_data(data, options, cache)
    content = digest_of_inputs(data, options)
    for name in meant_by(options):
        found = _scene_of_content(data, content, options, name, cache)
        if found is not None:
            version = _provenance(found).get("das3r_ns_version", __version__)
            of_then = "" if version == __version__ else f"das3r_ns {version} predicted it; "
            edited = ", and its edits with it," if (found / "edits" / "edits.json").exists() else ""
            tell_once(f"Using the predicted scene in {found} ({of_then}delete it{edited} to predict again).")
            _tell_of_other_weights(found, _digests_of_weights(options, name))
            return found
    name = resolve_auto(options)
    folder = cache / folder_name(data, SceneKey(content, digest_of_options(options, name)))
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
    return [folder_name(data, key) for name in meant_by(options) for key in keys_of(data, content, options, name)]


def resolve_auto(options: PredictionOptions) -> str:
    """The predictor that the options mean; says which `auto` came to mean, and why."""
    for problem in PROBLEMS:
        tell_once(problem)
    name, reason = resolve(options)
    if options.predictor == "auto":
        print(f"Predictor: {name}, {reason}.")
    if line := settings_of(options, name).announcement(options.masks is not None and options.masks_mode == "replace"):
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
    with recorded_seconds() as seconds:
        with timed("Loading the predictor"):
            predictor, _ = build_predictor(options)
            if options.prompt is not None:  # what is missing is said before a frame is read
                from das3r_ns.predictor.masks.prompts.build import check_prompt

                check_prompt(options.prompt.weights)
        with timed("Reading the inputs"):
            clip, priors = read_inputs(data, options)
        with timed("Telling shots apart"):
            clip, priors, shot = choose_shot(clip, priors, options.video, options.geometric.matching)
        check_free_space(folder.parent, clip)
        meant, _ = resolve(options)
        digests = _digests_of_weights(options, meant)
        with share_cores(), timed("Prediction, the rest"):
            scene = predictor(clip, priors)
    assert len(scene) == len(clip), f"{predictor.name} gave {len(scene)} frames for {len(clip)}"
    assert scene.image_size == clip.size, f"{predictor.name} changed the size of the frames"
    provenance = {
        "predictor": predictor.name,
        **scene.provenance,
        "seconds": seconds,
        "weights_digests": digests,
        "input": str(data),
        "input_digest": content or digest_of_inputs(data, options),
        "options_digest": digest_of_options(options, meant),
        "cameras_given": priors.T_world_camera is not None,
        "masks_given": priors.dynamic_mask is not None,
        "shot": shot,
        "options": {o.name: to_jsonable(getattr(options, o.name)) for o in fields(PredictionOptions)},
    }
    scene = replace(scene, provenance=provenance, times_s=clip.times_s, applied_transform=priors.applied_transform)
    frames = clip.frames if scene.lens is None else scene.lens.undistort_frames(clip.frames)
    # Imported here: every command of nerfstudio imports this module.
    from das3r_ns.editing.transfer import edits_for, take_over_edits

    edits, taken_over = edits_for(folder), []
    write_scene(
        scene, frames, folder, overwrite, lambda new: taken_over.append(take_over_edits(new, edits, replaced=folder))
    )
    print(summary(scene, folder))
    for line in (*quality_lines(scene), *offers(scene.provenance.get("quality"), options, meant)):
        print(line)
    for line in filter(None, taken_over):
        print(line)
    return scene


def offers(quality: dict[str, Any] | None, options: PredictionOptions, chosen: str) -> list[str]:
    """Other predictors that are ready here, where the chosen one doubts its cameras; nothing is fetched.

    Args:
        quality: record of the scene.
    """
    if not quality or not quality["clip"]["doubts"]:
        return []
    return [line for name in PREDICTORS if name != chosen and (line := settings_of(options, name).offer())]


def _scene_of_content(data: Path, content: str, options: PredictionOptions, predictor: str, cache: Path) -> Path | None:
    """The scene predicted from the same input with the same options, whatever the clip or the scene is called now."""
    others = [f for f in sorted(cache.iterdir()) if not f.name.startswith(".")] if cache.is_dir() else []
    for key in keys_of(data, content, options, predictor):
        folder = cache / folder_name(data, key)
        if is_scene_folder(folder):
            return folder
        for other in filter(is_scene_folder, others):
            if other.name.endswith(f"-{key.content[:10]}-{key.options}"):
                return other
            info = _provenance(other)
            if info.get("input_digest") == key.content and info.get("options_digest") == key.options:
                return other
    return None


def _provenance(folder: Path) -> dict[str, Any]:
    """What a scene folder says about how it was made; nothing if that cannot be read, for reading it says why."""
    try:
        return read_json_object(folder / "predictor.json")
    except (OSError, ValueError):
        return {}


def scene_of_lost_data(data: Path, options: PredictionOptions, cache: Path) -> Path:
    """The scene of a clip that is not there any more, if exactly one in the cache fits its name and the options.

    Raises:
        FileNotFoundError: there is none, or several.
    """
    candidates = [
        folder
        for name in meant_by(options)
        for digest in _digests_of_options(options, name)
        for folder in sorted(cache.glob(f"{clip_name(data)}-*-{digest}"))
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


def _digests_of_options(options: PredictionOptions, predictor: str) -> list[str]:
    former = options_of_0_1_0(options, predictor)
    return [digest_of_options(options, predictor), *([] if former is None else [former[1]])]


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
