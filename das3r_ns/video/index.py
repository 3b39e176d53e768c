"""When every frame of a video file is shown, found without decoding the whole of it.

The packets are read and not decoded; only the first dozen frames are, for what packets do not tell: the size, the
first frame that can be decoded, and whether the times of frames can be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from das3r_ns.video.file_checks import check_canvas, check_decodable, gif_has_trailer, promised_frames
from das3r_ns.video.head import Head, decode_head
from das3r_ns.video.opening import open_video, video_stream
from das3r_ns.video.packets import Packets, read_packets

MAX_REORDER = 20
"""Frames by which an order of decoding goes back at most: H.264 and HEVC allow 16."""

NOMINAL_FPS = 25.0
"""Rate of a stream that says neither times nor rate."""


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


def index_video(path: Path) -> VideoIndex:
    """Read the times of all frames of a video file.

    Raises:
        ValueError: the file is not a video, has no frame that can be decoded, or declares more than can be decoded.
    """
    check_canvas(path)
    with open_video(path) as container:
        stream = video_stream(container, path)
        name = container.format.name
        rate = float(stream.guessed_rate or stream.average_rate or NOMINAL_FPS)
        packets = read_packets(container, stream)
        promised = promised_frames(container, stream)
        start_s = (container.start_time or 0) / av.time_base
        duration_s = container.duration / av.time_base if container.duration else None
    if not packets.ticks:
        raise ValueError(f"{path} holds no frames: the file is empty or cut short. Copy or export it again.")
    if name.endswith("_pipe") and len(packets.ticks) < 2:
        raise ValueError(f"{path} is not a video but a single image. Give a video file or a folder of images.")
    check_decodable(path, name, len(packets.ticks))
    head = decode_head(path)
    line = _timeline(name, packets, head, rate)
    if promised is not None:
        promised -= line.skipped + _never_shown(name, packets, line)
    # A container's duration spans all its streams, so it says something about the video only where no other stream is
    # the longer one.
    alone = line.times_s[-1] + 1 >= packets.end_s
    return VideoIndex(
        times_s=line.times_s,
        size=head.size,
        declared_end_s=start_s + duration_s
        if duration_s is not None and alone and not line.is_nominal and line.parts == 1
        else None,
        declared_frames=promised,
        lacks_trailer=name == "gif" and not gif_has_trailer(path),
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
    if line.parts > 1:
        notes.append(
            f"The times of {path.name} start again: its {line.parts} parts are read one behind the other. "
            "--video.start-s and --video.end-s choose one."
        )
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
    parts: int = 1
    """How often the times start: more than once where files were put one behind the other."""


def _timeline(format_name: str, packets: Packets, head: Head, rate: float) -> _Timeline:
    """When frames are shown, from the times of packets and the first decoded frames.

    Args:
        rate: frames per second for streams without times.
    """
    known = [tick for tick in packets.ticks if tick is not None]
    if format_name != "avi" and len(known) == len(packets.ticks) and (starts := _restarts(known)):
        skipped = packets.key.index(True) if any(packets.key) else 0
        joined = _joined(known, starts)[skipped:]
        times_s = tuple(float(tick * packets.time_base) for tick in joined)
        return _Timeline(times_s, by_order=True, skipped=skipped, parts=len(starts) + 1)
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


def _restarts(ticks: list[int]) -> list[int]:
    """Places at which the times of packets start again, as where files were put one behind the other.

    Packets are stored in order of decoding, which goes back by the reach of B-frames; less than `MAX_REORDER` frames.
    """
    if len(ticks) < MAX_REORDER:
        return []
    step = _step(ticks)
    starts: list[int] = []
    latest = ticks[0]
    for i in range(1, len(ticks)):
        following = ticks[i : i + 3]
        if step > 0 and max(following) < latest - MAX_REORDER * step:  # one packet alone may have a wrong time
            starts.append(i)
            latest = ticks[i]
        latest = max(latest, ticks[i])
    return starts


def _step(ticks: list[int]) -> float:
    """Usual distance of frames in order of display; 0 if there is none."""
    shown = sorted(set(ticks))
    return float(np.median(np.diff(shown))) if len(shown) > 1 else 0.0


def _joined(ticks: list[int], starts: list[int]) -> list[int]:
    """Times of a file whose times start again, each part behind the one before, ascending."""
    step = round(_step(ticks))
    joined: list[int] = []
    for begin, end in pairwise([0, *starts, len(ticks)]):
        part = sorted(ticks[begin:end])
        offset = joined[-1] + step - part[0] if joined else 0
        joined += [tick + offset for tick in part]
    return joined


def _never_shown(format_name: str, packets: Packets, line: _Timeline) -> int:
    """How many of the frames that a header counts are not meant to be seen."""
    if format_name == "avi":  # counts places: those of frames that were dropped while recording too
        places = sorted(tick for tick in packets.ticks if tick is not None)
        step = int(np.median(np.diff(places))) if len(places) > 1 else 1
        return max(0, places[-1] + step - len(places)) if places else 0
    return packets.unshown + len(packets.ticks) - len(set(packets.ticks))
