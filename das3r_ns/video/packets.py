"""Packets of a video, read without decoding: their times, and which of them are shown."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


@dataclass(frozen=True)
class Packets:
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


def read_packets(container: InputContainer, stream: VideoStream) -> Packets:
    """Times of all packets of a stream, in the order of the file."""
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
                if packet.is_discard or is_hidden(packet, stream):
                    unshown += 1
                    continue
                ticks.append(tick)
                keys.append(packet.is_keyframe)
            if tick is not None and packet.size:
                end_s = max(end_s, float((tick + (packet.duration or 0)) * packet.time_base))
    except av.error.FFmpegError:
        pass  # the file ends in the middle of a packet: `is_cut_short` judges what is there
    return Packets(ticks, keys, unshown, end_s, stream.time_base or Fraction(1, 1000))


def is_hidden(packet: av.Packet, stream: VideoStream) -> bool:
    """Whether a packet holds a frame that is only referred to, never shown (RFC 6386, section 9.1: VP8's alternate
    reference frames, which are packets of their own)."""
    return stream.codec_context.name in ("vp8", "libvpx") and not bytes(packet)[0] >> 4 & 1
