"""The short video inside the report: H.264 that every browser plays, within a number of bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import UInt8

TICKS_A_SECOND = 90_000
CRF = "26"
MAX_VIDEO_BYTES = 7 << 20
"""Base64 makes a third more of it."""
CODECS = (("libx264", "mp4", "video/mp4"), ("libvpx-vp9", "webm", "video/webm"))
"""What browsers play, the better known first, with container and MIME type."""
_BUFFERED_S = 1.0
"""Seconds over which the rate is held to its bound."""


def encode_video(
    images: Iterable[UInt8[np.ndarray, "h w 3"]], times_s: Sequence[float], max_bytes: int = MAX_VIDEO_BYTES
) -> tuple[str, bytes]:
    """A video in memory.

    Args:
        images: all of one size, sides even.
        times_s: when each is shown, ascending.

    Returns:
        MIME type and content.

    Raises:
        ValueError: this FFmpeg has none of the codecs that browsers play.
    """
    import av

    found = next((codec for codec in CODECS if codec[0] in av.codecs_available), None)
    if found is None:
        raise ValueError(f"a video for browsers needs {' or '.join(c[0] for c in CODECS)}, which this FFmpeg lacks")
    name, container_format, kind = found
    seconds = max(times_s[-1] - times_s[0], 0.0) * len(times_s) / max(1, len(times_s) - 1)
    rate = int(0.9 * 8 * max_bytes / max(seconds + _BUFFERED_S, _BUFFERED_S))
    options = {"crf": CRF, "preset": "veryfast", "maxrate": str(rate), "bufsize": str(int(rate * _BUFFERED_S))}
    if name != "libx264":
        options = {"crf": "36", "b": str(rate), "cpu-used": "6", "row-mt": "1"}
    content = io.BytesIO()
    with av.open(content, "w", format=container_format) as file:
        stream = file.add_stream(name, rate=30)
        stream.pix_fmt = "yuv420p"
        stream.options = options
        stream.codec_context.time_base = Fraction(1, TICKS_A_SECOND)
        last = -1
        for image, time_s in zip(images, times_s):
            if not stream.codec_context.is_open:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.time_base = Fraction(1, TICKS_A_SECOND)
            frame.pts = last = max(last + 1, round((time_s - times_s[0]) * TICKS_A_SECOND))
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return kind, content.getvalue()
