"""Keyframes: the frames of a clip that tell nearly as much about its cameras as all of them."""

from __future__ import annotations

import numpy as np

from das3r_ns.predictor.cameras.sfm.tracks import MIN_WEIGHT, Tracks

MIN_KEYFRAMES = 16
"""Fewest keyframes: with fewer, one that cannot be placed takes many frames with it."""
MIN_SEEN_AGAIN_SHARE = 0.5
"""Share of the points that the next keyframe but one must still see: mapping asks for three views of a point."""


def select_keyframes(tracks: Tracks) -> list[int]:
    """Frames that tell nearly as much about the cameras as all of them, the first and the last among them: as far apart
    as the next but one still sees `MIN_SEEN_AGAIN_SHARE` of the points, but `MIN_KEYFRAMES` if there are so many."""
    n, offset = tracks.num_frames, tracks.target - tracks.anchor[:, None]
    share = (tracks.weight > MIN_WEIGHT).mean(axis=2)
    reach = 0
    for distance in sorted(set(offset[(tracks.target >= 0) & (offset > 0)].tolist())):
        if np.median(share[(tracks.target >= 0) & (offset == distance)]) < MIN_SEEN_AGAIN_SHARE:
            break
        reach = distance
    step = max(min(reach // 2, (n - 1) // (MIN_KEYFRAMES - 1)), 1)
    return sorted({*range(0, n, step), n - 1})
