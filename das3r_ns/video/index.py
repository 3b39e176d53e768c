"""When every frame of a video file is shown, found without decoding the whole of it.

The packets are read and not decoded; only the first dozen frames are, for what packets do not tell: the size, the
first frame that can be decoded, and whether the times of frames can be trusted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from das3r_ns.video.opening import MAX_FRAME_PIXELS, open_video, too_large, video_stream
from das3r_ns.video.orientation import shown_size
from das3r_ns.video.projection import check_projection

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

HEAD_FRAMES = 12
"""Frames decoded to learn what packets do not tell. B-frames, which come out of order, are among the first few."""

NOMINAL_FPS = 25.0
"""Rate of a stream that says neither times nor rate."""

MAX_PIXELS_PER_BYTE = 100_000
"""Of the animations (GIF, APNG) that can hold many large frames in a few bytes. Recordings of a screen on which
nothing happens reach some ten thousand."""


_RAW_STREAMS = frozenset(
    {"h264", "hevc", "vvc", "evc", "obu", "mpegvideo", "m4v", "h261", "h263", "vc1", "dirac", "cavsvideo"}
)
"""FFmpeg's names of files that hold packets and nothing else: no times."""


@dataclass(frozen=True)
class VideoIndex:
    """What a video file says about itself without decoding more than its beginning."""

    times_s: tuple[float, ...]
    """When each frame is shown, in order, seconds; the first is not always 0."""
    size: tuple[int, int]
    """Height and width of the first frame as it is meant to be seen: rotated, with square pixels."""
    declared_end_s: float | None
    """End of the video by the file's header, on the clock of `times_s`; None where it does not say."""
    declared_frames: int | None
    """Number of frames to be shown by the file's header; None where it does not say."""
    lacks_trailer: bool = False
    """Whether the mark that ends a file of this kind is missing (only GIF has one)."""
    by_order: bool = False
    """Whether frames are told apart by the order in which they are decoded, because their times are missing or wrong.
    Then `ticks` is empty."""
    ticks: tuple[int, ...] = ()
    """`times_s` in units of the stream's time base, as decoded frames carry them."""
    time_base: Fraction = Fraction(1)
    """Seconds of a tick."""
    skipped: int = 0
    """Frames at the beginning that need an earlier part, which the file does not hold. They are not in `times_s`."""
    notes: tuple[str, ...] = ()
    """What the user should know."""

    @property
    def fps(self) -> float:
        """Mean frame rate."""
        if len(self.times_s) < 2:
            return 30.0
        return (len(self.times_s) - 1) / (self.times_s[-1] - self.times_s[0])

    @property
    def is_cut_short(self) -> bool:
        """Whether the header promises more than the file holds."""
        if self.lacks_trailer or (self.declared_frames is not None and len(self.times_s) < self.declared_frames):
            return True
        if self.declared_end_s is None:
            return False
        missing_s = self.declared_end_s - self.times_s[-1]
        return missing_s > max(0.5, 0.02 * self.declared_end_s, 3 / self.fps)


@dataclass(frozen=True)
class _Packets:
    """What the packets of the video stream say, in the order in which they are stored."""

    ticks: list[int | None]
    """Time of each; None where it has none."""
    key: list[bool]
    """Whether decoding can start with it."""
    unshown: int
    """Packets that are not meant to be seen or hold no frame."""
    end_s: float
    """When the last packet of all streams ends."""
    time_base: Fraction
    """Seconds of a tick."""


def index_video(path: Path) -> VideoIndex:
    """Read the times of all frames of a video file.

    Raises:
        ValueError: the file is not a video, has no frame that can be decoded, or declares more than can be decoded.
    """
    _check_canvas(path)
    with open_video(path) as container:
        stream = video_stream(container, path)
        name = container.format.name
        rate = float(stream.guessed_rate or stream.average_rate or NOMINAL_FPS)
        packets = _read_packets(container, stream)
        promised = _promised_frames(container, stream)
        start_s = (container.start_time or 0) / av.time_base
        duration_s = container.duration / av.time_base if container.duration else None
    if not packets.ticks:
        raise ValueError(f"{path} holds no frames: the file is empty or cut short. Copy or export it again.")
    if name.endswith("_pipe") and len(packets.ticks) < 2:
        raise ValueError(f"{path} is not a video but a single image. Give a video file or a folder of images.")
    _check_decodable(path, name, len(packets.ticks))
    head = _decode_head(path)
    line = _timeline(name, packets, head, rate)
    if promised is not None:
        promised -= line.skipped + _never_shown(name, packets, line)
    # A container's duration spans all its streams, so it says something about the video only where no other stream is
    # the longer one.
    alone = line.times_s[-1] + 1 >= packets.end_s
    return VideoIndex(
        times_s=line.times_s,
        size=head.size,
        declared_end_s=start_s + duration_s if duration_s is not None and alone and not line.is_nominal else None,
        declared_frames=promised,
        lacks_trailer=name == "gif" and not _gif_has_trailer(path),
        by_order=line.by_order,
        ticks=line.ticks,
        time_base=packets.time_base,
        skipped=line.skipped,
        notes=tuple(_notes(path, line, rate)),
    )


def _notes(path: Path, line: _Timeline, rate: float) -> list[str]:
    notes: list[str] = []
    if line.is_nominal:
        notes.append(f"{path.name} stores no times: {rate:g} frames per second are assumed, as its stream says.")
    if line.skipped:
        notes.append(
            f"{path.name} starts between keyframes: its first {line.skipped} of {line.skipped + len(line.times_s)} "
            "frames build on one that is not in the file, and are left out."
        )
    return notes


@dataclass(frozen=True)
class _Timeline:
    """When frames are shown; see the fields of `VideoIndex`."""

    times_s: tuple[float, ...]
    ticks: tuple[int, ...] = ()
    by_order: bool = False
    is_nominal: bool = False
    """Whether the times are even steps of the stream's rate, because it stores none."""
    skipped: int = 0


def _timeline(format_name: str, packets: _Packets, head: _Head, rate: float) -> _Timeline:
    """When frames are shown, from the times of packets and the first decoded frames.

    Args:
        rate: frames per second for streams without times.
    """
    known = [tick for tick in packets.ticks if tick is not None]
    # Kinds of files that store times of decoding only (ASF, RealVideo) show in decoded frames that go back and forth.
    if format_name != "avi" and format_name not in _RAW_STREAMS and len(known) == len(packets.ticks) and head.ascends:
        shown = sorted(set(known))
        first = 0 if head.first_tick is None else int(np.searchsorted(shown, head.first_tick))
        skipped = min(first, len(shown) - 1)
        ticks = tuple(shown[skipped:])
        return _Timeline(tuple(float(tick * packets.time_base) for tick in ticks), ticks, skipped=skipped)
    skipped = packets.key.index(True) if any(packets.key) else 0  # nothing before the first keyframe can be decoded
    known = sorted({tick for tick in packets.ticks[skipped:] if tick is not None})
    count = len(packets.ticks) - skipped
    if len(known) == count and format_name not in _RAW_STREAMS:
        return _Timeline(tuple(float(tick * packets.time_base) for tick in known), by_order=True, skipped=skipped)
    start_s = float(known[0] * packets.time_base) if known else 0.0
    times_s = tuple(start_s + i / rate for i in range(count))
    return _Timeline(times_s, by_order=True, is_nominal=True, skipped=skipped)


def _never_shown(format_name: str, packets: _Packets, line: _Timeline) -> int:
    """How many of the frames that a header counts are not meant to be seen."""
    if format_name == "avi":  # counts places: those of frames that were dropped while recording too
        places = sorted(tick for tick in packets.ticks if tick is not None)
        step = int(np.median(np.diff(places))) if len(places) > 1 else 1
        return max(0, places[-1] + step - len(places)) if places else 0
    return packets.unshown + len(packets.ticks) - len(set(packets.ticks))


def _read_packets(container: InputContainer, stream: VideoStream) -> _Packets:
    ticks: list[int | None] = []
    keys: list[bool] = []
    unshown = 0
    end_s = -np.inf
    try:
        for packet in container.demux():
            # AVI stores places, not times of display; those FFmpeg makes up for H.264 are a frame late at every gap.
            tick = packet.pts if packet.pts is not None and container.format.name != "avi" else packet.dts
            if packet.stream.index == stream.index:
                if packet.size == 0:
                    unshown += tick is not None  # AVI's empty chunk stands for a frame that was dropped
                    continue
                if packet.is_discard or _is_hidden(packet, stream):
                    unshown += 1
                    continue
                ticks.append(tick)
                keys.append(packet.is_keyframe)
            if tick is not None and packet.size:
                end_s = max(end_s, float((tick + (packet.duration or 0)) * packet.time_base))
    except av.error.FFmpegError:
        pass  # the file ends in the middle of a packet: `is_cut_short` judges what is there
    return _Packets(ticks, keys, unshown, end_s, stream.time_base or Fraction(1, 1000))


def _is_hidden(packet: av.Packet, stream: VideoStream) -> bool:
    """Whether a packet holds a frame that is only referred to, never shown (RFC 6386, section 9.1: VP8's alternate
    reference frames, which are packets of their own)."""
    return stream.codec_context.name in ("vp8", "libvpx") and not bytes(packet)[0] >> 4 & 1


@dataclass(frozen=True)
class _Head:
    size: tuple[int, int]
    first_tick: int | None
    ascends: bool


def _decode_head(path: Path) -> _Head:
    """Decode the first frames.

    Raises:
        ValueError: not one can be decoded, or they are not flat views of one lens.
    """
    first: av.VideoFrame | None = None
    ticks: list[int] = []
    aspect: Fraction | None = None
    with open_video(path) as container:
        stream = video_stream(container, path)
        stream.thread_type = "AUTO"
        for frame in decoded_frames(container, stream):
            if first is None:
                first, aspect = frame, stream.sample_aspect_ratio
            if frame.pts is not None:
                ticks.append(frame.pts)
            if len(ticks) >= HEAD_FRAMES:
                break
    if first is None:
        raise ValueError(f"{path}: not one frame can be decoded. The file is damaged; copy or export it again.")
    check_projection(first, stream.codec_context.name, path)
    ascends = all(before <= after for before, after in pairwise(ticks))
    return _Head(shown_size(first, aspect), first.pts, ascends)


def decoded_frames(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Decoded frames in order of display, from where the container stands, damaged ones left out."""
    decoder = _decoder_with_alpha(stream)
    try:
        for packet in container.demux(stream):
            try:
                for frame in packet.decode() if decoder is None else decoder.decode(packet):
                    if not frame.is_corrupt:
                        yield frame
            except av.error.InvalidDataError:
                continue  # one damaged packet; the next keyframe sets things right
    except av.error.FFmpegError:
        return  # the data end here; the caller counts what came


def _decoder_with_alpha(stream: VideoStream) -> VideoCodecContext | None:
    """A decoder for VP8 and VP9 with transparency, which is a second video beside the first in each packet; FFmpeg's
    own decoders pass it over. None where the stream's own decoder does."""
    if stream.metadata.get("alpha_mode") != "1":
        return None
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name)
    if name is None or name not in av.codecs_available:
        return None
    return av.CodecContext.create(name, "r")  # pyright: ignore[reportCallIssue, reportArgumentType, reportReturnType]


def _promised_frames(container: InputContainer, stream: VideoStream) -> int | None:
    """Number of frames that the file's header says can be read; None where it does not say."""
    is_mp4 = "mp4" in container.format.name
    if not stream.frames or not (is_mp4 or "avi" in container.format.name):
        return None
    # A phone trims a video by an edit list (ISO/IEC 14496-12): what is cut off stays in the file and is counted in its
    # header, but FFmpeg reads only what it has kept in its index.
    indexed = len(getattr(stream, "index_entries", ())) if is_mp4 else 0
    return min(stream.frames, indexed) if indexed else stream.frames


def _check_decodable(path: Path, format_name: str, num_frames: int) -> None:
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


def _check_canvas(path: Path) -> None:
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


def _gif_has_trailer(path: Path) -> bool:
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
