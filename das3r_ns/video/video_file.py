"""A video file in, a clip out, with a line for everything that was assumed, converted or left out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch

from das3r_ns.runtime.progress import CONSOLE, stage
from das3r_ns.video.animated_webp import index_animated_webp, is_animated_webp, read_animated_webp
from das3r_ns.video.clip import Clip, check_count, check_frames, choose_frames, shrunk_size
from das3r_ns.video.config import VideoConfig
from das3r_ns.video.decoding import DecodedFrames, count_readable, read_frames
from das3r_ns.video.index import VideoIndex, index_video
from das3r_ns.video.memory import check_memory_of_frames
from das3r_ns.video.opening import check_regular
from das3r_ns.video.transparency import MIN_TOLD_TRANSPARENCY, transparency_note

TAIL_FRAMES = 200
"""Frames at the end in which it is looked for where the data of a file that is cut short end."""

FEW_MISSING = 4
"""Frames at the very end that may be missing without the file being called cut short, where frames are counted: a
stream that was stopped ends within a frame or lacks what its last B-frames refer to."""


def read_video(path: Path, config: VideoConfig) -> Clip:
    """Read the chosen frames of a video file. See `read_clip`."""
    index = index_file(path)
    webp = is_animated_webp(path)
    chosen = choose_frames(index.times_s, config)
    duration_s = index.times_s[-1] - index.times_s[0]
    reads_to_end = config.end_s is None or config.end_s > duration_s + 1.5 / index.fps
    if index.is_cut_short and reads_to_end:
        raise _cut_short(path, index, webp)
    check_count(path, len(chosen), config, duration_s, index.fps)
    target = partial(shrunk_size, longest_side=config.longest_side)
    check_memory_of_frames(len(chosen), target(index.size), path.name)
    for note in index.notes:
        _tell(note)
    read = read_animated_webp if webp else read_frames
    keep_alpha = config.alpha != "over-white"
    with stage(f"Reading {len(chosen)} frames", len(chosen)) as bar:
        decoded = read(path, index, chosen, target, keep_alpha, bar.advance)
    _check_end(path, index, chosen, decoded)
    for note in _notes(path, chosen, decoded, config):
        _tell(note)
    check_count(path, len(decoded.numbers), config, duration_s, index.fps)
    check_frames(decoded.frames, path)
    times_s = np.asarray(index.times_s)[decoded.numbers] - index.times_s[0]
    return Clip(
        frames=torch.from_numpy(decoded.frames),
        fps=(len(times_s) - 1) / float(times_s[-1] - times_s[0]),
        names=tuple(f"frame_{number + 1:05d}" for number in decoded.numbers),
        source=path,
        times_s=tuple(times_s.tolist()),
        alpha=None if decoded.alpha is None else torch.from_numpy(decoded.alpha),
    )


def index_file(path: Path) -> VideoIndex:
    """When every frame of a video file or an animation is shown.

    Raises:
        ValueError: it is not a video, or is damaged.
    """
    check_regular(path)
    return index_animated_webp(path) if is_animated_webp(path) else index_video(path)


def _check_end(path: Path, index: VideoIndex, chosen: list[int], decoded: DecodedFrames) -> None:
    """
    Raises:
        ValueError: the data end long before the last chosen frame.
    """
    last = decoded.numbers[-1] if decoded.numbers else -1
    at_end = [number for number in chosen if number > last]
    if decoded.odd_shape or not at_end:
        return
    if decoded.plan.by_order and len(index.times_s) - 1 - last <= FEW_MISSING and decoded.numbers:
        return
    readable_s = index.times_s[last] - index.times_s[0] if last >= 0 else 0.0
    raise _cut_short_error(path, last + 1, len(index.times_s), readable_s)


def _tell(note: str) -> None:
    CONSOLE.print(note, markup=False, highlight=False, soft_wrap=True)


def _notes(path: Path, chosen: list[int], decoded: DecodedFrames, config: VideoConfig) -> list[str]:
    notes: list[str] = []
    missing = len(chosen) - len(decoded.numbers) - decoded.odd_shape
    if missing:
        had = set(decoded.numbers)
        first = next(number for number in chosen if number not in had)
        notes.append(
            f"{missing} of {len(chosen)} frames of {path.name} cannot be decoded (first: frame {first + 1}) and are "
            "left out."
        )
    if decoded.odd_shape:
        height, width = decoded.plan.size
        notes.append(
            f"The frames of {path.name} change their shape: {decoded.odd_shape} of {len(chosen)} are not "
            f"{width}x{height} and are left out. --video.start-s and --video.end-s choose another part."
        )
    if decoded.resized:
        height, width = decoded.plan.size
        notes.append(
            f"The frames of {path.name} change their size: {decoded.resized} of {len(chosen)} are scaled to "
            f"{width}x{height}, as most are."
        )
    if decoded.plan.field_order is not None:
        first = "top" if decoded.plan.field_order == "tff" else "bottom"
        notes.append(f"{path.name} is interlaced ({first} field first): each frame is rebuilt from its first field.")
    if decoded.colours is not None:
        notes.append(f"{path.name} is {decoded.colours}: converted to SDR, BT.709.")
    if decoded.transparent > MIN_TOLD_TRANSPARENCY and config.alpha == "over-white":
        notes.append(transparency_note(decoded.transparent, path))
    return notes


def _cut_short(path: Path, index: VideoIndex, webp: bool) -> ValueError:
    tail = list(range(max(0, len(index.times_s) - TAIL_FRAMES), len(index.times_s)))
    if webp:
        tiny = read_animated_webp(path, index, tail, lambda _: (1, 1))
        good = tail[0] + len(tiny.numbers)
    else:
        good = tail[0] + count_readable(path, index, tail)
    return _cut_short_error(path, good, index.declared_frames, index.times_s[max(good - 1, 0)] - index.times_s[0])


def _cut_short_error(path: Path, readable: int, promised: int | None, readable_s: float) -> ValueError:
    of_how_many = f" of {promised}" if promised is not None and promised > readable else ""
    return ValueError(
        f"{path} is cut short: {readable}{of_how_many} frames can be read ({readable_s:.2f} s). "
        + (
            f"Copy it again, or use what is there with --video.end-s {readable_s:.2f}."
            if readable_s
            else "Copy it again."
        )
    )
