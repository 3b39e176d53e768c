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

from collections.abc import Sequence

from das3r_ns.dataparser.file_names import (
    NAME_RULES,
    bare_name_without_role,
    counts_without_gaps,
    numbers_of,
    places_by_key,
)
from das3r_ns.dataparser.matching_result import (
    AmbiguousNumbers,
    ClipFrames,
    MatchError,
    Matching,
    ambiguous,
    count_of,
    matching_of,
    remedy,
)
from das3r_ns.dataparser.number_matching import by_number_in_names, by_number_in_video, by_time, in_order, numbered
from das3r_ns.dataparser.options import Numbering


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
    matching = _by_name(names, frames, noun) or by_time(names, frames)
    if matching is not None:
        return matching
    numbers = numbers_of(names)
    by_number = by_number_in_names if frames.names is not None else by_number_in_video
    matching = by_number(names, numbers, frames, noun) or in_order(names, frames)
    if matching is None:
        raise MatchError(
            f"there are {count_of(len(names), noun)} for {len(frames.numbers)} frames ({frames.total} in all), and no "
            f"name, time or number fits (first {noun}: {names[0]}, first frame: {frames.label(frames.numbers[0])}). "
            + remedy(frames, noun)
        )
    return matching


def _as_told(names: Sequence[str], frames: ClipFrames, numbering: Numbering, noun: str) -> Matching:
    if numbering == "in-order":
        matching = in_order(names, frames, constant_step=False)
        if matching is None:
            raise MatchError(
                f"{count_of(len(names), noun)} cannot be matched in order with {len(frames.numbers)} frames "
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
    return numbered(names, [number - first for number in numbers], frames, noun, f"by number, from {first}")


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
        return matching_of(frames, rows, "by name", exact=True)
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
            f"{len(rows)} of {count_of(len(names), noun)} are named like images, but {len(lone_files)} belong to none "
            f"(first: {lone_files[0]}), and {len(lone_images)} images have none (first: {lone_images[0]}). Are they "
            "numbered for another selection of frames? " + remedy(frames, noun)
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
        raise ambiguous(names, frames, noun)


__all__ = [
    "AmbiguousNumbers",
    "ClipFrames",
    "MatchError",
    "Matching",
    "Numbering",
    "match_files",
]
