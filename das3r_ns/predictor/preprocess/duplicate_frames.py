"""Images that are shown twice: conversion to a higher frame rate and recorders that fall behind leave them behind.

A repeat shows the instant of the image before it. It has that image's camera, brings no measurement of its own,
and makes every distance in frames shorter than it seems.
"""

from __future__ import annotations

import numpy as np

from das3r_ns.predictor.flow.checked import CheckedFlow
from das3r_ns.runtime.parallel import parallel_for

SAME_PX = 0.05
"""Pixels of the flow: half of an image within it has not moved, though an object in it, or a caption, may have."""
MOVES_PX = 0.5
"""Pixels of the flow from frame to frame. In a clip that never moves faster a frame hardly moves anyway."""


def unique_frames(flow: CheckedFlow, num_frames: int) -> list[int]:
    """Frames of a clip without those that repeat what is before them, ascending, the first among them.

    Each is compared with the last that is not a repeat, so a camera that creeps is not taken to stand.
    """
    length = np.zeros(num_frames)

    def measure(i: int) -> None:
        length[i + 1] = _moved(flow, i, i + 1)

    parallel_for(measure, num_frames - 1)
    if num_frames < 2 or np.quantile(length[1:], 0.9) < MOVES_PX:
        return list(range(num_frames))
    shown = [0]
    for i in range(1, num_frames):
        if length[i] >= SAME_PX or _moved(flow, shown[-1], i) >= SAME_PX:
            shown.append(i)
    return shown


def _moved(flow: CheckedFlow, i: int, j: int) -> float:
    return float(np.median(np.linalg.norm(flow(i, j)[0], axis=-1)))
