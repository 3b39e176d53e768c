"""Animated WebP, which FFmpeg does not decode: times from the file's chunks, frames by Pillow."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from das3r_ns.files.image_file import open_image
from das3r_ns.video.decoding import DecodedFrames, Plan
from das3r_ns.video.index import VideoIndex
from das3r_ns.video.transparency import over_white

_SHORT_MS, _SHOWN_MS = 10, 100
"""Browsers show frames of up to 10 ms for 100 ms, and what is made for them counts on that."""


def is_animated_webp(path: Path) -> bool:
    """Whether a file is a WebP with more than one frame."""
    with path.open("rb") as file:
        start = file.read(21)
    return start[:4] == b"RIFF" and start[8:16] == b"WEBPVP8X" and bool(start[20:21] and start[20] & 2)


def index_animated_webp(path: Path) -> VideoIndex:
    """Times of all frames, by the durations in the ANMF chunks (WebP container specification).

    Raises:
        ValueError: there are no frames.
    """
    durations_ms: list[int] = []
    with path.open("rb") as file:
        _, riff_bytes, _ = struct.unpack("<4sI4s", file.read(12))
        end = 8 + riff_bytes
        size = (0, 0)
        while file.tell() + 8 <= end:
            header = file.read(8)
            if len(header) < 8:
                break
            kind, num_bytes = struct.unpack("<4sI", header)
            start = file.tell()
            content = file.read(min(16, num_bytes))
            if kind == b"VP8X":
                size = (1 + int.from_bytes(content[7:10], "little"), 1 + int.from_bytes(content[4:7], "little"))
            elif kind == b"ANMF" and len(content) == 16:
                duration_ms = int.from_bytes(content[12:15], "little")
                durations_ms.append(duration_ms if duration_ms > _SHORT_MS else _SHOWN_MS)
            file.seek(start + num_bytes + num_bytes % 2)
    if not durations_ms:
        raise ValueError(f"{path} holds no frames: the file is empty or cut short. Copy or export it again.")
    times_s = np.cumsum([0, *durations_ms[:-1]]) / 1000
    return VideoIndex(tuple(times_s.tolist()), size, None, None, lacks_trailer=path.stat().st_size < end, by_order=True)


def read_animated_webp(
    path: Path,
    index: VideoIndex,
    chosen: list[int],
    target: Callable[[tuple[int, int]], tuple[int, int]],
    keep_alpha: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> DecodedFrames:
    """Read frames number `chosen` (ascending); see `decoding.read_frames`. Those behind a damaged one are missing."""
    height, width = target(index.size)
    frames = np.empty((len(chosen), height, width, 3), np.uint8)
    alpha = np.full((len(chosen), height, width), 255, np.uint8)
    numbers: list[int] = []
    try:
        with open_image(path) as animation:
            for number in chosen:
                animation.seek(number)
                image = np.asarray(animation.convert("RGBA"))
                rgb, opaque = image[..., :3], image[..., 3]
                flat = Image.fromarray(np.ascontiguousarray(rgb) if keep_alpha else over_white(rgb, opaque))
                frames[len(numbers)] = _resized(flat, width, height)
                alpha[len(numbers)] = _resized(Image.fromarray(opaque), width, height)
                numbers.append(number)
                advance()
    except (OSError, EOFError, UnidentifiedImageError, Image.DecompressionBombError):
        pass  # the data end here; the caller counts what came
    count = len(numbers)
    return DecodedFrames(
        frames=frames[:count],
        numbers=numbers,
        alpha=alpha[:count] if keep_alpha and (alpha[:count] < 255).any() else None,
        transparent=float((alpha[:count] < 128).mean()) if count else 0.0,
        plan=Plan(index.size, by_order=True),
        odd_shape=0,
        resized=0,
        colours=None,
    )


def _resized(image: Image.Image, width: int, height: int) -> np.ndarray:
    return np.asarray(
        image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)
    )
