"""What is known of the focal length before looking at the motion, and what is taken where the motion does not tell."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool

from das3r_ns.predictor.cameras.sfm.bundle_adjustment import Adjusted, FocalPrior, adjust
from das3r_ns.predictor.cameras.sfm.initialization import triangulate
from das3r_ns.predictor.cameras.sfm.normal_equations import State
from das3r_ns.predictor.cameras.sfm.tracks import Tracks

FIELD_OF_VIEW = 60.0
"""Degrees over the longer side that the focal length is drawn to where the motion says nothing about it."""
FIELD_OF_VIEW_BOUNDS = (20.0, 120.0)
"""Degrees over the longer side that no estimate leaves."""
SPREAD = 0.25
"""Standard deviation of the logarithm of a focal length that nobody knows: phones and camcorders have 45 to 75
degrees."""
MAX_FOCAL_STD = 0.1
"""With a larger standard deviation of its logarithm the motion says next to nothing about a focal length."""
HINT_SPREAD = 0.05
"""Same, when EXIF data or the user gave a hint."""


@dataclass(frozen=True)
class FocalKnowledge:
    """What is known of the focal length beforehand, in pixels of the image."""

    known: float | None = None
    """The true one; it is not changed."""
    hint: float | None = None
    """One that may be some per cent wrong, such as EXIF's."""


def focal_prior(tracks: Tracks, size: tuple[int, int], focal: FocalKnowledge) -> FocalPrior:
    """What the adjustment is told about the focal length, in pixels of the flow.

    Raises:
        ValueError: a given focal length is not positive.
    """
    given = focal.known if focal.known is not None else focal.hint
    if given is not None and not (np.isfinite(given) and given > 0):
        raise ValueError(f"the focal length must be a positive number of pixels, got {given}")
    longer = max(tracks.size)
    to_flow = tracks.size[1] / size[1]
    low, high = (longer / (2 * np.tan(np.radians(angle) / 2)) for angle in reversed(FIELD_OF_VIEW_BOUNDS))
    if focal.known is not None:
        return FocalPrior(focal.known * to_flow, 0.0, (focal.known * to_flow, focal.known * to_flow))
    if focal.hint is not None:
        hint = focal.hint * to_flow
        return FocalPrior(hint, HINT_SPREAD, (min(low, hint), max(high, hint)))
    return FocalPrior(longer / (2 * np.tan(np.radians(FIELD_OF_VIEW) / 2)), SPREAD, (low, high))


def with_usual_focal(
    tracks: Tracks, believed: Tracks, adjusted: Adjusted, prior: FocalPrior, held: Bool[np.ndarray, "n"]
) -> Adjusted:
    """The same cameras with a focal length nearer to the usual one: of the way that the motion drew it away, only the
    share remains that the motion has in what is known, 1 - (std / spread)^2.

    Straight ahead, depths and steps that grow with the focal length explain the same images: the cost is all but flat
    along it. What is left to draw it are errors that all positions share, and a standard deviation does not hold those.

    Args:
        believed: the tracks with the weights that `adjusted` came from.
    """
    from_motion = max(1 - (adjusted.focal_std / prior.spread) ** 2, 0)
    focal = float(np.clip(prior.focal * (adjusted.state.focal / prior.focal) ** from_motion, *prior.bounds))
    T = adjusted.state.T_camera_world
    inverse_depth, _ = triangulate(tracks, T, focal, np.ones(len(T), bool))
    again = adjust(believed, State(T, focal, inverse_depth), FocalPrior(focal, 0.0, (focal, focal)), held)
    return replace(again, focal_std=adjusted.focal_std)
