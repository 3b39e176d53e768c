"""What lenses do beside being pinholes: derivatives against plain formulas, lenses found in tracks that were bent."""

from dataclasses import replace

import numpy as np
import pytest
from exact_tracks import ExactFlow, reproject, small_problem
from scipy.spatial.transform import Rotation

from das3r_ns import geometry
from das3r_ns.evaluation.metrics.poses import pose_errors
from das3r_ns.predictor.cameras.lens_choice import choose_lens
from das3r_ns.predictor.cameras.motion_model import cameras_from_tracks
from das3r_ns.predictor.cameras.sfm import (
    ANY_LENS,
    FocalKnowledge,
    LensEstimate,
    LensSearch,
    Tracks,
    estimate_cameras,
    follow_grid,
    select_lens,
)
from das3r_ns.predictor.cameras.sfm.lens import Lens, LensModel, derivatives, straightened, zoom_basis
from das3r_ns.predictor.cameras.sfm.lens_selection import zoom_by_divergence
from das3r_ns.predictor.cameras.sfm.normal_equations import State, squared_errors
from das3r_ns.synthetic import SyntheticClip, SyntheticConfig, make_clip

NOISE_PX = 0.01


def bent(tracks: Tracks, radial: tuple[float, float] = (0.0, 0.0), zoom: np.ndarray | None = None) -> Tracks:
    """The tracks as a lens would show them: OpenCV's polynomial, written down plainly, radii in half the diagonal."""
    zoom = np.ones(tracks.num_frames) if zoom is None else zoom
    centre, radius = np.array(tracks.centre), np.hypot(*tracks.size) / 2

    def bend(pixel: np.ndarray, factor: np.ndarray) -> np.ndarray:
        zoomed = (pixel - centre) * factor
        r2 = np.square(zoomed).sum(axis=-1, keepdims=True) / radius**2
        return (centre + zoomed * (1 + radial[0] * r2 + radial[1] * r2**2)).astype(np.float32)

    pixel = bend(tracks.pixel, zoom[tracks.anchor][:, None, None])
    return replace(tracks, pixel=pixel, observed=bend(tracks.observed, zoom[tracks.target][..., None, None]))


def noisy(tracks: Tracks) -> Tracks:
    """With errors of the size that sub-pixel matching leaves, and nothing beyond the border of the image."""
    noise = np.random.default_rng(0).normal(0, NOISE_PX, tracks.observed.shape)
    size = np.array(tracks.size[::-1])
    inside = ((tracks.observed > 0) & (tracks.observed < size)).all(axis=-1)
    inside &= ((tracks.pixel > 0) & (tracks.pixel < size)).all(axis=-1)[:, None]
    seen = (tracks.seen * inside).astype(np.float32)
    return replace(tracks, observed=(tracks.observed + noise).astype(np.float32), seen=seen, weight=seen)


@pytest.fixture(scope="module")
def clip() -> SyntheticClip:
    return make_clip(SyntheticConfig(num_frames=20, height=90, width=160, movers=0, seed=2))


@pytest.fixture(scope="module")
def exact(clip: SyntheticClip) -> Tracks:
    return follow_grid(ExactFlow(clip), len(clip), points=300)


def found(tracks: Tracks) -> LensEstimate | None:
    size, focal = tracks.size, FocalKnowledge()
    return select_lens(tracks, size, estimate_cameras(tracks, size, focal), focal)


def ate_percent(estimate: LensEstimate, clip: SyntheticClip) -> float:
    errors = pose_errors(estimate.cameras.T_world_camera, clip.T_world_camera.double())
    return 100 * errors.ate / errors.path_length


def test_straightening_undoes_what_the_lens_does():
    tracks, _, _ = small_problem()
    lens = Lens((-0.25, 0.05), np.array([-0.2, 0.3]))
    straight = straightened(bent(tracks, lens.radial, lens.zoom(3)), lens)
    np.testing.assert_allclose(straight.tracks.pixel, tracks.pixel, atol=1e-4)
    np.testing.assert_allclose(straight.tracks.observed, tracks.observed, atol=1e-3)


def test_the_stretch_is_by_how_much_areas_grow():
    tracks, _, _ = small_problem()
    lens = Lens((-0.25, 0.05), np.array([-0.2, 0.3]))
    step = np.array([[0.01, 0], [0, 0.01]])
    moved = [straightened(replace(tracks, observed=(tracks.observed + s).astype(np.float32)), lens) for s in step]
    straight = straightened(tracks, lens)
    edges = [(m.tracks.observed.astype(np.float64) - straight.tracks.observed) / 0.01 for m in moved]
    area = edges[0][..., 0] * edges[1][..., 1] - edges[0][..., 1] * edges[1][..., 0]
    assert straight.stretch is not None
    np.testing.assert_allclose(np.square(straight.stretch), area, rtol=0.02)


def test_a_polynomial_that_folds_back_before_the_corners_is_no_lens():
    assert Lens((-0.25, 0.05)).is_invertible()
    assert Lens((0.3, 0.0)).is_invertible()
    assert not Lens((-0.5, 0.0)).is_invertible()


def test_coefficients_are_those_of_opencv():
    focal, size = 200.0, (240, 320)  # half the diagonal is 200 px: one unit is one focal length
    assert Lens((-0.2, 0.1)).coefficients(focal, size) == pytest.approx((-0.2, 0.1))
    assert Lens((-0.2, 0.1)).coefficients(2 * focal, size) == pytest.approx((-0.8, 1.6))


def test_derivatives_by_distortion_and_zoom_agree_with_finite_differences():
    tracks, state, _ = small_problem()
    exact = np.stack([reproject(tracks, state, a) for a in range(2)])  # no error is left
    tracks = replace(tracks, observed=exact.astype(np.float32))
    lens, model = Lens((-0.2, 0.04), np.array([-0.1, 0.2])), LensModel(terms=2, zooms=True)
    raw = bent(tracks, lens.radial, lens.zoom(3))
    by_lens = derivatives(raw, straightened(raw, lens).tracks, state, lens, model)

    def error(values: np.ndarray) -> np.ndarray:
        straight = straightened(raw, model.with_parameters(lens, values)).tracks
        return np.stack([reproject(straight, state, a) for a in range(2)]) - straight.observed

    # Beyond the corners the polynomial is nearly flat, and differences are no derivatives.
    in_image = np.linalg.norm(tracks.observed - tracks.centre, axis=-1) < np.hypot(*tracks.size) / 2
    assert in_image.sum() > 10
    at = model.parameters(lens)
    for k in range(len(at)):
        step = 3e-3 * np.eye(len(at))[k]
        numeric = (error(at + step) - error(at - step)) / 6e-3
        np.testing.assert_allclose(by_lens[in_image, :, k], numeric[in_image], rtol=1e-2, atol=1e-2)


def test_the_derivative_by_the_readout_time_is_that_of_cameras_that_move_while_rows_are_read():
    tracks, state, _ = small_problem()
    tracks = replace(tracks, observed=np.stack([reproject(tracks, state, a) for a in range(2)]).astype(np.float32))
    T = state.T_camera_world
    by_readout = derivatives(tracks, tracks, state, Lens(), LensModel(rolls=True))[..., 0]
    motion = []
    for before, after, interval in ((0, 1, 1), (0, 2, 2), (1, 2, 1)):
        change = T[after] @ np.linalg.inv(T[before])
        turn = Rotation.from_matrix(change[:3, :3]).as_rotvec()
        motion.append((change[:3, 3] / interval, turn / interval))

    def pose(frame: int, row: float, readout: float) -> np.ndarray:
        moved, time = T[frame].copy(), readout * (row / tracks.size[0] - 0.5)
        moved[:3] = Rotation.from_rotvec(time * motion[frame][1]).as_matrix() @ moved[:3]
        moved[:3, 3] += time * motion[frame][0]
        return moved

    centre, step = np.array(tracks.centre), 1e-4

    def seen(a: int, slot: int, p: int, readout: float) -> np.ndarray:
        pixel = tracks.pixel[a, p]
        in_anchor = np.append((pixel - centre) / state.focal, 1) / state.inverse_depth[a, p]
        T_target = pose(int(tracks.target[a, slot]), tracks.observed[a, slot, p, 1], readout)
        relative = T_target @ np.linalg.inv(pose(int(tracks.anchor[a]), pixel[1], readout))
        point = relative[:3, :3] @ in_anchor + relative[:3, 3]
        return state.focal * point[:2] / point[2] + centre

    for a, slot, p in np.ndindex(2, 2, 5):
        numeric = (seen(a, slot, p, step) - seen(a, slot, p, -step)) / (2 * step)
        np.testing.assert_allclose(by_readout[a, slot, p], numeric, rtol=1e-3, atol=1e-3)


def test_straightening_moves_positions_to_where_they_were_at_the_middle_of_the_exposure():
    tracks, state, _ = small_problem()
    by_readout = derivatives(tracks, tracks, state, Lens(), LensModel(rolls=True))[..., 0]
    straight = straightened(tracks, Lens(readout=0.5), state)
    assert np.abs(by_readout).max() > 1
    np.testing.assert_allclose(straight.tracks.observed, tracks.observed - 0.5 * by_readout, atol=1e-4)
    assert straight.tracks.pixel is tracks.pixel
    assert straightened(tracks, Lens(readout=0.5)).tracks.observed is tracks.observed  # of no cameras yet
    # A point behind the target's camera has no place there: it is left.
    behind = replace(state, inverse_depth=np.full((2, 5), 1e3))
    T = behind.T_camera_world @ np.linalg.inv(behind.T_camera_world[0])
    backwards = int(np.argmin(T[1:, 2, 3]))
    assert T[1 + backwards, 2, 3] < 0
    straight = straightened(tracks, Lens(readout=0.5), behind)
    np.testing.assert_array_equal(straight.tracks.observed[0, backwards], tracks.observed[0, backwards])


def test_a_pinhole_is_left_alone(exact: Tracks):
    assert found(noisy(exact)) is None


@pytest.mark.parametrize("radial", [(-0.2, 0.03), (0.12, 0.0)])
def test_distortion_is_found_and_with_it_the_focal_length(clip: SyntheticClip, exact: Tracks, radial):
    estimate = found(noisy(bent(exact, radial)))
    assert estimate is not None
    assert estimate.effects == ("radial",)
    r = np.linspace(0.1, 0.9, 5)
    shift, true_shift = (r**3 * (k[0] + k[1] * r**2) for k in (estimate.lens.radial, radial))
    np.testing.assert_allclose(shift, true_shift, atol=0.006)
    assert estimate.cameras.focal_px == pytest.approx(float(clip.K[0, 0]), rel=0.02)
    assert ate_percent(estimate, clip) < 0.3
    lens = estimate.radial_lens(clip.frames.shape[1:3])
    assert (lens.cx, lens.cy) == (80, 45)
    assert lens.focal_px == estimate.cameras.focal_px


def test_a_zoom_on_the_spot_is_no_step_ahead():
    clip = make_clip(SyntheticConfig(num_frames=16, height=90, width=160, movers=0, camera="rotation", seed=1))
    zoom = np.geomspace(1, 1.4, 16)
    tracks = noisy(bent(follow_grid(ExactFlow(clip), len(clip), points=200), zoom=zoom))
    evidence, cameras = cameras_from_tracks(tracks, tracks.size)
    evidence, estimate = choose_lens(tracks, tracks.size, FocalKnowledge(), evidence, cameras, ANY_LENS)
    assert evidence.kind == "rotation"
    assert estimate is not None
    assert estimate.effects == ("zoom",)
    found_zoom = estimate.lens.zoom(16)
    np.testing.assert_allclose(found_zoom / found_zoom[0], zoom, rtol=0.02)
    turned = geometry.invert(clip.T_world_camera[0]) @ clip.T_world_camera[-1]
    angle = Rotation.from_matrix(turned[:3, :3].double().numpy()).magnitude()
    predicted = geometry.invert(estimate.cameras.T_world_camera[0]) @ estimate.cameras.T_world_camera[-1]
    assert Rotation.from_matrix(predicted[:3, :3].numpy()).magnitude() == pytest.approx(angle, rel=0.05)


def test_growth_by_a_zoom_is_measured_from_frame_to_frame(exact: Tracks):
    zoom = np.geomspace(1.5, 1, 20)
    lens = zoom_by_divergence(bent(exact, zoom=zoom))
    assert lens is not None
    np.testing.assert_allclose(np.log(lens.zoom(20)), np.log(zoom) - np.log(zoom).mean(), atol=0.06)
    assert zoom_by_divergence(exact) is None


def test_the_user_may_say_what_is_looked_for():
    assert LensSearch.of("pinhole", rolling_shutter=False) == LensSearch((), ())
    assert LensSearch.of("pinhole", rolling_shutter=True).sought == ("readout",)
    assert LensSearch.of("radial", rolling_shutter=False) == LensSearch((), ("radial",))
    assert LensSearch.of("auto", rolling_shutter=True) == ANY_LENS
    assert ANY_LENS.without("radial").sought == ("zoom", "readout")


def test_knots_of_the_zoom_leave_the_reference_focal_length_alone():
    basis = zoom_basis(11, 3)
    np.testing.assert_allclose(basis.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(basis[5] - basis[0], [-1, 1, 0], atol=1e-12)


def test_no_lens_changes_nothing(exact: Tracks):
    straight = straightened(exact, Lens())
    assert straight.tracks.pixel is exact.pixel
    assert straight.tracks.observed is exact.observed
    errors = squared_errors(exact, State(np.tile(np.eye(4), (20, 1, 1)), 100.0, np.zeros(exact.pixel.shape[:2])))
    assert straight.in_image(errors) is errors
