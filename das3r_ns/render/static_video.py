"""The static video: the input's own camera path without what moved, as it was filmed or steadier, at any size."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from das3r_ns.files.whole import check_output
from das3r_ns.render.cameras import at_height, check_height, sharp, stabilised_cameras
from das3r_ns.render.clip import clip_fps, clip_frames, clip_times, dynamic_prob
from das3r_ns.render.companions import DepthRange, mask_image, resized, to_8_bit
from das3r_ns.render.run import load_run
from das3r_ns.render.stabilised import check_sigma
from das3r_ns.video.writing import check_ending, steps_are_even, video_writer

if TYPE_CHECKING:
    from nerfstudio.cameras.cameras import Cameras

VIDEO_BYTES_A_PIXEL = 0.25
"""Of a video at its quality, rather more than less."""
DEFAULT_FPS = 30.0
"""Of a clip that does not say."""
RANGE_FRAMES = 8
"""Frames, spread over the clip, whose depths set the colours of the depth video."""


@dataclass(frozen=True)
class StaticVideo:
    """What was rendered."""

    path: Path
    """The video."""
    num_frames: int
    fps: float
    unseen: float
    """Share of all pixels that show no static surface, because none was ever seen there. They are left flat."""
    companions: tuple[Path, ...] = ()
    """Videos of depth and masks beside it."""


@dataclass(frozen=True)
class VideoOptions:
    """How a static video is made; see `render_static`."""

    side_by_side: bool = True
    fps: float | None = None
    stabilise_s: float = 0.0
    height: int | None = None
    depth: bool = False
    masks: bool = False

    def check(self) -> None:
        """
        Raises:
            ValueError: no video can be made so.
        """
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ValueError(f"a video of {self.fps} frames per second: give between 0 and 1000")
        if self.stabilise_s != 0:
            check_sigma(self.stabilise_s)
        if self.height is not None:
            check_height(self.height)


def render_static(
    load_config: Path,
    out: Path = Path("renders/static.mp4"),
    side_by_side: bool = True,
    fps: float | None = None,
    stabilise_s: float = 0.0,
    height: int | None = None,
    depth: bool = False,
    masks: bool = False,
) -> StaticVideo:
    """Render the input's own camera path from the static model, as a video with the input's times.

    Args:
        load_config: config.yml of a finished training run.
        out: video to write: .mp4, .mov, .m4v, .mkv, .webm or .avi.
        side_by_side: put the input at the left of the render.
        fps: frames per second of the video, in even steps. None shows each frame when the input does.
        stabilise_s: smooth the camera path over so many seconds (standard deviation; 0.3 takes out the shake of a hand,
            1 is a slow glide). Speed and turns that last longer stay. 0 is the path as it was filmed.
        height: rows of the render; the width follows. 2160 is 4K. None is the height of the input.
        depth: write a video of the depth as well: OUT_depth, one range of colours for the whole clip.
        masks: write a video of what was taken out of the input as well: OUT_masks, white on black, in the input's own
            views.

    Raises:
        RunError: there is no such run, nothing of it can be read, or it is of another method.
        ValueError: no video can be written to `out`, or none of this kind.
        OSError: the video cannot be written, or has too little room.
    """
    options = VideoOptions(side_by_side, fps, stabilise_s, height, depth, masks)
    options.check()
    check_ending(out)
    check_output(out, 0, "the video")
    return write_static_video(load_run(load_config), out, options)


def write_static_video(
    pipeline: Any,
    out: Path,
    options: VideoOptions | None = None,
    lock: AbstractContextManager[Any] | None = None,
) -> StaticVideo:
    """Render the input's own camera path of a run that is loaded, or in training.

    Args:
        options: how.
        lock: held while a frame is rendered, so that a training that goes on meanwhile is not in the middle of a step.

    Raises:
        ValueError: no video can be written to `out`, or none of this kind.
        OSError: the video cannot be written, or has too little room.
    """
    from nerfstudio.utils.rich_utils import CONSOLE
    from rich.progress import track

    options = options or VideoOptions()
    options.check()
    check_ending(out)
    frames, model = clip_frames(pipeline), pipeline.model
    rate = options.fps or clip_fps(pipeline) or DEFAULT_FPS
    times_s = clip_times(pipeline, len(frames))
    cameras = _cameras(model, frames, times_s or [i / rate for i in range(len(frames))], options)
    if options.fps is not None:
        times_s = None
    companions = {kind: out.with_stem(f"{out.stem}_{kind}") for kind in ("depth", "masks") if getattr(options, kind)}
    _check_room(out, cameras, options, len(companions))
    unseen = 0.0
    with ExitStack() as videos:
        write = videos.enter_context(video_writer(out, rate, times_s))
        beside = {kind: videos.enter_context(video_writer(path, rate, times_s)) for kind, path in companions.items()}
        depths = _depth_range(model, cameras, lock) if options.depth else None
        for (dataset, i), camera in track(
            list(zip(frames, cameras)), description=f"Rendering {len(frames)} frames", disable=lock is not None
        ):
            outputs = render_outputs(model, camera, lock)
            image = to_8_bit(outputs["rgb"])
            size = (image.shape[0], image.shape[1])
            unseen += float(outputs["unseen"].mean()) / len(frames)
            if options.side_by_side:
                image = np.concatenate((resized(dataset.get_numpy_image(i)[..., :3], size), image), axis=1)
            write(image)
            if depths is not None:
                beside["depth"](depths.colours(outputs))
            if options.masks:
                beside["masks"](mask_image(dynamic_prob(pipeline, dataset, i), size))
    at = f"{rate:g} fps" if times_s is None or steps_are_even(times_s) else "the input's times"
    CONSOLE.print(f"{out}: {len(frames)} frames at {at}.")
    for path in companions.values():
        CONSOLE.print(f"{path}: beside it.")
    if unseen > 1e-3:
        CONSOLE.print(_about_unseen(unseen, options))
    return StaticVideo(out, len(frames), rate, unseen, tuple(companions.values()))


def render_outputs(model: Any, camera: Cameras, lock: AbstractContextManager[Any] | None = None) -> dict[str, Tensor]:
    """The static model from a camera of the clip, without motion blur: the model's outputs.

    Args:
        lock: see `write_static_video`.
    """
    with nullcontext() if lock is None else lock:
        was_training = model.training
        model.eval()
        try:
            return model.get_outputs_for_camera(sharp(camera))
        finally:
            model.train(was_training)


def render_frame(
    model: Any, camera: Cameras, lock: AbstractContextManager[Any] | None = None
) -> tuple[UInt8[np.ndarray, "h w 3"], float]:
    """A frame of the clip from the static model, without motion blur, and the share of it that was never seen.

    Args:
        lock: see `write_static_video`.
    """
    outputs = render_outputs(model, camera, lock)
    return to_8_bit(outputs["rgb"]), float(outputs["unseen"].mean())


def _cameras(model: Any, frames: list[tuple[Any, int]], times_s: list[float], options: VideoOptions) -> list[Cameras]:
    cameras = [dataset.cameras[i : i + 1] for dataset, i in frames]
    if options.stabilise_s > 0:
        cameras = stabilised_cameras(model, cameras, times_s, options.stabilise_s)
    if options.height is not None:
        cameras = [at_height(camera, options.height) for camera in cameras]
    return cameras


def _check_room(out: Path, cameras: list[Cameras], options: VideoOptions, num_companions: int) -> None:
    pixels = sum(int(camera.height) * int(camera.width) for camera in cameras)
    images = (2 if options.side_by_side else 1) + num_companions
    check_output(out, int(VIDEO_BYTES_A_PIXEL * pixels * images), "the video")


def _depth_range(model: Any, cameras: list[Cameras], lock: AbstractContextManager[Any] | None) -> DepthRange:
    spread = np.linspace(0, len(cameras) - 1, min(RANGE_FRAMES, len(cameras))).round().astype(int)
    return DepthRange.of(render_outputs(model, cameras[i], lock) for i in spread)


def _about_unseen(share: float, options: VideoOptions) -> str:
    why = "something stood in front of them in every frame that looked there"
    if options.stabilise_s > 0:
        why += ", or no frame looked there: the steadier path sees past the edges of the input"
    return (
        f"{share:.1%} of its pixels were never seen: {why}. They continue what surrounds them (the output `unseen` "
        "says where)."
    )
