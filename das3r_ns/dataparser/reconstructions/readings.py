"""What a program's way to count frames can mean for those of a clip.

Which frames a program was given is not always known (every k-th, those of a stride, times without a stride): then there
are several readings, the literal one first, and the images decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from das3r_ns.dataparser.camera_match import readings_of_order
from das3r_ns.dataparser.file_names import bare_name, time_in_name
from das3r_ns.dataparser.known_cameras import in_convention
from das3r_ns.dataparser.matching_result import ClipFrames
from das3r_ns.dataparser.reconstructions.types import Reconstruction

MAX_STRIDE = 12
"""Every how many frames a SLAM program may have read."""

Reading = tuple[str, dict[int, int]]
"""What the numbering means, in words; and the row of each frame, by its number among all frames."""


def possible_readings(reconstruction: Reconstruction, frames: ClipFrames) -> tuple[Reconstruction, list[Reading]]:
    """What the numbering can mean, the literal meaning first; each reading once."""
    n, total = len(reconstruction), frames.total
    found: list[Reading] = []
    if reconstruction.counted == "order":
        if n == total:
            return reconstruction, [("all frames", {i: i for i in range(n)})]
        if n > total:
            return reconstruction, []
        found = readings_of_order([f"{i:06d}" for i in range(n)], frames)
        if n == len(frames.numbers):
            found.insert(0, ("the frames that are read", dict(zip(frames.numbers, range(n)))))
    elif reconstruction.counted == "numbers":
        assert reconstruction.numbers is not None
        found = _strided(reconstruction.numbers, total)
        if max(reconstruction.numbers) < len(frames.numbers) < total:
            rows = {frames.numbers[number]: row for row, number in enumerate(reconstruction.numbers)}
            found.append(("the frames that are read", rows))
        if reconstruction.names is None and reconstruction.times_s is not None and not found:
            reconstruction = replace(reconstruction, counted="times")
    if reconstruction.counted == "times":
        return _readings_of_times(reconstruction, frames)
    distinct: dict[tuple[tuple[int, int], ...], Reading] = {}
    for reading in found:
        distinct.setdefault(tuple(sorted(reading[1].items())), reading)
    return reconstruction, list(distinct.values())


def _strided(numbers: Sequence[int], total: int) -> list[Reading]:
    readings: list[Reading] = []
    for stride in range(1, MAX_STRIDE + 1):
        if max(numbers) * stride < total:
            how = "frames by their numbers" if stride == 1 else f"every {stride} frames, counted"
            readings.append((how, {number * stride: row for row, number in enumerate(numbers)}))
    return readings


def _readings_of_times(reconstruction: Reconstruction, frames: ClipFrames) -> tuple[Reconstruction, list[Reading]]:
    """Times as those of the frames; and as numbers over a rate, which may have skipped frames (MASt3R-SLAM)."""
    assert reconstruction.times_s is not None
    times = np.array(reconstruction.times_s)
    clocks: list[tuple[str, np.ndarray]] = []
    if frames.times_s is not None:
        clocks.append(("times of the video", np.array(frames.times_s)))
    elif frames.names is not None:
        named = [time_in_name(bare_name(name)) for name in frames.names]
        if all(time is not None for time in named):
            clocks.append(("times in the names", np.array(named, float)))
        clocks.append(("times at 30 frames a second", np.arange(frames.total) / 30))
    for how, clock in clocks:
        if len(clock) < 2 or np.diff(clock).min() <= 0:
            continue
        step = float(np.median(np.diff(clock)))
        if times[-1] < clock[0] or times[0] > clock[-1]:
            continue
        if np.median(np.diff(times)) < 0.7 * step:  # a tracker that is faster than the camera
            return _at_times(reconstruction, clock, how)
        readings: list[Reading] = []
        for stride in range(1, MAX_STRIDE + 1):
            wanted = times if stride == 1 else clock[0] + (times - clock[0]) * stride
            nearest = np.abs(clock[None] - wanted[:, None]).argmin(axis=1)
            near = np.abs(clock[nearest] - wanted) <= 0.5 * step
            if near.mean() > 0.9 and len(set(nearest[near].tolist())) == near.sum():
                rows = {int(frame): row for row, frame in enumerate(nearest) if near[row]}
                readings.append((how if stride == 1 else f"{how}, every {stride} frames", rows))
        if readings:
            return reconstruction, readings
    return reconstruction, []


def _at_times(reconstruction: Reconstruction, clock: np.ndarray, how: str) -> tuple[Reconstruction, list[Reading]]:
    """The trajectory interpolated to the times of frames that lie between two of its poses."""
    from scipy.spatial.transform import Rotation, Slerp  # slow to import, and help pages read this module

    times = np.array(reconstruction.times_s)
    T = in_convention(reconstruction.matrices, reconstruction.convention)
    after = np.clip(np.searchsorted(times, clock), 1, len(times) - 1)
    gap = np.diff(times)[after - 1]
    inside = (clock >= times[0]) & (clock <= times[-1]) & (gap <= 3 * np.median(np.diff(times)))
    chosen = np.flatnonzero(inside)
    if len(chosen) == 0:
        return reconstruction, []
    between = np.tile(np.eye(4), (len(chosen), 1, 1))
    between[:, :3, :3] = Slerp(times, Rotation.from_matrix(T[:, :3, :3]))(clock[chosen]).as_matrix()
    for axis in range(3):
        between[:, axis, 3] = np.interp(clock[chosen], times, T[:, axis, 3])
    at_frames = replace(
        reconstruction,
        matrices=between,
        convention="opencv",
        times_s=tuple(clock[chosen].tolist()),
        depth=None,
        moving=None,
    )
    return at_frames, [(f"{how}, interpolated", {int(frame): row for row, frame in enumerate(chosen)})]
