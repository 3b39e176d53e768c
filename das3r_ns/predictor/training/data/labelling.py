"""Make the dynamic labels of a PointOdyssey sequence: 3-D tracks and depth in, one small image a frame out.

Labels are written to a folder beside their place, named after the settings, and moved when the sequence is done: an
interrupted run goes on where it stopped, and other settings never mix.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from das3r_ns import geometry
from das3r_ns.predictor.training.data.pointodyssey import (
    LABEL_FORMAT,
    LABELS,
    Cameras,
    depth_path,
    label_path,
    read_cameras,
    read_depth,
    read_labels,
    read_tracks,
    rgb_path,
)
from das3r_ns.predictor.training.data.sources import BadDataError, Problem
from das3r_ns.predictor.training.data.tracks import MAX_STRIDE, MIN_TRACKS, Tracks, label_pixels, moved, pack


@dataclass(frozen=True)
class LabelSettings:
    """What the labels of a sequence depend on."""

    max_stride: int
    motion_threshold: float

    def __post_init__(self) -> None:
        if not 1 <= self.max_stride <= MAX_STRIDE:
            raise ValueError(f"max_stride is {self.max_stride}; labels hold distances of 1 to {MAX_STRIDE} frames")
        if not self.motion_threshold >= 0:
            raise ValueError(f"motion_threshold is {self.motion_threshold}; expected a distance of 0 or more")


@dataclass(frozen=True)
class LabelReport:
    """How a sequence went."""

    frames: int
    """Frames that have labels now."""
    problems: list[Problem]


def frame_numbers(sequence: Path) -> list[int]:
    """Numbers of the frames that have an image or a depth map."""
    stems = [path.stem for kind in ("rgbs", "depths") for path in (sequence / kind).glob("*_[0-9]*.*")]
    return sorted({int(stem.rpartition("_")[2]) for stem in stems})


def label_sequence(sequence: Path, settings: LabelSettings, advance: Callable[[], None]) -> LabelReport:
    """Label all frames of a sequence, unless that is done already. What cannot be labelled is reported, not raised.

    Args:
        advance: called once for each frame.
    """
    done = _already_labelled(sequence, settings)
    if done is not None:
        for _ in frame_numbers(sequence):
            advance()
        return done
    partial = sequence / f".{LABELS}.{settings.max_stride}.{settings.motion_threshold:g}.part"
    partial.mkdir(exist_ok=True)
    problems: list[Problem] = []
    labelled: list[int] = []
    try:
        tracks, problems = read_tracks(sequence)
        cameras = read_cameras(sequence)
        numbers = frame_numbers(sequence)
        for frame in numbers:
            place = partial / label_path(sequence, frame).name
            try:
                if not place.exists():
                    if frame >= min(len(tracks), len(cameras)):
                        raise BadDataError(rgb_path(sequence, frame), f"has no camera: there are {len(cameras)}")
                    _write_image(place, _label_frame(sequence, frame, tracks, cameras, settings))
                labelled.append(frame)
            except BadDataError as error:
                problems.append(error.problem)
            advance()
    except BadDataError as error:
        problems.append(error.problem)
    record = {
        "format": LABEL_FORMAT,
        **asdict(settings),
        "frames": labelled,
        "problems": [asdict(problem) for problem in problems],
    }
    (partial / "labels.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    shutil.rmtree(sequence / LABELS, ignore_errors=True)
    os.replace(partial, sequence / LABELS)
    for abandoned in sequence.glob(f".{LABELS}.*.part"):  # begun with other settings
        shutil.rmtree(abandoned, ignore_errors=True)
    return LabelReport(len(labelled), problems)


def _already_labelled(sequence: Path, settings: LabelSettings) -> LabelReport | None:
    """The report of an earlier run with these settings; None if there was none, or it left out anything."""
    try:
        labels = read_labels(sequence)
    except BadDataError:
        return None
    same = all(labels.get(name) == value for name, value in asdict(settings).items())
    if not same or labels["frames"] != frame_numbers(sequence):
        return None  # what was left out then is tried again: the files may have been repaired
    return LabelReport(len(labels["frames"]), [Problem(**problem) for problem in labels["problems"]])


def _label_frame(sequence: Path, frame: int, tracks: Tracks, cameras: Cameras, settings: LabelSettings) -> np.ndarray:
    chosen, labels = moved(tracks, frame, settings.max_stride, settings.motion_threshold)
    if len(chosen) < MIN_TRACKS:
        raise BadDataError(
            depth_path(sequence, frame), f"{len(chosen)} tracks are usable around it; labels need {MIN_TRACKS}"
        )
    depth = torch.from_numpy(read_depth(sequence, frame))
    in_camera = geometry.unproject(depth, torch.from_numpy(cameras.K[frame]))
    points = geometry.transform(torch.from_numpy(cameras.T_world_camera[frame]), in_camera)
    track_points = tracks.world[frame, chosen].astype(np.float32)
    return pack(label_pixels(points.numpy(), (depth > 0).numpy(), track_points, labels))


def _write_image(place: Path, image: np.ndarray) -> None:
    encoded, data = cv2.imencode(".png", image)
    if not encoded:
        raise OSError(f"could not encode {place.name}")
    partial = place.with_suffix(".part")
    partial.write_bytes(data.tobytes())
    os.replace(partial, place)
