"""The chosen frames of a video file: decoded, upright, with square pixels, as 8-bit RGB of ordinary screens.

Decoding runs from the keyframe before the first choice to the last choice and keeps the chosen frames only. Some
things are known only from decoded frames: whether their times ascend, whether they are interlaced, whether their size
stays. Reading starts over with what was learned (`Plan`), mostly after a few frames.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from jaxtyping import UInt8

from das3r_ns.video.colour import ColourSpace
from das3r_ns.video.conversion import Converter
from das3r_ns.video.head import decoded_frames
from das3r_ns.video.index import VideoIndex
from das3r_ns.video.interlacing import MAX_PAIRS, FieldOrder, InterlaceDetector, deinterlaced
from das3r_ns.video.opening import open_video, video_stream
from das3r_ns.video.orientation import shown_size

SEEK_FROM_S = 2.0
"""Seconds that must lie before the first chosen frame to make seeking worth it."""

SAME_SHAPE = 0.015
"""Relative difference of the aspect below which frames of another size are frames of the same camera."""


@dataclass(frozen=True)
class Plan:
    """How a video is decoded."""

    size: tuple[int, int]
    """Height and width as most frames are seen. Frames of another shape are left out."""
    by_order: bool = False
    """See `VideoIndex`."""
    field_order: FieldOrder | None = None
    """Order of the fields of interlaced video, which are rebuilt; None for progressive video."""


class _BetterPlan(Exception):
    def __init__(self, plan: Plan) -> None:
        self.plan = plan


@dataclass(frozen=True)
class DecodedFrames:
    """The frames that could be read of those that were chosen."""

    frames: UInt8[np.ndarray, "n h w 3"]
    """RGB."""
    numbers: list[int]
    """Number of each in the video, ascending."""
    alpha: UInt8[np.ndarray, "n h w"] | None
    """How opaque each pixel is, 255 fully; None if the video has no transparency or it was not asked for."""
    transparent: float
    """Share of all pixels that are more transparent than opaque."""
    plan: Plan
    odd_shape: int
    """Chosen frames left out because they are of another shape than most."""
    resized: int
    """Frames of another size than `plan.size`, but of the same shape."""
    colours: ColourSpace | None
    """Colours that were converted; None where none had to be."""


def read_frames(
    path: Path,
    index: VideoIndex,
    chosen: list[int],
    target: Callable[[tuple[int, int]], tuple[int, int]],
    keep_alpha: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> DecodedFrames:
    """Read frames number `chosen` (ascending).

    Frames that cannot be decoded are missing in the result, without an error.

    Args:
        target: from height and width as seen to those wanted.
        keep_alpha: give transparency as it is, with the colours as they are stored below it. Otherwise transparent
            parts are laid over white.
        advance: called whenever a frame is there.
    """
    plan = Plan(size=index.size, by_order=index.by_order)
    told = 0

    def advance_to(count: int) -> None:
        nonlocal told
        while told < count:  # not again for frames that are read again
            advance()
            told += 1

    while True:
        try:
            return _read(path, index, chosen, plan, target(plan.size), keep_alpha, advance_to)
        except _BetterPlan as better:
            plan = better.plan


def count_readable(path: Path, index: VideoIndex, numbers: list[int]) -> int:
    """How many of the frames `numbers` (ascending) can be decoded before the data end."""
    wanted, plan = set(numbers), Plan(index.size, index.by_order)
    try:
        return len({number for number, _ in _numbered(path, index, plan, numbers) if number in wanted})
    except _BetterPlan:
        return len(numbers)


def _read(
    path: Path,
    index: VideoIndex,
    chosen: list[int],
    plan: Plan,
    size: tuple[int, int],
    keep_alpha: bool,
    advance_to: Callable[[int], None],
) -> DecodedFrames:
    frames = np.empty((len(chosen), *size, 3), np.uint8)
    alpha: np.ndarray | None = None
    transparent = 0
    numbers: list[int] = []
    shapes: Counter[tuple[int, int]] = Counter()
    colours: ColourSpace | None = None
    wanted = set(chosen)
    detector = InterlaceDetector(chosen[:: max(1, len(chosen) // MAX_PAIRS)]) if plan.field_order is None else None
    convert = Converter(size)
    for number, seen in _numbered(path, index, plan, chosen):
        if detector is not None:
            detector.look(number, seen.frame)
            _check_fields(plan, detector.verdict())
        if number not in wanted or (numbers and number <= numbers[-1]):
            continue
        shapes[seen.size] += 1
        if _same_shape(seen.size, plan.size):
            row = len(numbers)
            frames[row], opaque = convert(seen.frame, keep_alpha)
            colours = colours or convert.converted
            if opaque is not None:
                transparent += int((opaque < 128).sum())
                if keep_alpha:
                    alpha = np.full(frames.shape[:3], 255, np.uint8) if alpha is None else alpha
                    alpha[row] = opaque
            numbers.append(number)
        advance_to(shapes.total())
    if detector is not None:
        _check_fields(plan, detector.verdict(final=True))
    most = max(shapes, key=lambda shape: shapes[shape], default=plan.size)
    if shapes and most != plan.size and shapes[most] > shapes[plan.size]:
        raise _BetterPlan(replace(plan, size=most))
    count = len(numbers)
    return DecodedFrames(
        frames=frames[:count],
        numbers=numbers,
        alpha=None if alpha is None else alpha[:count],
        transparent=transparent / max(1, frames[:count, ..., 0].size),
        plan=plan,
        odd_shape=shapes.total() - count,
        resized=count - shapes[plan.size],
        colours=colours,
    )


def _check_fields(plan: Plan, order: FieldOrder | None) -> None:
    if order is not None:
        raise _BetterPlan(replace(plan, field_order=order))


def _same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    return size == other or abs(size[0] * other[1] / (size[1] * other[0]) - 1) < SAME_SHAPE


class _Seen(NamedTuple):
    frame: av.VideoFrame
    size: tuple[int, int]
    """Height and width as it is meant to be seen."""


def _numbered(path: Path, index: VideoIndex, plan: Plan, chosen: list[int]) -> Iterator[tuple[int, _Seen]]:
    """Decoded frames with their numbers, from at latest `chosen[0]` to the first behind `chosen[-1]`.

    Raises:
        _BetterPlan: times do not ascend.
    """
    if plan.by_order:
        # A frame more than the last choice, so that pairs of frames can be looked at.
        for number, seen in enumerate(_frames(path, plan, None)):
            if number <= chosen[-1] + 1:
                yield number, seen
            if number > chosen[-1]:
                return
        return
    seek_s: float | None = index.times_s[chosen[0]]
    if seek_s - index.times_s[0] < SEEK_FROM_S:
        seek_s = None
    number_at = _Numbers(index)
    before: Fraction | None = None
    for seen in _frames(path, plan, seek_s):
        time = _time(seen.frame)
        if time is None or (before is not None and time < before):
            raise _BetterPlan(replace(plan, by_order=True))
        number = number_at(time)
        if before is None and seek_s is not None and (number is None or number > chosen[0]):
            # Landed behind the place: some containers have no reliable index. Then from the beginning.
            yield from _numbered(path, index, plan, [0, *chosen])
            return
        before = time
        if number is not None:
            yield number, seen
            if number > chosen[-1]:
                return


class _Numbers:
    """From the time of a decoded frame to its number in the video."""

    def __init__(self, index: VideoIndex) -> None:
        self._time_base = index.time_base
        self._numbers = {tick: number for number, tick in enumerate(index.ticks)}
        self._times_s = np.asarray(index.times_s)
        self._tolerance_s = 0.5 / index.fps

    def __call__(self, time: Fraction) -> int | None:
        """The number; None if the file's packets know of no frame near that time."""
        exact = self._numbers.get(round(time / self._time_base))
        if exact is not None:
            return exact
        distance_s = np.abs(self._times_s - float(time))
        nearest = int(distance_s.argmin())
        return nearest if distance_s[nearest] < self._tolerance_s else None


def _time(frame: av.VideoFrame) -> Fraction | None:
    tick = frame.pts if frame.pts is not None else frame.dts
    return None if tick is None or frame.time_base is None else tick * frame.time_base


def _frames(path: Path, plan: Plan, seek_s: float | None) -> Iterator[_Seen]:
    """Decoded frames in order of display, damaged ones left out, from the keyframe before `seek_s`."""
    with open_video(path) as container:
        stream = video_stream(container, path)
        stream.thread_type = "AUTO"
        if seek_s is not None and stream.time_base:
            container.seek(int(seek_s / stream.time_base), stream=stream, backward=True)
        frames = decoded_frames(container, stream)
        if plan.field_order is not None:
            frames = deinterlaced(frames, plan.field_order)
        aspect = stream.sample_aspect_ratio  # the container's, which goes before the stream's
        stored: Fraction | None = None
        for frame in frames:
            # The decoder runs ahead of the frames that it hands out, but not past a keyframe.
            if stored is None or frame.key_frame:
                now = stream.codec_context.sample_aspect_ratio
                aspect = aspect if stored is None or now == stored else now
                stored = now
            yield _Seen(frame, shown_size(frame, aspect))
