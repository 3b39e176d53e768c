"""How far a few clicks in `das3r edit` bring masks that are wrong: J after each click, on a clip whose masks are known.

    python benchmarks/edit_masks.py SCENE CLIPS/composited/kitchen-dog/dynamic_masks --spoil scattered
    python benchmarks/edit_masks.py SCENE CLIPS/composited/kitchen-dog/dynamic_masks --spoil block --begin truth
    python benchmarks/edit_masks.py SCENE CLIPS/davis/parkour/dynamic_masks --spoil none --correct false --clicks 1 \
        --false-box 0.5 0.45 0.8 0.75

SCENE is a scene folder of the whole clip (`das3r predict`); it is copied and stays as it is. `--spoil` takes half of
what moves out of a third of the frames; `--false-box` marks a surface as moving wherever it is seen. The clicks are
those of somebody who looks at the frame that is worst and clicks into the middle of the largest region that is wrong,
"through the whole clip" (the usual protocol of interactive segmentation), who takes back what made it worse, and stops
where nothing is plainly wrong. Each is what the page in the browser asks its server for.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Bool
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.editing.session import EditSession
from das3r_ns.evaluation.metrics.masks import jaccard, share_marked
from das3r_ns.predictor.masks.config import RefinerName
from das3r_ns.predictor.masks.refiners.build import build_refiner
from das3r_ns.scene import Scene, image_paths, read_scene, write_scene
from das3r_ns.video.images import read_image

PLAINLY_WRONG = 0.15
"""Region that is wrong, as a share of what moves in the frame, below which nobody clicks."""

SAME_DEPTH = 0.1
"""Relative difference up to which a frame's depth is that of the surface."""

Spoil = Literal["none", "scattered", "block", "everywhere"]


@dataclass
class Options:
    """What to measure."""

    scene: Annotated[Path, tyro.conf.Positional]
    """Scene folder of the clip."""
    truth: Annotated[Path, tyro.conf.Positional]
    """Folder with the true masks, one a frame in the order of their names, white where something moves."""
    begin: Literal["predicted", "truth"] = "predicted"
    """Masks that are spoiled."""
    spoil: Spoil = "scattered"
    """Frames that lose the left half of what moves: every third, the middle third, all, or none."""
    false_box: tuple[float, float, float, float] | None = None
    """Left, top, right, bottom of a surface in the middle frame, as shares of the image, that is falsely marked."""
    clicks: int = 5
    """At most."""
    refiner: RefinerName = "none"
    """Draws the outlines of what is followed, as `das3r edit --refiner`."""
    correct: Literal["all", "missed", "false"] = "all"
    """What is clicked: all that is wrong, what was missed, or what was falsely marked."""
    level: int = 0
    """Of the clicks, as `[` and `]` choose it in the page."""


def main(options: Options) -> None:
    """Spoil, click, print a table."""
    scene = read_scene(options.scene)
    truth = _true_masks(options.truth, len(scene), scene.image_size)
    begin = _at_maps(truth, scene) if options.begin == "truth" else scene.dynamic_prob
    masks = spoil(begin, options.spoil)
    if options.false_box is not None:
        masks = torch.maximum(masks, surface_in_all_frames(scene, options.false_box).float())
    spoiled = replace(scene, dynamic_prob=masks)
    frames = torch.stack([torch.from_numpy(read_image(path)) for path in image_paths(options.scene)])
    with tempfile.TemporaryDirectory() as place:
        folder = write_scene(spoiled, frames, Path(place) / "scene")
        print("| click | J, mean | J, worst frame | missed | falsely marked | s |\n" + "|---" * 6 + "|")
        _row("before spoiling", begin, truth, 0.0)
        _row("none", spoiled.dynamic_prob, truth, 0.0)
        with EditSession(folder, build_refiner(options.refiner)) as session:
            for _ in range(options.clicks):
                moving = _shown(session, truth)
                frame, at, missed, share = next_click(moving, truth, options.correct)
                if share < PLAINLY_WRONG:
                    print(f"Nothing is plainly wrong: {share:.0%} of what moves in the worst frame.")
                    break
                start = time.perf_counter()
                try:
                    said = session.click(frame, at, missed, whole_clip=True, level=options.level).text
                except ValueError as error:
                    said = str(error)
                seconds, now = time.perf_counter() - start, _shown(session, truth)
                what = f"{'moving' if missed else 'static'} at {at[0]:.2f} {at[1]:.2f} of frame {frame + 1}: {said}"
                _row(what, now.float(), truth, seconds)
                if jaccard(now, truth).mean() < jaccard(moving, truth).mean():
                    print("Worse, and undone.")
                    session.undo()
        kept = read_scene(folder).dynamic_prob
        _row("as stored", kept, truth, 0.0)


def spoil(masks: Tensor, how: Spoil) -> Tensor:
    """Take the left half of what moves out of some frames."""
    spoiled, n = masks.clone(), len(masks)
    chosen = {
        "none": [], "scattered": range(1, n, 3), "block": range(n // 3, n // 3 + n // 3), "everywhere": range(n),
    }[how]  # fmt: skip
    for i in chosen:
        columns = torch.nonzero(masks[i] > 0.5)[:, 1]
        if len(columns):
            spoiled[i, :, : int(columns.median())] = 0
    return spoiled


def surface_in_all_frames(scene: Scene, box: tuple[float, float, float, float]) -> Bool[Tensor, "n h w"]:
    """What the middle frame shows in a box, apart from what moves, wherever another frame sees it: a mask that is wrong
    in the whole clip, as ragged as depth is."""
    n, height, width = scene.dynamic_prob.shape
    middle = n // 2
    left, top, right, bottom = box
    chosen = torch.zeros(height, width, dtype=torch.bool)
    chosen[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
    chosen &= (scene.dynamic_prob[middle] < 0.5) & (scene.depth[middle] > 0)
    K = geometry.rescale_intrinsics(scene.K, scene.image_size, (height, width))
    in_camera = geometry.unproject(scene.depth[middle : middle + 1], K[middle : middle + 1])[0][chosen]
    world = geometry.transform(scene.T_world_camera[middle], in_camera)
    found = torch.zeros(n, height, width, dtype=torch.bool)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    for i in range(n):
        x, y, z = geometry.transform(torch.linalg.inv(scene.T_world_camera[i]), world).unbind(-1)
        column = (K[i, 0, 0] * x / z + K[i, 0, 2]).long()
        row = (K[i, 1, 1] * y / z + K[i, 1, 2]).long()
        inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        row, column, z = row[inside], column[inside], z[inside]
        seen = (scene.depth[i, row, column] / z - 1).abs() < SAME_DEPTH  # else something is before it
        marked = np.zeros((height, width), np.uint8)
        marked[row[seen], column[seen]] = 1
        found[i] = torch.from_numpy(cv2.morphologyEx(marked, cv2.MORPH_CLOSE, disc)) > 0
    return found


def next_click(
    moving: Bool[Tensor, "n h w"], truth: Bool[Tensor, "n h w"], correct: Literal["all", "missed", "false"] = "all"
) -> tuple[int, tuple[float, float], bool, float]:
    """Frame, place as shares of width and height, whether something that moves was missed there, and the size of what
    is wrong there as a share of what moves in the frame."""
    kinds = {"all": (True, False), "missed": (True,), "false": (False,)}[correct]
    frame = int(jaccard(moving, truth).nan_to_num(1.0).argmin())
    if correct != "all":
        frame = int(((truth & ~moving) if correct == "missed" else (moving & ~truth)).sum(dim=(1, 2)).argmax())
    best: tuple[float, tuple[float, float], bool] = (-1.0, (0.5, 0.5), True)
    for missed in kinds:
        wrong = (truth[frame] & ~moving[frame]) if missed else (moving[frame] & ~truth[frame])
        count, labels, stats, _ = cv2.connectedComponentsWithStats(wrong.numpy().astype(np.uint8))
        for k in range(1, count):
            if stats[k, cv2.CC_STAT_AREA] <= best[0]:
                continue
            inside = cv2.distanceTransform(np.pad(labels == k, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
            row, column = np.unravel_index(inside.argmax(), inside.shape)
            at = ((column + 0.5) / inside.shape[1], (row + 0.5) / inside.shape[0])
            best = (float(stats[k, cv2.CC_STAT_AREA]), (float(at[0]), float(at[1])), missed)
    return frame, best[1], best[2], best[0] / max(int(truth[frame].sum()), 1)


def _true_masks(folder: Path, n: int, size: tuple[int, int]) -> Bool[Tensor, "n h w"]:
    masks = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(folder.iterdir())]
    read = [cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST) > 127 for mask in masks if mask is not None]
    if len(read) != n:
        raise SystemExit(f"{folder} has {len(read)} masks, the scene {n} frames: predict the whole clip.")
    return torch.from_numpy(np.stack(read))


def _at_maps(truth: Bool[Tensor, "n h w"], scene: Scene) -> Tensor:
    shape = scene.dynamic_prob.shape[1:]
    return (F.interpolate(truth[:, None].float(), tuple(shape), mode="area")[:, 0] > 0.5).float()


def _shown(session: EditSession, truth: Tensor) -> Bool[Tensor, "n h w"]:
    masks = torch.stack([torch.from_numpy(session.masks.moving(i)) for i in range(len(truth))])
    return _at_images(masks.float(), truth)


def _at_images(masks: Tensor, truth: Tensor) -> Bool[Tensor, "n h w"]:
    size = (truth.shape[1], truth.shape[2])
    return F.interpolate(masks[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0] > 0.5


def _row(what: str, masks: Tensor, truth: Tensor, seconds: float) -> None:
    found = _at_images(masks, truth)
    j = jaccard(found, truth)
    missed, false = 1 - float(share_marked(found, truth).nanmean()), float(share_marked(found, ~truth).nanmean())
    print(
        f"| {what} | {float(j.mean()):.3f} | {float(j.min()):.3f} | {missed:.3f} | {false:.4f} | {seconds:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
