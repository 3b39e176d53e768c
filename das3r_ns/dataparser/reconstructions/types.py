"""What a reader of another program's files returns, and how that program's images relate to the frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from das3r_ns.dataparser.options import Convention


@dataclass(frozen=True)
class Framing:
    """Where an image that a program saved lies in the frame that it was given: the frame is resized, then cut."""

    resized: tuple[int, int]
    """Height and width to which the whole frame is resized."""
    top: int
    """Rows that are cut off above."""
    left: int
    """Columns that are cut off on the left."""

    def fits(self, saved: tuple[int, int]) -> bool:
        """Whether an image of `saved` height and width lies inside the resized frame."""
        return self.top + saved[0] <= self.resized[0] and self.left + saved[1] <= self.resized[1]


FramingRule = Callable[[tuple[int, int], tuple[int, int]], Framing | None]
"""From the size of the frame and that of the saved image (height, width) to how one became the other; None where the
program would not have made this of that."""


def stretched(frame: tuple[int, int], saved: tuple[int, int]) -> Framing:
    """The whole frame, resized without regard to its proportions."""
    return Framing(saved, 0, 0)


def centre_cut(frame: tuple[int, int], saved: tuple[int, int]) -> Framing | None:
    """DUSt3R's family: the longer side becomes the longer side of the network's input (512), then the middle is cut to
    multiples of 16; square images are cut to 4:3. 224: the shorter side becomes 224, and the middle square is cut."""
    long_side = max(saved)
    height, width = frame
    if saved == (224, 224):
        scale = 224 / min(frame)
        resized = (round(height * scale), round(width * scale))
    else:
        resized = (round(height * long_side / max(frame)), round(width * long_side / max(frame)))
    top, left = (resized[0] - saved[0]) // 2, (resized[1] - saved[1]) // 2
    lost = max(resized[0] - saved[0], resized[1] - saved[1])
    square = height == width and saved[0] * 4 == saved[1] * 3
    if min(top, left) < 0 or (lost >= 16 and not square and saved != (224, 224)):
        return None
    return Framing(resized, top, left)


@dataclass(frozen=True)
class DepthMap:
    """Depth of one image."""

    depth: Float32[np.ndarray, "h w"]
    """z-depth in the units of the cameras; what is not finite or not above 0 is unknown."""
    confidence: Float32[np.ndarray, "h w"] | None = None
    """0 unknown .. 1 as good as this source gets; None where the program says nothing."""


@dataclass(frozen=True)
class FrameArray:
    """Images that a program keeps among its numbers."""

    count: int
    read: Callable[[int], UInt8[np.ndarray, "h w 3"]]
    """Image i, RGB."""
    fps: float | None = None


@dataclass(frozen=True)
class Reconstruction:
    """Everything of use in the files of one program."""

    tool: str
    """The program, as its users call it."""
    path: Path
    matrices: Float64[np.ndarray, "n 4 4"]
    convention: Convention
    """What `matrices` are."""
    K: Float64[np.ndarray, "n 3 3"] | None
    """In pixels of the saved images; None where the files hold no intrinsics."""
    saved_size: tuple[int, int] | None
    """Height and width of the images that K, depth and masks are of; None where K is None."""
    counted: Literal["order", "numbers", "times", "names"]
    """How images are told apart: `order`, all that the program was given, in order; `numbers`, their places (from 0)
    among these; `times`, in seconds; `names` of image files."""
    names: tuple[str, ...] | None = None
    numbers: tuple[int, ...] | None = None
    times_s: tuple[float, ...] | None = None
    framing: FramingRule = stretched
    keyframes: bool = False
    """Only some of the frames were posed; those between are to be found."""
    depth: Callable[[int], DepthMap] | None = None
    """Depth of image i, of any size that covers the saved image."""
    moving: Callable[[int], Float32[np.ndarray, "h w"]] | None = None
    """1 where something moves in image i, 0 elsewhere, of any size that covers the saved image."""
    frames: Path | FrameArray | None = None
    """The images: a video, a folder, or an array; None where the program keeps none."""
    files: tuple[Path, ...] = ()
    """All files that were or will be read: their content decides the result."""

    def __len__(self) -> int:
        return len(self.matrices)
