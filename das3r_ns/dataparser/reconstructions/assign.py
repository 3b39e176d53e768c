"""From another program's images to the frames of a clip: which is which, where the lens and the maps lie in them.

How a program counts frames is known (`Reconstruction.counted`); which frames it was given is not always. Where several
readings are possible, the images decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from das3r_ns import geometry
from das3r_ns.dataparser.camera_check import Fit, FrameMatcher, PairMatches, fit_of, pairs_of
from das3r_ns.dataparser.camera_match import readings_of_order
from das3r_ns.dataparser.file_names import bare_name, time_in_name
from das3r_ns.dataparser.known_cameras import Convention, NamedCameras, in_convention
from das3r_ns.dataparser.matching import Numbering, match_files
from das3r_ns.dataparser.matching_result import ClipFrames
from das3r_ns.dataparser.reconstructions.arrays import check_room
from das3r_ns.dataparser.reconstructions.focal import focal_of_poses
from das3r_ns.dataparser.reconstructions.types import DepthMap, Framing, Reconstruction, stretched
from das3r_ns.predictor.base import DepthPrior
from das3r_ns.video.clip import Clip

MAX_STRIDE = 12
"""Every how many frames a SLAM program may have read."""
PROVISIONAL_DEG = 60.0
"""Field of view in which matches are expressed until it is known."""
ENOUGH_AGREE = 0.3
"""Share of the matches that must agree with a focal length that was found."""

Reading = tuple[str, dict[int, int]]
"""What the numbering means, in words; and the row of each frame, by its number among all frames."""


@dataclass(frozen=True)
class Assigned:
    """A reconstruction in the terms of a clip."""

    reconstruction: Reconstruction
    """Interpolated to the times of the frames, where it is a trajectory with more poses than those."""
    cameras: NamedCameras
    """Of the images of the reconstruction, in pixels of the clip."""
    rows: tuple[int | None, ...]
    """For each frame of the clip its row; None where it has none."""
    framing: Framing | None
    """None where the files have neither lens nor maps."""


def assign(
    reconstruction: Reconstruction,
    clip: Clip,
    frames: ClipFrames,
    frame_size: tuple[int, int],
    *,
    own_frames: bool = False,
    focal_px: float | None = None,
    convention: Convention = "auto",
    numbering: Numbering = "auto",
) -> Assigned:
    """Which frame has which camera.

    Args:
        frame_size: height and width of the frames as they are stored, before the clip was made smaller.
        own_frames: the frames are those that the program kept, one for each row.
        focal_px: in pixels of the clip, where the user says so.
    Raises:
        ValueError: the images are of other proportions, fewer than two frames have a camera, or nothing tells the lens.
    """
    if convention != "auto":
        reconstruction = replace(reconstruction, convention=convention)
    framing = framing_of(reconstruction, frame_size)
    K = None if framing is None or reconstruction.K is None else _K_in_clip(reconstruction.K, framing, clip.size)
    if own_frames:
        readings: list[Reading] = [("its own frames", {i: i for i in range(len(reconstruction))})]
    elif reconstruction.counted == "names":
        assert reconstruction.names is not None
        rows = match_files(reconstruction.names, frames, numbering, "camera").rows
        readings = [("by name", {number: row for number, row in zip(frames.numbers, rows) if row is not None})]
    else:
        reconstruction, readings = _readings(reconstruction, frames)
        if K is not None and len(K) != len(reconstruction):
            K = np.tile(K[:1], (len(reconstruction), 1, 1))
    readings = [reading for reading in readings if sum(number in reading[1] for number in frames.numbers) >= 2]
    if not readings:
        raise ValueError(
            f"{reconstruction.path} ({reconstruction.tool}) has {len(reconstruction)} cameras, and fewer than 2 of the "
            f"{len(frames.numbers)} frames that are read ({frames.total} in all) have one. Were they computed for "
            "another clip, or for another part of it (--video.start-s, --video.every)?"
        )
    if K is None and focal_px is not None:
        K = np.tile(_central(focal_px, clip.size), (len(reconstruction), 1, 1))
    if K is None or len(readings) > 1:
        reading, K = _by_images(reconstruction, readings, clip, frames, K)
    else:
        reading = readings[0]
    rows = tuple(reading[1].get(number) for number in frames.numbers)
    n = len(reconstruction)
    cameras = NamedCameras(
        path=reconstruction.path,
        names=tuple(f"image {i + 1}" for i in range(n)),
        matrices=reconstruction.matrices.copy(),
        convention=reconstruction.convention,
        K=torch.from_numpy(K).float(),
        sizes=(clip.size,) * n,
        distortion=torch.zeros(n, 5),
    )
    return Assigned(reconstruction, cameras, rows, framing)


def framing_of(reconstruction: Reconstruction, frame: tuple[int, int]) -> Framing | None:
    """How the saved images became of the frames; None where nothing was saved.

    Raises:
        ValueError: they cannot have.
    """
    saved = reconstruction.saved_size
    if saved is None:
        return None
    framing = stretched(frame, saved) if frame == saved else reconstruction.framing(frame, saved)
    if framing is None and abs(frame[0] * saved[1] - frame[1] * saved[0]) <= max(*frame, *saved):
        framing = stretched(frame, saved)
    if framing is None or not framing.fits(saved) or not _plausible(framing, frame):
        raise ValueError(
            f"{reconstruction.path}: its images have {saved[1]}x{saved[0]} pixels, which {reconstruction.tool} does "
            f"not make of frames of {frame[1]}x{frame[0]}. Give the clip that it was run on."
        )
    return framing


def _plausible(framing: Framing, frame: tuple[int, int]) -> bool:
    """No program stretches images by a tenth: then they are of another clip, or on their side."""
    return 0.9 < framing.resized[0] * frame[1] / (framing.resized[1] * frame[0]) < 1.11


def _K_in_clip(
    K: Float64[np.ndarray, "n 3 3"], framing: Framing, size: tuple[int, int]
) -> Float64[np.ndarray, "n 3 3"]:
    K = K.copy()
    K[:, 0, 2] += framing.left
    K[:, 1, 2] += framing.top
    K[:, 0] *= size[1] / framing.resized[1]
    K[:, 1] *= size[0] / framing.resized[0]
    return K


def _central(focal_px: float, size: tuple[int, int]) -> Float64[np.ndarray, "3 3"]:
    return geometry.intrinsics(focal_px, *size).double().numpy()


def _readings(reconstruction: Reconstruction, frames: ClipFrames) -> tuple[Reconstruction, list[Reading]]:
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


def _by_images(
    reconstruction: Reconstruction, readings: list[Reading], clip: Clip, frames: ClipFrames, K: np.ndarray | None
) -> tuple[Reading, Float64[np.ndarray, "n 3 3"]]:
    """The reading (and, where the lens is unknown, the focal length) with which the images agree.

    Raises:
        ValueError: nothing tells the lens.
    """
    T = in_convention(reconstruction.matrices, reconstruction.convention)
    longer = float(max(clip.size))
    focal = longer / (2 * np.tan(np.radians(PROVISIONAL_DEG) / 2))
    lens = _central(focal, clip.size) if K is None else np.median(K, axis=0)
    matcher = FrameMatcher(lambda i: clip.frames[i].numpy(), np.tile(lens, (len(clip), 1, 1)))
    tried: list[tuple[Reading, float, Fit | None]] = []
    for reading in readings:
        places = [i for i, number in enumerate(frames.numbers) if number in reading[1]]
        of_places = T[[reading[1][frames.numbers[i]] for i in places]]
        pairs: list[tuple[int, int, PairMatches]] = pairs_of(matcher, places)
        if K is None:
            tried.append((reading, *focal_of_poses(pairs, of_places, focal, longer)))
        else:
            tried.append((reading, float(lens[0, 0]), fit_of(pairs, of_places)))
    judged = [(reading, f, fit) for reading, f, fit in tried if fit is not None]
    what = f"{reconstruction.path} ({reconstruction.tool})"
    if not judged:
        if K is None:
            raise ValueError(
                f"{what} does not say what the lens is, and the frames match too little to find out. Give --fov-deg."
            )
        return tried[0][0], K
    literal = judged[0]
    best = max(judged, key=lambda t: t[2].share / t[2].possible)
    chosen = literal if literal[2].good or best[2].share < 1.1 * literal[2].share else best
    fit = chosen[2]
    if K is None:
        if not (fit.good and fit.share > ENOUGH_AGREE):
            raise ValueError(
                f"{what} does not say what the lens is, and no focal length makes it agree with the images: at most "
                f"{fit.share:.0%} of {fit.matches} matches between frames do, where {fit.possible:.0%} can. Is it of "
                "this clip? --fov-deg gives the lens, --cameras-convention the axes."
            )
        angle = geometry.field_of_view(chosen[1], longer)
        print(
            f"Cameras: {reconstruction.path.name} does not say what the lens is. With {chosen[1]:.0f} px ({angle:.0f} "
            f"degrees across the longer side) {fit.share:.0%} of {fit.matches} matches between frames agree with its "
            "poses."
        )
        K = np.tile(_central(chosen[1], clip.size), (len(reconstruction), 1, 1))
    if len(readings) > 1:
        print(
            f"Cameras: the {len(reconstruction)} poses are taken for {chosen[0][0]}, with which {fit.share:.0%} of "
            f"{fit.matches} matches between frames agree."
        )
    return chosen[0], K


def depth_of_frames(assigned: Assigned, rows: Sequence[int | None]) -> DepthPrior | None:
    """Depth of the frames of a clip; 0 in those that have none. None where the program gives no depth.

    Args:
        rows: of each frame, as in `Assigned.rows`.
    Raises:
        ValueError: the maps do not fit the images, or the memory.
    """
    reconstruction = assigned.reconstruction
    if reconstruction.depth is None:
        return None
    framing = assigned.framing or Framing((1, 1), 0, 0)
    found: dict[int, DepthMap] = {}
    shape: tuple[int, int] | None = None
    for k, row in enumerate(rows):
        if row is None:
            continue
        depth_map = reconstruction.depth(row)
        if not depth_map.depth.any():
            continue
        if shape is None:
            shape = depth_map.depth.shape[0], depth_map.depth.shape[1]
            whole = padded(depth_map.depth, reconstruction, framing).shape
            check_room(2 * 4 * len(rows) * whole[0] * whole[1], f"depth of {reconstruction.path}")
        if depth_map.depth.shape != shape:
            raise ValueError(
                f"{reconstruction.path}: depth of image {row + 1} differs in size from that of the others."
            )
        found[k] = depth_map
    if not found:
        return None
    maps = [padded(found[k].depth, reconstruction, framing) if k in found else None for k in range(len(rows))]
    certain = [
        None if k not in found or (c := found[k].confidence) is None else padded(c, reconstruction, framing)
        for k in range(len(rows))
    ]
    size = next(m for m in maps if m is not None).shape
    depth = np.stack([np.zeros(size, np.float32) if m is None else m for m in maps])
    confidence = np.stack([(d > 0).astype(np.float32) if c is None else c * (d > 0) for c, d in zip(certain, depth)])
    depth *= confidence > 0
    return DepthPrior(torch.from_numpy(depth), torch.from_numpy(confidence.astype(np.float32)), reconstruction.tool)


def padded(
    values: Float32[np.ndarray, "h w"], reconstruction: Reconstruction, framing: Framing, replicate: bool = False
) -> Float32[np.ndarray, "_ _"]:
    """A map of a saved image as one of the whole frame.

    Args:
        replicate: repeat the border in what was cut off, instead of 0.
    """
    saved = reconstruction.saved_size
    if saved is None or framing.resized == saved:
        return values
    if values.shape != saved:
        factor = saved[0] // values.shape[0]
        if factor < 1 or (values.shape[0] * factor, values.shape[1] * factor) != saved:
            raise ValueError(
                f"{reconstruction.path}: a map of {values.shape[1]}x{values.shape[0]} pixels does not fit images of "
                f"{saved[1]}x{saved[0]}."
            )
        values = cv2.resize(values, saved[::-1], interpolation=cv2.INTER_NEAREST)
    bottom = framing.resized[0] - framing.top - saved[0]
    right = framing.resized[1] - framing.left - saved[1]
    mode = "edge" if replicate else "constant"
    return np.pad(values, ((framing.top, bottom), (framing.left, right)), mode=mode).astype(np.float32)


def moving_of_frames(assigned: Assigned, size: tuple[int, int]) -> Float[Tensor, "n h w"]:
    """1 where something moves, at the size of the clip; 0 in frames without a row.

    Raises:
        ValueError: the program gives no masks.
    """
    reconstruction, framing, rows = assigned.reconstruction, assigned.framing, assigned.rows
    if reconstruction.moving is None or framing is None:
        raise ValueError(f"{reconstruction.path} ({reconstruction.tool}) has no masks of what moves.")
    found = torch.zeros(len(rows), *size)
    for k, row in enumerate(rows):
        if row is not None:
            whole = padded(reconstruction.moving(row), reconstruction, framing, replicate=True)
            interpolation = cv2.INTER_AREA if whole.shape[0] >= size[0] else cv2.INTER_LINEAR
            found[k] = torch.from_numpy(cv2.resize(whole, size[::-1], interpolation=interpolation))
    return found
