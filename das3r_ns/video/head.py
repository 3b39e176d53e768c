"""The first frames of a video, decoded: what the file does not say, or says wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import av

from das3r_ns.video.opening import open_video, video_stream
from das3r_ns.video.orientation import shown_size
from das3r_ns.video.projection import check_projection

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

HEAD_FRAMES = 12
"""Frames decoded to learn what packets do not tell. B-frames, which come out of order, are among the first few."""


@dataclass(frozen=True)
class Head:
    """What the first frames show."""

    size: tuple[int, int]
    first_tick: int | None
    ascends: bool


def decode_head(path: Path) -> Head:
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
    return Head(shown_size(first, aspect), first.pts, ascends)


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
