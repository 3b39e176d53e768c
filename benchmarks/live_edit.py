"""How soon a running training shows an edit: seconds from the stored edit to the ghost that is gone.

A synthetic clip whose masks forget everything that moves is trained; at a step the true masks are stored as an edit, as
`das3r edit` stores it. The ghost is measured where things move, against the clean background: its PSNR is to rise.

    python benchmarks/live_edit.py --method das3r-lite      # two cores
    python benchmarks/live_edit.py --method das3r           # on a GPU
"""

from __future__ import annotations

import copy
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from das3r_ns import geometry
from das3r_ns.files.json_files import write_json
from das3r_ns.pipeline import Das3rTrainer
from das3r_ns.scene import Edit, EditStore, PointCloud, Scene, write_scene
from das3r_ns.synthetic import SyntheticConfig, make_clip

MEASURED_FRAMES = 6
HALF_GONE = 0.5
"""Share of the final gain at which the ghost counts as gone from sight."""


def main(
    method: Literal["das3r", "das3r-lite"] = "das3r-lite",
    at_step: int = 250,
    every_s: float = 2.0,
    num_frames: int = 40,
    until_s: float = 60.0,
    out: Path | None = None,
) -> None:
    """Train, edit, and print the PSNR behind what moves over the seconds since the edit.

    Args:
        method: which to train.
        at_step: step at which the edit is stored.
        every_s: seconds between measurements.
        num_frames: of the synthetic clip.
        until_s: seconds of training after the edit at which it stops.
        out: JSON file for the figures.
    """
    from nerfstudio.scripts import train

    from das3r_ns import config as methods

    clip = make_clip(SyntheticConfig(num_frames=num_frames))
    n, height, width = clip.depth.shape
    # What the process computed, beside what the clock says: a machine that others use as well is slower than itself.
    clock, busy = time.perf_counter, time.process_time
    with tempfile.TemporaryDirectory() as folder:
        scene = _forgetful_scene(clip, Path(folder) / "scene")
        config: Any = copy.deepcopy(getattr(methods, method.replace("-", "_")).config)
        config.data, config.output_dir, config.vis = scene, Path(folder) / "out", "tensorboard"
        config.report = False
        rows: list[tuple[float, float, int, float]] = []
        start, spent, last = (0.0, 0.0), (0.0, 0.0), 0.0
        taken_s: tuple[float, float] | None = None
        frames = np.linspace(0, n - 1, MEASURED_FRAMES).astype(int).tolist()
        step_of = Das3rTrainer.take_step

        def since() -> tuple[float, float]:
            return clock() - start[0] - spent[0], busy() - start[1] - spent[1]

        def taken(self: Das3rTrainer, step: int) -> Any:
            nonlocal start, last, taken_s, spent
            if step == at_step:
                rows.append((0.0, 0.0, step, _ghost_psnr(self, clip, frames)))
                store = EditStore(scene, tuple(f"{i:05d}.png" for i in range(n)))
                store.add(Edit("", "lasso", True, ()), {i: clip.dynamic_mask[i].numpy() for i in range(n)})
                store.close()
                start = clock(), busy()
            elif start[0] and since()[1] - last > every_s:
                now, before = since(), (clock(), busy())
                rows.append((*now, step, _ghost_psnr(self, clip, frames)))
                # Measuring is no part of training.
                spent, last = (spent[0] + clock() - before[0], spent[1] + busy() - before[1]), now[1]
                if now[0] > until_s and now[1] > until_s:
                    raise KeyboardInterrupt
            if start[0] and taken_s is None and bool(self.pipeline.model.dynamic_prob.any()):
                taken_s = since()
            return step_of(self, step)

        Das3rTrainer.take_step = taken
        try:
            train.main(config)
        except (KeyboardInterrupt, SystemExit):
            pass
        finally:
            Das3rTrainer.take_step = step_of
    before, final = rows[0][3], rows[-1][3]
    gone = next(row for row in rows if row[3] - before >= HALF_GONE * (final - before))
    for seconds, computed, step, psnr in rows:
        print(f"{seconds:7.1f} s ({computed:6.1f} s of processor)  step {step:5d}  {psnr:5.2f} dB behind what moves")
    wall, computed = taken_s or (float("nan"),) * 2
    print(
        f"{method}, {n} frames of {width}x{height}: taken over after {wall:.1f} s ({computed:.1f} s of processor); "
        f"from {before:.2f} to {final:.2f} dB, half of that after {gone[0]:.1f} s ({gone[1]:.1f} s of processor)"
    )
    if out is not None:
        write_json(out, {"method": method, "taken_s": taken_s, "half_gone_s": gone[:2], "rows": rows})


def _forgetful_scene(clip: Any, folder: Path) -> Path:
    """A scene folder with true cameras and depth, in which nothing moves."""
    n, height, width = clip.depth.shape
    T_level_world = geometry.level_world(clip.T_world_camera, float(clip.clean_depth.median()))
    T_world_camera, scale = geometry.apply_similarity(T_level_world, clip.T_world_camera)
    none = PointCloud(
        torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.uint8), torch.ones(1), torch.zeros(1, dtype=torch.int32)
    )
    scene = Scene(
        T_world_camera, clip.K.repeat(n, 1, 1), (height, width), clip.depth * scale, torch.ones(n, height, width),
        torch.zeros(n, height, width), none, torch.ones(n, dtype=torch.bool), tuple(f"{i:05d}.png" for i in range(n)),
    )  # fmt: skip
    return write_scene(scene, clip.frames, folder)


@torch.no_grad()
def _ghost_psnr(trainer: Any, clip: Any, frames: list[int]) -> float:
    """Mean PSNR of the render against the clean background, over the pixels that move."""
    model, values = trainer.pipeline.model, []
    cameras = trainer.pipeline.datamanager.train_dataset.cameras
    model.eval()
    for i in frames:
        render = model.get_outputs(cameras[i : i + 1].to(trainer.device))["rgb"].cpu()
        moves = clip.dynamic_mask[i]
        if bool(moves.any()):
            error = (render - clip.clean[i].float() / 255)[moves].square().mean()
            values.append(float(-10 * torch.log10(error)))
    model.train()
    return float(np.mean(values))


if __name__ == "__main__":
    tyro.cli(main)
