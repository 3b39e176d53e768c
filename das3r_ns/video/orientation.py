"""How a decoded frame is meant to be seen: turned by its display matrix, with square pixels."""

import struct
from fractions import Fraction
from functools import cache

import av
import numpy as np
from av.sidedata.sidedata import Type
from jaxtyping import Float

UPRIGHT = np.eye(2)


def orientation(frame: av.VideoFrame) -> Float[np.ndarray, "2 2"]:
    """The 2x2 matrix of the display matrix (rows a b, c d; see libavutil/display.h), entries 0 or +-1.

    A pixel at (x, y) is shown at (a x + c y, b x + d y), y down. Turns by other angles than quarters are left out.
    """
    for data in side_data(frame):
        if data.type == Type.DISPLAYMATRIX:
            a, b, _, c, d = struct.unpack_from("=5i", memoryview(data))  # pyright: ignore[reportArgumentType]
            matrix = np.array([[a, b], [c, d]]) / 65536.0
            rounded = np.round(matrix)
            if np.abs(matrix - rounded).max() < 0.1 and abs(np.linalg.det(rounded)) == 1:
                return rounded
    return UPRIGHT


def is_sideways(matrix: Float[np.ndarray, "2 2"]) -> bool:
    """Whether width and height change places."""
    return bool(abs(matrix[0, 1]) == 1)


def turned(image: np.ndarray, matrix: Float[np.ndarray, "2 2"]) -> np.ndarray:
    """An image [h, w, ...] as its display matrix wants it seen, contiguous."""
    if is_sideways(matrix):
        # Shown column = c y, shown row = b x: the axes change places, then each may run backwards.
        image = image.swapaxes(0, 1)
        columns, rows = matrix[1, 0], matrix[0, 1]
    else:
        columns, rows = matrix[0, 0], matrix[1, 1]
    if rows < 0:
        image = image[::-1]
    if columns < 0:
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def shown_size(frame: av.VideoFrame, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Height and width of a frame as it is meant to be seen.

    Args:
        pixel_aspect: width of a pixel by its height; None where the file does not say.
    """
    aspect = float(pixel_aspect) if pixel_aspect else 1.0
    # Nothing that is filmed has pixels as long as that: a slip of the file, which players overlook as well.
    aspect = aspect if 0.2 < aspect < 5 else 1.0
    height, width = frame.height, round(frame.width * aspect)
    return (width, height) if is_sideways(orientation(frame)) else (height, width)


def side_data(frame: av.VideoFrame) -> "list[av.sidedata.sidedata.SideData]":
    """What a frame carries besides its pixels, of kinds that PyAV has no name for too."""
    try:
        return list(frame.side_data)
    except ValueError:  # "31 is not a valid Type": FFmpeg knows of more kinds (EXIF, views of 3D video) than PyAV
        _name_unknown_kinds()
        return list(frame.side_data)


@cache
def _name_unknown_kinds() -> None:
    """Let PyAV's enumeration of kinds of side data name those that it lacks, instead of failing at every frame that
    carries one."""

    def unknown(cls: type[Type], value: object) -> Type:
        member = object.__new__(cls)
        member._name_, member._value_ = f"UNKNOWN_{value}", value
        return member

    Type._missing_ = classmethod(unknown)  # pyright: ignore[reportAttributeAccessIssue]
