"""From another program's images to the frames of a clip: which is which, and where the lens lies in them.

How a program counts frames is known (`Reconstruction.counted`); which frames it was given is not always. Where several
readings are possible, the images decide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64

from das3r_ns import geometry
from das3r_ns.dataparser.camera_check import Fit, FrameMatcher, PairMatches, fit_of, pairs_of
from das3r_ns.dataparser.known_cameras import Convention, NamedCameras, in_convention
from das3r_ns.dataparser.matching import Numbering, match_files
from das3r_ns.dataparser.matching_result import ClipFrames
from das3r_ns.dataparser.reconstructions.focal import focal_of_poses
from das3r_ns.dataparser.reconstructions.readings import Reading, possible_readings
from das3r_ns.dataparser.reconstructions.types import Framing, Reconstruction, stretched
from das3r_ns.video.clip import Clip

PROVISIONAL_DEG = 60.0
"""Field of view in which matches are expressed until it is known."""
ENOUGH_AGREE = 0.3
"""Share of the matches that must agree with a focal length that was found."""


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
        reconstruction, readings = possible_readings(reconstruction, frames)
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
