"""The static video: the input's own camera path without what moved. And the PLY, with a choice of what stays in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from das3r_ns.files.whole import check_output, whole_file
from das3r_ns.runs.config_file import RunError
from das3r_ns.video.writing import check_ending, steps_are_even, video_writer

if TYPE_CHECKING:
    from nerfstudio.cameras.cameras import Cameras

    from das3r_ns.runs.loading import LoadedRun


SPLAT_BYTES = 62 * 4
"""Of one Gaussian in a PLY: position, normal, harmonics to degree 3, opacity, scale, rotation."""
MIN_EXPORTED_LOGIT = -5.5373
"""Of an opacity: nerfstudio's exporter leaves out Gaussians below, an opacity of 1 / 255."""
VIDEO_BYTES_A_PIXEL = 0.25
"""Of a video at its quality, rather more than less."""


@dataclass(frozen=True)
class StaticVideo:
    """What was rendered."""

    path: Path
    """The video."""
    num_frames: int
    fps: float
    unseen: float
    """Share of all pixels that show no static surface, because none was ever seen there. They are left flat."""


def render_static(
    load_config: Path, out: Path = Path("renders/static.mp4"), side_by_side: bool = True, fps: float | None = None
) -> StaticVideo:
    """Render the input's own camera path from the static model, as a video with the input's times.

    Args:
        load_config: config.yml of a finished training run.
        out: video to write: .mp4, .mov, .m4v, .mkv, .webm or .avi.
        side_by_side: put the input at the left of the render.
        fps: frames per second of the video, in even steps. None shows each frame when the input does.

    Raises:
        RunError: there is no such run, nothing of it can be read, or it is of another method.
        ValueError: no video can be written to `out`.
        OSError: the video cannot be written, or has too little room.
    """
    check_ending(out)
    check_output(out, 0, "the video")
    return write_static_video(load_run(load_config), out, side_by_side, fps)


def write_static_video(
    pipeline: Any,
    out: Path,
    side_by_side: bool = True,
    fps: float | None = None,
    lock: AbstractContextManager[Any] | None = None,
) -> StaticVideo:
    """Render the input's own camera path of a run that is loaded, or in training.

    Args:
        lock: held while a frame is rendered, so that a training that goes on meanwhile is not in the middle of a step.
        others: as in `render_static`.

    Raises:
        ValueError: no video can be written to `out`.
        OSError: the video cannot be written, or has too little room.
    """
    from nerfstudio.utils.rich_utils import CONSOLE
    from rich.progress import track

    check_ending(out)
    frames = clip_frames(pipeline)
    height, width = frames[0][0].get_numpy_image(frames[0][1]).shape[:2]
    check_output(out, int(VIDEO_BYTES_A_PIXEL * len(frames) * height * width * (2 if side_by_side else 1)), "the video")
    rate = fps or clip_fps(pipeline) or 30.0
    times_s = clip_times(pipeline, len(frames)) if fps is None else None
    unseen = 0.0
    with video_writer(out, rate, times_s) as write:
        for dataset, i in track(frames, description=f"Rendering {len(frames)} frames", disable=lock is not None):
            image, unseen_share = render_frame(pipeline.model, dataset.cameras[i : i + 1], lock)
            unseen += unseen_share / len(frames)
            write(np.concatenate((dataset.get_numpy_image(i)[..., :3], image), axis=1) if side_by_side else image)
    at = f"{rate:g} fps" if times_s is None or steps_are_even(times_s) else "the input's times"
    CONSOLE.print(f"{out}: {len(frames)} frames at {at}.")
    if unseen > 1e-3:
        CONSOLE.print(
            f"{unseen:.1%} of its pixels were never seen: something stood in front of them in every frame that looked "
            "there. They continue what surrounds them (the output `unseen` says where)."
        )
    return StaticVideo(out, len(frames), rate, unseen)


def render_frame(
    model: Any, camera: Cameras, lock: AbstractContextManager[Any] | None = None
) -> tuple[UInt8[np.ndarray, "h w 3"], float]:
    """A frame of the clip from the static model, without motion blur, and the share of it that was never seen.

    Args:
        lock: see `write_static_video`.
    """
    with nullcontext() if lock is None else lock:
        was_training = model.training
        model.eval()
        try:
            outputs = model.get_outputs_for_camera(_sharp(camera))
        finally:
            model.train(was_training)
        image = (outputs["rgb"] * 255).round().byte().cpu().numpy()
        return image, float(outputs["unseen"].mean())


def export_splat(load_config: Path, out: Path = Path("exports/splat.ply"), keep_dynamic: bool = False) -> Path:
    """Write the model as a PLY, as `ns-export gaussian-splat` does, with a say in what is kept.

    Args:
        load_config: config.yml of a finished training run.
        out: PLY file to write.
        keep_dynamic: write Gaussians that are not static as well, instead of leaving out those whose staticness is
            below the method's `cull_staticness`.

    Raises:
        RunError: there is no such run, nothing of it can be read, or it is of another method.
        OSError: the file cannot be written, or has too little room; one that was there before is still whole.
    """
    from das3r_ns.runs import loading

    check_output(out, 0, "the splat")
    return write_splat(loading.load_run(load_config, "inference", change=_ours(load_config, keep_dynamic)), out)


def write_splat(run: LoadedRun, out: Path) -> Path:
    """Write the model of a loaded run as a PLY, as `export_splat`.

    Raises:
        OSError: the file cannot be written, or has too little room; one that was there before is still whole.
    """
    from nerfstudio.scripts import exporter

    from das3r_ns.runs.host import loaded_already

    model = run.pipeline.model
    if not bool((model.opacities > MIN_EXPORTED_LOGIT).any()):
        raise ValueError(
            f"none of the {model.num_points} Gaussians would be in the splat: none is as static as the cut of "
            f"staticness, {model.cull_staticness:.2f}, and visible. Lower the cut in the viewer, or keep all with "
            "--keep-dynamic."
        )
    check_output(out, SPLAT_BYTES * int(model.num_points), "the splat")
    with whole_file(out, what="the splat") as part, loaded_already(exporter, run):
        exporter.ExportGaussianSplat(
            load_config=run.config_path, output_dir=part.parent, output_filename=part.name
        ).main()
    return out


def load_run(load_config: Path) -> Any:
    """Pipeline of a finished run, in evaluation mode, its cameras refined.

    Raises:
        RunError: there is no such run, or it is of another method.
    """
    from das3r_ns.runs import loading

    return loading.load_run(load_config, "test", change=_ours(load_config)).pipeline


def _ours(load_config: Path, keep_dynamic: bool | None = None) -> Callable[[Any], Any]:
    """Check that a config is of one of our methods, and say what is shown."""
    from das3r_ns.model.config import Das3rModelConfig

    def change(config: Any) -> Any:
        if not isinstance(config.pipeline.model, Das3rModelConfig):
            raise RunError(
                f"{load_config} is a run of {config.method_name}; das3r, das3r-paper and das3r-lite can be shown here"
            )
        if keep_dynamic is not None:
            config.pipeline.model.keep_dynamic = keep_dynamic
        return config

    return change


def _sharp(camera: Cameras) -> Cameras:
    """A camera of the clip that leaves no motion blur; its exposure stays."""
    kept = {name: value for name, value in (camera.metadata or {}).items() if name != "camera_motion"}
    return replace(camera, metadata=kept)


def refined_camera(model: Any, camera: Cameras) -> Cameras:
    """A camera of the clip, a batch of one and free to be changed, as training has refined it by now."""
    index = (camera.metadata or {}).get("frame_index")
    if index is not None:
        poses, factors = model.camera_optimizer.refine(camera.to(model.device), index)
        camera.camera_to_worlds = poses.detach().to(camera.camera_to_worlds)
        camera.fx, camera.fy = (focal * factors.to(focal)[:, None] for focal in (camera.fx, camera.fy))
    return camera


def clip_frames(pipeline: Any) -> list[tuple[Any, int]]:
    """Every frame of the clip in order, held-out ones included, as (dataset, number in it)."""
    frames: dict[int, tuple[Any, int]] = {}
    for dataset in (pipeline.datamanager.eval_dataset, pipeline.datamanager.train_dataset):
        if dataset is None:
            continue
        metadata = dataset.cameras.metadata or {}
        places = metadata["frame_index"].flatten().tolist() if "frame_index" in metadata else range(len(dataset))
        frames.update({int(place): (dataset, i) for i, place in enumerate(places)})
    return [frames[place] for place in sorted(frames)]


def clip_fps(pipeline: Any) -> float | None:
    """Frames per second of the clip, from its scene folder; None for data that has none."""
    described = _scene_description(pipeline)
    return None if described is None else float(described.get("fps", 30.0))


def clip_times(pipeline: Any, num_frames: int) -> list[float] | None:
    """When each frame of the clip is shown, seconds, from its scene folder; None where it does not say."""
    times_s = (_scene_description(pipeline) or {}).get("times_s")
    return times_s if isinstance(times_s, list) and len(times_s) == num_frames > 1 else None


def _scene_description(pipeline: Any) -> dict[str, Any] | None:
    dataset = pipeline.datamanager.train_dataset
    folder = None if dataset is None else dataset.metadata.get("scene_folder")
    described = None if folder is None else Path(folder) / "predictor.json"
    if described is None or not described.is_file():
        return None
    return json.loads(described.read_text(encoding="utf-8"))
