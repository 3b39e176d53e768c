"""The flow network against DIS: end-point error and lost pixels by displacement, near outlines and where covered.

python benchmarks/flow_network.py --weights RUN/flow.safetensors [--pairs 64] [--size 448 832]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
import tyro
from plane_sweep import sweep, true_flow
from torch import Tensor

from das3r_ns.datasets import read_image
from das3r_ns.predictor.flow.flow_maps import resize_flow
from das3r_ns.predictor.flow.learned import LearnedFlow
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.training.flow.textures import make_textures
from das3r_ns.predictor.training.flow.validation import FlowScores, held_out_pairs, validate
from das3r_ns.predictor.training.flow.worlds import FlowPairs

OFFSETS, SOURCES = (1, 2, 4, 8, 16), 5
"""Distances in frames of the pairs of a clip, and how many frames they start from."""
SWEEP_FRAMES = (-15, -10, -5, 5, 10, 15)
"""Frames with which depth is swept."""
DEPTHS_M = (0.5, 6.0)
"""Nearest and farthest depth of a clip."""

Estimate = Callable[[Tensor, Tensor], Tensor]


def dis(first: Tensor, second: Tensor) -> Tensor:
    """Flow by OpenCV's DIS, preset medium, as the geometric predictor uses it."""
    flows = []
    for a, b in zip(_grey(first), _grey(second), strict=True):
        estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        flows.append(estimator.calc(a, b, np.zeros((*a.shape, 2), np.float32)))
    return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2).to(first.device)


def _grey(images: Tensor) -> list[np.ndarray]:
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in pixels]


def learned(weights: Path, device: torch.device) -> Estimate:
    """Flow by the network as `LearnedFlow` takes it, pair by pair."""
    estimator = LearnedFlow(weights, str(device))

    def estimate(first: Tensor, second: Tensor) -> Tensor:
        pixels = [(images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy() for images in (first, second)]
        flows = [estimator(a, b) for a, b in zip(*pixels, strict=True)]
        return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2).to(first.device)

    return estimate


def main(
    weights: Path,
    pairs: int = 64,
    size: tuple[int, int] = (448, 832),
    textures: int = 64,
    image: Path | None = None,
    clip: Path | None = None,
    focal_px: float = 525.0,
) -> None:
    """Print the table.

    Args:
        weights: file of `das3r train-flow`.
        pairs: held-out synthetic pairs.
        size: their rows and columns.
        textures: drawn for them.
        image: where to write a mosaic of pairs, true and estimated flow and errors.
        clip: folder of a still scene with true cameras, instead of synthetic pairs.
        focal_px: of its images; the principal point is their middle.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if clip is not None:
        print(table(str(clip), on_clip(clip, focal_px, {"dis": dis, "learned": learned(weights, device)})))
        return
    generator = torch.Generator(device).manual_seed(2**20)
    bank = make_textures(textures, 512, generator, held_out=True)
    rows: dict[str, FlowScores] = {}
    for name, estimate in (("dis", dis), ("learned", learned(weights, device))):
        held_out: Iterator[FlowPairs] = held_out_pairs(pairs, size, bank, batch=4)
        rows[name], mosaic = validate(estimate, held_out, 8 if image else 0)
        if image and mosaic is not None:
            cv2.imwrite(str(image.with_stem(f"{image.stem}_{name}")), mosaic[..., ::-1])
    print(table(f"{pairs} held-out synthetic pairs, {size[1]}x{size[0]}", rows))


def on_clip(folder: Path, focal_px: float, estimates: dict[str, Estimate]) -> dict[str, FlowScores]:
    """Score estimators on a still clip, at the size at which the geometric predictor takes flow."""
    images_folder = folder / "clean" if (folder / "clean").is_dir() else folder / "images"
    images = [read_image(path).numpy() for path in sorted(images_folder.iterdir())]
    T_world_camera = np.loadtxt(folder / "T_world_camera.txt").reshape(-1, 4, 4)
    height, width = images[0].shape[:2]
    half = [cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA) for image in images]
    K = np.array([[focal_px / 2, 0, width / 4 - 0.5], [0, focal_px / 2, height / 4 - 0.5], [0, 0, 1]])
    factor = 2 * GeometricPredictorConfig().map_longest_side / max(height, width)
    size = (round(width * factor), round(height * factor))
    enlarged = [cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) for image in images]
    depths: dict[int, np.ndarray] = {}

    def depth(i: int) -> np.ndarray:
        if i not in depths:
            frames = [i, *(j for k in SWEEP_FRAMES if 0 <= (j := i + k) < len(images))]
            others = list(range(1, len(frames)))
            depths[i] = sweep([half[j] for j in frames], T_world_camera[frames], K, 0, others, DEPTHS_M)
        return depths[i]

    rows = {name: FlowScores() for name in estimates}
    for i in np.linspace(0, len(images) - 1 - max(OFFSETS), SOURCES).round().astype(int).tolist():
        for j in (i + offset for offset in OFFSETS):
            flow, known = true_flow(depth(i), depth(j), T_world_camera[i], T_world_camera[j], K)
            truth, where = torch.from_numpy(2 * flow).permute(2, 0, 1)[None], torch.from_numpy(known)[None]
            pair = [torch.from_numpy(enlarged[k]).permute(2, 0, 1)[None] / 255 for k in (i, j)]
            for name, estimate in estimates.items():
                found = estimate(*pair)[0].cpu().permute(1, 2, 0).numpy()
                found = torch.from_numpy(2 * resize_flow(found, (height // 2, width // 2))).permute(2, 0, 1)[None]
                rows[name].add(found, truth, where, torch.zeros_like(where), where)
    return rows


def table(title: str, rows: dict[str, FlowScores]) -> str:
    """End-point error (px) and lost pixels (%) of each estimator."""
    scores = {name: row.table() for name, row in rows.items()}
    groups = list(next(iter(scores.values())))
    lines = [title, "", f"| EPE px (beyond 3 px, %) | {' | '.join(groups)} |", "| --- |" + " --- |" * len(groups)]
    for name, row in scores.items():
        cells = [f"{row[group][0]:.2f} ({row[group][1]:.1f})" for group in groups]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    tyro.cli(main)
