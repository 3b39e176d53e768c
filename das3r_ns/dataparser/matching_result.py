"""What files that lie beside frames are matched to, what comes of it, and how a failure is told."""

from collections.abc import Sequence
from dataclasses import dataclass


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


def matching_of(frames: ClipFrames, rows: dict[int, int], how: str, exact: bool) -> Matching:
    """Of the frames that are read.

    Args:
        rows: a file's place in the list by the number of its frame among all.
    """
    return Matching(tuple(rows.get(number) for number in frames.numbers), how, exact)


class AmbiguousNumbers(MatchError):
    """Numbers without gaps, fewer than frames: any selection of frames may have been counted."""


def raise_error(error: Exception) -> Matching:
    """`raise` as an expression."""
    raise error


def remedy(frames: ClipFrames, noun: str) -> str:
    """What the user can do, as the last sentence of an error."""
    like = "the images" if frames.names is not None else "frame_00001, ... by the number in the whole video"
    told = "by-name" if frames.names is not None else "from-0, from-1"
    return (
        f"Name each {noun} like its frame ({like}), read the frames that they were made for (--video.every, "
        f"--video.start-s, --video.end-s), or say how they count: --numbering {told} or in-order."
    )


def count_of(n: int, noun: str) -> str:
    """As "1 mask", "2 masks"."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def ambiguous(names: Sequence[str], frames: ClipFrames, noun: str) -> MatchError:
    """Numbers that fit the first frames as well as every second or so."""
    n = len(names)
    every = max(2, round(frames.total / n))
    return AmbiguousNumbers(
        f"{count_of(n, noun)} numbered without gaps ({names[0]}, ...) for {frames.total} frames: are they of the first "
        f"{n} frames, or of every {every}{'nd' if every == 2 else 'rd' if every == 3 else 'th'}? "
        + remedy(frames, noun)
    )
