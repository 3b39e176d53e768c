"""A set of synthetic clips to train on, so that the whole path runs anywhere: rendered once, read by `clips`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from das3r_ns.scene.writing import written_whole
from das3r_ns.synthetic import SyntheticConfig, make_clip, write_clip

CAMERAS: tuple[Literal["handheld", "orbit", "rotation", "forward", "tripod"], ...] = (
    "handheld",
    "orbit",
    "handheld",
    "rotation",
    "forward",
    "tripod",
)
"""Camera paths of the synthetic set, in turn."""
FIRST_SEED = {"train": 1_000_000, "val": 2_000_000}
"""Seeds of the clips of a split count from here, so the splits never share a clip."""


@dataclass
class SyntheticSet:
    """Render synthetic clips to train on: textured rooms, cameras that move in five ways, walking figures."""

    out: tyro.conf.Positional[Path]
    """Folder for the set; clips that are there already are kept."""
    clips: int = 200
    """Clips to train on."""
    val_clips: int = 20
    """Clips to validate on; none of them is among the others."""
    frames: int = 12
    """Frames in each clip."""
    height: int = 288
    """Pixels."""
    width: int = 512
    """Pixels."""
    jobs: int = 0
    """Processes. 0 takes one for each core."""

    def counts(self) -> dict[str, int]:
        """Clips of each split."""
        return {"train": self.clips, "val": self.val_clips}


def make_training_clip(task: SyntheticSet, split: str, number: int) -> Path:
    """Render one clip of the set into its folder, whole or not at all; a folder that is there is kept."""
    folder = task.out / split / f"clip_{number:05d}"
    if folder.exists():
        return folder
    seed = FIRST_SEED[split] + number
    rng = np.random.default_rng(seed)
    config = SyntheticConfig(
        num_frames=task.frames,
        height=task.height,
        width=task.width,
        field_of_view=float(rng.uniform(45, 75)),
        seed=seed,
        camera=CAMERAS[number % len(CAMERAS)],
        movers=int(rng.integers(1, 4)),
        mover_size=float(rng.uniform(0.6, 1.4)),
        exposure_drift=float(rng.uniform(-0.3, 0.3)),
        noise=float(rng.uniform(0, 3)),
    )
    with written_whole(folder) as partial:
        # Training reads the images, and a machine that trains need not have PyAV.
        write_clip(make_clip(config), partial, video=False)
    return folder
