"""Which part of a video is predicted: as many frames as its motion needs, of one shot.

In: what the user gave and asked for. Out: the settings or the clip to predict from, and what was said about it. A first
look at small images tells how fast the camera moves (`frames_needed`); on the frames that were read, shots are told
apart by geometry (`predictor.preprocess.shots`), and the longest is taken unless another was asked for.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from das3r_ns.predictor.base import UserPriors
from das3r_ns.predictor.flow.matcher_choice import MatcherName
from das3r_ns.video.clip import Clip, chosen_images, read_clip
from das3r_ns.video.config import FRAMES_OF_AUTO, VideoConfig

USUAL_FRAMES = FRAMES_OF_AUTO
"""Read of a clip whose camera is slow enough for them."""
MAX_FRAMES = 600
"""Read at most without being told: some ten minutes of prediction on a CPU, four gigabytes of memory."""
STEP_SHARE = 0.05
"""Of the longer side: motion from frame to frame that is followed without difficulty."""
FAST_QUANTILE = 0.8
"""Of the motion in a clip: so fast most of it is no faster."""
LOOK_FRAMES = 900
"""Small frames of the first look."""
LOOK_SIDE_PX = 256
MIN_SHOT_FRAMES = 3
"""Fewer cannot be predicted from."""


def with_frame_budget(data: Path, video: VideoConfig) -> VideoConfig:
    """The settings with `max_frames` "auto" replaced by as many frames as the motion of the clip needs.

    Says so where these are more than `USUAL_FRAMES`.
    """
    if video.max_frames != "auto":
        return video
    usual = replace(video, max_frames=USUAL_FRAMES)
    if data.is_dir() and len(chosen_images(data, replace(video, max_frames=None))) <= USUAL_FRAMES:
        return usual
    look = read_clip(data, replace(video, max_frames=LOOK_FRAMES, longest_side=LOOK_SIDE_PX))
    if len(look) <= USUAL_FRAMES:
        return usual
    from das3r_ns.predictor.preprocess.shots import motion_between_frames  # the predictor's rooms are slow to import

    needed = frames_needed(motion_between_frames(lambda i: look.frames[i].numpy(), len(look)))
    if needed <= USUAL_FRAMES:
        return usual
    count = min(needed, MAX_FRAMES)
    # The first look may itself be too coarse for fast motion: what it could not follow asks for more frames.
    wanted = f"{needed}" if needed < LOOK_FRAMES else f"{LOOK_FRAMES} or more"
    more = "" if needed <= MAX_FRAMES else f"; it would take {wanted} to follow all of it (--video.max-frames)"
    print(
        f"The camera moves far in this clip: {count} frames are read instead of {USUAL_FRAMES}{more}. "
        f"--video.max-frames {USUAL_FRAMES} is faster and less exact."
    )
    return replace(video, max_frames=count)


def frames_needed(moved: Float64[np.ndarray, "n"]) -> int:
    """Frames, spread evenly, of which hardly one lies more than `STEP_SHARE` from the next.

    Args:
        moved: motion from the frame before, as a share of the longer side; NaN where it was too fast to be measured.
    """
    steps = np.where(np.isnan(moved[1:]), 2 * STEP_SHARE, moved[1:])
    if len(steps) == 0:
        return len(moved)
    fast = float(np.quantile(steps, FAST_QUANTILE))
    return int(min(np.ceil(len(steps) * fast / STEP_SHARE) + 1, len(moved)))


def choose_shot(
    clip: Clip, priors: UserPriors, video: VideoConfig, matching: MatcherName
) -> tuple[Clip, UserPriors, dict[str, int] | None]:
    """One shot of the clip, and which of how many it is; the clip itself where it has but one.

    Raises:
        ValueError: the shot that was asked for is not there, or too short.
    """
    from das3r_ns.predictor.flow.matches import ClipMatcher
    from das3r_ns.predictor.preprocess.shots import find_shots

    if priors.T_world_camera is not None or len(clip) < MIN_SHOT_FRAMES:
        return clip, priors, None

    def image(i: int) -> np.ndarray:
        return clip.frames[i].numpy()

    shots = find_shots(image, len(clip), ClipMatcher(image, matching), clip.fps).shots
    if video.shot is not None and not 1 <= video.shot <= len(shots):
        raise ValueError(
            f"--video.shot {video.shot} is not there: the clip has {len(shots)} "
            f"shot{'' if len(shots) == 1 else 's'}{_listed(clip, shots)}."
        )
    if len(shots) == 1:
        return replace(clip, one_shot=True), priors, None
    number = max(range(len(shots)), key=lambda k: len(shots[k])) if video.shot is None else video.shot - 1
    frames = list(shots[number])
    if len(frames) < MIN_SHOT_FRAMES:
        raise ValueError(
            f"shot {number + 1} of {len(shots)} has {len(frames)} frames, and at least {MIN_SHOT_FRAMES} are needed"
            f"{_listed(clip, shots)}. Choose another (--video.shot), or read more frames (--video.max-frames)."
        )
    why = "the longest" if video.shot is None else "as asked for"
    print(
        f"The clip has {len(shots)} shots with nothing in common{_listed(clip, shots)}. Shot {number + 1} is taken, "
        f"{why}; --video.shot chooses another."
    )
    mask, given = priors.dynamic_mask, priors.mask_given
    part = replace(
        priors,
        dynamic_mask=None if mask is None else mask[frames],
        mask_given=None if given is None else given[frames],
    )
    return replace(clip.take(frames), one_shot=True), part, {"number": number + 1, "of": len(shots)}


def _listed(clip: Clip, shots: tuple[tuple[int, ...], ...]) -> str:
    times = clip.times_s or tuple(i / clip.fps for i in range(len(clip)))
    parts = [f"{k + 1}: {times[s[0]]:.2f} to {times[s[-1]]:.2f} s, {len(s)} frames" for k, s in enumerate(shots[:8])]
    return f" ({'; '.join(parts)}{'; ...' if len(shots) > 8 else ''})"
