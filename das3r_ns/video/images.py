"""Single pictures: find them in natural order, read them upright as 8-bit RGB, ask them for their focal length.

The one place that knows of EXIF, palettes, alpha and bit depth. Masks are read here too: their values mean something
else than colours.
"""

import math
import re
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import ExifTags, Image

from das3r_ns.video.bit_depth import FULL_WHITE, read_16_bits, to_8_bits

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
UNREADABLE_SUFFIXES = frozenset({".heic", ".heif", ".avif", ".dng", ".cr2", ".cr3", ".nef", ".arw"})
"""Kinds of pictures that cameras write and that need another program to become one of the above."""

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
"""What makes a picture of each EXIF orientation upright."""


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which `img2` comes before `img10`, whatever the case of the letters."""
    parts = re.split(r"(\d+)", name.casefold())
    # Numbers and text never meet in a comparison: the first number of each part tells them apart.
    key = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part)
    return (*key, (2, 0, name))  # names that differ in case or in leading zeros only: a fixed order all the same


def list_pictures(folder: Path) -> list[Path]:
    """Pictures of a folder (not of its subfolders), hidden files left out, in natural order.

    Raises:
        ValueError: there are none; the message says what was found instead.
    """
    files = sorted(
        (p for p in Path(folder).iterdir() if not p.name.startswith(".")), key=lambda path: natural_key(path.name)
    )
    pictures = [p for p in files if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file()]
    if pictures:
        return pictures
    foreign = [p for p in files if p.suffix.lower() in UNREADABLE_SUFFIXES]
    if foreign:
        raise ValueError(
            f"{folder} holds {len(foreign)} pictures of kind {foreign[0].suffix}, which cannot be read here. "
            "Convert them to JPEG or PNG."
        )
    below = [p for p in files if p.is_dir() and any(q.suffix.lower() in PICTURE_SUFFIXES for q in p.iterdir())]
    if below:
        raise ValueError(f"{folder} holds no pictures itself, but {below[0]} does. Give that folder.")
    found = f"{len(files)} other files (first: {files[0].name})" if files else "nothing"
    raise ValueError(
        f"{folder} holds no pictures ({', '.join(sorted(s[1:] for s in PICTURE_SUFFIXES))}), but {found}. "
        "Give a folder of pictures, a video file or a scene folder."
    )


def picture_size(path: Path, upright: bool = True) -> tuple[int, int]:
    """Height and width as the picture is meant to be seen (EXIF orientation applied); mostly reads the header only.

    Args:
        upright: see `read_picture`.
    Raises:
        ValueError: it is no picture.
    """
    with _opened(path) as picture:
        orientation = _orientation(picture) if upright else 1
        if picture.format == "TIFF" and orientation != 1:
            picture.load()  # Pillow turns TIFFs itself, and not every release says their size before
            return picture.height, picture.width
        width, height = picture.size
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def read_picture(
    path: Path,
    size: tuple[int, int] | None = None,
    upright: bool = True,
    white: int = FULL_WHITE,
    transparency: Literal["over-white", "ignored"] = "over-white",
) -> UInt8[np.ndarray, "h w 3"]:
    """A picture as 8-bit RGB, upright.

    Grey is repeated, 16 bits are reduced to 8, transparent parts are laid over white.

    Args:
        size: height and width to resize to (with anti-aliasing).
        white: value that becomes 255, of pictures of 16 bits; see `bit_depth.shared_white`.
        transparency: `ignored` gives the colours as they are stored below it.
        upright: turn the picture as its EXIF orientation says. Off takes it as it is stored (but for TIFFs, which
            Pillow turns in any case).
    Raises:
        ValueError: it is no picture, it is cut short, or it holds floating-point values.
    """
    picture = _loaded(path, upright) if white == FULL_WHITE else _loaded_16_bits(path, upright, white)
    if picture.mode == "F":
        raise ValueError(f"{path} holds floating-point values. Convert it to 8 or 16 bits: only you know its range.")
    if picture.mode.startswith("I"):  # 16-bit grey, which PIL keeps in 16 or in 32 bits
        values = np.asarray(picture).astype(np.int64) >> 8
        picture = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if transparency == "over-white" and has_transparency(picture):
        opaque = picture.convert("RGBA")
        paper = Image.new("RGBA", opaque.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(paper, opaque)
    picture = picture.convert("RGB")
    if size is not None and picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.array(picture)


def read_opacity(path: Path, size: tuple[int, int], upright: bool = True) -> UInt8[np.ndarray, "h w"] | None:
    """How opaque each pixel of a picture is, 255 fully; None if it has no transparency.

    Args:
        size: height and width to resize to.
        upright: see `read_picture`.
    Raises:
        ValueError: it is no picture, or it is cut short.
    """
    picture = _loaded(path, upright)
    if not has_transparency(picture):
        return None
    opaque = picture.convert("RGBA").getchannel("A")
    if opaque.size != (size[1], size[0]):
        opaque = opaque.resize((size[1], size[0]), Image.Resampling.BOX)
    return np.array(opaque)


def has_transparency(picture: Image.Image) -> bool:
    """Whether an image can have transparent parts: an alpha channel, or a colour that stands for it."""
    return "A" in picture.getbands() or "transparency" in picture.info


def read_mask(path: Path) -> Float[np.ndarray, "h w"]:
    """A mask as values from 0 (black) to 1 (white), upright.

    In a palette picture (DAVIS annotations are such) and in one with no value above 1, every value but 0 counts as
    white: the values are labels there.

    Raises:
        ValueError: it is no picture, or is cut short.
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
    """Focal length in pixels of the picture's own size, from "focal length in 35 mm film"; None if it does not say.

    A hint: phones crop and zoom digitally without always saying so.
    """
    with _opened(path) as picture:
        tags = _exif(picture).get_ifd(ExifTags.IFD.Exif)
        width, height = picture.size
    try:
        focal_mm = float(tags[ExifTags.Base.FocalLengthIn35mmFilm])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not 5 <= focal_mm <= 1000:  # 0 means unknown; the rest would be a slip of the camera
        return None
    return focal_mm / DIAGONAL_OF_35MM * math.hypot(width, height)


def _exif(picture: Image.Image) -> Image.Exif:
    if picture.format == "PNG" and "exif" not in picture.info:
        return Image.Exif()  # asking would decode the whole picture to look behind its pixels
    return picture.getexif()


def _orientation(picture: Image.Image) -> int:
    """EXIF's number for how the picture lies; 1 is upright."""
    return _exif(picture).get(ExifTags.Base.Orientation, 1)


def _loaded(path: Path, upright: bool) -> Image.Image:
    with _opened(path) as picture:
        # Before the pixels are read: behind them some files say something else.
        orientation = _orientation(picture) if upright else 1
        try:
            picture.load()
        except (OSError, SyntaxError, ValueError) as error:  # Pillow has no one error for damaged files
            raise ValueError(f"{path} cannot be read to its end ({error}). Copy it again or take it out.") from error
        turn = None if picture.format == "TIFF" else _TURNS.get(orientation)  # Pillow has turned TIFFs
        return picture.copy() if turn is None else picture.transpose(turn)


def _loaded_16_bits(path: Path, upright: bool, white: int) -> Image.Image:
    with _opened(path) as picture:
        turn = _TURNS.get(_orientation(picture)) if upright or picture.format == "TIFF" else None
    values = Image.fromarray(to_8_bits(read_16_bits(path), white))
    return values if turn is None else values.transpose(turn)


def _opened(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path)
    except FileNotFoundError:
        raise
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{path} declares more pixels than are read ({2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} million): it is "
            "damaged, or reduce it."
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is no picture that can be read ({error}).") from error
