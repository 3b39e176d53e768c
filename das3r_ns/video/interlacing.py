"""Interlaced video: found by its content, and rebuilt one full image a frame.

An interlaced frame is woven from two fields, the even and the odd rows, taken half a frame's time apart. Where
anything moves the rows do not fit each other ("combs"), and features and flow follow the combs. What a file says
about itself is wrong both ways (progressive film in an interlaced container, interlaced recordings encoded without
the flag), so the rows decide.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

import av
import numpy as np
from jaxtyping import Float, Integer

FieldOrder = Literal["tff", "bff"]
"""Which field of a frame was taken first: top (rows 0, 2, ...) or bottom."""

MAX_PAIRS = 24
"""Pairs of consecutive frames that are looked at in one clip."""

MAX_HEIGHT = 1200
"""Rows. No camera or broadcast interlaces taller frames."""

COLUMNS = 240
"""About so many columns of a frame are looked at."""

MOVING_LEVELS = 8
"""Grey levels by which a pixel changes from frame to frame where something moves."""

MIN_MOVING = 0.002
"""Share of such pixels below which a pair of frames says nothing."""

MIN_MISFIT = 0.3
"""Grey levels. Below this the motion between two frames says nothing about their fields."""

MIN_VOTES = 2
INTERLACED_SHARE = 0.25
"""Share of the pairs with motion that must look interlaced. In films brought to 60 fields a second (3:2 pulldown) only
two of five frames are woven from two images."""


MIN_CHANGE = 0.15
"""Of the detail of a pixel, by which it changes where the camera moves: about a quarter of a pixel of motion."""


class InterlaceDetector:
    """Looks at pairs of consecutive frames until it is sure, at what moves in them.

    For two frames with fields t0 b0, t1 b1 (top, bottom) the misfit between rows is measured within the first frame
    (t0 with b0) and across frames (t0 with b1, t1 with b0). In progressive video the first is small and the others
    alike. When the top fields come first, t0 b0 t1 b1 are taken at times 0, 1/2, 1, 3/2: t1 with b0 fits as well as
    t0 with b0, and t0 with b1 is three times as far apart. Detail of the scene (blinds, roofs) adds to all three.
    On the 14 sequences of DAVIS no pair of frames votes for interlaced; woven from consecutive frames, 95 % do.
    """

    def __init__(self, sampled: Iterable[int]) -> None:
        """
        Args:
            sampled: numbers of frames to look at, each together with the frame after it.
        """
        self._sampled = set(sampled)
        self._before: Integer[np.ndarray, "h w"] | None = None
        self._flagged = False
        self._votes: list[int] = []

    def look(self, number: int, frame: av.VideoFrame) -> None:
        """Take the next decoded frame."""
        if self._before is None and number not in self._sampled:
            return
        rows = luma_rows(frame)
        if self._before is not None and rows is not None and rows.shape == self._before.shape:
            vote = vote_on_fields(self._before, rows, self._flagged)
            if vote is not None:
                self._votes.append(vote)
        self._before = rows.copy() if rows is not None and number in self._sampled else None
        self._flagged = bool(frame.interlaced_frame)

    def verdict(self, final: bool = False) -> FieldOrder | None:
        """The order of the fields if the clip is interlaced.

        Args:
            final: nothing more will be looked at. Before, twice as many votes are asked for.
        """
        interlaced = [vote for vote in self._votes if vote]
        enough = MIN_VOTES if final else 2 * MIN_VOTES
        if len(interlaced) < enough or len(interlaced) < INTERLACED_SHARE * len(self._votes):
            return None
        return "tff" if sum(interlaced) > 0 else "bff"


def luma_rows(frame: av.VideoFrame) -> Integer[np.ndarray, "h w"] | None:
    """Rows of brightness of a frame, with some of its columns; a view of the frame's memory.

    None for formats that no interlaced video has (RGB, palettes) and for frames that are too large.
    """
    if not frame.format.name.startswith(("yuv", "nv12", "p010", "gray")) or not 64 <= frame.height <= MAX_HEIGHT:
        return None
    if frame.format.name.startswith(("yuyv", "yuva")):
        return None
    plane = frame.planes[0]
    wide = frame.format.components[0].bits > 8
    dtype = np.dtype("<u2" if wide else "u1")
    rows = np.frombuffer(memoryview(plane), dtype).reshape(frame.height, plane.line_size // dtype.itemsize)
    step = max(1, frame.width // COLUMNS)
    return rows[: frame.height // 2 * 2, : frame.width : step]


def vote_on_fields(
    first: Integer[np.ndarray, "h w"], second: Integer[np.ndarray, "h w"], flagged: bool = False
) -> int | None:
    """What two consecutive frames say: 1 interlaced with the top field first, -1 with the bottom field first,
    0 progressive, None nothing (no motion, or a cut).

    Args:
        flagged: the file calls the first frame interlaced. Then what is neither clearly one nor the other is.
    """
    scale = np.float32(1.0 if first.dtype == np.uint8 else 255.0 / max(int(first.max()), int(second.max()), 255))
    a, b = first.astype(np.float32) * scale, second.astype(np.float32) * scale
    moving = np.abs(a - b)[2:-2] > MOVING_LEVELS
    if moving.mean() < MIN_MOVING:
        return None
    bottom_of_next, top_of_next = a.copy(), a.copy()
    bottom_of_next[1::2], top_of_next[::2] = b[1::2], b[::2]
    within, with_bottom, with_top = (
        float(_misfit(rows, 1)[moving].mean()) for rows in (a, bottom_of_next, top_of_next)
    )
    near, far = sorted((with_bottom, with_top))
    motion = far - within
    if motion < max(MIN_MISFIT, 0.1 * within):
        return None
    # 1 in progressive video, where both pairs across frames are one frame apart; 0 in interlaced video.
    ratio = (near - within) / motion
    # Detail grows with distance: rows of one field, two apart, fit less well than neighbours, unless these are combed.
    combed = within / max(1e-6, float(_misfit(a, 2)[moving].mean()))
    interlaced = (ratio < 0.8 or combed > 0.7) if flagged else (ratio < 0.4 and combed > 0.72)
    if not interlaced:
        return 0
    return 1 if with_bottom > with_top else -1


def _misfit(rows: Float[np.ndarray, "h w"], distance: int) -> Float[np.ndarray, "h-4 w"]:
    """Distance of each row, but for two at the top and bottom, from the mean of those `distance` rows away."""
    last = len(rows) - 2
    above, below = rows[2 - distance : last - distance], rows[2 + distance : last + distance]
    return np.abs(rows[2:last] - 0.5 * (above + below))


def deinterlaced(frames: Iterable[av.VideoFrame], order: FieldOrder) -> Iterator[av.VideoFrame]:
    """Rebuild a full image from the first field of each frame, with the frame's own time.

    Where the camera stands still, rows of the other field are kept where nothing moves and interpolated where something
    does (FFmpeg's bwdif). Where it moves, they come from the first field alone: motion below a pixel passes for none
    there, and each row that is kept shows the scene half a frame later.

    The frames may change in size or format on the way.
    """
    return _from_one_field(_woven(frames, order), order)


def _woven(frames: Iterable[av.VideoFrame], order: FieldOrder) -> Iterator[av.VideoFrame]:
    """Through bwdif."""
    graph, shape = None, None
    for frame in frames:
        if frame.pts is None:
            frame.pts = 0  # only the order counts then, and FFmpeg's filter asks for a number
        now = (frame.width, frame.height, frame.format.name, frame.time_base)
        if graph is not None and now != shape:
            yield from _flushed(graph)
            graph = None
        if graph is None:
            graph, shape = _graph(frame, order), now
        graph.vpush(frame)
        yield from _pulled(graph)
    if graph is not None:
        yield from _flushed(graph)


def _from_one_field(frames: Iterable[av.VideoFrame], order: FieldOrder) -> Iterator[av.VideoFrame]:
    """Frames whose second field's rows are interpolated from the first's, where the camera moves from the frame before
    or to the frame after."""
    first = slice(0 if order == "tff" else 1, None, 2)
    held: tuple[av.VideoFrame, Integer[np.ndarray, "h w"] | None, bool] | None = None
    for frame in frames:
        rows = luma_rows(frame)
        rows = None if rows is None else rows[first].copy()
        moves = False
        if held is not None:
            before, rows_before, moved = held
            moves = camera_moves(rows_before, rows)
            yield _interpolated(before, order) if moved or moves else before
        held = frame, rows, moves
    if held is not None:
        yield _interpolated(held[0], order) if held[2] else held[0]


def camera_moves(first: Integer[np.ndarray, "h w"] | None, second: Integer[np.ndarray, "h2 w2"] | None) -> bool:
    """Whether most detail of a field changes until the same field of the next frame. What stands still changes by noise
    alone, and an object that moves changes its own part of the image."""
    if first is None or second is None or first.shape != second.shape or len(first) < 5:
        return False
    scale = np.float32(1.0 if first.dtype == np.uint8 else 255.0 / max(int(first.max()), int(second.max()), 255))
    a, b = first.astype(np.float32) * scale, second.astype(np.float32) * scale
    detail = _misfit(a, 1)
    detailed = detail > MOVING_LEVELS
    if detailed.mean() < MIN_MOVING:
        return False
    change = np.abs(a - b)[2:-2]
    return bool((change > MIN_CHANGE * detail)[detailed].mean() > 0.5)


def _interpolated(frame: av.VideoFrame, order: FieldOrder) -> av.VideoFrame:
    """The frame with the rows of its second field interpolated (cubic) from those of its first, in place."""
    bits = frame.format.components[0].bits
    dtype = np.dtype("<u2" if bits > 8 else "u1")
    high_bits = bits == 8 or frame.format.name.startswith("p0")  # the value fills its number from the top
    largest = np.iinfo(dtype).max if high_bits else (1 << bits) - 1
    for plane in frame.planes:
        rows = np.frombuffer(memoryview(plane), dtype).reshape(-1, plane.line_size // dtype.itemsize)[: plane.height]
        filled = rows.copy()
        kept = rows[0 if order == "tff" else 1 :: 2].astype(np.int32)
        missing = slice(1 if order == "tff" else 0, None, 2)
        count = len(rows[missing])
        padded = np.pad(kept, ((2, 2), (0, 0)), mode="edge")
        # Of the four rows around, the second lies above the missing one: kept row i for the top field, i - 1 else.
        start = 1 if order == "tff" else 0
        around = [padded[start + k : start + k + count] for k in range(4)]
        between = (9 * (around[1] + around[2]) - around[0] - around[3] + 8) >> 4
        filled[missing] = np.clip(between, 0, largest)
        whole = np.frombuffer(memoryview(plane), dtype).copy()
        whole[: filled.size] = filled.ravel()
        plane.update(whole.tobytes())
    return frame


def _graph(frame: av.VideoFrame, order: FieldOrder) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    name = "bwdif" if "bwdif" in av.filter.filters_available else "yadif"
    deinterlace = graph.add(name, f"mode=send_frame:parity={order}:deint=all")
    graph.link_nodes(source, deinterlace, graph.add("buffersink")).configure()
    return graph


def _pulled(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def _flushed(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    graph.vpush(None)
    yield from _pulled(graph)
