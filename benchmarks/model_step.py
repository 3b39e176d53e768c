"""Time of one training step, by Gaussians and image size, of ours and of plain splatfacto with the same Gaussians.

    python benchmarks/model_step.py                       # the standard table of this machine's device
    python benchmarks/model_step.py --gaussians 300000 --sizes 480p --methods das3r splatfacto

A step is what nerfstudio's trainer does between two frames: forward, loss, backward, density control, all optimizers
and schedulers; without disk, viewer and logs. `waits` counts how often a step stops for the GPU to answer (CUDA only;
gsplat's own tile sorting waits once). splatfacto needs a GPU.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.callbacks import TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers

from das3r_ns.evaluation.bench.training import as_baseline

SIZES = {"180p": (180, 320), "480p": (480, 854), "720p": (720, 1280), "1080p": (1080, 1920)}
FRAMES = 8

Method = Literal["das3r", "das3r-paper", "das3r-lite", "splatfacto"]


@dataclass(frozen=True)
class Timing:
    """One line of the table."""

    method: str
    size: str
    gaussians: int
    milliseconds: float
    memory_gib: float
    waits: float


def main(
    methods: tuple[Method, ...] = ("das3r", "splatfacto"),
    gaussians: tuple[int, ...] = (),
    sizes: tuple[str, ...] = (),
    steps: int = 50,
    out: Path | None = None,
) -> list[Timing]:
    """Print a table of step times.

    Args:
        gaussians: how many; without any, 0.1, 0.5, 1 and 3 million on a GPU, 20 and 50 thousand on a CPU.
        sizes: of 180p, 480p, 720p, 1080p; without any, the last three on a GPU and the first on a CPU.
        steps: steps timed for each line, after ten that are not.
        out: markdown file to write the table to.
    """
    on_gpu = torch.cuda.is_available()
    counts = gaussians or ((100_000, 500_000, 1_000_000, 3_000_000) if on_gpu else (20_000, 50_000))
    chosen = sizes or (("480p", "720p", "1080p") if on_gpu else ("180p",))
    lines = ["| method | size | Gaussians | ms a step | GiB | waits |", "|---|---|---|---|---|---|"]
    timings = []
    print("\n".join(lines))
    for method in methods:
        if method == "splatfacto" and not on_gpu:
            print("splatfacto is left out: it needs a GPU")
            continue
        for size in chosen:
            for count in counts:
                timing = measure(method, size, count, steps, torch.device("cuda" if on_gpu else "cpu"))
                timings.append(timing)
                lines.append(
                    f"| {method} | {size} | {count} | {timing.milliseconds:.2f} | {timing.memory_gib:.2f} "
                    f"| {timing.waits:.1f} |"
                )
                print(lines[-1], flush=True)
    if out is not None:
        out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return timings


def measure(method: Method, size: str, count: int, steps: int, device: torch.device) -> Timing:
    """Time of a step of one method."""
    step = training_step(method, SIZES[size], count, device)
    for number in range(10):
        step(number)
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    for number in range(10, 10 + steps):
        step(number)
    if device.type == "cuda":
        torch.cuda.synchronize()
    milliseconds = 1e3 * (time.perf_counter() - begin) / steps
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return Timing(
        method, size, count, milliseconds, memory, count_waits(step, 10 + steps) if device.type == "cuda" else 0
    )


def count_waits(step: Callable[[int], None], first: int, steps: int = 5) -> float:
    """How often a step waits for the GPU, by torch's own watch."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        for number in range(first, first + steps):
            step(number)
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught) / steps


def training_step(method: Method, size: tuple[int, int], count: int, device: torch.device) -> Callable[[int], None]:
    """A function that does one step of training on a random wall of Gaussians; called with the step's number."""
    from nerfstudio.configs.method_configs import all_methods

    run = copy.deepcopy(all_methods[method])
    if method == "splatfacto":
        as_baseline(run, masked=False)  # splatfacto itself would not start without the weights of LPIPS
    config: Any = run.pipeline.model
    # Neither growth nor smaller images: the same Gaussians and pixels in every step and method.
    config.num_downscales, config.warmup_length, config.sh_degree = 0, 10**6, 3
    cameras, images, metadata = wall(size, count, device)
    model: Any = config.setup(
        scene_box=SceneBox(aabb=torch.tensor([[-1.0, -1, -1], [1, 1, 1]])),
        num_train_data=FRAMES,
        metadata=metadata,
        device=device,
        seed_points=(metadata["points3D_xyz"], metadata["points3D_rgb"]),
        grad_scaler=None,
    )
    model.to(device)
    if hasattr(model, "set_training_cameras"):
        model.set_training_cameras(cameras, torch.arange(FRAMES))
    model.train()
    groups = model.get_param_groups()
    optimizers = Optimizers({name: run.optimizers[name] for name in groups}, groups)
    attributes = TrainingCallbackAttributes(optimizers=optimizers, grad_scaler=None, pipeline=None, trainer=None)  # type: ignore[arg-type]
    callbacks = model.get_training_callbacks(attributes)
    on_device = cameras.to(device)

    def step(number: int) -> None:
        frame = number % FRAMES
        for callback in callbacks:
            callback.run_callback_at_location(number, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
        camera = on_device[frame : frame + 1]
        camera.metadata = {"cam_idx": frame}
        batch = {"image": images[frame], "image_idx": frame}
        optimizers.zero_grad_all()
        outputs = model(camera)
        metrics = model.get_metrics_dict(outputs, batch)
        loss = sum(model.get_loss_dict(outputs, batch, metrics).values())
        loss.backward()
        for optimizer in optimizers.optimizers.values():
            optimizer.step()
        for scheduler in optimizers.schedulers.values():
            scheduler.step()
        for callback in callbacks:
            callback.run_callback_at_location(number, TrainingCallbackLocation.AFTER_TRAIN_ITERATION)

    return step


def wall(size: tuple[int, int], count: int, device: torch.device) -> tuple[Cameras, list[torch.Tensor], dict[str, Any]]:
    """Cameras in front of a wall of seed points that fills their images, the images, and the dataparser's
    metadata."""
    height, width = size
    generator = torch.Generator().manual_seed(0)
    xyz = torch.rand(count, 3, generator=generator)
    xyz = (xyz - 0.5) * torch.tensor([1.2 * width / height, 1.2, 0.2]) - torch.tensor([0.0, 0.0, 1.2])
    poses = torch.eye(4)[:3].repeat(FRAMES, 1, 1)
    poses[:, 0, 3] = torch.linspace(-0.1, 0.1, FRAMES)
    column = torch.ones(FRAMES, 1)
    cameras = Cameras(
        camera_to_worlds=poses, fx=column * height, fy=column * height, cx=column * width / 2, cy=column * height / 2,
        width=(column * width).long(), height=(column * height).long(), camera_type=CameraType.PERSPECTIVE,
    )  # fmt: skip
    maps = (FRAMES, height // 2, width // 2)
    metadata = {
        "points3D_xyz": xyz,
        "points3D_rgb": torch.randint(0, 256, (count, 3), dtype=torch.uint8, generator=generator),
        "points3D_scale": torch.full((count,), 1.0 / height),
        "points3D_staticness": torch.ones(count),
        "points3D_pixel": torch.zeros(count, 3, dtype=torch.int32),
        "dynamic_prob": torch.zeros(maps),
        "depth": torch.ones(maps),
        "confidence": torch.ones(maps),
    }
    images = [torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, device=device) for _ in range(FRAMES)]
    return cameras, images, metadata


if __name__ == "__main__":
    tyro.cli(main)
