"""What computes flow between two images: the protocol that every estimator follows.

Flow is in pixels of the given images, (du, dv), so `target = pixel + flow` whatever the pixel-centre convention.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8


@runtime_checkable
class FlowEstimator(Protocol):
    """Dense optical flow between two images of the same size."""

    def __call__(self, a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 2"]:
        """Displacement (du, dv) in pixels that takes each pixel of RGB image `a` to its place in `b`. It is finite
        everywhere, also where the pixel is hidden or out of view in `b`: check it against the flow from `b` to `a`."""
        ...


@runtime_checkable
class FlowBothWays(FlowEstimator, Protocol):
    """A `FlowEstimator` for which flow there and back together costs less than one after the other."""

    def both(
        self, a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]
    ) -> tuple[Float32[np.ndarray, "h w 2"], Float32[np.ndarray, "h w 2"]]:
        """Flow from `a` to `b` and from `b` to `a`."""
        ...
