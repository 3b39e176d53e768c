"""Values from files that somebody else may have written: finite numbers, sizes, lenses, matrices, poses.

Each check raises the error type of the file's reader, and its message names the place (`what`: file and frame), the
value, and what is expected.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float64

MAX_SIDE_PX = 100_000
"""Longest side of an image that is taken for meant."""
MAX_COORDINATE = 1e9
"""Farthest a camera may stand from the origin, in any unit; satellites see the earth from less in metres."""
MAX_SKEW = 1e-2
"""How far a rotation may be from one: rows of unit length at right angles."""


def number(values: dict[str, Any], key: str, what: str, error: type[Exception] = ValueError) -> float:
    """A finite number.

    Raises:
        KeyError: there is none.
        error: it is not a finite number.
    """
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise error(f"{what}: {key} is {str(value)[:40]!r} and not a number.")
    try:
        found = float(value)
    except (ValueError, OverflowError) as cause:
        raise error(f"{what}: {key} is {str(value)[:40]!r} and not a number.") from cause
    if not math.isfinite(found):
        raise error(f"{what}: {key} is {found}, which is not finite.")
    return found


def size_of(values: dict[str, Any], what: str, error: type[Exception] = ValueError) -> tuple[int, int] | None:
    """Height and width of the image, None where the file does not say.

    Raises:
        error: they are not sizes.
    """
    if values.get("h") is None or values.get("w") is None:
        return None
    height, width = number(values, "h", what, error), number(values, "w", what, error)
    if not (0 < height <= MAX_SIDE_PX and 0 < width <= MAX_SIDE_PX):
        raise error(f"{what}: {width:g}x{height:g} pixels is not the size of an image.")
    return round(height), round(width)


def intrinsics_of(
    values: dict[str, Any], size: tuple[int, int], what: str, error: type[Exception] = ValueError
) -> list[list[float]]:
    """K in pixels of an image of `size`, from focal lengths or from angles.

    Raises:
        KeyError: neither is there.
        error: a value makes no sense.
    """
    height, width = size
    if values.get("fl_x") is not None:
        fx = number(values, "fl_x", what, error)
        fy = number(values, "fl_y", what, error) if values.get("fl_y") is not None else fx
    elif values.get("camera_angle_x") is not None:
        fx = _focal(number(values, "camera_angle_x", what, error), width, "camera_angle_x", what, error)
        has_y = values.get("camera_angle_y") is not None
        fy = (
            _focal(number(values, "camera_angle_y", what, error), height, "camera_angle_y", what, error)
            if has_y
            else fx
        )
    else:
        raise KeyError("fl_x")
    cx = number(values, "cx", what, error) if values.get("cx") is not None else width / 2
    cy = number(values, "cy", what, error) if values.get("cy") is not None else height / 2
    if not (fx > 0 and fy > 0):
        raise error(f"{what}: the focal length is {fx:g} x {fy:g}, and must be above 0.")
    if not (0.01 < fx / width < 1000 and 0.01 < fy / height < 1000):
        raise error(f"{what}: a focal length of {fx:g} x {fy:g} does not fit an image of {width}x{height} pixels.")
    if not (-width < cx < 2 * width and -height < cy < 2 * height):
        raise error(f"{what}: the principal point ({cx:g}, {cy:g}) lies far outside of {width}x{height} pixels.")
    return [[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]


def _focal(angle: float, side: int, key: str, what: str, error: type[Exception]) -> float:
    if not 0 < angle < math.pi:
        raise error(f"{what}: {key} is {angle:g}; radians between 0 and pi are expected.")
    return side / (2 * math.tan(angle / 2))


def matrix_of(
    values: dict[str, Any], what: str, key: str = "transform_matrix", error: type[Exception] = ValueError
) -> np.ndarray:
    """A matrix of 3x4 or 4x4 finite numbers as 4x4, in double precision.

    Raises:
        KeyError: there is none.
        error: it is something else.
    """
    try:
        matrix = np.array(values[key], np.float64)
    except (TypeError, ValueError, OverflowError) as cause:
        raise error(f"{what}: {key} does not hold 4x4 numbers.") from cause
    if matrix.shape not in ((4, 4), (3, 4)):
        raise error(f"{what}: {key} has the shape {matrix.shape} and not 4x4.")
    wrong = matrix[~np.isfinite(matrix)]
    if len(wrong):
        raise error(f"{what}: {key} holds {wrong[0]}, which is not finite.")
    if len(matrix) == 4 and not np.allclose(matrix[3], [0, 0, 0, 1], atol=1e-6):
        raise error(f"{what}: the last row of {key} is {matrix[3].tolist()} and not 0 0 0 1.")
    return np.vstack((matrix[:3], [0.0, 0.0, 0.0, 1.0]))


def applied_transform(values: dict[str, Any], what: str, error: type[Exception] = ValueError) -> np.ndarray:
    """nerfstudio's `applied_transform` as 4x4: from the world of the program that found the cameras to that of the
    matrices; the identity where the file does not say.

    Raises:
        error: it is not an invertible matrix.
    """
    if values.get("applied_transform") is None:
        return np.eye(4)
    matrix = matrix_of(values, what, "applied_transform", error)
    if not 1e-12 < abs(np.linalg.det(matrix[:3, :3])) < 1e12:
        raise error(f"{what}: applied_transform cannot be inverted.")
    return matrix


def check_pose(T: Float64[np.ndarray, "4 4"], what: str, error: type[Exception] = ValueError) -> None:
    """
    Raises:
        error: the pose is not a rotation and a translation.
    """
    if not np.isfinite(T).all():
        raise error(f"{what}: its pose holds {T[~np.isfinite(T)][0]}, which is not finite.")
    far = np.abs(T[:3, 3]).max()
    if far > MAX_COORDINATE:
        raise error(f"{what}: its position has the coordinate {far:.3g}, which cannot be where a camera stands.")
    R = T[:3, :3]
    if np.abs(R).max() > 1e3 or np.abs(R @ R.T - np.eye(3)).max() > MAX_SKEW:
        lengths = ", ".join(f"{length:.3g}" for length in np.linalg.norm(R, axis=1))
        raise error(
            f"{what}: its transform is not a rotation and translation (scaled or skewed: its rows have the lengths "
            f"{lengths})."
        )
    if np.linalg.det(R) < 0:
        raise error(f"{what}: its transform is mirrored (the determinant is negative).")


def nearest_rotation(R: Float64[np.ndarray, "*n 3 3"]) -> Float64[np.ndarray, "*n 3 3"]:
    """The nearest true rotation, for matrices that were rounded when they were written."""
    U, _, Vt = np.linalg.svd(R)
    return U @ Vt
