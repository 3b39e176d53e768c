"""Training on many large frames: memory on the GPU and beside it, and what streaming costs a step.

    python benchmarks/training_scale.py --frames 1000 --size 1080 1920 --gpu-cache-gib 6 --out scale.json
    python benchmarks/training_scale.py --frames 30 --size 96 160 --steps 20 --method das3r-lite       # anywhere

The scene is made up (a textured wall in front of a camera that moves along it, one part of it "moving"), because memory
and time do not depend on what images show. `ns-train`'s own trainer runs; each row is a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import torch
import tyro

GIB = 2**30


def main(
    frames: int = 1000,
    size: tuple[int, int] = (1080, 1920),
    steps: int = 400,
    method: str = "das3r",
    gpu_cache_gib: tuple[float, ...] = (),
    cpu_cache_gib: float | None = None,
    out: Path | None = None,
) -> None:
    """Make the scene, train for some steps with each cache, print a table.

    Args:
        size: height and width of the frames.
        steps: steps of each training; the first tenth is not timed.
        gpu_cache_gib: GPU memory for images, one row each; the method's own choice when left out.
        cpu_cache_gib: main memory for decoded images; the method's own choice when left out.
        out: file for the rows as JSON.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene"
        begin = time.perf_counter()
        make_scene(scene, frames, size)
        print(f"scene of {frames} frames made in {time.perf_counter() - begin:.0f} s", flush=True)
        for cache in gpu_cache_gib or (None,):
            asked = {"scene": str(scene), "out": folder, "method": method, "steps": steps, "gpu": cache}
            asked["cpu"] = cpu_cache_gib
            command = [sys.executable, __file__, "--train", json.dumps(asked)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows.append({"cache_gib": cache, **json.loads(done.stdout.strip().splitlines()[-1])})
            print(rows[-1], flush=True)
            if out is not None:
                out.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    print("\n| GPU cache, GiB | set-up, s | ms a step | of it waiting for images | GPU, GiB | process, GiB |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        cache = "own choice" if row["cache_gib"] is None else f"{row['cache_gib']:g}"
        print(
            f"| {cache} | {row['setup_s']:.1f} | {row['step_ms']:.2f} | {row['wait_ms']:.2f} | {row['gpu_gib']:.1f} "
            f"| {row['process_gib']:.1f} |"
        )


def make_scene(folder: Path, frames: int, size: tuple[int, int]) -> None:
    """A scene folder with images of `size`; maps are as large as the geometric predictor makes them (432 wide)."""
    from das3r_ns.scene import PointCloud, Scene, write_scene

    height, width = size
    across = min(432, width)
    maps = (round(across * height / width), across)
    rng = np.random.default_rng(0)
    wall = cv2.resize(rng.integers(0, 256, (height // 8, width // 2, 3), np.uint8), (4 * width, height))
    T = torch.eye(4).repeat(frames, 1, 1)
    T[:, 0, 3] = torch.linspace(0, 3.0, frames)
    K = torch.tensor([[float(width), 0, width / 2], [0, width, height / 2], [0, 0, 1]]).repeat(frames, 1, 1)
    dynamic = torch.zeros(frames, *maps)
    dynamic[:, : maps[0] // 3, : maps[1] // 4] = 1
    scene = Scene(
        T_world_camera=T,
        K=K,
        image_size=size,
        depth=torch.ones(frames, *maps),
        confidence=torch.ones(frames, *maps),
        dynamic_prob=dynamic,
        points=PointCloud(
            torch.rand(100, 3), torch.zeros(100, 3, dtype=torch.uint8), torch.ones(100), torch.zeros(100).int()
        ),
        pose_known=torch.ones(frames, dtype=torch.bool),
        names=tuple(f"{i:05d}.png" for i in range(frames)),
    )
    small = torch.zeros(frames, 1, 1, 3, dtype=torch.uint8).expand(frames, height, width, 3)
    write_scene(scene, small, folder)

    def draw(i: int) -> None:
        left = round(float(T[i, 0, 3]) * width)
        cv2.imwrite(str(folder / "images" / f"frame_{i + 1:05d}.png"), wall[:, left : left + width])

    with ThreadPoolExecutor() as pool:
        list(pool.map(draw, range(frames)))


def train(asked: dict[str, Any]) -> dict[str, float]:
    """Train in this process, and measure it."""
    import copy

    from nerfstudio.configs.method_configs import all_methods
    from nerfstudio.scripts.train import _set_random_seed

    from das3r_ns.dataparser.frame_store import FrameStore

    config: Any = copy.deepcopy(all_methods[asked["method"]])
    config.pipeline.datamanager.data = Path(asked["scene"])
    config.pipeline.datamanager.gpu_cache_gib = asked["gpu"]
    config.pipeline.datamanager.cpu_cache_gib = asked["cpu"]
    config.output_dir, config.experiment_name, config.timestamp = Path(asked["out"]), "scale", str(asked["gpu"])
    config.vis, config.report, config.budget = "tensorboard", False, asked["steps"]
    config.logging.local_writer.enable = False
    config.steps_per_eval_batch = config.steps_per_eval_image = config.steps_per_eval_all_images = 0
    on_gpu = torch.cuda.is_available()
    config.machine.device_type = "cuda" if on_gpu else "cpu"
    peak, stop = [0], threading.Event()

    def watch() -> None:
        process = psutil.Process()
        while not stop.wait(0.05):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    _set_random_seed(0)
    config.save_config()
    begin = time.perf_counter()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    setup_s = time.perf_counter() - begin
    first, marks = asked["steps"] // 10, {}
    take = trainer.take_step

    def timed(step: int) -> Any:
        store = trainer.pipeline.datamanager.cached_train
        waited = store.waited_s if isinstance(store, FrameStore) else 0.0
        if step in (first, asked["steps"] - 1):
            if on_gpu:
                torch.cuda.synchronize()
            marks[step] = (time.perf_counter(), waited)
        return take(step)

    trainer.take_step = timed
    trainer.train()
    stop.set()
    (start, waited_before), (end, waited) = marks[first], marks[asked["steps"] - 1]
    count = asked["steps"] - 1 - first
    return {
        "setup_s": setup_s,
        "step_ms": 1e3 * (end - start) / count,
        "wait_ms": 1e3 * (waited - waited_before) / count,
        "gpu_gib": torch.cuda.max_memory_reserved() / GIB if on_gpu else 0.0,
        "process_gib": peak[0] / GIB,
        "gaussians": trainer.pipeline.model.num_points,
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        print(json.dumps(train(json.loads(sys.argv[2]))))
    else:
        tyro.cli(main)
