"""Lenses that are more than a pinhole: what is found, and how exact the cameras are.

    python benchmarks/lenses.py                               # synthetic clips, whose truth is known
    python benchmarks/lenses.py --only barrel "zoom, halted"
    python benchmarks/lenses.py --pinhole                     # as if every lens were one, for comparison

Each clip is rendered larger by a pinhole, then bent by OpenCV's polynomial or enlarged frame by frame, and cut. Cameras
are found as the predictor finds them, without depth and masks.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
import tyro

from das3r_ns.evaluation.metrics.poses import pose_errors
from das3r_ns.predictor.cameras.config import MappingConfig
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.geometric.predictor import GeometricPredictor
from das3r_ns.synthetic import SyntheticConfig, make_clip
from das3r_ns.video.clip import Clip

FRAMES = 30
HALTED = np.clip((np.arange(FRAMES) - 8) / 12, 0, 1)
"""A zoom that begins and ends within the clip."""


@dataclass(frozen=True)
class Subject:
    """A clip and what its lens does."""

    scene: SyntheticConfig
    k1: float = 0.0
    zoom: np.ndarray = field(default_factory=lambda: np.ones(FRAMES))
    larger: float = 1.0
    """How much larger the clip is rendered, so that a barrel has something to show in its corners."""


def _wide(**more: object) -> SyntheticConfig:
    return replace(SyntheticConfig(num_frames=FRAMES, seed=1, field_of_view=75.0), **more)


def _usual(**more: object) -> SyntheticConfig:
    return replace(SyntheticConfig(num_frames=FRAMES, seed=0), **more)


SUBJECTS = {
    "pinhole": Subject(_usual()),
    "pinhole, orbit": Subject(_usual(camera="orbit")),
    "pinhole, forward": Subject(_usual(camera="forward")),
    "pinhole, pan": Subject(_usual(camera="rotation")),
    "pinhole, 100 degrees": Subject(_usual(field_of_view=100.0)),
    "barrel": Subject(_wide(), k1=-0.15, larger=1.4),
    "barrel, orbit": Subject(_wide(camera="orbit"), k1=-0.15, larger=1.4),
    "barrel, forward": Subject(_wide(camera="forward"), k1=-0.15, larger=1.4),
    "barrel, pan": Subject(_wide(camera="rotation"), k1=-0.15, larger=1.4),
    "barrel, much moves": Subject(_wide(seed=3, mover_size=1.6, movers=3, field_of_view=80.0), k1=-0.2, larger=1.4),
    "barrel, strong": Subject(_wide(seed=0), k1=-0.3, larger=1.6),
    "barrel, portrait": Subject(_wide(seed=2, width=180, height=320, field_of_view=45.0), k1=-0.15, larger=1.3),
    "pincushion": Subject(_wide(), k1=0.1, larger=1.3),
    "zoom in": Subject(_usual(camera="orbit"), zoom=np.linspace(1, 1.4, FRAMES)),
    "zoom out": Subject(_usual(camera="orbit"), zoom=np.linspace(1.4, 1, FRAMES)),
    "zoom, halted": Subject(_usual(seed=1), zoom=1.6**HALTED),
    "zoom, much moves": Subject(_usual(seed=3, mover_size=1.6, movers=3), zoom=np.linspace(1, 1.3, FRAMES)),
    "zoom, pan": Subject(_usual(camera="rotation"), zoom=np.linspace(1, 1.4, FRAMES)),
    "zoom, tripod": Subject(_usual(camera="tripod"), zoom=np.linspace(1, 1.4, FRAMES)),
    "zoom, forward": Subject(_usual(camera="forward"), zoom=np.linspace(1, 1.4, FRAMES)),
}
HEADER = "| clip | true focal length, px | found | largest error, % | distortion found | ATE, % of path | CPU s/frame |"


@dataclass
class Options:
    """What to measure."""

    only: tuple[str, ...] = ()
    """Names of the clips to measure; all when empty."""
    pinhole: bool = False
    """Take every lens for a pinhole."""


def filmed(subject: Subject) -> tuple[Clip, torch.Tensor, np.ndarray]:
    """The clip, its true cameras and the focal length of each frame."""
    scene = subject.scene
    focal = scene.width / (2 * np.tan(np.radians(scene.field_of_view) / 2))
    height, width = (2 * round(side * subject.larger / 2) for side in (scene.height, scene.width))
    angle = float(np.degrees(2 * np.arctan(width / (2 * focal))))
    truth = make_clip(replace(scene, height=height, width=width, field_of_view=angle))
    v, u = np.mgrid[: scene.height, : scene.width] + 0.5
    x, y = (u - scene.width / 2) / focal, (v - scene.height / 2) / focal
    frames = []
    for frame, zoom in zip(truth.frames.numpy(), subject.zoom):
        scale = _undistorted_radius(np.hypot(x, y), subject.k1) / np.maximum(np.hypot(x, y), 1e-12) / zoom
        at = (scale * x * focal + width / 2 - 0.5, scale * y * focal + height / 2 - 0.5)
        u_at, v_at = (a.astype(np.float32) for a in at)
        frames.append(cv2.remap(frame, u_at, v_at, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT))
    names = tuple(f"{i:05d}" for i in range(len(frames)))
    return Clip(torch.from_numpy(np.stack(frames)), scene.fps, names), truth.T_world_camera, focal * subject.zoom


def _undistorted_radius(distorted: np.ndarray, k1: float) -> np.ndarray:
    r = distorted.copy()
    for _ in range(50):
        r -= (r * (1 + k1 * r**2) - distorted) / np.maximum(1 + 3 * k1 * r**2, 0.05)
    return r


def row(name: str, subject: Subject, pinhole: bool) -> str:
    clip, T_world_camera, focal = filmed(subject)
    config = GeometricPredictorConfig(mapping=MappingConfig(lens="pinhole" if pinhole else "auto"))
    start = time.process_time()
    path = GeometricPredictor(config).cameras(clip)
    seconds = (time.process_time() - start) / len(clip)
    found = path.focal_px * (np.ones(len(clip)) if path.zoom is None else path.zoom)
    error = 100 * np.abs(found / focal - 1).max()
    try:
        errors = pose_errors(torch.from_numpy(path.T_world_camera), T_world_camera.double())
        ate = f"{100 * errors.ate / errors.path_length:.2f}"
    except ValueError:  # the true camera stands still or turns on the spot
        ate = ""
    true, measured = (_span(values) for values in (focal, found))
    return f"| {name} | {true} | {measured} | {error:.1f} | {path.lens or ''} | {ate} | {seconds:.2f} |"


def _span(values: np.ndarray) -> str:
    low, high = values.min(), values.max()
    return f"{low:.0f}" if high < 1.001 * low else f"{low:.0f} to {high:.0f}"


def main(options: Options) -> None:
    torch.set_num_threads(1)
    print(f"{HEADER}\n{'|---' * (HEADER.count('|') - 1)}|")
    for name in options.only or SUBJECTS:
        print(row(name, SUBJECTS[name], options.pinhole), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
