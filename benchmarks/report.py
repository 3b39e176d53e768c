"""How long `das3r report` takes, and how large the page is, for a long clip.

    python benchmarks/report.py                              # 300 frames of 854x480
    python benchmarks/report.py --num-frames 600 --size 720 1280 --keep page.html

The scene is synthetic: frames that all differ, with their true depth and masks as a perfect predictor writes them (maps
of half the size). The command is another process; its time is that of the whole command, start of Python included. The
page is parsed by html5lib's strict parser.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import html5lib
import numpy as np
import torch
import tyro

from das3r_ns.scene import PointCloud, Scene, write_scene

DEPTH = 3.0
"""Of the wall, in the scene's units."""


@dataclass
class Options:
    """What to measure."""

    num_frames: int = 300
    """Length of the clip."""
    size: tuple[int, int] = (480, 854)
    """Height and width of the frames."""
    threads: int = 2
    """Processor threads."""
    keep: Path | None = None
    """Where to copy the page, to look at it."""
    scene: Path | None = None
    """Scene folder to report on, in the place of the synthetic one; it is made there if nothing is there yet."""


def main(options: Options) -> None:
    with tempfile.TemporaryDirectory(prefix="das3r-report-") as place:
        scene, page = options.scene or Path(place) / "scene", Path(place) / "report.html"
        if not scene.exists():
            make_scene(scene, options.num_frames, *options.size)
        settings = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "NUMBA_NUM_THREADS": str(options.threads)}
        command = [sys.executable, "-m", "das3r_ns.cli", "report", str(scene), "--out", str(page)]
        start, before = time.perf_counter(), os.times()
        subprocess.run(command, env=settings, check=True, stdout=subprocess.DEVNULL)
        seconds, after = time.perf_counter() - start, os.times()
        processor = after.children_user + after.children_system - before.children_user - before.children_system
        html5lib.HTMLParser(strict=True).parse(page.read_text(encoding="utf-8"))
        size = f"{options.size[1]}x{options.size[0]}" if options.scene is None else "as it is"
        print("| size | frames | wall, s | processor, s | page, MB | valid HTML |", "|---" * 6 + "|", sep="\n")
        frames = len(list((scene / "images").iterdir()))
        print(f"| {size} | {frames} | {seconds:.1f} | {processor:.1f} | {page.stat().st_size / 1e6:.1f} | yes |")
        if options.keep is not None:
            shutil.copyfile(page, options.keep)


def make_scene(folder: Path, num_frames: int, height: int, width: int) -> Path:
    """A scene folder of a camera that slides past a textured wall before which discs move, with its true depth and
    masks. Cheap to make, and as hard to encode as a real clip."""
    rng, n = np.random.default_rng(0), num_frames
    half, focal = (height // 2, width // 2), 0.9 * width
    reach = width + 2 * n
    wall = sum(
        cv2.resize(rng.normal(0, 30, (max(2, height // k), max(2, reach // k), 3)), (reach, height)) for k in (2, 8, 48)
    )
    wall = np.clip(128 + wall, 0, 255).astype(np.uint8)
    frames = np.empty((n, height, width, 3), np.uint8)
    depth, moving = np.full((n, *half), DEPTH, np.float32), np.zeros((n, *half), np.float32)
    for i in range(n):
        frames[i] = wall[:, 2 * i : 2 * i + width]
        for k in range(3):
            x = int(width * (0.5 + 0.45 * np.sin(0.05 * i + 2 * k)))
            cv2.circle(frames[i], (x, height * (k + 1) // 4), height // 10, (200, 60 * k, 40), -1)
            for values, value in ((depth[i], (DEPTH / 2,)), (moving[i], (1.0,))):
                cv2.circle(values, (x // 2, height * (k + 1) // 8), height // 20, value, -1)
        frames[i] = np.clip(frames[i] + rng.integers(-2, 3, frames[i].shape), 0, 255)  # a sensor's noise
    T = torch.eye(4).repeat(n, 1, 1)
    T[:, 0, 3] = torch.arange(n) * 2 * DEPTH / focal
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]).repeat(n, 1, 1)
    across = torch.from_numpy(rng.uniform((0, -1, DEPTH), (float(T[-1, 0, 3]), 1, DEPTH), (50_000, 3))).float()
    points = PointCloud(
        across,
        torch.full((len(across), 3), 128, dtype=torch.uint8),
        torch.ones(len(across)),
        torch.zeros(len(across), dtype=torch.int32),
    )
    scene = Scene(
        T_world_camera=T, K=K, image_size=(height, width), depth=torch.from_numpy(depth),
        confidence=torch.ones(n, *half), dynamic_prob=torch.from_numpy(moving), points=points,
        pose_known=torch.ones(n, dtype=torch.bool), names=tuple(f"{i:05d}.png" for i in range(n)), fps=30.0,
    )  # fmt: skip
    return write_scene(scene, torch.from_numpy(frames), folder)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
