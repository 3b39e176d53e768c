"""The two halves of the report's video: input, and the static render or, without a run, what moves."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from das3r_ns.render.cameras import refined_camera
from das3r_ns.render.clip import clip_frames
from das3r_ns.render.static_video import render_frame
from das3r_ns.report.images import fitted, with_mask
from das3r_ns.scene import Scene

LONGEST_SIDE_PX = 480
"""Of either half."""
MAX_FRAMES = 300
"""Longer clips show every second frame, third, and so on."""
MAX_RENDER_S = 12.0
"""For all frames. A CPU that draws slower than that leaves frames out."""
TRIAL_FRAMES = 2
AHEAD = 4
"""Frames that are read while others are encoded."""


@dataclass(frozen=True)
class Halves:
    """Images of the video, both halves side by side, as they are asked for."""

    places: Sequence[int]
    """Frames of the clip that are shown."""
    size: tuple[int, int]
    images: Iterator[UInt8[np.ndarray, "h w 3"]]
    unseen: list[float]
    """Filled while the images are drawn: share of each that shows no surface."""


def thumbnail(path: Path, longest_side: int = LONGEST_SIDE_PX) -> UInt8[np.ndarray, "h w 3"]:
    """An image of the scene folder, small.

    Raises:
        ValueError: it cannot be read.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path} is missing or is not an image. Predict the scene again, or restore the file.")
    return fitted(np.ascontiguousarray(image[..., ::-1]), longest_side)


def halves_of_scene(scene: Scene, paths: Sequence[Path]) -> Halves:
    """Input, and the input with what moves in red."""
    places = range(0, len(paths), _stride(len(paths)))
    height, width = thumbnail(paths[0]).shape[:2]

    def images() -> Iterator[np.ndarray]:
        for place, image in zip(places, _read_ahead([paths[i] for i in places])):
            yield np.concatenate((image, with_mask(image, scene.dynamic_prob[place].numpy())), axis=1)

    return Halves(places, (height, 2 * width), images(), [])


def halves_of_run(pipeline: Any, paths: Sequence[Path], lock: AbstractContextManager[Any] | None) -> Halves:
    """Input and static render, in as many frames as can be drawn in time."""
    frames, model = clip_frames(pipeline), pipeline.model
    height, width = thumbnail(paths[0]).shape[:2]

    def render(place: int) -> tuple[np.ndarray, float]:
        dataset, i = frames[place]
        camera = refined_camera(model, dataset.cameras[i : i + 1])
        camera.rescale_output_resolution(width / int(camera.width))
        model.guesses_wanted = False
        try:
            image, unseen = render_frame(model, camera, lock)
        finally:
            model.guesses_wanted = True
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), unseen

    render(0)  # kernels are loaded by the first
    start = time.perf_counter()
    for i in range(TRIAL_FRAMES):
        render(i * (len(frames) - 1) // TRIAL_FRAMES)
    all_frames_s = (time.perf_counter() - start) / TRIAL_FRAMES * len(frames)
    places = range(0, len(frames), max(_stride(len(frames)), int(np.ceil(all_frames_s / MAX_RENDER_S))))
    unseen: list[float] = []

    def images() -> Iterator[np.ndarray]:
        for place, image in zip(places, _read_ahead([paths[i] for i in places])):
            drawn, share = render(place)
            unseen.append(share)
            yield np.concatenate((image, drawn), axis=1)

    return Halves(places, (height, 2 * width), images(), unseen)


def _stride(num_frames: int) -> int:
    return -(-num_frames // MAX_FRAMES)


def _read_ahead(paths: Sequence[Path]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(thumbnail, path) for path in paths[:AHEAD]]
        for i in range(len(paths)):
            if i + AHEAD < len(paths):
                waiting.append(pool.submit(thumbnail, paths[i + AHEAD]))
            yield waiting[i].result()
            waiting[i] = None  # type: ignore[call-overload]  # else the whole clip would stay in memory
