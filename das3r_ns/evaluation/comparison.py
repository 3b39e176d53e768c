"""One result against one truth: what is compared with what, and what is refused.

In: camera paths, dynamic maps and renders on one side, a `TruthClip` on the other, both indexed by the frame of the
clip. Out: plain numbers and the per-frame curves behind them. Everything that does not fit (number of frames, shape
of the images, a path that is not finite) is an error that names the file.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns.datasets import TruthClip, TruthError, read_image
from das3r_ns.evaluation.metrics import (
    MaskScores,
    PoseErrors,
    calibration_counts,
    clean_psnr,
    focal_error_percent,
    jaccard,
    mask_scores,
    paper_psnr,
    pose_errors,
    static_psnr,
    static_ssim,
)
from das3r_ns.evaluation.metrics.perceptual import static_lpips
from das3r_ns.evaluation.resizing import resized_image, resized_map, resized_mask
from das3r_ns.scene import DYNAMIC_THRESHOLD

THRESHOLDS = tuple(round(0.1 * k, 1) for k in range(1, 10))
"""At which J is listed beside the one that counts: it tells a bad mask from a badly chosen threshold."""

Look = Callable[[int, Tensor, Tensor, Tensor, "Tensor | None"], None]
"""What is shown of a compared frame: its number, render, true image, true mask, clean background (None without)."""


@dataclass(frozen=True)
class MaskComparison:
    """J and F of the frames that have a true mask."""

    frames: tuple[int, ...]
    """Indices in the clip."""
    scores: MaskScores
    j_by_threshold: dict[float, float]
    """J mean at other thresholds than the one that counts."""
    calibration: tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]
    """Pixels in equal bins of the probability, how many of them move, and the sum of their probabilities
    (`calibration_counts`)."""

    def summary(self) -> dict[str, Any]:
        return {
            "frames": len(self.frames),
            "threshold": DYNAMIC_THRESHOLD,
            "j_mean": self.scores.j_mean,
            "j_recall": self.scores.j_recall,
            "f_mean": self.scores.f_mean,
            "f_recall": self.scores.f_recall,
            "moving_marked": self.scores.moving_marked_mean,
            "static_marked": self.scores.static_marked_mean,
            "j_mean_by_threshold": {str(t): j for t, j in self.j_by_threshold.items()},
            "calibration": dict(zip(("pixels", "moving", "probability"), map(list, self.calibration), strict=True)),
            "per_frame": {
                "frame": list(self.frames),
                "j": self.scores.j.tolist(),
                "f": self.scores.f.tolist(),
                "moving_marked": self.scores.moving_marked.tolist(),
                "static_marked": self.scores.static_marked.tolist(),
            },
        }


@dataclass(frozen=True)
class PoseComparison:
    """Errors of a camera path, and of its focal length where the true one is known."""

    errors: PoseErrors
    focal_error_percent: float | None

    def summary(self) -> dict[str, Any]:
        return {
            "ate": self.errors.ate,
            "ate_percent_of_path": self.errors.ate_percent,
            "rpe_translation": self.errors.rpe_translation,
            "rpe_rotation_deg": self.errors.rpe_rotation_deg,
            "path_length": self.errors.path_length,
            "focal_error_percent": self.focal_error_percent,
        }


@dataclass(frozen=True)
class ImageComparison:
    """One number a frame for each measure; NaN where no pixel speaks for it, None for LPIPS without weights."""

    frames: tuple[int, ...]
    paper_psnr: tuple[float, ...]
    static_psnr: tuple[float, ...]
    static_ssim: tuple[float, ...]
    clean_psnr: tuple[float, ...]
    static_lpips: tuple[float | None, ...]

    def summary(self) -> dict[str, Any]:
        per_frame = {
            name: list(getattr(self, name))
            for name in ("paper_psnr", "static_psnr", "static_ssim", "clean_psnr", "static_lpips")
        }
        return {
            "frames": len(self.frames),
            **{name: mean_of_known(values) for name, values in per_frame.items()},
            "per_frame": {"frame": list(self.frames), **per_frame},
        }


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are numbers; None if none is."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return sum(known) / len(known) if known else None


def compare_masks(dynamic_prob: Float[Tensor, "n h w"], truth: TruthClip) -> MaskComparison:
    """J and F of soft dynamic maps, thresholded at 0.5 after they were brought to the size of the true masks.

    Frames without a true mask are left out.

    Raises:
        TruthError: the ground truth has no masks, another number of frames or images of another shape.
    """
    check_frames(len(dynamic_prob), truth)
    if truth.dynamic_mask is None:
        raise TruthError(f"{truth.folder} has no masks (dynamic_masks/), so masks cannot be scored.")
    frames, parts, swept, counted = [], [], [], []
    for i in range(len(truth)):
        true_mask = truth.dynamic_mask(i)
        if true_mask is None:
            continue
        probability = resized_map(
            dynamic_prob[i], true_mask.shape[0], true_mask.shape[1], f"the mask of frame {i} in {truth.folder}"
        )
        parts.append(mask_scores((probability > DYNAMIC_THRESHOLD)[None], true_mask[None]))
        swept.append([float(jaccard((probability > t)[None], true_mask[None])) for t in THRESHOLDS])
        counted.append(torch.stack([part.double() for part in calibration_counts(probability, true_mask)]))
        frames.append(i)
    if not frames:
        raise TruthError(f"{truth.folder} has no mask for any frame, so masks cannot be scored.")
    scores = MaskScores(
        *(torch.cat([getattr(part, name.name) for part in parts]) for name in dataclass_fields(MaskScores))
    )
    by_threshold = np.mean(swept, axis=0)
    pixels, moving, probabilities = torch.stack(counted).sum(dim=0).tolist()
    calibration = (tuple(map(int, pixels)), tuple(map(int, moving)), tuple(probabilities))
    j_by_threshold = {t: float(j) for t, j in zip(THRESHOLDS, by_threshold)}
    return MaskComparison(tuple(frames), scores, j_by_threshold, calibration)


def compare_poses(
    T_world_camera: Float[Tensor, "n 4 4"], K: Float[Tensor, "n 3 3"], width: int, truth: TruthClip
) -> PoseComparison:
    """ATE, RPE and focal error of a camera path.

    Args:
        width: of the images that K belongs to.
    Raises:
        TruthError: the ground truth has no poses, another number of frames, or either path is no camera path.
    """
    check_frames(len(T_world_camera), truth)
    if truth.T_world_camera is None:
        raise TruthError(f"{truth.folder} has no poses (T_world_camera.txt), so poses cannot be scored.")
    try:
        errors = pose_errors(T_world_camera, truth.T_world_camera)
    except ValueError as error:
        raise TruthError(f"poses against {truth.folder}: {error}.") from error
    focal_error = None
    if truth.K is not None:
        true_width = width if truth.images is None else read_image(truth.images[0]).shape[1]
        focal_error = focal_error_percent(K[:, 0, 0], truth.K[:, 0, 0], width, true_width)
    return PoseComparison(errors, focal_error)


def compare_images(
    frames: Iterable[int],
    render: Callable[[int], Float[Tensor, "h w 3"]],
    truth: TruthClip,
    look: Look = lambda frame, render, image, dynamic, background: None,
) -> ImageComparison:
    """PSNR, SSIM and LPIPS of rendered frames; the ground truth is brought to the size of the render.

    A frame without a true mask is left out, as the published protocol does.

    Args:
        render: gives the image of a frame, RGB in [0, 1].
        look: called with every frame, for figures.
    Raises:
        TruthError: the ground truth has no images or masks for these frames, or images of another shape.
    """
    if truth.images is None or truth.dynamic_mask is None:
        missing = "images (images/)" if truth.images is None else "masks (dynamic_masks/)"
        raise TruthError(f"{truth.folder} has no {missing}, so PSNR over static pixels cannot be measured.")
    rows: list[tuple[int, float, float, float, float, float | None]] = []
    for i in frames:
        if i >= len(truth):
            raise TruthError(f"the result shows frame {i}, and {truth.folder} has only {len(truth)} frames.")
        mask = truth.dynamic_mask(i)
        if mask is None:
            continue
        rendered = render(i).cpu()
        size = (rendered.shape[0], rendered.shape[1])
        image = resized_image(truth.image(i), *size, str(truth.images[i]))
        dynamic = resized_mask(mask, *size, f"the mask of frame {i} in {truth.folder}")
        clean, background = math.nan, None
        if truth.clean is not None:
            background = resized_image(truth.background(i), *size, str(truth.clean[i]))
            clean = clean_psnr(rendered, background, dynamic)
        rows.append(
            (
                i,
                paper_psnr(rendered, image, dynamic),
                static_psnr(rendered, image, dynamic),
                static_ssim(rendered, image, dynamic),
                clean,
                static_lpips(rendered, image, dynamic),
            )
        )
        look(i, rendered, image, dynamic, background)
    if not rows:
        raise TruthError(f"none of the rendered frames has a true mask in {truth.folder}.")
    return ImageComparison(*(tuple(column) for column in zip(*rows)))


def truth_of_frames(truth: TruthClip, names: Sequence[str]) -> TruthClip:
    """The ground truth of the frames that a result has, when frames of the clip were left out: found by the names of
    the images, or by the number of the frame in the video (`frame_00001` is the first). A truth of as many frames
    as the result is taken as it is.

    Raises:
        TruthError: the lengths differ and the names do not say which frames were taken.
    """
    if len(names) == len(truth):
        return truth
    stems = [Path(name).stem for name in names]
    known = {} if truth.images is None else {path.stem: i for i, path in enumerate(truth.images)}
    if all(stem in known for stem in stems):
        return truth.only([known[stem] for stem in stems])
    numbers = [int(stem.removeprefix("frame_")) - 1 for stem in stems if re.fullmatch(r"frame_\d+", stem)]
    if len(numbers) == len(names) < len(truth) and max(numbers) < len(truth):
        return truth.only(numbers)
    check_frames(len(names), truth)
    raise AssertionError  # check_frames has raised


def check_frames(count: int, truth: TruthClip) -> None:
    """
    Raises:
        TruthError: the ground truth is of a clip of another length.
    """
    if count != len(truth):
        raise TruthError(
            f"the result has {count} frames and the ground truth {truth.folder} has {len(truth)}, and the names do not "
            "say which frames were left out (--video.max-frames, --video.every). Give the ground truth of exactly "
            "these frames."
        )
