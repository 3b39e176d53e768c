"""Write a video: H.264 or VP9, each image at its own time, whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from das3r_ns.files.whole import whole_file

_CODECS = {
    ".mp4": ("libx264", "mpeg4"),
    ".m4v": ("libx264", "mpeg4"),
    ".mov": ("libx264", "mpeg4"),
    ".mkv": ("libx264", "mpeg4"),
    ".avi": ("libx264", "mpeg4"),
    ".webm": ("libvpx-vp9", "libvpx"),
}
"""Endings that can be written, with their codecs, the better one first."""

_OPTIONS = {
    "libx264": {"crf": "16"},
    "mpeg4": {"qscale": "2"},
    "libvpx-vp9": {"crf": "18", "b": "0", "cpu-used": "4", "row-mt": "1"},
    "libvpx": {"crf": "6", "b": "20M", "cpu-used": "4"},
}

TIME_BASE = Fraction(1, 90_000)
"""Seconds. What MPEG counts in; all usual frame rates are whole numbers of it."""

EVEN_S = 0.002
"""Seconds by which times may differ from even steps and the video still be written at a constant rate: containers
round to milliseconds."""

MAX_GRID_FPS = 240.0
"""Finest grid of an AVI, which knows even steps only; its writer leaves empty frames in the gaps."""


def check_ending(path: Path) -> None:
    """
    Raises:
        ValueError: no video can be written to a file of this name; the message names the endings that can.
    """
    endings = ", ".join(sorted(_CODECS))
    if path.is_dir():
        raise ValueError(f"{path} is a folder. Give the name of the video to write, such as {path / 'static.mp4'}.")
    if path.suffix.lower() not in _CODECS:
        found = f"ends in {path.suffix}" if path.suffix else "has no ending"
        raise ValueError(
            f"{path} {found}, and videos are written as {endings}: {path.with_suffix('.mp4')}, for example."
        )
    _codec(path)


def steps_are_even(times_s: Sequence[float]) -> bool:
    """Whether images at these times make a video of constant rate."""
    times = np.asarray(times_s)
    return len(times) < 3 or bool(np.abs(times - np.linspace(times[0], times[-1], len(times))).max() <= EVEN_S)


@contextlib.contextmanager
def video_writer(
    path: Path, fps: float, times_s: Sequence[float] | None = None
) -> Iterator[Callable[[UInt8[np.ndarray, "h w 3"]], None]]:
    """Give a function that appends an image of 8-bit RGB to a video.

    The kind of video follows from the ending. Odd sizes lose a row or column, which 4:2:0 colour cannot hold. The video
    gets its name when it is whole.

    Args:
        fps: images per second, where `times_s` is not given.
        times_s: when each image is shown, ascending; the first is shown at once.
    Raises:
        ValueError: see `check_ending`.
        DiskFullError: there is no room; a video that was there before is still whole.
    """
    check_ending(path)
    with whole_file(path, what="the video") as part, _encoder(part, fps, times_s) as write:
        yield write


def _codec(path: Path) -> str:
    import av

    codecs = _CODECS[path.suffix.lower()]
    found = next((codec for codec in codecs if codec in av.codecs_available), None)
    if found is None:
        raise ValueError(f"{path.suffix} needs the codec {codecs[0]}, which this FFmpeg has not. Write an .mp4.")
    return found


@contextlib.contextmanager
def _encoder(
    path: Path, fps: float, times_s: Sequence[float] | None
) -> Iterator[Callable[[UInt8[np.ndarray, "h w 3"]], None]]:
    import av

    codec = _codec(path)
    rate, ticks = Fraction(fps).limit_denominator(1001), None
    time_base = 1 / rate
    if times_s is not None and not steps_are_even(times_s):
        since = np.asarray(times_s) - times_s[0]
        if path.suffix.lower() == ".avi":
            rate = Fraction(min(MAX_GRID_FPS, 1 / float(np.diff(since).min()))).limit_denominator(1001)
            time_base = 1 / rate
        else:
            time_base = TIME_BASE
        ticks = np.floor(since / float(time_base) + 0.5).astype(int)
        for i in range(1, len(ticks)):
            ticks[i] = max(ticks[i], ticks[i - 1] + 1)  # on a coarse grid two images may fall on one place
        ticks = ticks.tolist()
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.pix_fmt = "yuv420p"
        # AVI stores the order of decoding only: gaps would come between other images with B-frames.
        stream.options = _OPTIONS[codec] | ({"bf": "0"} if path.suffix.lower() == ".avi" else {})
        stream.codec_context.time_base = time_base
        count = 0

        def write(image: UInt8[np.ndarray, "h w 3"]) -> None:
            nonlocal count
            height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
            if not stream.codec_context.is_open:
                stream.height, stream.width = height, width
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="rgb24")
            frame.time_base = time_base
            frame.pts = count if ticks is None else ticks[count]
            count += 1
            container.mux(stream.encode(frame))

        yield write
        container.mux(stream.encode())
