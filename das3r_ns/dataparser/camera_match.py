"""Which camera belongs to which frame, and whether the images agree.

Names decide (`matching`). Where cameras are numbered without gaps and are fewer than the frames, as programs number a
selection of a video's frames, names leave it open which frames were selected: then the images decide.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from das3r_ns.dataparser.camera_check import (
    DESCRIPTIONS,
    Fit,
    FrameMatcher,
    fit_of,
    fits_by_convention,
    pairs_of,
)
from das3r_ns.dataparser.file_names import sorted_by_number
from das3r_ns.dataparser.known_cameras import Convention, NamedCameras, rows_by_folder
from das3r_ns.dataparser.matching import Numbering, match_files
from das3r_ns.dataparser.matching_result import AmbiguousNumbers, ClipFrames, MatchError
from das3r_ns.dataparser.pinhole_images import intrinsics_at, undistort
from das3r_ns.video.clip import Clip

MIN_SUPPORT_SHARE = 0.5
"""Part of the agreement that is possible below which cameras are doubted."""


def match_cameras(
    models: Sequence[NamedCameras], clip: Clip, frames: ClipFrames, data: Path, numbering: Numbering = "auto"
) -> tuple[NamedCameras, list[int | None]]:
    """Cameras, and for each frame of the clip the place of its camera in them; None where it has none.

    Args:
        models: one set of cameras, or several COLMAP models, of which the one with most of the frames is taken.
        data: where the frames come from.
    Raises:
        ValueError: fewer than two frames have a camera, or nothing tells which frame has which.
    """
    found: list[tuple[NamedCameras, list[int | None]]] = []
    errors: list[ValueError] = []
    for model in models:
        try:
            cameras = rows_by_folder(model, data)
            try:
                rows = list(match_files(cameras.names, frames, numbering, "camera").rows)
            except AmbiguousNumbers as ambiguous:
                rows = _by_images(cameras, clip, frames, ambiguous)
            found.append((cameras, rows))
        except ValueError as error:
            errors.append(error)
    found = [(cameras, rows) for cameras, rows in found if sum(row is not None for row in rows) >= 2]
    if not found:
        raise _no_match(models, frames, errors)
    best = max(range(len(found)), key=lambda k: sum(row is not None for row in found[k][1]))
    if len(models) > 1:
        counts = ", ".join(f"{model.path} ({len(model.names)} images)" for model in models)
        print(f"Cameras: {len(models)} COLMAP models: {counts}. {found[best][0].path} has most of the frames.")
    return found[best]


def _no_match(models: Sequence[NamedCameras], frames: ClipFrames, errors: list[ValueError]) -> ValueError:
    if errors and not isinstance(errors[0], MatchError):
        return errors[0]
    n = len(frames.numbers)
    why = f" {errors[0]}" if errors else ""
    return ValueError(
        f"the cameras do not fit the frames: fewer than 2 of {n} frames have one (first frame: "
        f"{frames.label(frames.numbers[0])}, first camera's image: {models[0].names[0]}).{why}"
    )


def _by_images(cameras: NamedCameras, clip: Clip, frames: ClipFrames, ambiguous: AmbiguousNumbers) -> list[int | None]:
    """The reading of the numbers with which the images agree.

    Raises:
        AmbiguousNumbers: none does, or nothing in the images tells.
    """
    place = {number: i for i, number in enumerate(frames.numbers)}
    K = intrinsics_at(cameras, clip.size)
    lens = K[:1].expand(len(clip), 3, 3)
    straight, lens, _ = undistort(clip, lens.clone(), cameras.distortion[:1].expand(len(clip), 5))
    matcher = FrameMatcher(lambda i: straight.frames[i].numpy(), lens.double().numpy())
    readings: list[tuple[str, list[int | None], Fit]] = []
    for how, positions in readings_of_order(cameras.names, frames):
        rows: list[int | None] = [None] * len(clip)
        for row, number in positions.items():
            if number in place:
                rows[place[number]] = row
        with_camera = [i for i, row in enumerate(rows) if row is not None]
        fit = fit_of(pairs_of(matcher, with_camera), cameras.T_world_camera[[row for row in rows if row is not None]])
        if fit is not None:
            readings.append((how, rows, fit))
    if not readings:
        raise ambiguous
    literal = readings[0]
    best = max(readings, key=lambda reading: reading[2].share / reading[2].possible)
    if literal[2].good:
        return literal[1]
    if not best[2].good:
        raise AmbiguousNumbers(f"{ambiguous} The images agree with no reading of the numbers.")
    print(
        f"Cameras: {len(cameras.names)} are numbered without gaps, and there are {frames.total} frames. They are taken "
        f"for those of {best[0]}, with which {best[2].share:.0%} of {best[2].matches} matches between frames agree "
        f"({literal[2].share:.0%} if they were {literal[0]})."
    )
    return best[1]


def readings_of_order(names: Sequence[str], frames: ClipFrames) -> list[tuple[str, dict[int, int]]]:
    """What numbers without gaps can mean: frame of each camera, for each reading. The literal one comes first."""
    order, m, total = sorted_by_number(names), len(names), frames.total
    found: dict[tuple[int, ...], str] = {tuple(range(m)): f"those of the first {m} frames"}
    if m == len(frames.numbers):
        found.setdefault(frames.numbers, "the frames that are read")
    for every in (total // m, -(-total // m)):
        if every > 1 and (m - 1) * every < total:
            found.setdefault(tuple(every * k for k in range(m)), f"every {_ordinal(every)} frame")
    spread = f"{m} frames spread evenly over the video"
    for positions in (
        np.floor(np.arange(m) * total / m),
        np.round(np.linspace(0, total - 1, m)),
        np.floor((np.arange(m) + 0.5) * total / m),
    ):
        found.setdefault(tuple(int(p) for p in positions), spread)
    return [(how, dict(zip(order, positions))) for positions, how in found.items()]


def _ordinal(k: int) -> str:
    return f"{k}{'nd' if k % 10 == 2 and k != 12 else 'rd' if k % 10 == 3 and k != 13 else 'th'}"


def check_cameras(
    clip: Clip,
    K: Float[Tensor, "n 3 3"],
    cameras: NamedCameras,
    moving: Float[Tensor, "n h w"] | None,
    told: Convention = "auto",
) -> None:
    """See whether the images agree with the cameras, and if not, with the same matrices in another convention.

    Args:
        clip: frames without lens distortion.
        cameras: of these frames, in their order.
        moving: 1 where something moves, as far as that is known.
        told: the convention that the user states; then nothing is refused.
    Raises:
        ValueError: the images contradict the cameras, and another convention fits.
    """
    masks = None if moving is None else moving.numpy() > 0.5
    matcher = FrameMatcher(
        lambda i: clip.frames[i].numpy(), K.double().numpy(), lambda i: None if masks is None else masks[i]
    )
    fits = fits_by_convention(pairs_of(matcher, range(len(clip))), cameras.matrices)
    if fits is None or fits[cameras.convention].share >= MIN_SUPPORT_SHARE * fits[cameras.convention].possible:
        return
    own = fits[cameras.convention]
    other = max(fits, key=lambda convention: fits[convention].share)
    found = (
        f"the images contradict the cameras of {cameras.path}: {own.share:.0%} of {own.matches} matches between frames "
        f"agree with them, where {own.possible:.0%} can"
    )
    if told == "auto" and fits[other].beats(own):
        raise ValueError(
            f"{found}. Read as {DESCRIPTIONS[other]}, {fits[other].share:.0%} agree (they were read as "
            f"{DESCRIPTIONS[cameras.convention]}). If that is what they are, say --cameras-convention {other}; "
            f"--cameras-convention {cameras.convention} takes them as they were read."
        )
    print(
        f"Cameras: {found}. They are used as they are. Are they of these frames, with the right focal length, or does "
        "most of what is seen move?"
    )
