"""The key of a predicted scene: a digest of the input files and one of the options, the predictor and the format.

A setting that a later release adds changes the key of all scenes. So that those of version 0.1.0 are found again, its
key is computed too, from the settings that it had, as long as all others are at their defaults.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from das3r_ns.dataparser.naming import clip_name
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.predictor.registry import settings_of
from das3r_ns.scene import FORMAT_VERSION
from das3r_ns.video.clip import digest
from das3r_ns.video.config import VideoConfig

SETTINGS_OF_0_1_0 = {
    "video": "end_s every folder_fps fps longest_side max_frames start_s",
    "geometric": (
        "flow flow_memory_mb laid_over map_longest_side mapping.features.longest_side mapping.features.loop_period "
        "mapping.features.max_features mapping.features.overlap mapping.field_of_view mapping.max_error_px "
        "mapping.min_posed_share mapping.threads masks.appearance masks.colour_contrast masks.contrast "
        "masks.depth_contrast masks.floating masks.median_px masks.memory masks.motion_contrast masks.own masks.reach "
        "masks.refiner masks.seen_through masks.softness masks.threshold max_points offsets raft_weights"
    ),
    "network": (
        "alignment.cleaning_tolerance alignment.depth_rounds alignment.final_learning_rate alignment.flow_max_distance "
        "alignment.flow_start alignment.flow_weight alignment.learning_rate alignment.num_steps alignment.pixel_stride "
        "alignment.record_steps alignment.schedule alignment.shared_focal alignment.smoothness_weight "
        "alignment.tolerance device flow inference.compile inference.max_batch inference.memory_gib "
        "inference.precision long_side max_points pairs.cyclic pairs.kind pairs.window raft_weights weights "
        "windows.frames windows.max_loops windows.overlap"
    ),
}
"""Settings that stood in its key, by group. Its other options were masks, cameras and the field of view."""
DEFAULTS_OF_0_1_0 = {
    "geometric": {"masks.threshold": 1.8, "masks.softness": 0.4, "masks.colour_contrast": 1.5},
}
"""Its defaults that are others now, by group: who left them alone is given what version 0.1.0 predicted with them."""
FRAMES_OF_0_1_0 = 150
"""Its default of `--video.max-frames`, which is `auto` now."""


class SceneKey(NamedTuple):
    """What a cached scene is found by."""

    content: str
    """`input_digest.digest_of_inputs`."""
    options: str


def digest_of_options(options: PredictionOptions, predictor: str) -> str:
    """Six hexadecimal digits."""
    video = {k: v for k, v in asdict(options.video).items() if k != "shot" or v is not None}
    return _digest(options, predictor, settings_of(options, predictor).cache_key(), video)


def folder_name(data: Path, key: SceneKey) -> str:
    """Name of the scene folder in a cache."""
    return f"{clip_name(data)}-{key.content[:10]}-{key.options}"


def keys_of(data: Path, content: str, options: PredictionOptions, predictor: str) -> Iterator[SceneKey]:
    """Keys under which a scene of these inputs and options may be kept: today's, then that of version 0.1.0.

    Args:
        data: it is there, and no scene folder.
        content: `input_digest.digest_of_inputs`.
    """
    yield SceneKey(content, digest_of_options(options, predictor))
    former = options_of_0_1_0(options, predictor)
    is_dataset = data.suffix == ".json" or (data / "transforms.json").exists()  # their images were chosen otherwise
    if former is not None and not is_dataset:
        read, of_options = former
        yield SceneKey(hashlib.sha256(digest(data, read).encode()).hexdigest(), of_options)


def options_of_0_1_0(options: PredictionOptions, predictor: str) -> tuple[VideoConfig, str] | None:
    """What version 0.1.0 would have read, and its digest of the options. None where a setting that it lacked was
    changed from its default, or where the user brings masks or cameras, which it matched to the frames otherwise."""
    default = PredictionOptions()
    changed = (options.numbering, options.cameras_convention) != (default.numbering, default.cameras_convention)
    brought = (options.masks, options.prompt, options.cameras)
    if changed or any(given is not None for given in brought) or predictor not in SETTINGS_OF_0_1_0:
        return None
    frames = FRAMES_OF_0_1_0 if options.video.max_frames == default.video.max_frames else options.video.max_frames
    read = replace(options.video, max_frames=frames)
    video = _of_0_1_0("video", asdict(read), asdict(default.video))
    given, usual = (asdict(settings_of(o, predictor).resolve_auto()) for o in (options, default))
    settings = _of_0_1_0(predictor, given, usual)
    return None if video is None or settings is None else (read, _digest(options, predictor, settings, video))


def _of_0_1_0(group: str, settings: dict[str, Any], default: dict[str, Any]) -> dict[str, Any] | None:
    """The settings that version 0.1.0 had; None where another one was changed from its default."""
    had, former = frozenset(SETTINGS_OF_0_1_0[group].split()), DEFAULTS_OF_0_1_0.get(group, {})

    def select(settings: dict[str, Any], default: dict[str, Any], prefix: str) -> dict[str, Any] | None:
        kept: dict[str, Any] = {}
        for name, value in settings.items():
            path = prefix + name
            if path in had:
                kept[name] = former.get(path, value) if value == default[name] else value
            elif isinstance(value, dict) and any(other.startswith(f"{path}.") for other in had):
                kept[name] = select(value, default[name], f"{path}.")
                if kept[name] is None:
                    return None
            elif value != default[name]:
                return None
        return kept

    return select(settings, default, "")


def _digest(options: PredictionOptions, predictor: str, settings: dict[str, Any], video: dict[str, Any]) -> str:
    hashed = {
        "format": FORMAT_VERSION,
        "predictor": predictor,
        "settings": settings,
        "video": video,
        "masks": options.masks is not None,
        "masks_white_is_static": options.masks_white_is_static,
        "cameras": options.cameras is not None,
        "fov_deg": options.fov_deg,
        **({} if options.masks_mode == "replace" else {"masks_mode": options.masks_mode}),
        **({} if options.prompt is None else {"prompt": asdict(options.prompt)}),
    }
    return hashlib.sha256(json.dumps(hashed, sort_keys=True, default=str).encode()).hexdigest()[:6]
