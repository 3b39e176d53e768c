"""Images worth looking at beside the numbers: camera paths, masks, PSNR over time, renders beside the ground truth.

Drawn with matplotlib's own figure objects (no window system, no global state) and OpenCV. Each function writes one
file and returns its path.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.evaluation.comparison import ImageComparison
from das3r_ns.files.whole import whole_file, write_bytes_whole

PANEL_WIDTH = 320
"""Pixels of one image in a sheet."""

MISSED, FALSE_ALARM, FOUND = (230, 60, 60), (60, 110, 230), (235, 235, 235)
"""RGB in which an error image shows moving pixels called static, static ones called moving, and moving ones found."""

BAR = 22
"""Height in pixels of the line of text above a panel."""


def draw_paths(
    aligned: Mapping[str, Float[Tensor, "n 4 4"]], truth: Float[Tensor, "n 4 4"], path: Path, title: str = ""
) -> Path:
    """Camera paths from above and from the side.

    Args:
        aligned: predicted paths by name, moved into the ground truth's world already.
    """
    from matplotlib.figure import Figure

    level = geometry.level_world(truth.double(), typical_depth=1.0)  # z up, so that "above" and "side" mean something
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    views = figure.subplots(1, 2)
    for axes, (a, b), name in zip(views, ((0, 1), (0, 2)), ("from above", "from the side")):
        truth_style = {"color": "0.75", "linewidth": 5.0}  # wide and pale: a path that covers it is still seen
        for label, T, style in (("truth", truth, truth_style), *((label, T, {}) for label, T in aligned.items())):
            centres = geometry.apply_similarity(level, T.double())[0][:, :3, 3].numpy()
            (line,) = axes.plot(centres[:, a], centres[:, b], label=label, **style)
            axes.plot(centres[0, a], centres[0, b], "o", color=line.get_color(), markersize=5)
        axes.set(title=name, xlabel="xyz"[a], ylabel="xyz"[b])
        axes.set_aspect("equal", adjustable="datalim")
        axes.grid(alpha=0.3)
    views[0].legend()
    figure.suptitle(title)
    with whole_file(path) as part:
        figure.savefig(part, dpi=110)
    return path


def draw_psnr(curves: Mapping[str, ImageComparison], path: Path, title: str = "") -> Path:
    """Static PSNR (and clean PSNR, where there is a clean background) of every rendered frame."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for name, result in curves.items():
        (line,) = axes.plot(result.frames, result.static_psnr, ".-", label=f"static PSNR, {name}")
        if not np.isnan(result.clean_psnr).all():
            axes.plot(result.frames, result.clean_psnr, ".:", color=line.get_color(), label=f"clean PSNR, {name}")
    axes.set(xlabel="frame of the clip", ylabel="dB", title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with whole_file(path) as part:
        figure.savefig(part, dpi=110)
    return path


def draw_calibration(
    counts: Mapping[str, tuple[Sequence[int], Sequence[int], Sequence[float]]], path: Path, title: str = ""
) -> tuple[Path, float]:
    """Reliability diagram of dynamic maps: the share of pixels that move against the probability they were given, each
    clip and all together (every clip counting the same).

    Args:
        counts: by clip, pixels in equal bins of the probability, how many of them move, and the sum of their
            probabilities.

    Returns:
        The file, and the mean distance between probability and share over the pixels of all clips (expected calibration
        error).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5.4), layout="constrained")
    axes = figure.subplots()
    total = np.zeros((3, 1))
    for name, values in counts.items():
        clip = np.array(values, float) / np.sum(values[0])
        total = total + clip
        pixels, moving, probability = clip[:, clip[0] > 1e-4]  # a handful of pixels says nothing
        axes.plot(probability / pixels, moving / pixels, ".-", linewidth=0.7, alpha=0.5, label=name)
    pixels, moving, probability = total[:, total[0] > 0]
    error = float(np.abs(moving - probability).sum() / pixels.sum())
    axes.plot(probability / pixels, moving / pixels, "k.-", linewidth=2.5, label="all clips")
    axes.plot([0, 1], [0, 1], ":", color="0.5")
    axes.set(xlabel="dynamic_prob", ylabel="share of its pixels that move", title=title, xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    with whole_file(path) as part:
        figure.savefig(part, dpi=110)
    return path, error


@dataclass
class Sheet:
    """Rows of panels of equal width, with a line of text above each panel."""

    columns: tuple[str, ...]
    rows: list[np.ndarray] = field(default_factory=list)

    def add(self, label: str, panels: Sequence[UInt8[np.ndarray, "h w 3"]]) -> None:
        """Add a row.

        Args:
            label: stands before the columns' names.
        """
        height = round(PANEL_WIDTH * panels[0].shape[0] / panels[0].shape[1])
        drawn = []
        for name, panel in zip(self.columns, panels):
            small = cv2.resize(panel, (PANEL_WIDTH, height), interpolation=cv2.INTER_AREA)
            bar = np.full((BAR, PANEL_WIDTH, 3), 255, np.uint8)
            cv2.putText(bar, f"{label} {name}", (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
            drawn.append(np.vstack((bar, small)))
        self.rows.append(np.hstack(drawn))

    def save(self, path: Path) -> Path:
        """Write it as a JPEG or PNG, by the suffix of `path`."""
        encoded, data = cv2.imencode(path.suffix, np.vstack(self.rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        if not encoded:
            raise OSError(f"could not encode {path}")
        write_bytes_whole(path, data.tobytes())
        return path


def mask_sheet() -> Sheet:
    """Contact sheet of masks; fill its rows with `mask_panels`."""
    return Sheet(("input", "truth", "predicted", "error: red missed, blue false"))


def mask_panels(
    image: UInt8[Tensor, "h w 3"], truth: Bool[Tensor, "h w"], dynamic_prob: Float[Tensor, "h w"], threshold: float
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Input, true mask, predicted soft mask and error of one frame, all of one size."""
    true_mask, probability = truth.numpy(), dynamic_prob.numpy()
    predicted = probability > threshold
    error = np.zeros((*true_mask.shape, 3), np.uint8)
    error[true_mask & predicted] = FOUND
    error[true_mask & ~predicted] = MISSED
    error[~true_mask & predicted] = FALSE_ALARM
    return [image.numpy(), _grey(true_mask), _grey(probability), error]


def image_sheet(with_background: bool = False) -> Sheet:
    """Strip of renders beside the ground truth; fill its rows with `image_panels`.

    Args:
        with_background: whether there is a clean background to show too.
    """
    background = ("clean background",) if with_background else ()
    return Sheet(("truth", "render", *background, "difference x4, moving pixels dimmed"))


def image_panels(
    render: Float[Tensor, "h w 3"],
    truth: Float[Tensor, "h w 3"],
    dynamic: Bool[Tensor, "h w"],
    background: Float[Tensor, "h w 3"] | None = None,
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """True image, render, clean background where there is one, and the difference of the first two times four; what
    moves is dimmed in it, since it does not count."""
    difference = 4 * (render.clamp(0, 1) - truth).abs()
    difference = torch.where(dynamic[..., None], 0.25 * difference, difference)
    shown = [truth, render, *([background] if background is not None else []), difference]
    return [_bytes(image) for image in shown]


def spread_evenly(count: int, wanted: int = 6) -> list[int]:
    """Up to `wanted` of `count` indices, spread from the first to the last."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(wanted, count))})


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat((255 * values.astype(np.float32)).round().astype(np.uint8)[..., None], 3, axis=-1)


def _bytes(image: Tensor) -> np.ndarray:
    return (255 * image.clamp(0, 1)).round().byte().numpy()
