"""Masks drawn for some frames together with the predicted ones: J on a real clip, by mode.

    python benchmarks/masks_combined.py --data ../shared/clips/davis/dog
    python benchmarks/masks_combined.py --data ../shared/clips/davis/dog --every 5 --refiner none

The ground truth of every tenth frame stands for masks that somebody drew. Compared with what is predicted alone, and
with the drawn masks alone (nothing moves in the other frames, or what moved in the nearest drawn one). For `intersect`
they are drawn roughly around what moves, as one would by hand; for `subtract` they mark all that lies outside of that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import tyro
from torch import Tensor

from das3r_ns.evaluation.metrics.masks import mask_scores
from das3r_ns.predictor.base import UserMaskMode, UserPriors
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.geometric.predictor import GeometricPredictor
from das3r_ns.predictor.masks.config import MaskConfig, RefinerName
from das3r_ns.video.clip import read_clip
from das3r_ns.video.config import VideoConfig

ROUGHLY_SHARE = 0.03
"""Of the longer side: how far outside the object a line runs that is drawn around it."""

MODES: tuple[UserMaskMode, ...] = ("replace", "add", "subtract", "intersect")


@dataclass
class Options:
    """What to measure."""

    data: Path = Path("../shared/clips/davis/dog")
    """Clip with `images` and `dynamic_masks`."""
    every: int = 10
    """Distance of the frames that are drawn."""
    max_frames: int = 40
    """Frames of the clip, from its beginning."""
    refiner: RefinerName = "auto"
    """Of the predicted masks."""
    modes: tuple[UserMaskMode, ...] = MODES
    """Which are measured."""


def main(options: Options) -> None:
    """Measure and print a table."""
    clip = read_clip(options.data / "images", VideoConfig(max_frames=None, longest_side=480))
    clip = clip.take(list(range(min(options.max_frames, len(clip)))))
    files = sorted((options.data / "dynamic_masks").iterdir())[: len(clip)]
    read = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in files]
    sized = [cv2.resize(mask, clip.size[::-1], interpolation=cv2.INTER_NEAREST) for mask in read if mask is not None]
    truth = torch.from_numpy(np.stack(sized)) > 127
    given = torch.arange(len(clip)) % options.every == 0
    drawn = (truth & given[:, None, None]).float()
    last = int(given.nonzero().max())
    nearest = torch.tensor([min(options.every * round(i / options.every), last) for i in range(len(clip))])
    predictor = GeometricPredictor(GeometricPredictorConfig(masks=MaskConfig(refiner=options.refiner)))
    print("| masks | J | J of the frames between |\n|---|---|---|")

    def row(name: str, found: Tensor) -> None:
        maps = torch.nn.functional.interpolate(found[:, None].float(), clip.size, mode="bilinear")[:, 0] > 0.5
        j = mask_scores(maps, truth).j
        print(f"| {name} | {float(j.mean()):.3f} | {float(j[~given].mean()):.3f} |", flush=True)

    row("drawn ones alone", drawn)
    row("drawn ones, held until the next", truth[nearest])
    row("predicted alone", predictor(clip).dynamic_prob)
    priors = UserPriors(dynamic_mask=drawn, mask_given=given)
    rough = _drawn_around(truth) & given[:, None, None]
    drawn_as = {"subtract": (~rough & given[:, None, None]).float(), "intersect": rough.float()}
    for mode in options.modes:
        said = replace(priors, dynamic_mask=drawn_as.get(mode, drawn), mask_mode=mode)
        row(f"predicted, drawn ones {mode}", predictor(clip, said).dynamic_prob)


def _drawn_around(truth: Tensor) -> Tensor:
    reach = round(ROUGHLY_SHARE * max(truth.shape[1:]))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return torch.from_numpy(np.stack([cv2.dilate(mask.astype(np.uint8), disc) for mask in truth.numpy()])) > 0


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
