"""Truth and result brought to one size. Where they differ in shape no resizing would do, and they are refused."""

import math

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from das3r_ns.datasets import TruthError

SHAPE_TOLERANCE = 0.01
"""Ratios of width to height that differ by less are the same up to rounding."""


def resized_map(values: Float[Tensor, "h w"], height: int, width: int, what: str) -> Float[Tensor, "H W"]:
    """A map brought to the size of `what`, linearly.

    Raises:
        TruthError: it is of another shape, so that no resizing could make the two show the same.
    """
    _check_shape((values.shape[0], values.shape[1]), (height, width), what)
    if values.shape == (height, width):
        return values
    return torch.from_numpy(cv2.resize(values.float().cpu().numpy(), (width, height), interpolation=cv2.INTER_LINEAR))


def resized_image(image: UInt8[Tensor, "h w 3"], height: int, width: int, what: str) -> Float[Tensor, "H W 3"]:
    """A true image (`what`) brought to the size of a render, in [0, 1].

    Raises:
        TruthError: it is of another shape.
    """
    _check_shape((height, width), (image.shape[0], image.shape[1]), what)
    values = image.numpy()
    if values.shape[:2] != (height, width):
        shrinks = height < values.shape[0]
        values = cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return torch.from_numpy(values).float() / 255


def resized_mask(mask: Bool[Tensor, "h w"], height: int, width: int, what: str) -> Bool[Tensor, "H W"]:
    """A true mask (`what`) brought to the size of a render, by its nearest pixels, as the published protocol does.

    Raises:
        TruthError: it is of another shape.
    """
    _check_shape((height, width), (mask.shape[0], mask.shape[1]), what)
    if mask.shape == (height, width):
        return mask
    nearest = cv2.resize(mask.numpy().astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return torch.from_numpy(nearest > 0)


def _check_shape(result: tuple[int, int], truth: tuple[int, int], what: str) -> None:
    ratio = (result[1] / result[0]) / (truth[1] / truth[0])
    rounding = 1 / min(*result, *truth)
    if abs(math.log(ratio)) > SHAPE_TOLERANCE + rounding:
        raise TruthError(
            f"{what} is {truth[1]}x{truth[0]} and the result {result[1]}x{result[0]}: another shape, so one of them "
            "was cropped or turned. Give ground truth cropped like the clip that was predicted."
        )
