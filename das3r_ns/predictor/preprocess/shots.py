"""The shots of a clip, told by geometry: a cut is where nothing can be matched across *and* the image looks different.

In: frames and a matcher. Out: `Shots`. Small flow from frame to frame finds where frames may not belong together; only
there, and where colours change within a second though flow sees no large motion (cross-fades, wipes), are points
matched. So flashes, blur, a whip pan, a jump in exposure and dropped seconds are not cuts: matches lead across, or what
is seen looks the same, or frames around are lost in blur as well.

Where frames are simply too far apart for anything to be matched (one frame a second), no cut can be told from fast
motion, and none is declared: those places are gaps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float64, UInt8

from das3r_ns.predictor.base import PredictionError
from das3r_ns.predictor.flow.dis import DisFlow
from das3r_ns.predictor.flow.matches import Matches
from das3r_ns.predictor.flow.seeding import found
from das3r_ns.predictor.preprocess.likeness import colour_histogram, colours_differ, sharpness, small_copy
from das3r_ns.runtime.parallel import parallel_for
from das3r_ns.runtime.progress import stage
from das3r_ns.video.clip import Clip

LOST_SHARE = 0.65
"""Of the pixels that small flow finds from a frame to the next. With fewer, points are matched."""
SLOW_SHARE = 0.04
"""Of the longer side, from frame to frame: a slow camera."""
MIN_SHOT_FRAMES = 3
"""Linked frames on either side of a cut. With fewer, frames are too far apart to tell a cut from motion."""
MIN_FAST_SHOT_FRAMES = 8
"""The same where small flow loses its way from frame to frame on either side: of motion that only matches follow, a
step that even they cannot follow is as likely as a cut."""
FAST_FRAMES = 6
"""Steps before and after a place that tell how fast the motion is there."""
MAX_INSERT_FRAMES = 12
"""So many frames that link to nothing (a flash, blur) are bridged where those before and after link."""
BLUR = 0.5
"""Sharpness of the frames of a whip pan over that of the frames beside it."""
OVERLAP_SHARE = 0.35
"""Of the longer side: a second in which the view moves less must show the same place at both ends."""
AROUND = ((0, 0), (1, 1), (0, 2), (2, 0), (2, 2), (0, 5), (5, 0), (0, 9), (9, 0))
"""Frames before and after a place that may lead across it, counted from it: blur and flashes last a while."""


@dataclass(frozen=True)
class Gap:
    """A place inside a shot that nothing could be followed or matched across."""

    frame: int
    """The frame after it."""
    blurred: bool
    """Whether the frames there are blurred by fast motion; else they are too far apart."""


@dataclass(frozen=True)
class Shots:
    """The shots of a clip of n frames."""

    shots: tuple[tuple[int, ...], ...]
    """Frames of each shot, ascending. Frames within a transition belong to none."""
    gaps: tuple[Gap, ...]
    moved: Float64[np.ndarray, "n"]
    """Motion from the frame before, as a share of the longer side; NaN where it was too fast to be measured."""

    @property
    def longest(self) -> int:
        """Number of the shot with most frames, from 0."""
        return max(range(len(self.shots)), key=lambda k: len(self.shots[k]))


Link = Callable[[int, int], bool]


def find_shots(
    image: Callable[[int], UInt8[np.ndarray, "h w 3"]],
    num_frames: int,
    matches: Callable[[int, int], Matches],
    fps: float,
) -> Shots:
    """Find where a clip changes from one shot to another.

    Args:
        image: frame i, RGB, of any resolution.
        matches: between two frames; asked for only where flow or colours leave a doubt.
        fps: frames per second of these frames.
    """
    small = [small_copy(image(i)) for i in range(num_frames)]
    colours = [colour_histogram(frame) for frame in small]
    share, moved = _steps(small)
    known: dict[tuple[int, int], bool] = {}

    def link(i: int, j: int) -> bool:
        if not 0 <= i < j < num_frames:
            return False
        if (i, j) not in known:
            known[i, j] = matches(i, j).linked
        return known[i, j]

    parts = _parts(share, link)
    parts = _bridged(parts, link)
    cuts, gaps = _judged(parts, small, colours, share, moved)
    shots = _split(parts, cuts)
    shots = [piece for shot in shots for piece in _without_transitions(shot, colours, moved, link, fps)]
    return Shots(tuple(tuple(shot) for shot in shots), tuple(gaps), moved)


def motion_between_frames(
    image: Callable[[int], UInt8[np.ndarray, "h w 3"]], num_frames: int
) -> Float64[np.ndarray, "n"]:
    """Median motion of each frame from the one before, as a share of the longer side; 0 for the first, NaN where it was
    too fast to be measured."""
    return _steps([small_copy(image(i)) for i in range(num_frames)])[1]


def check_one_shot(clip: Clip, matches: Callable[[int, int], Matches]) -> Shots:
    """
    Raises:
        PredictionError: the clip has several shots, which have no place in common.
    """
    found_shots = find_shots(lambda i: clip.frames[i].numpy(), len(clip), matches, clip.fps)
    if len(found_shots.shots) > 1:
        ranges = ", ".join(
            f"{shot[0] / clip.fps:.2f} to {shot[-1] / clip.fps:.2f} s ({len(shot)} frames)"
            for shot in found_shots.shots[:6]
        )
        raise PredictionError(
            f"the clip has {len(found_shots.shots)} shots with nothing in common: {ranges}. One shot can be "
            "reconstructed at a time: give that shot alone (--video.start-s and --video.end-s, or --video.shot)."
        )
    return found_shots


def _parts(share: np.ndarray, link: Link) -> list[list[int]]:
    """Runs of frames each of which is found in, or matches, the next."""
    parts = [[0]]
    for k in range(1, len(share)):
        if share[k] >= LOST_SHARE or link(k - 1, k) or link(k - 2, k) or link(k - 1, k + 1):
            parts[-1].append(k)
        else:
            parts.append([k])
    return parts


def _bridged(parts: list[list[int]], link: Link) -> list[list[int]]:
    """Neighbouring runs joined where frames near their ends match, over a few frames that match nothing."""
    joined = [parts[0]]
    k = 1
    while k < len(parts):
        skipped = 0
        for ahead in range(k, len(parts)):
            if _linked(joined[-1], parts[ahead], link):
                # What matches neither side of a flash is left in, without a pose of its own.
                joined[-1] = joined[-1] + [i for part in parts[k : ahead + 1] for i in part]
                k = ahead + 1
                break
            skipped += len(parts[ahead])
            if skipped > MAX_INSERT_FRAMES:
                joined.append(parts[k])
                k += 1
                break
        else:
            joined.append(parts[k])
            k += 1
    return joined


def _linked(before: list[int], after: list[int], link: Link) -> bool:
    return any(
        link(before[-1 - back], after[ahead]) for back, ahead in AROUND if back < len(before) and ahead < len(after)
    )


def _judged(
    parts: list[list[int]], small: list[np.ndarray], colours: list[np.ndarray], share: np.ndarray, moved: np.ndarray
) -> tuple[list[int], list[Gap]]:
    """Which of the places between runs are cuts, as numbers of the runs that begin there, and what the others are."""
    cuts: list[int] = []
    gaps: list[Gap] = []
    for k in range(1, len(parts)):
        before, after = parts[k - 1], parts[k]
        # Single frames that link to nothing are blur or lie too far apart: the judgement is for what lies around them.
        fast = _fast(share, before[-FAST_FRAMES:]) or _fast(share, after[:FAST_FRAMES])
        if min(len(before), len(after)) < (MIN_FAST_SHOT_FRAMES if fast else MIN_SHOT_FRAMES):
            gaps.append(Gap(after[0], _blurred(parts, k, small)))
        elif colours_differ(colours, before[-1], after[0], _at_rest(moved, before[-1], after[0])):
            cuts.append(k)
        else:
            gaps.append(Gap(after[0], blurred=False))
    return cuts, gaps


def _fast(share: np.ndarray, run: list[int]) -> bool:
    """Whether small flow loses its way in most steps of a run."""
    return len(run) > 1 and float(np.median(share[run[1:]])) < LOST_SHARE


def _blurred(parts: list[list[int]], k: int, small: list[np.ndarray]) -> bool:
    frames = [i for part in parts[max(k - 3, 0) : k + 3] if len(part) < MIN_SHOT_FRAMES for i in part]
    around = [i for part in parts[max(k - 5, 0) : k + 5] if len(part) >= MIN_SHOT_FRAMES for i in part]
    if not frames or not around:
        return False
    return float(np.median([sharpness(small[i]) for i in frames])) < BLUR * float(
        np.median([sharpness(small[i]) for i in around])
    )


def _split(parts: list[list[int]], cuts: list[int]) -> list[list[int]]:
    shots: list[list[int]] = [[]]
    for k, part in enumerate(parts):
        if k in cuts:
            shots.append([])
        shots[-1] += part
    return shots


def _without_transitions(
    shot: list[int], colours: list[np.ndarray], moved: np.ndarray, link: Link, fps: float
) -> list[list[int]]:
    """A run of frames in which one shot slowly becomes another (cross-fade, wipe), taken apart."""
    second = int(np.clip(round(fps), 8, 48))
    for at in range(0, len(shot) - second, max(second // 2, 1)):
        i, j = shot[at], shot[at + second]
        travelled = float(moved[i + 1 : j + 1].sum())
        if not travelled < OVERLAP_SHARE or not colours_differ(colours, i, j):
            continue
        further = shot[min(at + 2 * second, len(shot) - 1)], shot[max(at - second, 0)]
        if link(i, j) or link(i, further[0]) or link(further[1], j) or link(further[1], further[0]):
            continue
        last = _last(shot[at : at + second + 1], partial(link, i))
        first = _last(shot[at : at + second + 1][::-1], partial(_reversed, link, j))
        begin, end = min(last, first), max(last, first)
        margin = max(second // 8, (end - begin) // 2)
        head = [m for m in shot if m <= begin - margin]
        tail = [m for m in shot if m >= end + margin]
        pieces = [piece for piece in (head, tail) if piece]
        if len(pieces) == 2:
            return [head, *_without_transitions(tail, colours, moved, link, fps)]
        return pieces
    return [shot]


def _reversed(link: Link, later: int, earlier: int) -> bool:
    return link(earlier, later)


def _last(frames: list[int], linked: Callable[[int], bool]) -> int:
    """The last of the frames, from the first on, that is linked; by bisection."""
    low, high = 0, len(frames) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if linked(frames[middle]):
            low = middle
        else:
            high = middle
    return frames[low]


def _steps(small: list[np.ndarray]) -> tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
    """By frame, the share of the pixels that flow finds from the frame before, and by how much they moved."""
    n = len(small)
    share, moved = np.ones(n), np.zeros(n)
    flow, side = DisFlow(), max(small[0].shape[:2])

    def measure(before: int) -> None:
        k = before + 1
        forward, backward = flow(small[k - 1], small[k]), flow(small[k], small[k - 1])
        fine = found(forward, backward)
        share[k] = fine.mean()
        length = np.sqrt(np.square(forward).sum(axis=-1))
        moved[k] = np.median(length[fine > 0]) / side if share[k] >= LOST_SHARE / 2 else np.nan
        bar.advance()

    with stage(f"Motion between {n} frames", n - 1, "steps") as bar:
        parallel_for(measure, n - 1)
    return share, moved


def _at_rest(moved: np.ndarray, before: int, after: int) -> bool:
    steps = np.concatenate((moved[max(before - 1, 1) : before + 1], moved[after + 1 : after + 3]))
    return bool(len(steps) and (steps < SLOW_SHARE).all())
