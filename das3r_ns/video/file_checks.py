"""Whether a video file can be decoded and is whole, where its container says."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

from das3r_ns.video.opening import MAX_FRAME_PIXELS, open_video, too_large, video_stream

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_PIXELS_PER_BYTE = 100_000
"""Of the animations (GIF, APNG) that can hold many large frames in a few bytes. Recordings of a screen on which
nothing happens reach some ten thousand."""


def promised_frames(container: InputContainer, stream: VideoStream) -> int | None:
    """Number of frames that the file's header says can be read; None where it does not say."""
    is_mp4 = "mp4" in container.format.name
    if not stream.frames or not (is_mp4 or "avi" in container.format.name):
        return None
    # A phone trims a video by an edit list (ISO/IEC 14496-12): what is cut off stays in the file and is counted in its
    # header, but FFmpeg reads only what it has kept in its index.
    indexed = len(getattr(stream, "index_entries", ())) if is_mp4 else 0
    return min(stream.frames, indexed) if indexed else stream.frames


def check_decodable(path: Path, format_name: str, num_frames: int) -> None:
    """
    Raises:
        ValueError: an animation declares more pixels than can have been coded in its bytes.
    """
    if format_name not in ("gif", "apng"):
        return
    with open_video(path) as container:
        context = video_stream(container, path).codec_context
        pixels = context.width * context.height * num_frames
    num_bytes = path.stat().st_size
    if pixels > MAX_PIXELS_PER_BYTE * num_bytes and pixels > 10**8:
        raise ValueError(
            f"{path} declares {num_frames} frames of {context.width}x{context.height} pixels in {num_bytes} bytes, "
            "more than can be in them: it is damaged, or made to exhaust memory. Export it again, smaller."
        )


def check_canvas(path: Path) -> None:
    """
    Raises:
        ValueError: a GIF declares a larger image than is read. FFmpeg says of those above its own limit no more than
            that nothing can be decoded.
    """
    with path.open("rb") as file:
        start = file.read(10)
    if start[:4] != b"GIF8" or len(start) < 10:
        return
    width, height = struct.unpack_from("<HH", start, 6)
    if width * height > MAX_FRAME_PIXELS:
        raise too_large(path, width, height)


def gif_has_trailer(path: Path) -> bool:
    """Whether the blocks of a GIF end with its trailer (GIF89a, section 27); what follows it does not matter."""
    content = memoryview(path.read_bytes())
    if len(content) < 14:
        return False

    def after_table(flags: int, at: int) -> int:
        return at + 3 * (2 << (flags & 7)) if flags & 0x80 else at

    def after_blocks(at: int) -> int:
        while content[at]:
            at += 1 + content[at]
        return at + 1

    at = after_table(content[10], 13)
    try:
        while True:
            kind = content[at]
            if kind == 0x3B:
                return True
            if kind == 0x21:  # extension: label, then blocks
                at = after_blocks(at + 2)
            elif kind == 0x2C:  # image: place and size, a table of colours, the code size, then blocks
                at = after_blocks(after_table(content[at + 9], at + 10) + 1)
            else:
                at += 1  # some writers leave bytes between the blocks
    except IndexError:
        return False
