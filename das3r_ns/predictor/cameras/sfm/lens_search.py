"""One search for a lens: where it has come to, what further effects promise, and fits of them.

In: raw tracks and the cameras of a pinhole. `lens_selection` decides with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float64

from das3r_ns import geometry
from das3r_ns.predictor.cameras.sfm.bundle_adjustment import (
    CORRELATED,
    Adjusted,
    FocalPrior,
    noise_by_frame,
    pair_noise,
)
from das3r_ns.predictor.cameras.sfm.estimate import (
    MIN_BELIEVED_SHARE,
    MIN_INLIER_SHARE,
    CameraEstimate,
    believe_points,
    estimate_of,
    inlier_share_by_frame,
    less_in_corners,
)
from das3r_ns.predictor.cameras.sfm.focal import FocalKnowledge, focal_prior
from das3r_ns.predictor.cameras.sfm.initialization import triangulate
from das3r_ns.predictor.cameras.sfm.lens import Lens, LensModel, straightened, zoom_basis
from das3r_ns.predictor.cameras.sfm.lens_adjustment import LensAdjusted, LensProblem, adjust_with_lens
from das3r_ns.predictor.cameras.sfm.normal_equations import (
    RobustScale,
    State,
    invert,
    robust_cost,
    squared_errors,
)
from das3r_ns.predictor.cameras.sfm.tracks import Tracks

Effect = Literal["radial", "zoom", "readout"]

MIN_GAIN = 4.0
"""By how much an effect must lower the squared errors, in variances of an independent position."""
MIN_GAIN_SHARE = 0.004
"""Same, as a share of all of them."""
MIN_SIGMAS = 2.5
"""Standard deviations between an effect and none. They are on the safe side: `CORRELATED` positions count as one."""
MIN_PROMISE = 0.5
"""Of the least amount that matters, below which an effect is not fitted."""
MIN_DISTORTION = 0.015
"""Largest shift by distortion that is taken out, as a share of half the diagonal."""
MIN_ZOOM = 0.3
"""Smallest range of the logarithm of the focal length that is not one focal length. Clips straight ahead, or in which
objects come nearer, promise up to 0.2 where no lens moved; less than a third of zoom is not told from them."""
MIN_READOUT = 0.1
"""Frame intervals."""
MAX_READOUT = 1.3
"""Frame intervals. A frame is read before the next one is."""
MIN_ZOOM_SIGMAS = 5.0
"""Same for a zoom, which a step ahead is easily taken for."""
MAX_FOCAL_STD = 0.03
"""Of the logarithm. Where the motion does not tell the focal length, it does not tell how it changes either."""


PINHOLE = Lens()


def model_of(effects: tuple[Effect, ...]) -> LensModel:
    return LensModel(2 if "radial" in effects else 0, "zoom" in effects, "readout" in effects)


@dataclass(frozen=True)
class Promise:
    """What one step of Gauss and Newton says about an effect."""

    gain: float
    """Fall of the squared errors, in variances of an independent position."""
    amount: float
    """Over the least that matters."""


@dataclass(frozen=True)
class Search:
    """Where the search has come to."""

    raw: Tracks
    """With less weight in the corners."""
    full: Tracks
    """With the weights as they were."""
    size: tuple[int, int]
    registered: Bool[np.ndarray, "n"]
    prior: FocalPrior
    state: State
    lens: Lens
    has_depth: bool

    @staticmethod
    def begin(
        tracks: Tracks,
        size: tuple[int, int],
        cameras: CameraEstimate,
        focal: FocalKnowledge,
        lens: Lens = PINHOLE,
        has_depth: bool = True,
    ) -> Search:
        """Begin at cameras that were found by taking the tracks, straightened by `lens`, for those of a pinhole.

        Args:
            has_depth: False for cameras that only turn.
        """
        registered = cameras.pose_known.numpy()
        T, focal_flow = invert(cameras.T_world_camera.numpy()), cameras.focal_px * tracks.size[1] / size[1]
        weighed = less_in_corners(tracks)
        inverse_depth = np.zeros(tracks.pixel.shape[:2])
        if has_depth:
            inverse_depth, _ = triangulate(straightened(weighed, lens).tracks, T, focal_flow, registered)
        state = State(T, focal_flow, inverse_depth)
        return Search(weighed, tracks, size, registered, focal_prior(tracks, size, focal), state, lens, has_depth)

    @property
    def held(self) -> Bool[np.ndarray, "n"]:
        held = np.zeros(len(self.registered), bool)
        held[np.flatnonzero(self.registered)[0]] = True
        return held

    def at(self, fit: LensAdjusted) -> Search:
        return replace(self, state=fit.adjusted.state, lens=fit.lens)

    def scale(self, tracks: Tracks) -> RobustScale:
        """Of the errors of raw tracks where the search has come to."""
        return RobustScale(pair_noise(tracks, noise_by_frame(tracks, self._errors(tracks, self.state, self.lens))), 3.0)

    def cost(self, tracks: Tracks, state: State, lens: Lens) -> float:
        """Of raw tracks by other cameras and another lens, on the scale where the search has come to."""
        return robust_cost(tracks, self._errors(tracks, state, lens), self.scale(tracks))

    @property
    def believed(self) -> Tracks:
        """The raw tracks with less weight on points that their own views contradict."""
        if not self.has_depth:
            return self.raw
        noise = noise_by_frame(self.raw, self._errors(self.raw, self.state, self.lens))
        straight = straightened(self.raw, self.lens, self.state)
        return replace(self.raw, weight=believe_points(straight.tracks, Adjusted(self.state, noise, 0.0, 0.0)).weight)

    def _errors(self, tracks: Tracks, state: State, lens: Lens) -> Float64[np.ndarray, "a k p"]:
        straight = straightened(tracks, lens, state)
        return straight.in_image(squared_errors(straight.tracks, state))

    def promises(self, effects: tuple[Effect, ...], open_: tuple[Effect, ...]) -> dict[Effect, Promise]:
        """What each open effect would do, as far as a parabola tells."""
        model = model_of((*effects, *open_))
        lens = model.start(self.raw.num_frames, self.lens)
        believed = self.believed
        problem = LensProblem(believed, model, self.prior, self.held, self.has_depth)
        problem.scale = self.scale(believed)
        found = problem.linearised(problem.at(self.state, lens), 1e-6)
        if found is None:
            return dict.fromkeys(open_, Promise(0.0, 0.0))
        columns = _columns(model, lens)
        always = [0] + [c for e in effects for c in columns[e]]

        def step(index: list[int]) -> tuple[float, Float64[np.ndarray, "_"]]:
            matrix, gradient = found[1].matrix[np.ix_(index, index)], found[1].gradient[index]
            moved = -np.linalg.solve(matrix, gradient)
            return float(-gradient @ moved), moved

        usual = step(always)[0]
        promised = {}
        for e in open_:
            gain, moved = step(always + columns[e])
            values = moved[len(always) :]
            weight, least = _measure(e, values, self.raw.num_frames)
            promised[e] = Promise((gain - usual) / CORRELATED, abs(float(weight @ values)) / least)
        return promised

    def is_worth(self, promise: Promise) -> bool:
        """Whether so large a fall of the cost is more than a lens that is nearly a pinhole gives, and the effect may be
        large enough to matter."""
        cost = self.cost(self.believed, self.state, self.lens)
        return promise.amount > MIN_PROMISE and promise.gain > max(MIN_GAIN, MIN_GAIN_SHARE * cost / CORRELATED)

    def fit(self, effects: tuple[Effect, ...]) -> LensAdjusted:
        model = model_of(effects)
        fit = adjust_with_lens(
            self.raw, self.state, self.lens, model, self.prior, self.held, rounds=14, free_depth=self.has_depth
        )
        for _ in range(3 if self.has_depth else 0):
            believed = believe_points(fit.straight.tracks, fit.adjusted)
            if believed.weight.sum() < MIN_BELIEVED_SHARE * self.raw.weight.sum():
                break
            raw = replace(self.raw, weight=believed.weight)
            fit = adjust_with_lens(raw, fit.adjusted.state, fit.lens, model, self.prior, self.held, rounds=4)
        return replace(fit, straight=straightened(self.full, fit.lens, fit.adjusted.state))

    def holds(self, fit: LensAdjusted, effects: tuple[Effect, ...], effect: Effect) -> bool:
        """Whether an effect that was fitted is real, matters and lowers the errors."""
        if not self.is_real(fit, effects, effect):
            return False
        before, after = self.cost(self.raw, self.state, self.lens), self.cost_of(fit)
        return (before - after) / CORRELATED > max(MIN_GAIN, MIN_GAIN_SHARE * before / CORRELATED)

    def is_real(self, fit: LensAdjusted, effects: tuple[Effect, ...], effect: Effect) -> bool:
        """Whether an effect that was fitted is many standard deviations from none, and large enough to matter."""
        model = model_of(effects)
        at = np.array(_columns(model, fit.lens)[effect]) - 1
        values, covariance = model.parameters(fit.lens)[at], fit.covariance[np.ix_(at, at)]
        weight, least = _measure(effect, values, self.raw.num_frames)
        amount, std = abs(float(weight @ values)), float(np.sqrt(weight @ covariance @ weight))
        sigmas = MIN_ZOOM_SIGMAS if effect == "zoom" else MIN_SIGMAS
        if amount < max(least, sigmas * std) or (effect == "readout" and amount > MAX_READOUT):
            return False
        return effect != "zoom" or not self.has_depth or fit.adjusted.focal_std < MAX_FOCAL_STD

    def cost_of(self, fit: LensAdjusted) -> float:
        """On the scale where the search has come to."""
        return self.cost(self.raw, fit.adjusted.state, fit.lens)

    def estimate(self, fit: LensAdjusted) -> CameraEstimate:
        tracks, state = fit.straight.tracks, fit.adjusted.state
        holds = inlier_share_by_frame(tracks, state) > MIN_INLIER_SHARE if self.has_depth else self.registered.copy()
        holds[np.flatnonzero(self.registered)[0]] = True
        T = geometry.interpolate_poses(torch.from_numpy(invert(state.T_camera_world)), torch.from_numpy(holds))
        state = State(invert(T.numpy()), state.focal, state.inverse_depth)
        depth = 1 / state.inverse_depth[state.inverse_depth > 0]
        if len(depth):
            scale = 1 / float(np.median(depth))
            moved = state.T_camera_world.copy()
            moved[:, :3, 3] *= scale
            state = State(moved, state.focal, state.inverse_depth / scale)
        return estimate_of(tracks, self.size, replace(fit.adjusted, state=state), state, holds)


def _measure(
    effect: Effect, values: Float64[np.ndarray, "g"], num_frames: int
) -> tuple[Float64[np.ndarray, "g"], float]:
    """Weights of an effect's parameters that give its amount (largest shift of a position, range of the zoom, readout
    time), and the least that matters."""
    if effect == "radial":
        r = np.linspace(0.05, 1, 20)
        shift = np.stack((r**3, r**5), axis=1)
        return shift[np.abs(shift @ values).argmax()], MIN_DISTORTION
    if effect == "zoom":
        basis = zoom_basis(num_frames, len(values))
        course = basis @ values
        return basis[course.argmax()] - basis[course.argmin()], MIN_ZOOM
    return np.ones(1), MIN_READOUT


def _columns(model: LensModel, lens: Lens) -> dict[Effect, list[int]]:
    """Where the parameters of each effect stand in the system that the focal length begins."""
    knots = len(lens.log_zoom) if model.zooms and lens.log_zoom is not None else 0
    first = 1 + model.terms
    return {
        "radial": list(range(1, first)),
        "zoom": list(range(first, first + knots)),
        "readout": [first + knots] if model.rolls else [],
    }
