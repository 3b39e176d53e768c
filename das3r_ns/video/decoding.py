"""Video files by PyAV: when every frame is shown, and the chosen frames themselves, upright and resized.

Two passes. The first reads packets without decoding them, so the choice of frames (by time: phones write videos of
variable rate) is made before any is decoded. The second decodes from the last key frame before the first choice to
the last choice, and keeps nothing else in memory.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

_NO_VIDEO_FORMATS = frozenset({"tty", "image2"})
"""What FFmpeg makes of text files and single pictures."""

_SEEK_FROM_S = 2.0
"""Seconds that must lie before the first chosen frame to make seeking worth it."""


@dataclass(frozen=True)
class VideoIndex:
    """What a video file says about itself without decoding a frame."""

    times_s: tuple[float, ...]
    """When each frame is shown, in order, seconds; the first is not always 0."""
    size: tuple[int, int]
    """Height and width of a frame as it is meant to be seen: rotated, with square pixels."""
    declared_end_s: float | None
    """End of the video by the file's header, on the clock of `times_s`; None where it does not say."""
    declared_frames: int | None
    """Number of frames to be shown by the file's header; None where it does not say."""
    lacks_trailer: bool = False
    """Whether the mark that ends a file of this kind is missing (only GIF has one)."""

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
        ValueError: the file is no video or has no frame that can be decoded.
    """
    with _opened(path) as container:
        stream = _video_stream(container, path)
        base = float(stream.time_base)
        times: set[float] = set()
        unshown = 0
        last_s = -np.inf
        try:
            for packet in container.demux():
                tick = packet.pts if packet.pts is not None else packet.dts
                if tick is None or packet.size == 0:
                    continue
                end_s = (tick + (packet.duration or 0)) * float(packet.time_base)
                last_s = max(last_s, end_s)
                if packet.stream.index == stream.index:
                    unshown += packet.is_discard or tick * base in times
                    if not packet.is_discard:
                        times.add(tick * base)
        except av.error.FFmpegError:
            pass  # the file ends in the middle of a packet: `is_cut_short` judges what is there
        declared = _promised_frames(container, stream)
        declared = None if declared is None else declared - unshown
        # A container's duration spans all its streams, so it says something about the picture only where no other
        # stream is the longer one.
        alone = max(times, default=0.0) + 1 >= last_s
        start_s = (container.start_time or 0) / av.time_base
        end_s = start_s + container.duration / av.time_base if container.duration and alone else None
        lacks_trailer = container.format.name == "gif" and not path.read_bytes().endswith(b"\x3b")
    if not times:
        raise ValueError(f"{path} holds no frames: the file is empty or cut short. Copy or export it again.")
    return VideoIndex(tuple(sorted(times)), _shown_size(path), end_s, declared, lacks_trailer)


def decode(
    path: Path, index: VideoIndex, chosen: list[int], size: tuple[int, int]
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Frames number `chosen` (ascending) of a video as RGB at `size` (height, width), one at a time.

    Ends early, without an error, where the file's data end; frames that are damaged in the middle are replaced by
    the next good one.
    """
    with _opened(path) as container:
        by_order = _has_unreliable_times(container)
    seek_s = index.times_s[chosen[0]]
    if by_order or seek_s - index.times_s[0] < _SEEK_FROM_S:
        seek_s = None
    if seek_s is not None:
        first = next(_frames(path, seek_s), None)
        if first is None or float(first.time or 0) > seek_s + 0.25 / index.fps:
            seek_s = None  # landed behind the place: some containers have no reliable index
    wanted = iter(chosen)
    target = next(wanted, None)
    for count, frame in enumerate(_frames(path, seek_s)):
        while target is not None:
            reached = count >= target if by_order else _time(frame) >= _not_before(index, target)
            if not reached:
                break
            yield _picture(frame, size)
            target = next(wanted, None)
        if target is None:
            return


def _not_before(index: VideoIndex, number: int) -> float:
    """Seconds: halfway from the frame before to frame `number`. In a video of variable rate frames may follow one
    another in a small part of the mean interval."""
    if number == 0:
        return -np.inf
    return (index.times_s[number - 1] + index.times_s[number]) / 2


def _frames(path: Path, seek_s: float | None) -> Iterator[av.VideoFrame]:
    """Decoded frames in order of display, damaged ones left out, from the key frame before `seek_s`."""
    with _opened(path) as container:
        stream = _video_stream(container, path)
        stream.thread_type = "AUTO"
        if seek_s is not None:
            container.seek(int(seek_s / stream.time_base), stream=stream, backward=True)
        try:
            for packet in container.demux(stream):
                try:
                    for frame in packet.decode():
                        if not frame.is_corrupt:
                            yield frame
                except av.error.InvalidDataError:
                    continue  # one damaged packet; the next key frame sets things right
        except av.error.FFmpegError:
            return  # the data end here; the caller counts what came


def _time(frame: av.VideoFrame) -> float:
    tick = frame.pts if frame.pts is not None else frame.dts
    return float(tick * frame.time_base) if tick is not None and frame.time_base is not None else 0.0


def _opened(path: Path) -> "av.container.InputContainer":
    try:
        container = av.open(str(path))
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{path} is no video that can be read ({error.strerror}): another kind of file, or cut short so that its "
            "index is missing. Give an mp4, mov, webm, avi, mkv or gif, or copy it again."
        ) from error
    if container.format.name in _NO_VIDEO_FORMATS or container.format.name.endswith("_pipe"):
        container.close()
        raise ValueError(f"{path} is no video but a single picture or text. Give a video file or a folder of pictures.")
    return container


def _video_stream(container: "av.container.InputContainer", path: Path) -> "av.video.stream.VideoStream":
    def area(stream: "av.video.stream.VideoStream") -> int:
        return (stream.codec_context.width or 0) * (stream.codec_context.height or 0)

    # The cover of a music file is a video stream of one picture; of several others the largest is the video.
    streams = [s for s in container.streams.video if s.codec_context is not None and not _is_cover(s)]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise ValueError(
            f"{path} holds no video (but {kinds}): another kind of file, or cut short. Give a video, or copy it again."
        )
    return max(streams, key=area)


def _is_cover(stream: "av.video.stream.VideoStream") -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _promised_frames(container: "av.container.InputContainer", stream: "av.video.stream.VideoStream") -> int | None:
    """Number of frames that the file's header says can be read; None where it does not say."""
    is_mp4 = "mp4" in container.format.name
    if not stream.frames or not (is_mp4 or "avi" in container.format.name):
        return None
    # A phone trims a video by an edit list (ISO/IEC 14496-12): what is cut off stays in the file and is counted in its
    # header, but FFmpeg reads only what it has kept in its index.
    indexed = len(getattr(stream, "index_entries", ())) if is_mp4 else 0
    return min(stream.frames, indexed) if indexed else stream.frames


def _has_unreliable_times(container: "av.container.InputContainer") -> bool:
    """AVI stores no times of display; FFmpeg's guess is wrong for videos with B-frames, their order is right."""
    return container.format.name == "avi"


def _shown_size(path: Path) -> tuple[int, int]:
    first = next(_frames(path, None), None)
    if first is None:
        raise ValueError(f"{path}: not one frame can be decoded. The file is damaged; copy or export it again.")
    height, width = first.height, round(first.width * _pixel_aspect(first, path))
    return (width, height) if abs(_orientation(first)[0, 1]) == 1 else (height, width)


def _pixel_aspect(frame: av.VideoFrame, path: Path) -> float:
    with _opened(path) as container:
        aspect = _video_stream(container, path).sample_aspect_ratio
    return float(aspect) if aspect else 1.0


def _orientation(frame: av.VideoFrame) -> np.ndarray:
    """The 2x2 matrix of the display matrix (rows a b, c d; see libavutil/display.h) in units of 1, entries 0 or +-1.

    A pixel at (x, y) is shown at (a x + c y, b x + d y), y down.
    """
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = struct.unpack_from("=5i", memoryview(data))  # pyright: ignore[reportArgumentType]
            matrix = np.array([[a, b], [c, d]]) / 65536.0
            rounded = np.round(matrix)
            if np.abs(matrix - rounded).max() < 0.1 and abs(np.linalg.det(rounded)) == 1:
                return rounded
    return np.eye(2)


def _picture(frame: av.VideoFrame, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    orientation = _orientation(frame)
    sideways = abs(orientation[0, 1]) == 1
    height, width = (size[1], size[0]) if sideways else size
    shrinks = height < frame.height
    picture = frame.reformat(
        width=width,
        height=height,
        format="rgb24",
        src_colorspace=frame.colorspace,
        interpolation="AREA" if shrinks else "BICUBIC",
    ).to_ndarray()
    if sideways:
        # Shown column = c y, shown row = b x: the axes change places, then each may run backwards.
        picture = picture.transpose(1, 0, 2)
        columns, rows = orientation[1, 0], orientation[0, 1]
    else:
        columns, rows = orientation[0, 0], orientation[1, 1]
    if rows < 0:
        picture = picture[::-1]
    if columns < 0:
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)
