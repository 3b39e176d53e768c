"""Whether a lens is more than a pinhole: the effects that the motion proves, one after the other, the strongest first.

In: tracks and the cameras that a pinhole explains them with. Out: cameras, lens and straightened tracks, or None where
a pinhole will do. Nothing is fitted to find out: at the cameras of a pinhole the errors say by how much each effect
would lower them (a score test, Rao 1948), which takes one more linearisation. Only what passes is fitted, and kept when
the fit says that it is real (many standard deviations), matters (pixels, not hundredths) and lowers the errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from das3r_ns.predictor.cameras.config import LensChoice
from das3r_ns.predictor.cameras.sfm.estimate import CameraEstimate, estimate_cameras
from das3r_ns.predictor.cameras.sfm.focal import FocalKnowledge
from das3r_ns.predictor.cameras.sfm.initialization import InitializationError
from das3r_ns.predictor.cameras.sfm.lens import Lens, number_of_knots, straightened, zoom_basis
from das3r_ns.predictor.cameras.sfm.lens_adjustment import LensAdjusted
from das3r_ns.predictor.cameras.sfm.lens_search import Effect, Search
from das3r_ns.predictor.cameras.sfm.tracks import MIN_WEIGHT, Tracks
from das3r_ns.scene import RadialLens

DOUBTFUL_INLIER_SHARE = 0.6
"""With less, a pinhole may have found cameras so wrong that no effect shows there: other lenses are tried from the
start."""
RADIAL_STARTS = ((-0.15, 0.02), (-0.3, 0.05), (0.15, 0.0))
"""Coefficients, in units of half the diagonal, that are tried where the pinhole's cameras lead nowhere."""
MAX_RESTARTS = 3
"""Times that cameras are found anew through the lens that was found."""
MIN_HELP = 0.02
"""Relative fall of the cost below which nothing more is to be had."""
MIN_DIVERGENCE = 0.1
"""Range of the logarithm of the size of objects over a clip that a zoom could be the reason of."""
MIN_PAIR_SHARE = 0.15
"""Of the width: points nearer to one another say little about how the image grows."""
NEAR_FRAMES = 2
"""Frames: nearer ones show the zoom, in others the camera has moved on."""


@dataclass(frozen=True)
class LensEstimate:
    """A lens that the motion proves, and the cameras with it."""

    cameras: CameraEstimate
    """Its `focal_px` is the reference; its noise and points are those of the straightened tracks."""
    lens: Lens
    tracks: Tracks
    """Straightened: as a pinhole of the reference focal length would have seen them, all rows at once."""
    effects: tuple[Effect, ...]

    @property
    def distorts(self) -> bool:
        return "radial" in self.effects

    @property
    def zooms(self) -> bool:
        return "zoom" in self.effects

    def radial_lens(self, size: tuple[int, int]) -> RadialLens:
        """The distortion, in pixels of images of `size` (height, width)."""
        k1, k2 = self.lens.coefficients(self.cameras.focal_px, size)
        return RadialLens(self.cameras.focal_px, size[1] / 2, size[0] / 2, k1, k2)

    def __str__(self) -> str:
        focal = self.cameras.focal_px
        zoom = focal * self.lens.zoom(self.tracks.num_frames)
        corner = 100 * sum(self.lens.radial)
        said = {
            "radial": f"it bends straight lines ({'barrel' if corner < 0 else 'pincushion'}, {corner:+.0f} % in the "
            "corners), which is taken out of the images",
            "zoom": f"it zooms, focal length {zoom[0]:.0f} px in the first frame, {zoom.min():.0f} to {zoom.max():.0f} "
            "px in all",
            "readout": f"its rows are read one after the other, within {100 * abs(self.lens.readout):.0f} % of a frame "
            "interval (rolling shutter)",
        }
        return "; ".join(said[effect] for effect in self.effects)


@dataclass(frozen=True)
class LensSearch:
    """Which effects are looked for, and which are fitted whether they show or not."""

    sought: tuple[Effect, ...] = ("radial", "zoom", "readout")
    forced: tuple[Effect, ...] = ()

    @staticmethod
    def of(choice: LensChoice, rolling_shutter: bool) -> LensSearch:
        """What the settings mean."""
        forced: tuple[Effect, ...] = () if choice in ("auto", "pinhole") else (choice,)
        sought: tuple[Effect, ...] = ("radial", "zoom") if choice == "auto" else ()
        return LensSearch((*sought, *(("readout",) if rolling_shutter else ())), forced)

    def without(self, *effects: Effect) -> LensSearch:
        """The same but for some effects, as once they were taken out."""
        return LensSearch(
            tuple(e for e in self.sought if e not in effects), tuple(e for e in self.forced if e not in effects)
        )


ANY_LENS = LensSearch()


def select_lens(
    tracks: Tracks,
    size: tuple[int, int],
    cameras: CameraEstimate,
    focal: FocalKnowledge,
    looked_for: LensSearch = ANY_LENS,
) -> LensEstimate | None:
    """The lens that the tracks prove, with better cameras; None where that is a pinhole.

    Args:
        size: height and width of the image that focal lengths are measured in.
        cameras: found by taking the lens for a pinhole.
        looked_for: a focal length that is known does not change, so no zoom is then.
    """
    if focal.known is not None:
        looked_for = looked_for.without("zoom")
    search = Search.begin(tracks, size, cameras, focal, has_depth=len(cameras.points) > 0)
    doubtful = search.has_depth and cameras.inlier_share < DOUBTFUL_INLIER_SHARE
    found: LensAdjusted | None = None
    effects: tuple[Effect, ...] = ()
    rejected: set[Effect] = set()
    while (effect := _next_effect(search, looked_for, effects, rejected, doubtful)) is not None:
        wanted = (*effects, effect)
        trial = search.fit(wanted)
        holds = search.holds(trial, wanted, effect)
        if search.has_depth and (not holds or doubtful):
            others = _fits_from_other_starts(tracks, size, focal, wanted, effect)
            trial = min([trial, *others], key=search.cost_of)
            holds = search.holds(trial, wanted, effect)
        if holds and search.has_depth and effect != "readout":
            trial = _found_anew(search, trial, tracks, size, focal, wanted)
        if holds or effect in looked_for.forced:
            effects, found, search, doubtful = wanted, trial, search.at(trial), False
        else:
            rejected.add(effect)
    if found is None:
        return None
    return LensEstimate(search.estimate(found), found.lens, found.straight.tracks, effects)


def _next_effect(
    search: Search, looked_for: LensSearch, effects: tuple[Effect, ...], rejected: set[Effect], doubtful: bool
) -> Effect | None:
    """What to try next: what the user forces, then what promises most; a zoom, where nothing promises anything but the
    cameras are doubtful. None ends the search."""
    wanted = dict.fromkeys((*looked_for.forced, *looked_for.sought))
    untried: tuple[Effect, ...] = tuple(e for e in wanted if e not in (*effects, *rejected))
    if not untried:
        return None
    promised = search.promises(effects, untried)
    proposed: list[Effect] = [e for e in untried if e in looked_for.forced or search.is_worth(promised[e])]
    if not proposed and doubtful and "zoom" in untried:
        return "zoom"
    return max(proposed, key=lambda e: (e in looked_for.forced, promised[e].gain), default=None)


def _fits_from_other_starts(
    tracks: Tracks, size: tuple[int, int], focal: FocalKnowledge, effects: tuple[Effect, ...], effect: Effect
) -> Iterator[LensAdjusted]:
    """Fits from cameras that were found anew, with a lens that may be nearer to the true one than a pinhole is."""
    lenses: list[Lens] = []
    if effect == "radial":
        lenses = [Lens(radial) for radial in RADIAL_STARTS]
    elif effect == "zoom" and (zooming := zoom_by_divergence(tracks)) is not None:
        lenses = [zooming]
    for lens in lenses:
        fit = _fit_anew(tracks, size, focal, effects, lens)
        if fit is not None:
            yield fit


def _found_anew(
    search: Search,
    trial: LensAdjusted,
    tracks: Tracks,
    size: tuple[int, int],
    focal: FocalKnowledge,
    effects: tuple[Effect, ...],
) -> LensAdjusted:
    """The fit, begun again through its lens as long as that helps: cameras of another lens are often a path of their
    own, from which there is no way back."""
    for _ in range(MAX_RESTARTS):
        other = _fit_anew(tracks, size, focal, effects, trial.lens)
        if other is None or search.cost_of(other) >= search.cost_of(trial):
            break
        helped = search.cost_of(other) < (1 - MIN_HELP) * search.cost_of(trial)
        trial = other
        if not helped:
            break
    return trial


def _fit_anew(
    tracks: Tracks, size: tuple[int, int], focal: FocalKnowledge, effects: tuple[Effect, ...], lens: Lens
) -> LensAdjusted | None:
    """A fit from cameras that are found from nothing, through this lens."""
    try:
        cameras = estimate_cameras(straightened(tracks, lens).tracks, size, focal)
    except InitializationError:
        return None
    return Search.begin(tracks, size, cameras, focal, lens).fit(effects)


def zoom_by_divergence(tracks: Tracks) -> Lens | None:
    """The zoom that would explain how the image grows from frame to frame, if nothing else did; None where it hardly
    grows. A camera that goes ahead makes it grow too."""
    knots = number_of_knots(tracks.num_frames)
    basis = zoom_basis(tracks.num_frames, knots)
    rng = np.random.default_rng(0)
    rows, grown = [], []
    for a, slot in zip(*np.nonzero(tracks.target >= 0)):
        i, j = int(tracks.anchor[a]), int(tracks.target[a, slot])
        use = np.flatnonzero(tracks.weight[a, slot] > MIN_WEIGHT)
        if abs(i - j) > NEAR_FRAMES or len(use) < 20:
            continue
        first, second = rng.choice(use, 400), rng.choice(use, 400)
        before = np.linalg.norm(tracks.pixel[a, first] - tracks.pixel[a, second], axis=1)
        after = np.linalg.norm(tracks.observed[a, slot, first] - tracks.observed[a, slot, second], axis=1)
        far = before > MIN_PAIR_SHARE * tracks.size[1]
        if far.sum() >= 20:
            rows.append(basis[j] - basis[i])
            grown.append(np.log(np.median(after[far] / before[far])))
    if len(rows) < knots:
        return None
    # Knots that no pair speaks of lie on a line with their neighbours.
    bend = 1e-3 * np.concatenate((np.diff(np.eye(knots), n=2, axis=0), np.ones((1, knots))))
    system = np.concatenate((np.array(rows), bend))
    log_zoom = np.linalg.lstsq(system, np.concatenate((grown, np.zeros(len(bend)))), rcond=None)[0]
    course = basis @ log_zoom
    return Lens(log_zoom=log_zoom) if np.ptp(course) > MIN_DIVERGENCE else None
