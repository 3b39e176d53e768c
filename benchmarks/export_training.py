"""Whether nerfstudio's splatfacto trains on what `das3r export --for` writes, read by nerfstudio's own dataparsers.

A synthetic clip with its true cameras and masks is exported for each program; splatfacto trains on each folder. What it
renders is compared with the clean background: where nothing moves, and behind what moves, where only masks keep the
ghosts away. The folders of COLMAP's layout are read by nerfstudio's `colmap` dataparser, which names a mask like its
image: of the export for COLMAP itself, whose extractor wants `NAME.png.png`, it takes no masks.

    python benchmarks/export_training.py                                                     # on a GPU
    python benchmarks/export_training.py --on-cpu --steps 10 --num-frames 6 --size 48 64     # only that it runs
"""

from __future__ import annotations

import copy
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import tyro
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.evaluation.bench.baselines import SplatfactoBaselineConfig
from das3r_ns.export.scenes import Target, export_scene
from das3r_ns.files.json_files import write_json
from das3r_ns.model.rasterizer import rasterize
from das3r_ns.scene import PointCloud, Scene, write_scene
from das3r_ns.synthetic import SyntheticClip, SyntheticConfig, make_clip

STRIDE = 7
"""Every so many pixels of each static part of the depth maps give a seed point."""


@dataclass
class Options:
    """What to train."""

    targets: tuple[Target, ...] = ("nerfstudio", "brush", "lichtfeld", "postshot", "colmap")
    """Programs that the scene is exported for."""
    steps: int = 1000
    """Of training."""
    num_frames: int = 40
    """Of the synthetic clip."""
    size: tuple[int, int] = (180, 320)
    """Height and width of its frames."""
    on_cpu: bool = False
    """Draw by our rasterizer in the place of gsplat's kernels."""
    out: Path | None = None
    """JSON file for the figures."""


def main(options: Options) -> None:
    """Export, train, print a table."""
    clip = make_clip(SyntheticConfig(num_frames=options.num_frames, height=options.size[0], width=options.size[1]))
    rows: list[dict[str, Any]] = []
    print("| --for | masks | seed points | static before, dB | static, dB | behind what moves, dB | s |")
    print("|---" * 7 + "|")
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        if options.on_cpu:
            stack.enter_context(mock.patch("nerfstudio.models.splatfacto.rasterization", _by_our_rasterizer))
            stack.enter_context(mock.patch.object(torch.Tensor, "cuda", lambda self: self))
        scene = _scene(clip, Path(place) / "scene")
        for target in options.targets:
            begin = time.perf_counter()
            trainer = _trainer(target, export_scene(scene, target, Path(place) / target), options, Path(place))
            points, before = trainer.pipeline.model.num_points, _psnr(trainer, clip)[0]
            trainer.train()
            static, behind = _psnr(trainer, clip)
            dataset = trainer.pipeline.datamanager.train_dataset
            masks = dataset._dataparser_outputs.mask_filenames is not None
            seconds = time.perf_counter() - begin
            print(
                f"| {target} | {'yes' if masks else 'no'} | {points} | {before:.2f} | {static:.2f} | {behind:.2f} | "
                f"{seconds:.0f} |",
                flush=True,
            )
            rows.append(
                {"target": target, "masks": masks, "points": points, "before_db": before, "static_db": static,
                 "behind_db": behind, "seconds": seconds}
            )  # fmt: skip
            if options.out is not None:
                write_json(options.out, {"steps": options.steps, "rows": rows})


def _scene(clip: SyntheticClip, folder: Path) -> Path:
    """A scene folder as a perfect predictor would write it."""
    n, height, width = clip.depth.shape
    T_level_world = geometry.level_world(clip.T_world_camera, float(clip.clean_depth.median()))
    T_world_camera, scale = geometry.apply_similarity(T_level_world, clip.T_world_camera)
    K, xyz, rgb = clip.K.repeat(n, 1, 1), [], []
    seen = torch.zeros(height, width, dtype=torch.bool)
    seen[::STRIDE, ::STRIDE] = True
    in_cameras = geometry.unproject(clip.depth * scale, K)
    for i in range(n):
        static = seen & ~clip.dynamic_mask[i]
        xyz.append(geometry.transform(T_world_camera[i], in_cameras[i][static]))
        rgb.append(clip.frames[i][static])
    count = sum(len(points) for points in xyz)
    scene = Scene(
        T_world_camera=T_world_camera, K=K, image_size=(height, width), depth=clip.depth * scale,
        confidence=torch.ones(n, height, width), dynamic_prob=clip.dynamic_mask.float(),
        points=PointCloud(torch.cat(xyz), torch.cat(rgb), torch.ones(count), torch.zeros(count, dtype=torch.int32)),
        pose_known=torch.ones(n, dtype=torch.bool), names=tuple(f"{i:05d}.png" for i in range(n)), fps=clip.fps,
    )  # fmt: skip
    return write_scene(scene, clip.frames, folder)


def _trainer(target: Target, data: Path, options: Options, place: Path) -> Any:
    """Splatfacto with its defaults on an exported folder, read as its `ns-train` reads it."""
    from nerfstudio.configs.method_configs import method_configs
    from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig

    config: Any = copy.deepcopy(method_configs["splatfacto"])
    config.pipeline.model = SplatfactoBaselineConfig()
    parser = config.pipeline.datamanager.dataparser  # nerfstudio's own, with seed points
    parser.data, parser.eval_mode = data, "all"
    if target != "nerfstudio":
        config.pipeline.datamanager.dataparser = ColmapDataParserConfig(
            data=data, colmap_path=Path("sparse/0"), downscale_factor=1, eval_mode="all",
            masks_path=None if target == "colmap" else Path("masks"),
        )  # fmt: skip
    config.output_dir, config.vis, config.max_num_iterations = place / "out", "tensorboard", options.steps
    config.logging.local_writer.enable, config.logging.profiler = False, "none"
    config.steps_per_eval_image = config.steps_per_eval_all_images = config.steps_per_eval_batch = options.steps + 1
    config.timestamp = target
    if options.on_cpu:
        config.machine.device_type = "cpu"
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    return trainer


@torch.no_grad()
def _psnr(trainer: Any, clip: SyntheticClip) -> tuple[float, float]:
    """PSNR against the clean background, in dB, over all pixels that are static, and over all that move."""
    model, dataset = trainer.pipeline.model, trainer.pipeline.datamanager.train_dataset
    model.eval()
    errors: tuple[list[Tensor], list[Tensor]] = ([], [])
    for i, path in enumerate(dataset.image_filenames):
        frame = int("".join(c for c in path.stem if c.isdigit())) - 1  # frame_00001 is the first
        camera = dataset.cameras[i : i + 1].to(trainer.device)
        squared = (model.get_outputs(camera)["rgb"].cpu() - clip.clean[frame].float() / 255).square().mean(-1)
        moves = clip.dynamic_mask[frame]
        errors[0].append(squared[~moves])
        errors[1].append(squared[moves])
    model.train()
    static, behind = (float(-10 * torch.log10(torch.cat(values).mean())) for values in errors)
    return static, behind


def _by_our_rasterizer(**given: Any) -> Any:
    names = (
        "means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "width", "height", "near_plane",
        "far_plane", "sh_degree", "render_mode", "rasterize_mode", "absgrad",
    )  # fmt: skip
    return rasterize(**{name: given[name] for name in names if name in given}, rasterizer="cpu")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
