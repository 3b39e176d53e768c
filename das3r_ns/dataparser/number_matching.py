"""Files matched to frames by what their names count: times, numbers in the video, or places in a row."""

import re
from collections.abc import Sequence

import numpy as np

from das3r_ns.dataparser.file_names import (
    bare_name,
    constant_shift,
    counts_without_gaps,
    evenly_spaced,
    numbers_of,
    sorted_by_number,
    time_in_name,
)
from das3r_ns.dataparser.matching_result import (
    ClipFrames,
    MatchError,
    Matching,
    ambiguous,
    count_of,
    matching_of,
    raise_error,
    remedy,
)


def by_time(names: Sequence[str], frames: ClipFrames) -> Matching | None:
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
    return matching_of(frames, {int(frame): row for row, frame in enumerate(nearest)}, "by time", exact=True)


def by_number_in_names(
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
        return in_order(names, frames)
    chosen = [of_frames[i] for i in frames.numbers]
    if (
        selection
        and sorted(numbers) != sorted(chosen)
        and (counts_without_gaps(numbers) or constant_shift(numbers, chosen) is not None)
    ):
        return in_order(names, frames)
    if not all(number in at for number in numbers):
        return None if whole or selection else by_number_of_more(names, numbers, at, frames, noun)
    if counts_without_gaps(numbers) and len(numbers) < frames.total and sorted(numbers) != sorted(chosen):
        raise ambiguous(names, frames, noun)
    return matching_of(frames, {at[number]: row for row, number in enumerate(numbers)}, "by number", exact=False)


def by_number_of_more(
    names: Sequence[str], numbers: list[int], at: dict[int, int], frames: ClipFrames, noun: str
) -> Matching:
    """More files than images, whose numbers have gaps: images that were taken out.

    Raises:
        MatchError: files and images are numbered independently of one another.
    """
    if set(at) <= set(numbers) and not counts_without_gaps(list(at)):
        rows = {at[number]: row for row, number in enumerate(numbers) if number in at}
        return matching_of(frames, rows, "by number", exact=False)
    unknown = next(name for name, number in zip(names, numbers) if number not in at)
    raise MatchError(
        f"no frame has the number of {unknown}, and there are {count_of(len(names), noun)} for {frames.total} frames "
        f"(first frame: {frames.label(0)}). " + remedy(frames, noun)
    )


def by_number_in_video(
    names: Sequence[str], numbers: list[int] | None, frames: ClipFrames, noun: str
) -> Matching | None:
    """By number among all frames of a video; whether they count from 0 or from 1 is found out."""
    if numbers is None:
        return None
    if len(numbers) == frames.total and counts_without_gaps(numbers):
        return in_order(names, frames)
    chosen = list(frames.numbers)
    for first in (1, 0):  # exactly the frames that are read
        if sorted(numbers) == [number + first for number in chosen] and not counts_without_gaps(numbers):
            return numbered(names, [n - first for n in numbers], frames, noun, f"by number, from {first}")
    if counts_without_gaps(numbers):
        return in_order(names, frames) if len(numbers) == len(chosen) else raise_error(ambiguous(names, frames, noun))
    first = _first_number(names, numbers, frames)
    if first is None:
        return None
    return numbered(names, [n - first for n in numbers], frames, noun, f"by number, from {first}")


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


def numbered(names: Sequence[str], positions: list[int], frames: ClipFrames, noun: str, how: str) -> Matching:
    """Files at these positions among all frames; an error where the video has no such frame."""
    outside = [name for name, position in zip(names, positions) if not 0 <= position < frames.total]
    if outside:
        raise MatchError(f"{noun} {outside[0]} belongs to no frame: there are {frames.total} ({how}).")
    return matching_of(frames, {position: row for row, position in enumerate(positions)}, how, exact=False)


def in_order(names: Sequence[str], frames: ClipFrames, constant_step: bool = True) -> Matching | None:
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
    return matching_of(frames, dict(zip(places, order)), "in order", exact=False)
