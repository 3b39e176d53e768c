"""Single images: find them in natural order, read them upright as 8-bit RGB, ask them for their focal length.

The one place that knows of EXIF, palettes, alpha and bit depth. Masks are read here too: their values mean something
else than colours.
"""

import math
import warnings
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import ExifTags, Image

from das3r_ns.files.image_file import open_image
from das3r_ns.video.bit_depth import FULL_WHITE, read_16_bits, to_8_bits
from das3r_ns.video.image_folder import natural_key

# Pillow's own limit, for its error at twice that, is below what phones of 200 million pixels write.
Image.MAX_IMAGE_PIXELS = 125_000_000

DIAGONAL_OF_35MM = math.hypot(36.0, 24.0)
"""Millimetres; EXIF's "focal length in 35 mm film" refers to this diagonal."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image of each EXIF orientation upright."""


def image_size(path: Path, upright: bool = True) -> tuple[int, int]:
    """Height and width as the image is meant to be seen (EXIF orientation applied); mostly reads the header only.

    Args:
        upright: see `read_image`.
    Raises:
        ValueError: it is not an image.
    """
    with _opened(path) as image:
        orientation = _orientation(image) if upright else 1
        if image.format == "TIFF" and orientation != 1:
            image.load()  # Pillow turns TIFFs itself, and not every release says their size before
            return image.height, image.width
        width, height = image.size
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def read_image(
    path: Path,
    size: tuple[int, int] | None = None,
    upright: bool = True,
    white: int = FULL_WHITE,
    transparency: Literal["over-white", "ignored"] = "over-white",
) -> UInt8[np.ndarray, "h w 3"]:
    """An image as 8-bit RGB, upright.

    Grey is repeated, 16 bits are reduced to 8, transparent parts are laid over white.

    Args:
        size: height and width to resize to (with anti-aliasing).
        white: value that becomes 255, of images of 16 bits; see `bit_depth.shared_white`.
        transparency: `ignored` gives the colours as they are stored below it.
        upright: turn the image as its EXIF orientation says. Off takes it as it is stored (but for TIFFs, which
            Pillow turns in any case).
    Raises:
        ValueError: it is not an image, it is cut short, or it holds floating-point values.
    """
    return read_frame(path, size, upright, white, transparency).rgb


class Frame(NamedTuple):
    """An image as a frame of a clip."""

    rgb: UInt8[np.ndarray, "h w 3"]
    transparent: float
    """Share of its pixels, as stored, that are more transparent than opaque; 0 where transparency is ignored."""


def read_frame(
    path: Path,
    size: tuple[int, int] | None = None,
    upright: bool = True,
    white: int = FULL_WHITE,
    transparency: Literal["over-white", "ignored"] = "over-white",
) -> Frame:
    """As `read_image`, with how much was laid over white."""
    transparent = 0.0
    image = _loaded(path, upright) if white == FULL_WHITE else _loaded_16_bits(path, upright, white)
    if image.mode == "F":
        raise ValueError(f"{path} holds floating-point values. Convert it to 8 or 16 bits: only you know its range.")
    if image.mode.startswith("I"):  # 16-bit grey, which PIL keeps in 16 or in 32 bits
        values = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if transparency == "over-white" and has_transparency(image):
        opaque = image.convert("RGBA")
        transparent = float((np.asarray(opaque.getchannel("A")) < 128).mean())
        paper = Image.new("RGBA", opaque.size, (255, 255, 255, 255))
        image = Image.alpha_composite(paper, opaque)
    image = image.convert("RGB")
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return Frame(np.array(image), transparent)


def read_opacity(path: Path, size: tuple[int, int], upright: bool = True) -> UInt8[np.ndarray, "h w"] | None:
    """How opaque each pixel of an image is, 255 fully; None if it has no transparency.

    Args:
        size: height and width to resize to.
        upright: see `read_image`.
    Raises:
        ValueError: it is not an image, or it is cut short.
    """
    image = _loaded(path, upright)
    if not has_transparency(image):
        return None
    opaque = image.convert("RGBA").getchannel("A")
    if opaque.size != (size[1], size[0]):
        opaque = opaque.resize((size[1], size[0]), Image.Resampling.BOX)
    return np.array(opaque)


def has_transparency(image: Image.Image) -> bool:
    """Whether an image can have transparent parts: an alpha channel, or a colour that stands for it."""
    return "A" in image.getbands() or "transparency" in image.info


def read_mask(path: Path) -> Float[np.ndarray, "h w"]:
    """A mask as values from 0 (black) to 1 (white), upright.

    In a palette image (DAVIS annotations are such) and in one with no value above 1, every value but 0 counts as
    white: the values are labels there.

    Raises:
        ValueError: it is not an image, or is cut short.
    """
    mask = _loaded(path, upright=True)
    if mask.mode in ("P", "1"):
        return (np.array(mask) > 0).astype(np.float32)
    values = np.array(mask if mask.mode.startswith("I") else mask.convert("L")).astype(np.float32)
    largest = values.max()
    if largest <= 1:
        return values
    return values / (65535.0 if largest > 255 else 255.0)


def exif_focal_px(path: Path) -> float | None:
    """Focal length in pixels of the image's own size, from "focal length in 35 mm film"; None if it does not say.

    A hint: phones crop and zoom digitally without always saying so.
    """
    with _opened(path) as image:
        tags = _exif(image).get_ifd(ExifTags.IFD.Exif)
        width, height = image.size
    try:
        focal_mm = float(tags[ExifTags.Base.FocalLengthIn35mmFilm])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not 5 <= focal_mm <= 1000:  # 0 means unknown; the rest would be a slip of the camera
        return None
    return focal_mm / DIAGONAL_OF_35MM * math.hypot(width, height)


def _exif(image: Image.Image) -> Image.Exif:
    if image.format == "PNG" and "exif" not in image.info:
        return Image.Exif()  # asking would decode the whole image to look behind its pixels
    return image.getexif()


def _orientation(image: Image.Image) -> int:
    """EXIF's number for how the image lies; 1 is upright."""
    return _exif(image).get(ExifTags.Base.Orientation, 1)


def upright_turn(image: Image.Image) -> Image.Transpose | None:
    """What makes an image (not yet loaded) upright, by its EXIF orientation; of TIFFs Pillow does it."""
    return None if image.format == "TIFF" else _TURNS.get(_orientation(image))


def _loaded(path: Path, upright: bool) -> Image.Image:
    with _opened(path) as image:
        # Before the pixels are read: behind them some files say something else.
        orientation = _orientation(image) if upright else 1
        try:
            image.load()
        except (OSError, SyntaxError, ValueError) as error:  # Pillow has no one error for damaged files
            raise ValueError(f"{path} cannot be read to its end ({error}). Copy it again or take it out.") from error
        turn = None if image.format == "TIFF" else _TURNS.get(orientation)  # Pillow has turned TIFFs
        return image.copy() if turn is None else image.transpose(turn)


def _loaded_16_bits(path: Path, upright: bool, white: int) -> Image.Image:
    with _opened(path) as image:
        turn = _TURNS.get(_orientation(image)) if upright or image.format == "TIFF" else None
    values = Image.fromarray(to_8_bits(read_16_bits(path), white))
    return values if turn is None else values.transpose(turn)


def _opened(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return open_image(path)
    except FileNotFoundError:
        raise
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{path} declares more pixels than are read ({2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} million): it is "
            "damaged, or reduce it."
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is not an image that can be read ({error}).") from error


__all__ = [
    "exif_focal_px",
    "image_size",
    "natural_key",
    "read_image",
    "read_mask",
    "upright_turn",
]
