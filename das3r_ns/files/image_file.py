"""Images are opened by decoders that only decode.

Pillow chooses by content, whatever a file is called: PostScript named `a.png` would be given to Ghostscript, a program;
other plug-ins read formats that no camera and no editor of frames writes.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

from PIL import Image

FORMATS = ("PNG", "JPEG", "MPO", "TIFF", "WEBP", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "TGA", "HEIF", "AVIF")
"""Pillow's names. HEIF and AVIF are read where a package brings them."""


def open_image(source: Path | BinaryIO | io.BytesIO) -> Image.Image:
    """As `PIL.Image.open`, for images of pixels.

    Raises:
        PIL.UnidentifiedImageError: it is none, or in another format.
        OSError: it cannot be read.
    """
    Image.init()
    return Image.open(source, formats=[name for name in FORMATS if name in Image.OPEN])
