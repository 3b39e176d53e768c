"""How the geometric predictor takes clips that are not as clips should be: what people film, edit and download.

    python benchmarks/unusual.py                                   # all kinds, seed 0: half an hour on two cores
    python benchmarks/unusual.py --kinds letterbox logo --seeds 0 1
    python benchmarks/unusual.py --cache FOLDER                    # clips are kept there, and rendered only once
    python benchmarks/unusual.py --kinds "movers wait" --masks.refiner salience --masks.seen-through 0

Each is a synthetic clip whose truth is known, made in an unusual way or changed afterwards. What was laid over the
image (bars, logos, words and what is between them) belongs to no scene: it counts in no column but the last, which
says how much of it the dynamic maps leave out. Masks are those of motion alone unless told otherwise. Seconds are of
processor time, all threads together.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field, fields, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
import tyro
from clip_edits import (
    Changed,
    backwards,
    caption,
    compressed,
    dropped,
    fade_in,
    flicker,
    letterbox,
    logo,
    mirrored,
    night,
    pillarbox,
    repeated,
    stabilised,
    subtitles,
    watermark,
    whip_pan,
    zoomed,
)
from depth import depth_errors
from jaxtyping import Bool

from das3r_ns.evaluation.metrics.masks import mask_scores
from das3r_ns.evaluation.metrics.poses import pose_errors
from das3r_ns.predictor.base import PredictionError
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.geometric.predictor import GeometricPredictor
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.runtime.progress import CONSOLE
from das3r_ns.scene import Scene
from das3r_ns.synthetic import SyntheticClip, SyntheticConfig, make_clip
from das3r_ns.video.clip import Clip

HEADER = (
    "| kind | seed | ATE, % of the path | focal error, % | J | abs-rel mean, % | CPU s a frame | warned | "
    "laid over: left out, % |"
)
WARNING = re.compile(r"\x1b\[33m[A-Z]")
"""Yellow words. The clocks of progress bars are yellow too."""


RIM_PX = 3
"""Pixels around what was laid over that do not count either: compression mixes them."""


@dataclass(frozen=True)
class Kind:
    """How one kind of clip is made."""

    config: SyntheticConfig
    change: Callable[[SyntheticClip], Changed] = Changed


def upright(config: SyntheticConfig) -> SyntheticConfig:
    """The same, filmed with the phone held upright: the field of view is that of the longer side."""
    half = math.tan(math.radians(config.field_of_view) / 2) * config.height / config.width
    return replace(config, height=config.width, width=config.height, field_of_view=2 * math.degrees(math.atan(half)))


USUAL = SyntheticConfig(num_frames=36)
KINDS = {
    "usual": Kind(USUAL),
    "letterbox": Kind(USUAL, letterbox),
    "pillarbox": Kind(upright(replace(USUAL, height=152, width=270)), pillarbox),
    "logo": Kind(USUAL, logo),
    "watermark": Kind(USUAL, watermark),
    "caption": Kind(USUAL, caption),
    "subtitles": Kind(USUAL, subtitles),
    "fade from black": Kind(USUAL, fade_in),
    "flicker": Kind(USUAL, flicker),
    "compressed": Kind(USUAL, compressed),
    "compressed strongly": Kind(USUAL, partial(compressed, bits_a_pixel=0.04)),
    "backwards": Kind(USUAL, backwards),
    "mirrored": Kind(USUAL, mirrored),
    "portrait": Kind(upright(USUAL)),
    "narrow, 30 degrees": Kind(replace(USUAL, field_of_view=30.0, mover_size=0.5)),
    "narrow, filled": Kind(replace(USUAL, field_of_view=30.0)),
    "wide, 100 degrees": Kind(replace(USUAL, field_of_view=100.0)),
    "noise of 8": Kind(replace(USUAL, noise=8.0)),
    "low contrast": Kind(replace(USUAL, contrast=0.3)),
    "small movers": Kind(replace(USUAL, mover_size=0.3)),
    "four movers": Kind(replace(USUAL, movers=4)),
    "movers wait": Kind(replace(USUAL, movers_wait=0.5)),
    "slow": Kind(replace(USUAL, path_share=0.2, num_frames=50)),
    "fast": Kind(replace(USUAL, num_frames=13)),
    "night": Kind(USUAL, night),
    "stabilised": Kind(USUAL, stabilised),
    "zooms by 15 %": Kind(USUAL, zoomed),
    "zooms by 5 %": Kind(USUAL, partial(zoomed, by=1.05)),
    "a second dropped": Kind(USUAL, dropped),
    "frames repeated": Kind(USUAL, repeated),
    "whip pan": Kind(USUAL, whip_pan),
    "motion blur": Kind(replace(USUAL, shutter=0.8, num_frames=24)),
}


@dataclass
class Options:
    """What to measure."""

    kinds: tuple[str, ...] = field(default_factory=lambda: tuple(KINDS))
    """Which kinds of clips; their names are those of the table."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the synthetic clips."""
    cache: Path | None = None
    """Folder in which rendered clips are kept. None renders them each time."""
    threads: int = 2
    """Processor threads."""
    masks: MaskConfig = field(default_factory=lambda: MaskConfig(refiner="none"))
    """How evidence becomes masks."""


def main(options: Options) -> None:
    unknown = [name for name in options.kinds if name not in KINDS]
    if unknown:
        raise ValueError(f"there is no kind {unknown[0]!r}; there are {', '.join(KINDS)}")
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    print(HEADER, "|---" * 9 + "|", sep="\n", flush=True)
    for name in options.kinds:
        for seed in options.seeds:
            kind = KINDS[name]
            made = kind.change(_made(replace(kind.config, seed=seed), options.cache))
            print(row(f"{name} | {seed}", made, options.masks), flush=True)


def row(name: str, made: Changed, masks: MaskConfig) -> str:
    """One clip's line of the table."""
    truth, laid_over = made.clip, made.laid_over
    predictor = GeometricPredictor(GeometricPredictorConfig(masks=masks))
    CONSOLE.record = True
    CONSOLE.export_text()  # forgets what was said of the clip before
    start = time.process_time()
    try:
        scene = predictor(Clip(truth.frames, truth.fps, tuple(f"{i:05d}" for i in range(len(truth)))))
    except PredictionError as e:
        return f"| {name} | error: {e} |"
    seconds = (time.process_time() - start) / len(truth)
    warned = "yes" if WARNING.search(CONSOLE.export_text(styles=True)) else ""
    poses = pose_errors(scene.T_world_camera, truth.T_world_camera)
    focal = 100 * (float(scene.K[0, 0, 0]) / float(truth.K[0, 0]) - 1)
    seen = np.ones(truth.frames.shape[1:3], bool)
    if laid_over is not None:
        seen = cv2.dilate(laid_over.astype(np.uint8), np.ones((2 * RIM_PX + 1,) * 2)) == 0
    moving = _dynamic(scene, seen.shape)
    j = mask_scores(torch.from_numpy(moving & seen), truth.dynamic_mask & torch.from_numpy(seen)).j_mean
    # Without a true depth a pixel does not count.
    depth = torch.where(torch.from_numpy(seen), truth.depth, torch.nan)
    relative = depth_errors(scene, replace(truth, depth=depth)).relative
    left_out = "" if laid_over is None else f"{100 * moving[:, laid_over].mean():.0f}"
    return (
        f"| {name} | {poses.ate_percent:.2f} | {focal:+.2f} | {j:.3f} | {100 * np.nanmean(relative):.2f} | "
        f"{seconds:.2f} | {warned} | {left_out} |"
    )


def _dynamic(scene: Scene, size: tuple[int, ...]) -> Bool[np.ndarray, "n h w"]:
    return np.stack([cv2.resize(m.numpy(), (size[1], size[0])) for m in scene.dynamic_prob]) > 0.5


def _made(config: SyntheticConfig, cache: Path | None) -> SyntheticClip:
    if cache is None:
        return make_clip(config)
    path = cache / ("-".join(str(value) for value in astuple(config)) + ".pt")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        clip = make_clip(config)
        torch.save({part.name: getattr(clip, part.name) for part in fields(clip)}, path)
    return SyntheticClip(**torch.load(path, weights_only=True))


if __name__ == "__main__":
    main(tyro.cli(Options))
