"""What a refiner is: better dynamic maps from what objects look like, where motion does not say where they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames


@runtime_checkable
class Refiner(Protocol):
    """Better dynamic maps of a whole clip."""

    def __call__(
        self,
        dynamic_prob: Float32[np.ndarray, "n h w"],
        image: Callable[[int], UInt8[np.ndarray, "H W 3"]],
        flow: FlowBetweenFrames,
        doubt: Float32[np.ndarray, "n"],
    ) -> Float32[np.ndarray, "n h w"]:
        """`image` gives an RGB frame of any resolution; `flow` is at the resolution of the maps; `doubt` says how far
        motion is in doubt in each frame, 0 to 1 (`motion_probability.camera_doubt`)."""
        ...
