"""A tiny clip and a tiny training run of it, for the tests that need nerfstudio's trainer."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from das3r_ns import geometry
from das3r_ns.scene import PointCloud, Scene, write_scene
from das3r_ns.synthetic import SyntheticConfig, make_clip

STEPS = 16
FRAMES = 8


def scene_from_truth(folder: Path, config: SyntheticConfig | None = None) -> Path:
    """A scene folder of a synthetic clip as a perfect predictor would write it."""
    clip = make_clip(config or SyntheticConfig(num_frames=FRAMES, height=48, width=64))
    n, h, w = clip.depth.shape
    T_level_world = geometry.level_world(clip.T_world_camera, float(clip.clean_depth.median()))
    T_world_camera, scale = geometry.apply_similarity(T_level_world, clip.T_world_camera)
    static = ~clip.dynamic_mask[0]
    K = clip.K.repeat(n, 1, 1)
    xyz = geometry.transform(T_world_camera[0], geometry.unproject(clip.depth[:1] * scale, K[:1])[0][static])
    scene = Scene(
        T_world_camera=T_world_camera,
        K=K,
        image_size=(h, w),
        depth=clip.depth * scale,
        confidence=torch.ones(n, h, w),
        dynamic_prob=clip.dynamic_mask.float(),
        points=PointCloud(xyz, clip.frames[0][static], torch.ones(len(xyz)), torch.zeros(len(xyz), dtype=torch.int32)),
        pose_known=torch.ones(n, dtype=torch.bool),
        names=tuple(f"{i:05d}.png" for i in range(n)),
        fps=12.0,
    )
    return write_scene(scene, clip.frames, folder)


def tiny_config(method: str, scene: Path, out: Path) -> Any:
    """Config of a method, for `STEPS` steps without viewer. Schedules do not wait."""
    from das3r_ns import config as methods

    config = copy.deepcopy(getattr(methods, method.replace("-", "_")).config)
    config.data, config.output_dir, config.vis = scene, out, "tensorboard"
    config.budget = None
    config.max_num_iterations, config.steps_per_save, config.logging.local_writer.enable = STEPS, 1000, False
    config.logging.profiler, config.report = "none", False
    for group in config.optimizers.values():
        if group["scheduler"] is not None:
            group["scheduler"].start_step = group["scheduler"].hold_until = 0
    return config


def train(config: Any) -> tuple[Path, list[float], Any]:
    """Run `ns-train` in this process; its config.yml, the loss of every step, and the trainer."""
    from nerfstudio.scripts import train as command

    from das3r_ns.pipeline import Das3rTrainer

    losses, trainers = [], []
    iterate = Das3rTrainer.train_iteration

    def recorded(self: Any, step: int) -> Any:
        result = iterate(self, step)
        losses.append(float(result[0].detach()))
        trainers.append(self)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Das3rTrainer, "train_iteration", recorded)
        command.main(config)
    return config.get_base_dir() / "config.yml", losses, trainers[-1]
