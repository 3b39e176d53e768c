"""Of the flow of several estimators the best in each pixel.

DIS follows whatever has texture of its own, however it bends, and is exact on even motion; the network knows outlines,
and finds what moves far or looks alike. Where they differ, the one whose patches look alike and that comes back to
where it was is taken (`seeding.merge`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from das3r_ns.predictor.flow import seeding
from das3r_ns.predictor.flow.estimator import FlowBothWays, FlowEstimator


class BestOfFlow:
    """Flow by several estimators. Satisfies `FlowBothWays`; among equals the first is taken."""

    def __init__(self, estimators: Sequence[FlowEstimator]) -> None:
        self.estimators = tuple(estimators)

    def __call__(self, a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 2"]:
        """See `FlowEstimator`. The way back is needed too: ask for `both` where both are wanted."""
        return self.both(a, b)[0]

    def both(
        self, a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]
    ) -> tuple[Float32[np.ndarray, "h w 2"], Float32[np.ndarray, "h w 2"]]:
        """See `FlowBothWays`."""
        results = [
            estimator.both(a, b) if isinstance(estimator, FlowBothWays) else (estimator(a, b), estimator(b, a))
            for estimator in self.estimators
        ]
        return seeding.merge(a, b, results)
