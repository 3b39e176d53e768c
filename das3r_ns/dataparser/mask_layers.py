"""One mask as it is stored: the values of an image of any kind, of a page or of an array, and its transparency."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from das3r_ns.dataparser.mask_values import Layer, MaskError
from das3r_ns.files.image_file import open_image
from das3r_ns.files.regular import check_regular
from das3r_ns.video.images import upright_turn

MAX_PIXELS = 200_000_000
"""Largest mask that is decoded."""
LOSSY_FORMATS = frozenset({"JPEG", "MPO", "WEBP", "HEIF", "AVIF"})
Size = tuple[int, int]


def read_layer(path: Path) -> Layer:
    """A mask image, upright.

    Raises:
        MaskError: it is not an image, is cut short, or is larger than can be meant.
    """
    with opened(path) as image:
        return layer_of_image(image, path)


def layer_of_image(image: Image.Image, path: Path) -> Layer:
    """Values of an image of Pillow, and its transparency if it has any."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise MaskError(f"{path} says that it has {width}x{height} pixels: too large for a mask.")
    turn = upright_turn(image)
    lossy = image.format in LOSSY_FORMATS
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MaskError(f"{path} cannot be read to its end ({error}). Copy it again or take it out.") from error
    values, alpha = _channels(image, path)
    if turn is not None:
        values = np.asarray(_turned(values, turn))
        alpha = None if alpha is None else _turned(alpha, turn)
    return Layer(values, alpha, lossy)


def _channels(image: Image.Image, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Values and alpha of an image of any mode."""
    if image.format == "PNG" and image.mode in ("RGB", "RGBA"):  # Pillow would cut 16 bits a channel down to 8
        deep = _deep_png(path)
        if deep is not None:
            return deep
    if image.mode == "P" and "transparency" not in image.info:
        return _palette_values(image), None
    if image.mode in ("1", "L") and "transparency" not in image.info:
        values = np.array(image)
        return values.astype(np.uint8), None
    if image.mode.startswith("I") or image.mode == "F":
        values = np.array(image)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise MaskError(f"{path} holds values that are not finite (NaN or infinity).")
        return (
            values.astype(np.uint16)
            if values.min() >= 0 and values.max() < 65536 and values.dtype.kind != "f"
            else values
        ), None
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = np.array(image.convert("RGBA"))
        return rgba[..., :3], rgba[..., 3]
    return np.array(image.convert("RGB")), None


def _palette_values(image: Image.Image) -> np.ndarray:
    """Numbers of objects; or grey, where the palette holds nothing but black and white, or all greys in order."""
    index = np.array(image)
    palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    used = np.flatnonzero(np.bincount(index.ravel()))
    if len(used) and used[-1] < len(palette):
        colours = palette[used].astype(int)
        if (np.isin(colours, (0, 255)).all() and (np.ptp(colours, axis=1) == 0).all()) or (
            len(palette) == 256 and (palette == np.arange(256)[:, None]).all()
        ):
            return palette[index, 0]
    return index


def _deep_png(path: Path) -> tuple[np.ndarray, np.ndarray | None] | None:
    with path.open("rb") as file:
        header = file.read(26)
    if len(header) < 26 or header[24] != 16:
        return None
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3:
        return None
    rgb = image[..., 2::-1]
    if (rgb.max() <= 255) or not (rgb % 257 == 0).all():  # numbers of objects, or colours of more than 8 bits
        values = (rgb > 0).any(axis=2).astype(np.uint8)
    else:
        values = (rgb // 257).astype(np.uint8)
    return values, (image[..., 3] // 257).astype(np.uint8) if image.shape[2] == 4 else None


def _turned(values: np.ndarray, turn: Image.Transpose) -> np.ndarray:
    wide = values if values.dtype in (np.uint8, np.uint16) or values.ndim == 3 else values.astype(np.float32)
    if wide.ndim == 2 and wide.dtype == np.uint16:
        wide = wide.astype(np.int32)
    return np.array(Image.fromarray(wide).transpose(turn))


def upright_size(image: Image.Image) -> Size:
    """Height and width, as EXIF turns the image."""
    turn = upright_turn(image)
    width, height = image.size
    sideways = turn in (
        Image.Transpose.TRANSPOSE,
        Image.Transpose.ROTATE_270,
        Image.Transpose.TRANSVERSE,
        Image.Transpose.ROTATE_90,
    )
    return (width, height) if sideways else (height, width)


def opened(path: Path) -> Image.Image:
    """An image whose header was read; an error that says what is wrong with the file."""
    check_regular(path, MaskError)
    try:
        return open_image(path)
    except FileNotFoundError:
        raise
    except Image.DecompressionBombError as error:
        raise MaskError(f"{path} says that it has more pixels than a mask can have ({error}).") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise MaskError(f"{path} is not an image that can be read ({error}).") from error


def layer_of_array(values: np.ndarray, path: Path) -> Layer:
    """Values of an array, checked."""
    if values.dtype == bool:
        return Layer(values.astype(np.uint8))
    if values.dtype.kind not in "uif":
        raise MaskError(f"{path} holds values of type {values.dtype}; masks are numbers or booleans.")
    if values.dtype.kind == "f":
        values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise MaskError(f"{path} holds values that are not finite (NaN or infinity).")
        if values.size and values.min() >= 0 and values.max() < 65536 and (values % 1 == 0).all() and values.max() > 1:
            return Layer(values.astype(np.uint16))
        return Layer(values)
    if values.size and values.min() < 0:
        return Layer(values.astype(np.float32))
    if values.size and values.max() > 65535:  # numbers of objects: that they are not 0 is all that counts
        return Layer((values > 0).astype(np.uint8))
    return Layer(values.astype(np.uint8 if values.size and values.max() < 256 else np.uint16))
