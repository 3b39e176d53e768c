"""A scene whose truth is known: a bright square crosses a textured wall, the camera moves; masks as a test wants."""

from pathlib import Path

import numpy as np
import torch

from das3r_ns.scene import PointCloud, Scene, write_scene

SIZE = (72, 128)
SQUARE = 18


def wall(frame: int) -> np.ndarray:
    """The wall as frame `frame` sees it, RGB: it moves by one pixel a frame."""
    rng = np.random.default_rng(0)
    texture = np.repeat(np.repeat(rng.integers(40, 110, (24, 80, 3)), 4, axis=0), 4, axis=1)
    return texture[: SIZE[0], frame : frame + SIZE[1]].astype(np.uint8)


def square(frame: int) -> np.ndarray:
    """Where the square is in a frame: it goes three pixels a frame to the right."""
    inside = np.zeros(SIZE, bool)
    left = 6 + 3 * frame
    inside[26 : 26 + SQUARE, left : left + SQUARE] = True
    return inside


def frames(count: int) -> np.ndarray:
    """Images of the clip."""
    shown = np.stack([wall(i) for i in range(count)])
    rng = np.random.default_rng(1)
    coat = np.repeat(np.repeat(rng.integers(180, 255, (6, 6, 3)), 3, axis=0), 3, axis=1)
    for i in range(count):
        shown[i][square(i)] = coat.reshape(-1, 3)
    return shown


def write(folder: Path, masks: list[np.ndarray], names: list[str] | None = None, **provenance: object) -> Path:
    """A scene folder with the given masks (true where something moves)."""
    count = len(masks)
    height, width = SIZE
    K = torch.tensor([[100.0, 0, width / 2], [0, 100.0, height / 2], [0, 0, 1]])
    T = torch.eye(4).repeat(count, 1, 1)
    T[:, 0, 3] = torch.arange(count) * 4.0 / 100.0  # the wall is 4 away, so it moves by one pixel a frame
    scene = Scene(
        T_world_camera=T,
        K=K.repeat(count, 1, 1),
        image_size=SIZE,
        depth=torch.full((count, *SIZE), 4.0),
        confidence=torch.ones(count, *SIZE),
        dynamic_prob=torch.from_numpy(np.stack(masks)).float(),
        points=PointCloud(
            torch.zeros(4, 3), torch.zeros(4, 3, dtype=torch.uint8), torch.ones(4), torch.zeros(4, dtype=torch.int32)
        ),
        pose_known=torch.ones(count, dtype=torch.bool),
        names=tuple(names or [f"frame_{i + 1:05d}" for i in range(count)]),
        fps=10.0,
        times_s=tuple(i / 10 for i in range(count)),
        provenance=dict(provenance),
    )
    return write_scene(scene, torch.from_numpy(frames(count)), folder)


def middle(region: np.ndarray) -> tuple[float, float]:
    """(x, y) of the middle of a region, as shares of width and height."""
    rows, columns = np.nonzero(region)
    return (columns.mean() + 0.5) / SIZE[1], (rows.mean() + 0.5) / SIZE[0]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union."""
    return (a & b).sum() / max((a | b).sum(), 1)
