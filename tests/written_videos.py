"""Small videos that tests write: frames whose colours say their number."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

STEP = 6


def frame_image(i: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frame number i: its left half says i in grey, its right upper quarter is red, its right lower one blue."""
    image = np.full((height, width, 3), 10 + STEP * i, np.uint8)
    image[: height // 2, width // 2 :] = (200, 20, 20)
    image[height // 2 :, width // 2 :] = (20, 20, 200)
    return image


def write_video(path: Path, frames: list[np.ndarray], rate: int = 10, codec: str = "libx264", times_ms=None, **options):
    pixels = {"gif": "rgb8"}.get(codec, "yuv420p")
    with av.open(str(path), "w", options=options.pop("container", {})) as file:
        stream = file.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[i], stream.codec_context.time_base
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path
