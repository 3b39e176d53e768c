"""Images of 16 bits a channel whose values use fewer: machine and thermal cameras write 10, 12 or 14 bits into them.

Taken for 16 bits they are nearly black. What is white must be one value for all images of a clip, or their brightness
would jump with what is seen.
"""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8, UInt16

from das3r_ns.files.image_file import open_image

FULL_WHITE = 65535
"""Largest value of 16 bits."""

_BITS = (8, 10, 12, 14, 16)
"""What sensors deliver."""

_TIFF_BITS_PER_SAMPLE = 258


def shared_white(paths: list[Path]) -> tuple[int, int]:
    """The value that is white in images of one clip, and the largest that they hold.

    The white is that of the smallest of 8, 10, 12, 14 and 16 bits that holds all values; `FULL_WHITE` for images of
    8 bits. Reads the headers only unless all images have 16 bits.
    """
    if not all(_has_16_bits(path) for path in paths):
        return FULL_WHITE, FULL_WHITE
    largest = 0
    for path in paths:
        largest = max(largest, int(read_16_bits(path).max()))
        if largest >= 1 << _BITS[-2]:
            return FULL_WHITE, largest
    bits = next(bits for bits in _BITS if largest < 1 << bits)
    return (1 << bits) - 1, largest


def read_16_bits(path: Path) -> UInt16[np.ndarray, "h w *c"]:
    """Values of an image as they are stored: grey [h, w], RGB or RGBA; its EXIF orientation is left alone.

    Raises:
        ValueError: it cannot be decoded.
    """
    content = np.frombuffer(path.read_bytes(), np.uint8)  # not cv2.imread, which on some systems knows ASCII names only
    image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16:
        raise ValueError(f"{path} cannot be read to its end. Copy it again or take it out.")
    if image.ndim == 2:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)


def to_8_bits(values: UInt16[np.ndarray, "..."], white: int) -> UInt8[np.ndarray, "..."]:
    """Values from 0 to `white` as 0 to 255."""
    return np.round(values.clip(0, white) * (255.0 / white)).astype(np.uint8)


def _has_16_bits(path: Path) -> bool:
    try:
        with open_image(path) as image:
            if image.format == "PNG":
                with path.open("rb") as file:
                    return file.read(25)[24:] == b"\x10"  # IHDR: signature, length, name, width, height, bit depth
            if image.format == "TIFF":
                bits = image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (1,))  # pyright: ignore[reportAttributeAccessIssue]
                return set(np.atleast_1d(bits).tolist()) == {16}
    except OSError:
        pass  # said by whoever reads it
    return False
