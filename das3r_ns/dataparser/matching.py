"""Which mask or camera belongs to which frame: by name, time or number, or in order, or an error that says why not.

Names come in every form: `00003.jpg.png` (COLMAP) and `mask_3.npy` both belong to frame `00003.jpg`. The rules go from
the surest reading to the weakest, and a reading counts only if it accounts for *all* files, so that a numbering made
for another selection of frames is refused instead of being paired with the wrong frames:

1. the same name, endings and padding apart; then the same name without words such as `mask`;
2. times, where both sides are named after them (or the frames are of a video, which knows its own);
3. numbers. Images have theirs in their names; frames of a video count from 0 or from 1, as the files tell;
4. the order, where there are as many files as frames.

`0 ... n` or `1 ... n` without gaps says nothing about *which* frames were counted. It is taken for the frames that are
read, or for all of them, where the count is the same, and is otherwise ambiguous.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from das3r_ns.dataparser.file_names import (
    NAME_RULES,
    bare_name,
    bare_name_without_role,
    constant_shift,
    counts_without_gaps,
    evenly_spaced,
    numbers_of,
    places_by_key,
    sorted_by_number,
    time_in_name,
)
from das3r_ns.dataparser.options import Numbering


class MatchError(ValueError):
    """Files that cannot be assigned to frames for sure. The message says what was found and what to do."""


@dataclass(frozen=True)
class ClipFrames:
    """The frames that are read, as part of all frames of the video or images of the folder."""

    numbers: tuple[int, ...]
    """Position of each frame that is read, from 0, ascending, among all frames."""
    total: int
    """How many frames there are in all."""
    names: tuple[str, ...] | None = None
    """File name of each image of the folder (all of them), in order; None for a video, whose frames have no name."""
    times_s: tuple[float, ...] | None = None
    """When each frame of a video (all of them) is shown; None for a folder."""

    def label(self, number: int) -> str:
        """What to call frame `number` (from 0) in a message."""
        return f"frame {number + 1} of the video" if self.names is None else self.names[number]


@dataclass(frozen=True)
class Matching:
    """Which file each frame has."""

    rows: tuple[int | None, ...]
    """For each frame that is read its file's place in the list; None where it has none."""
    how: str
    """The rule by which they were matched, for a message: "by name"."""
    exact: bool
    """Whether the names alone leave no doubt."""


def match_files(
    names: Sequence[str], frames: ClipFrames, numbering: Numbering = "auto", noun: str = "mask"
) -> Matching:
    """The file of each frame.

    Args:
        names: paths of the files, in any order, slashes either way.
        numbering: how numbers are to be read, where the user says so.
        noun: what the files are, for messages.
    Raises:
        MatchError: no reading of the names accounts for all files, or several do.
    """
    if numbering != "auto":
        return _as_told(names, frames, numbering, noun)
    matching = _by_name(names, frames, noun) or _by_time(names, frames)
    if matching is not None:
        return matching
    numbers = numbers_of(names)
    by_number = _by_number_in_names if frames.names is not None else _by_number_in_video
    matching = by_number(names, numbers, frames, noun) or _in_order(names, frames)
    if matching is None:
        raise MatchError(
            f"there are {_count(len(names), noun)} for {len(frames.numbers)} frames ({frames.total} in all), and no "
            f"name, time or number fits (first {noun}: {names[0]}, first frame: {frames.label(frames.numbers[0])}). "
            + _remedy(frames, noun)
        )
    return matching


def _as_told(names: Sequence[str], frames: ClipFrames, numbering: Numbering, noun: str) -> Matching:
    if numbering == "in-order":
        matching = _in_order(names, frames, constant_step=False)
        if matching is None:
            raise MatchError(
                f"{_count(len(names), noun)} cannot be matched in order with {len(frames.numbers)} frames "
                f"({frames.total} in all): give as many as there are frames."
            )
        return matching
    if numbering == "by-name":
        if frames.names is None:
            raise MatchError("frames of a video have no names: say --numbering from-0, from-1 or in-order.")
        matching = _by_name(names, frames, noun, trusted=True)
        if matching is None:
            raise MatchError(f"no {noun} is named like a frame (first: {names[0]}, first frame: {frames.names[0]}).")
        return matching
    numbers = numbers_of(names)
    if numbers is None:
        raise MatchError(f"the names of the {noun}s hold no number, or the same twice (first: {names[0]}).")
    first = 0 if numbering == "from-0" else 1
    return _numbered(names, [number - first for number in numbers], frames, noun, f"by number, from {first}")


def _by_name(names: Sequence[str], frames: ClipFrames, noun: str, trusted: bool = False) -> Matching | None:
    """By name, in a folder of images. None where names have nothing to do with one another.

    Args:
        trusted: the user says that names are right.
    """
    if frames.names is None:
        return None
    for of_name, of_image in NAME_RULES:
        files, images = places_by_key(names, of_name), places_by_key(frames.names, of_image)
        if files is None or images is None:
            continue  # `a.jpg` and `a.png`: this much of the name does not tell them apart
        rows = {images[key]: files[key] for key in files.keys() & images.keys() if key}
        if not rows:
            continue
        literal = of_image is not bare_name_without_role
        if not trusted and not (noun == "camera" and literal):  # programs pose some images only, and images get lost
            _check_none_left(names, frames, rows, noun)
        if not trusted:
            _check_selection(names, frames, rows, noun, literal)
        return _matching(frames, rows, "by name", exact=True)
    return None


def _check_none_left(names: Sequence[str], frames: ClipFrames, rows: dict[int, int], noun: str) -> None:
    """Either every file has its frame, or every frame its file. With some of both left over the numbering is another.

    Raises:
        MatchError: files and frames are left over.
    """
    assert frames.names is not None
    lone_files = [name for i, name in enumerate(names) if i not in rows.values()]
    lone_images = [name for i, name in enumerate(frames.names) if i not in rows]
    if lone_files and lone_images:
        raise MatchError(
            f"{len(rows)} of {_count(len(names), noun)} are named like images, but {len(lone_files)} belong to none "
            f"(first: {lone_files[0]}), and {len(lone_images)} images have none (first: {lone_images[0]}). Are they "
            "numbered for another selection of frames? " + _remedy(frames, noun)
        )


def _check_selection(names: Sequence[str], frames: ClipFrames, rows: dict[int, int], noun: str, literal: bool) -> None:
    """Refuse `0 ... n` where the names fit the first images of the folder and the count fits the frames that are read,
    which are others; and, of names that are only similar, wherever they do not cover all images.

    Raises:
        AmbiguousNumbers: both readings look right.
    """
    numbers, m = numbers_of(names), len(names)
    if numbers is None or not counts_without_gaps(numbers) or m >= frames.total or set(frames.numbers) <= set(rows):
        return
    if m == len(frames.numbers) or not literal:
        raise _ambiguous(names, frames, noun)


def _by_time(names: Sequence[str], frames: ClipFrames) -> Matching | None:
    """By time: both sides named after time stamps, or a video and files named after seconds (with a decimal point)."""
    of_file = [time_in_name(bare_name(name)) for name in names]
    if any(time is None for time in of_file) or len(set(of_file)) < len(of_file):
        return None
    if frames.names is not None:
        of_frame = [time_in_name(bare_name(name)) for name in frames.names]
        if any(time is None for time in of_frame):
            return None
    else:
        if not all("." in bare_name(name) for name in names) or frames.times_s is None:
            return None
        of_frame = list(frames.times_s)
    times, other = np.array(of_frame, float), np.array(of_file, float)
    order = np.argsort(times)
    if len(times) < 2:
        return None
    steps = np.diff(times[order])
    if steps.min() <= 0:
        return None
    nearest = order[np.abs(times[order][None] - other[:, None]).argmin(axis=1)]
    # Half a step either way: beyond it another frame, which is not here, would be meant.
    if (np.abs(times[nearest] - other) > 0.5 * np.median(steps)).any() or len(set(nearest.tolist())) < len(nearest):
        return None
    return _matching(frames, {int(frame): row for row, frame in enumerate(nearest)}, "by time", exact=True)


def _by_number_in_names(
    names: Sequence[str], numbers: list[int] | None, frames: ClipFrames, noun: str
) -> Matching | None:
    """By the number in the names of images and files, which share nothing else: `IMG_0003.jpg` and `mask_3.png`."""
    assert frames.names is not None
    of_frames = numbers_of(frames.names)
    if numbers is None or of_frames is None:
        return None
    at = {number: i for i, number in enumerate(of_frames)}
    whole = len(names) == frames.total
    selection = len(names) == len(frames.numbers)
    if whole and constant_shift(numbers, of_frames) is not None:
        return _in_order(names, frames)
    chosen = [of_frames[i] for i in frames.numbers]
    if (
        selection
        and sorted(numbers) != sorted(chosen)
        and (counts_without_gaps(numbers) or constant_shift(numbers, chosen) is not None)
    ):
        return _in_order(names, frames)
    if not all(number in at for number in numbers):
        return None if whole or selection else _by_number_of_more(names, numbers, at, frames, noun)
    if counts_without_gaps(numbers) and len(numbers) < frames.total and sorted(numbers) != sorted(chosen):
        raise _ambiguous(names, frames, noun)
    return _matching(frames, {at[number]: row for row, number in enumerate(numbers)}, "by number", exact=False)


def _by_number_of_more(
    names: Sequence[str], numbers: list[int], at: dict[int, int], frames: ClipFrames, noun: str
) -> Matching:
    """More files than images, whose numbers have gaps: images that were taken out.

    Raises:
        MatchError: files and images are numbered independently of one another.
    """
    if set(at) <= set(numbers) and not counts_without_gaps(list(at)):
        rows = {at[number]: row for row, number in enumerate(numbers) if number in at}
        return _matching(frames, rows, "by number", exact=False)
    unknown = next(name for name, number in zip(names, numbers) if number not in at)
    raise MatchError(
        f"no frame has the number of {unknown}, and there are {_count(len(names), noun)} for {frames.total} frames "
        f"(first frame: {frames.label(0)}). " + _remedy(frames, noun)
    )


def _by_number_in_video(
    names: Sequence[str], numbers: list[int] | None, frames: ClipFrames, noun: str
) -> Matching | None:
    """By number among all frames of a video; whether they count from 0 or from 1 is found out."""
    if numbers is None:
        return None
    if len(numbers) == frames.total and counts_without_gaps(numbers):
        return _in_order(names, frames)
    chosen = list(frames.numbers)
    for first in (1, 0):  # exactly the frames that are read
        if sorted(numbers) == [number + first for number in chosen] and not counts_without_gaps(numbers):
            return _numbered(names, [n - first for n in numbers], frames, noun, f"by number, from {first}")
    if counts_without_gaps(numbers):
        return _in_order(names, frames) if len(numbers) == len(chosen) else _raise(_ambiguous(names, frames, noun))
    first = _first_number(names, numbers, frames)
    if first is None:
        return None
    return _numbered(names, [n - first for n in numbers], frames, noun, f"by number, from {first}")


def _first_number(names: Sequence[str], numbers: list[int], frames: ClipFrames) -> int | None:
    """Whether numbers count from 0 or from 1; None where they are not numbers of these frames at all.

    Raises:
        MatchError: nothing tells.
    """
    if max(numbers) > frames.total:
        return None
    if 0 in numbers:
        return None if frames.total in numbers else 0
    if frames.total in numbers:
        return 1
    if all(re.fullmatch(r"frame_\d{5}", bare_name(name)) for name in names):
        return 1  # as scene folders and ns-process-data name them
    raise MatchError(
        f"do the numbers in {names[0]}, ... count the frames of the video from 0 or from 1? Neither 0 nor "
        f"{frames.total} is among them. Say --numbering from-0 or from-1, or name them frame_00001, ... (from 1)."
    )


def _numbered(names: Sequence[str], positions: list[int], frames: ClipFrames, noun: str, how: str) -> Matching:
    outside = [name for name, position in zip(names, positions) if not 0 <= position < frames.total]
    if outside:
        raise MatchError(f"{noun} {outside[0]} belongs to no frame: there are {frames.total} ({how}).")
    return _matching(frames, {position: row for row, position in enumerate(positions)}, how, exact=False)


def _in_order(names: Sequence[str], frames: ClipFrames, constant_step: bool = True) -> Matching | None:
    """The first file with the first frame and so on, by the order of their numbers (or names)."""
    numbers = numbers_of(names)
    if numbers is not None and counts_without_gaps(numbers):
        order = sorted(range(len(names)), key=numbers.__getitem__)
    else:
        order = sorted_by_number(names)
    if len(names) == frames.total:
        places: Sequence[int] = range(frames.total)
    elif len(names) == len(frames.numbers):
        places = frames.numbers
    else:
        return None
    if constant_step and numbers is not None and not evenly_spaced(numbers):
        of_frames = None if frames.names is None else numbers_of([frames.names[i] for i in places])
        # Gaps on one side that the other does not have: something is missing, nobody knows where.
        if constant_shift(numbers, list(places) if of_frames is None else of_frames) is None:
            return None
    return _matching(frames, dict(zip(places, order)), "in order", exact=False)


def _matching(frames: ClipFrames, rows: dict[int, int], how: str, exact: bool) -> Matching:
    return Matching(tuple(rows.get(number) for number in frames.numbers), how, exact)


def _ambiguous(names: Sequence[str], frames: ClipFrames, noun: str) -> MatchError:
    n = len(names)
    every = max(2, round(frames.total / n))
    return AmbiguousNumbers(
        f"{_count(n, noun)} numbered without gaps ({names[0]}, ...) for {frames.total} frames: are they of the first "
        f"{n} frames, or of every {every}{'nd' if every == 2 else 'rd' if every == 3 else 'th'}? "
        + _remedy(frames, noun)
    )


class AmbiguousNumbers(MatchError):
    """Numbers without gaps, fewer than frames: any selection of frames may have been counted."""


def _raise(error: Exception) -> Matching:
    raise error


def _remedy(frames: ClipFrames, noun: str) -> str:
    like = "the images" if frames.names is not None else "frame_00001, ... by the number in the whole video"
    told = "by-name" if frames.names is not None else "from-0, from-1"
    return (
        f"Name each {noun} like its frame ({like}), read the frames that they were made for (--video.every, "
        f"--video.start-s, --video.end-s), or say how they count: --numbering {told} or in-order."
    )


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


__all__ = [
    "AmbiguousNumbers",
    "ClipFrames",
    "MatchError",
    "Matching",
    "Numbering",
    "match_files",
]
