"""The user's own masks of what moves: matched to the frames, understood, brought to the frames' size, white = moving.

Masks may be given for some frames only; the others' are predicted.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from das3r_ns.dataparser.mask_files import MaskFiles
from das3r_ns.dataparser.mask_values import Encoding, Evidence, Layer, MaskError
from das3r_ns.dataparser.matching import Numbering, match_files
from das3r_ns.dataparser.matching_result import ClipFrames, MatchError, Matching

MAX_MOVING_SHARE = 0.9
"""Masks that cover more than this are taken for inverted ones."""
MAX_KEPT_BYTES = 256 << 20
"""Masks that are kept as they were read, for as long as a set is read."""
DOUBTFUL_SHARE = 0.6
"""Masks that cover more than this are probably inverted."""


@dataclass(frozen=True)
class FrameMasks:
    """Masks of a clip's frames."""

    moving: Float[Tensor, "n h w"]
    """1 where something moves; 0 in frames without a mask."""
    given: Bool[Tensor, "n"]
    """Which frames have one."""

    def of(self, frames: list[int]) -> "FrameMasks":
        """The masks of these frames."""
        return FrameMasks(self.moving[frames], self.given[frames])


def match_masks(masks: MaskFiles, frames: ClipFrames, numbering: Numbering = "auto") -> Matching:
    """The mask of each frame.

    A single mask whose name is not that of a frame is the mask of all frames. Frames without a mask are allowed
    where masks are named after frames.

    Raises:
        MatchError: no reading of the names accounts for all masks, or several do.
    """
    count, n = len(masks), len(frames.numbers)
    if masks.times_s is not None and frames.times_s is not None and count not in (frames.total, n):
        return _by_time_of_videos(masks, frames)
    if masks.names is None:
        if count == 1:
            return Matching((0,) * n, "one for all frames", exact=True)
        if count not in (frames.total, n):
            raise MatchError(
                f"{masks.place} holds {count} masks without names, and there are {n} frames ({frames.total} in all). "
                "Give one for each frame, or a folder of masks that are named like the frames."
            )
        rows = frames.numbers if count == frames.total else range(n)
        return Matching(tuple(rows), "in order", exact=False)
    if count == 1 and frames.total > 1:
        try:
            return match_files(masks.names, frames, numbering)
        except MatchError:
            return Matching((0,) * n, "one for all frames", exact=True)
    return match_files(masks.names, frames, numbering)


def _by_time_of_videos(masks: MaskFiles, frames: ClipFrames) -> Matching:
    """Masks of a video with another frame rate, by time.

    Raises:
        MatchError: the two videos are not equally long.
    """
    assert masks.times_s is not None
    assert frames.times_s is not None
    times, own = np.array(masks.times_s), np.array(frames.times_s) - frames.times_s[0]
    step = max(np.median(np.diff(times)), np.median(np.diff(own)))
    if len(times) < 2 or abs(times[-1] - own[-1]) > 1.5 * step:
        raise MatchError(
            f"{masks.place} has {len(masks)} frames and lasts {times[-1]:.2f} s, the video has {frames.total} and "
            f"lasts {own[-1]:.2f} s: its frames belong to none of these. Give a mask video of the whole clip."
        )
    rows = [int(np.abs(times - own[number]).argmin()) for number in frames.numbers]
    return Matching(tuple(rows), "by time", exact=True)


def read_masks(
    masks: MaskFiles,
    rows: tuple[int | None, ...],
    size: tuple[int, int],
    white_is_static: bool,
    is_dataset: bool = False,
) -> FrameMasks:
    """Masks of the frames at `size` (height, width).

    Args:
        rows: for each frame its mask's place in `masks`.
        is_dataset: they come with a nerfstudio dataset, whose meaning (white is static) nobody has to state.
    Raises:
        MaskError: a mask has other proportions than the frames, cannot be read or understood, or all say that (nearly)
            everything moves.
    """
    height, width = size
    wanted = sorted({row for row in rows if row is not None})
    for row in wanted:
        _check_proportions(masks.size(row), size, masks.labels[row])
    evidence = Evidence()
    kept, room = {}, MAX_KEPT_BYTES  # all are looked at before any is understood; what fits is not read twice
    for row in wanted:
        layer = masks.load(row)
        evidence.add(layer)
        if layer.num_bytes <= room:
            kept[row] = layer
            room -= layer.num_bytes
    encoding = evidence.encoding(_name_of(masks, wanted))
    at_size = (
        {row: _decoded(kept.get(row) or masks.load(row), encoding, size) for row in wanted}
        if len(wanted) < len(rows)
        else None
    )
    moving = np.zeros((len(rows), height, width), np.float32)
    for i, row in enumerate(rows):
        if row is not None:
            white = _decoded(kept.get(row) or masks.load(row), encoding, size) if at_size is None else at_size[row]
            moving[i] = 1 - white if white_is_static else white
    given = np.array([row is not None for row in rows])
    _check_share(float(moving[given].mean()), white_is_static, is_dataset)
    if encoding.told is not None:
        print(f"Masks: {encoding.told}.")
    return FrameMasks(torch.from_numpy(moving), torch.from_numpy(given))


def _decoded(layer: Layer, encoding: Encoding, size: tuple[int, int]) -> np.ndarray:
    white = encoding.decode(layer)
    return white if white.shape == size else cv2.resize(white, size[::-1], interpolation=cv2.INTER_AREA)


def _name_of(masks: MaskFiles, wanted: list[int]) -> str:
    return masks.labels[wanted[0]] if len(wanted) == 1 else f"the masks ({masks.labels[wanted[0]]}, ...)"


def _check_proportions(found: tuple[int, int], size: tuple[int, int], label: str) -> None:
    (rows, columns), (height, width) = found, size
    # Frames may have been reduced; rounding a side to whole pixels then shifts the proportions by that much.
    if abs(columns * height - rows * width) > max(rows, columns, height, width):
        raise MaskError(
            f"mask {label} has {columns}x{rows} pixels and the frames {width}x{height}: the proportions differ. "
            "Masks must show the whole frame, upright."
        )


def _check_share(share: float, white_is_static: bool, is_dataset: bool) -> None:
    """
    Raises:
        MaskError: nearly everything moves.
    """
    if share > MAX_MOVING_SHARE and is_dataset:
        raise MaskError(
            f"the masks of the dataset leave {1 - share:.0%} of the images as static: in nerfstudio's datasets white "
            "is what is static. If white is what moves in yours, give their folder as --masks."
        )
    if share > MAX_MOVING_SHARE and white_is_static:
        raise MaskError(
            f"the masks leave {1 - share:.0%} of the images as static, and white is what is static there. Is white "
            "what moves in yours? Give their folder as --masks, without --masks-white-is-static."
        )
    if share > MAX_MOVING_SHARE:
        raise MaskError(
            f"the masks say that {share:.0%} of the images moves. White must be what moves; if white is the static "
            "part in yours (nerfstudio's meaning), give --masks-white-is-static."
        )
    if share > DOUBTFUL_SHARE:
        remedy = (
            "give their folder as --masks" if is_dataset
            else "leave out --masks-white-is-static" if white_is_static
            else "give --masks-white-is-static"
        )  # fmt: skip
        print(f"Masks: {share:.0%} of the images moves by them, which is much. If they are inverted, {remedy}.")
    elif share == 0:
        print("Masks: nothing moves by them in any frame.")


def describe(matching: Matching, frames: ClipFrames, place: Path) -> str | None:
    """What to say about the way in which masks were matched; None where it is as one expects."""
    missing = sum(row is None for row in matching.rows)
    if missing:
        return (
            f"Masks: {len(matching.rows) - missing} of {len(matching.rows)} frames have one in {place}, matched "
            f"{matching.how}; in the others what moves is predicted."
        )
    if matching.exact:
        return None if matching.how != "one for all frames" else f"Masks: {place} is taken for all frames."
    first = next(row for row in matching.rows if row is not None)
    return f"Masks: matched {matching.how} ({frames.label(frames.numbers[0])} has mask {first + 1} of {place})."


__all__ = ["Encoding", "FrameMasks", "MaskError", "describe", "match_masks", "read_masks"]
