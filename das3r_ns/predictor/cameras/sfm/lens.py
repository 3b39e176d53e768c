"""What a lens does to positions, and positions as a pinhole of one focal length would have seen them.

Three effects, each of which a clip may or may not show: radial distortion, OpenCV's polynomial
r' = r (1 + k1 r^2 + k2 r^4); zoom, a focal length for each frame; rolling shutter, rows read one after the other. All
that follows tracks (two views, resection, adjustment) knows only the pinhole: `straightened` makes one of the tracks.

Radii are measured in half the diagonal of the image, not in focal lengths, so straightening does not depend on the
focal length; `Lens.coefficients` gives OpenCV's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64
from scipy.spatial.transform import Rotation

from das3r_ns.predictor.cameras.sfm import lens_kernels
from das3r_ns.predictor.cameras.sfm.normal_equations import State, adjoint, invert, relative_poses
from das3r_ns.predictor.cameras.sfm.tracks import Tracks
from das3r_ns.runtime.parallel import in_parts

KNOT_FRAMES = 4
"""Fewest frames between two knots of the zoom."""
MAX_KNOTS = 12
"""Most knots of the zoom of a clip, however long."""
MIN_SLOPE = 0.15
"""Smallest growth of r' with r in the corners: beyond, the image is squeezed until nothing is seen."""


@dataclass(frozen=True)
class Lens:
    """What a lens does beside being a pinhole in the middle of the image."""

    radial: tuple[float, float] = (0.0, 0.0)
    """Of r and r' in units of half the diagonal."""
    log_zoom: Float64[np.ndarray, "m"] | None = None
    """Logarithm of the focal length over the reference at evenly spaced knots, straight lines between; None: one
    focal length."""
    readout: float = 0.0
    """Share of the frame interval in which the rows are read, the top one first; negative: the bottom one first."""

    def zoom(self, num_frames: int) -> Float64[np.ndarray, "n"]:
        """Focal length of each frame over the reference."""
        if self.log_zoom is None:
            return np.ones(num_frames)
        return np.exp(zoom_basis(num_frames, len(self.log_zoom)) @ self.log_zoom)

    def coefficients(self, focal: float, size: tuple[int, int]) -> tuple[float, float]:
        """OpenCV's k1 and k2 at a focal length and height and width in the same unit."""
        ratio = (2 * focal / np.hypot(*size)) ** 2
        return float(self.radial[0] * ratio), float(self.radial[1] * ratio**2)

    def is_invertible(self) -> bool:
        """Whether every position up to the corners comes from one direction only."""
        k1, k2 = self.radial
        r = np.linspace(0, 3, 301)
        slope = 1 + r**2 * (3 * k1 + 5 * k2 * r**2)
        distorted = r * (1 + r**2 * (k1 + k2 * r**2))
        falls = slope < MIN_SLOPE
        return bool(distorted[: falls.argmax() if falls.any() else None].max(initial=0) >= 1)


@dataclass(frozen=True)
class LensModel:
    """Which effects are sought."""

    terms: int = 0
    """Radial coefficients."""
    zooms: bool = False
    rolls: bool = False

    def start(self, num_frames: int, lens: Lens) -> Lens:
        """`lens` with all that is sought, zero where it had none."""
        log_zoom = lens.log_zoom
        if self.zooms and log_zoom is None:
            log_zoom = np.zeros(number_of_knots(num_frames))
        return replace(lens, log_zoom=log_zoom)

    def parameters(self, lens: Lens) -> Float64[np.ndarray, "g"]:
        parts = [np.array(lens.radial[: self.terms])]
        if self.zooms:
            assert lens.log_zoom is not None
            parts.append(lens.log_zoom)
        if self.rolls:
            parts.append(np.array([lens.readout]))
        return np.concatenate(parts)

    def with_parameters(self, lens: Lens, values: Float64[np.ndarray, "g"]) -> Lens:
        radial = (*values[: self.terms].tolist(), *lens.radial[self.terms :])
        knots = 0 if lens.log_zoom is None or not self.zooms else len(lens.log_zoom)
        log_zoom = values[self.terms : self.terms + knots] if self.zooms else lens.log_zoom
        readout = float(values[self.terms + knots]) if self.rolls else lens.readout
        return Lens((radial[0], radial[1]), log_zoom, readout)


def number_of_knots(num_frames: int) -> int:
    return int(np.clip(round((num_frames - 1) / KNOT_FRAMES), 2, MAX_KNOTS))


def zoom_basis(num_frames: int, knots: int) -> Float64[np.ndarray, "n m"]:
    """Weight of each knot in each frame: straight lines between knots that lie evenly from the first to the last."""
    at = np.linspace(0, knots - 1, num_frames)
    basis = np.maximum(1 - np.abs(at[:, None] - np.arange(knots)), 0)
    return basis - basis.mean(axis=0)


@dataclass(frozen=True)
class Straightened:
    """Tracks as a pinhole would have seen them."""

    tracks: Tracks
    stretch: Float32[np.ndarray, "a k p"] | None
    """By how much lengths around each target's position grew; None where they are as they were."""

    def in_image(self, errors: Float64[np.ndarray, "a k p"]) -> Float64[np.ndarray, "a k p"]:
        """Squared errors of straightened positions, in pixels of the image as it was."""
        return errors if self.stretch is None else errors / np.square(self.stretch)

    @property
    def weighted(self) -> Tracks:
        """The tracks with weights that make up for the stretch."""
        if self.stretch is None:
            return self.tracks
        return replace(self.tracks, weight=self.tracks.weight / np.square(self.stretch))


def straightened(tracks: Tracks, lens: Lens, state: State | None = None) -> Straightened:
    """The tracks as a pinhole of the reference focal length would have seen them, all rows at once.

    Args:
        state: cameras and depths that say how positions move while a frame is read; without them that is left as it is.
    """
    zoom = lens.zoom(tracks.num_frames)
    if lens.radial == (0.0, 0.0) and lens.log_zoom is None:
        pixel, observed = tracks.pixel, tracks.observed.copy() if lens.readout and state else tracks.observed
        stretch = None
    else:
        pixel, observed = np.empty_like(tracks.pixel), np.empty_like(tracks.observed)
        stretch = np.empty_like(tracks.weight)

        def work(first: int, last: int) -> None:
            lens_kernels.straighten(
                first,
                last,
                tracks.pixel,
                tracks.observed,
                zoom[tracks.anchor],
                zoom[tracks.target],
                *tracks.centre,
                radius(tracks),
                *lens.radial,
                pixel,
                observed,
                stretch,
            )

        in_parts(work, len(pixel))
    if lens.readout and state is not None:
        T = relative_poses(state.T_camera_world, tracks)
        anchor_twist, target_twist = _twists(tracks, state.T_camera_world, T)
        anchor_row, target_row = _rows(tracks)

        def unroll(first: int, last: int) -> None:
            lens_kernels.unroll(
                first,
                last,
                T,
                state.focal,
                *tracks.centre,
                pixel,
                state.inverse_depth,
                lens.readout,
                anchor_row,
                target_row,
                anchor_twist,
                target_twist,
                observed,
            )

        in_parts(unroll, len(pixel))
    return Straightened(replace(tracks, pixel=pixel, observed=observed), stretch)


def derivatives(
    raw: Tracks, straight: Tracks, state: State, lens: Lens, model: LensModel
) -> Float32[np.ndarray, "a k p 2 g"]:
    """Derivatives of reprojected minus straightened positions by the parameters of the model."""
    zoom = lens.zoom(raw.num_frames)
    knots = len(lens.log_zoom) if model.zooms and lens.log_zoom is not None else 0
    basis = zoom_basis(raw.num_frames, knots) if knots else np.zeros((raw.num_frames, 0))
    T = relative_poses(state.T_camera_world, raw)
    anchor_twist, target_twist = _twists(raw, state.T_camera_world, T)
    anchor_row, target_row = _rows(raw)
    out = np.empty((*raw.weight.shape, 2, model.terms + knots + model.rolls), np.float32)

    def work(first: int, last: int) -> None:
        lens_kernels.derivatives(
            first,
            last,
            T,
            state.focal,
            *raw.centre,
            straight.pixel,
            state.inverse_depth,
            radius(raw),
            *lens.radial,
            model.terms,
            zoom[raw.anchor],
            zoom[raw.target],
            basis[raw.anchor],
            basis[raw.target],
            model.rolls,
            anchor_row,
            target_row,
            anchor_twist,
            target_twist,
            out,
        )

    in_parts(work, len(out))
    return out


def radius(tracks: Tracks) -> float:
    """Half the diagonal, pixels of the flow."""
    return float(np.hypot(*tracks.size)) / 2


def _rows(tracks: Tracks) -> tuple[np.ndarray, np.ndarray]:
    """Row of each position over the height, minus a half, in anchors and targets."""
    return tracks.pixel[..., 1] / tracks.size[0] - 0.5, tracks.observed[..., 1] / tracks.size[0] - 0.5


def _twists(
    tracks: Tracks, T_camera_world: Float64[np.ndarray, "n 4 4"], T_target_anchor: Float64[np.ndarray, "a k 4 4"]
) -> tuple[np.ndarray, np.ndarray]:
    """Motion (v, omega) of each anchor's camera in a frame interval in the axes of each target, and each target's."""
    n = tracks.num_frames
    before, after = np.maximum(np.arange(n) - 1, 0), np.minimum(np.arange(n) + 1, n - 1)
    change = T_camera_world[after] @ invert(T_camera_world)[before]
    twist = np.concatenate((change[:, :3, 3], Rotation.from_matrix(change[:, :3, :3]).as_rotvec()), axis=1)
    twist /= (after - before)[:, None]
    return np.einsum("akij,aj->aki", adjoint(T_target_anchor), twist[tracks.anchor]), twist[tracks.target]
