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
from torch import Tensor

from das3r_ns.predictor.flow.network import load_flow_network
from das3r_ns.predictor.training.flow.textures import make_textures
from das3r_ns.predictor.training.flow.validation import FlowScores, held_out_pairs, validate
from das3r_ns.predictor.training.flow.worlds import FlowPairs

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


def learned(weights: Path, device: torch.device, updates: int, refinements: int) -> Estimate:
    """Flow by the network."""
    network = load_flow_network(weights).to(device)

    def estimate(first: Tensor, second: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
            return network(first, second, updates, refinements).final[-1].float()

    return estimate


def main(
    weights: Path,
    pairs: int = 64,
    size: tuple[int, int] = (448, 832),
    updates: int = 6,
    refinements: int = 2,
    textures: int = 64,
    image: Path | None = None,
) -> None:
    """Print the table.

    Args:
        weights: file of `das3r train-flow`.
        pairs: held-out synthetic pairs.
        size: their rows and columns.
        textures: drawn for them.
        image: where to write a mosaic of pairs, true and estimated flow and errors.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator(device).manual_seed(2**20)
    bank = make_textures(textures, 512, generator, held_out=True)
    rows: dict[str, FlowScores] = {}
    for name, estimate in (("dis", dis), ("learned", learned(weights, device, updates, refinements))):
        held_out: Iterator[FlowPairs] = held_out_pairs(pairs, size, bank, batch=4)
        rows[name], mosaic = validate(estimate, held_out, 8 if image else 0)
        if image and mosaic is not None:
            cv2.imwrite(str(image.with_stem(f"{image.stem}_{name}")), mosaic[..., ::-1])
    print(table(f"{pairs} held-out synthetic pairs, {size[1]}x{size[0]}", rows))


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
