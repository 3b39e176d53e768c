"""Whether flow keeps hold of what moves, on real clips with object masks: no true flow is needed.

    python benchmarks/flow_objects.py --clips ../shared/clips/davis/breakdance --weights RUN/flow.safetensors

For frames 1, 2, 4 and 8 apart: the share of an object's pixels (2 px inside its outline) that flow takes into the
object of the other frame; how far they move more than the background (median, px of 864 px wide images: near nothing
where flow has lost the object); and the shares of object and background that come back to within 2 px of where they
were. All is for DIS, the network, and the better of both in each pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro
from jaxtyping import Bool, Float32, UInt8

from das3r_ns.datasets import read_image
from das3r_ns.predictor.flow.best_of import BestOfFlow
from das3r_ns.predictor.flow.dis import DisFlow
from das3r_ns.predictor.flow.flow_maps import round_trip_error
from das3r_ns.predictor.flow.learned import LearnedFlow

OFFSETS = (1, 2, 4, 8)
WIDTH_PX = 864
"""As the geometric predictor takes flow by default."""
RETURNS_PX = 2.0


@dataclass
class Options:
    """What to measure."""

    clips: tuple[Path, ...]
    """Folders with `images` and `dynamic_masks` (255: moving), one mask a frame."""
    weights: Path
    """File of `das3r train-flow`."""
    starts: tuple[int, ...] = (0, 4)
    """Frames that the pairs start from."""


def main(options: Options) -> None:
    learned = LearnedFlow(options.weights)
    print("| flow | frames apart | lands in the object, % | moves, px | object returns, % | background returns, % |")
    print("|---|---|---|---|---|---|")
    for name, flow in (("DIS", DisFlow()), ("network", learned), ("best", BestOfFlow((DisFlow(), learned)))):
        for offset in OFFSETS:
            rows = []
            for clip in options.clips:
                for start in options.starts:
                    (a, object_a), (b, object_b) = _frame(clip, start), _frame(clip, start + offset)
                    there, back = (flow(a, b), flow(b, a)) if isinstance(flow, DisFlow) else flow.both(a, b)
                    rows.append(scores(there, back, object_a, object_b))
            print(
                f"| {name} | {offset} | {' | '.join(f'{value:.1f}' for value in np.mean(rows, axis=0))} |", flush=True
            )


def _frame(clip: Path, index: int) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    image = read_image(sorted((clip / "images").iterdir())[index]).numpy()
    mask = cv2.imread(str(sorted((clip / "dynamic_masks").iterdir())[index]), cv2.IMREAD_GRAYSCALE)
    assert mask is not None, f"{clip} has no mask of frame {index}"
    size = (WIDTH_PX, round(image.shape[0] * WIDTH_PX / image.shape[1]))
    return (
        cv2.resize(image, size, interpolation=cv2.INTER_CUBIC),
        cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) > 127,
    )


def scores(
    there: Float32[np.ndarray, "h w 2"],
    back: Float32[np.ndarray, "h w 2"],
    object_a: Bool[np.ndarray, "h w"],
    object_b: Bool[np.ndarray, "h w"],
) -> tuple[float, float, float, float]:
    """The columns of the table for one pair."""
    h, w = object_a.shape
    rows, columns = np.mgrid[:h, :w]
    column, row = (np.rint(columns + there[..., 0]).astype(int), np.rint(rows + there[..., 1]).astype(int))
    inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
    lands = np.zeros((h, w), bool)
    lands[inside] = object_b[row[inside], column[inside]]
    core = cv2.erode(object_a.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    moves = np.linalg.norm(there - np.median(there[~object_a], axis=0), axis=-1)
    returns = round_trip_error(np.ascontiguousarray(there), np.ascontiguousarray(back)) < RETURNS_PX
    return (
        100 * float(lands[core].mean()),
        float(np.median(moves[core])),
        100 * float(returns[core].mean()),
        100 * float(returns[~object_a].mean()),
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
