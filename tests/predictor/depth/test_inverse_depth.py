"""Multi-view inverse depth: exact on exact flow, robust to a wrong view, a residual where nothing fits."""

import numpy as np
import pytest

from das3r_ns.predictor.depth.inverse_depth import fit_inverse_depth, relative_views

H, W, FX = 24, 32, 40.0
K = np.tile(np.array([[FX, 0, W / 2], [0, FX, H / 2], [0, 0, 1.0]]), (5, 1, 1))


def sideways(num: int, step: float) -> np.ndarray:
    T = np.tile(np.eye(4), (num, 1, 1))
    T[:, 0, 3] = step * np.arange(num)
    return T


def test_a_sideways_step_is_turned_back_into_depth():
    T = sideways(2, 0.2)
    flow = np.zeros((1, H, W, 2), np.float32)
    flow[..., 0] = -FX * 0.2 / 4.0  # -fx step / depth
    fit = fit_inverse_depth(flow, np.ones((1, H, W), np.float32), *relative_views(T, K[:2], 0, [1]), np.ones(1))
    np.testing.assert_allclose(fit.inverse_depth, 0.25, rtol=1e-5)
    np.testing.assert_allclose(fit.residual, 0.0, atol=1e-4)
    # One view: the deviation of the flow (1 px) over the pixels that a unit of inverse depth moves it (8).
    np.testing.assert_allclose(fit.std, 1 / 8, rtol=1e-3)


def test_one_wrong_view_among_four_does_not_move_the_depth():
    T = sideways(5, 0.2)
    flow = np.zeros((4, H, W, 2), np.float32)
    for k in range(4):
        flow[k, ..., 0] = -FX * 0.2 * (k + 1) / 4.0
    flow[1] += 20.0
    fit = fit_inverse_depth(
        flow, np.full((4, H, W), 0.5, np.float32), *relative_views(T, K, 0, [1, 2, 3, 4]), np.arange(1.0, 5.0)
    )
    np.testing.assert_allclose(fit.inverse_depth, 0.25, rtol=1e-3)
    np.testing.assert_allclose(fit.agreeing, 0.75)


def test_motion_across_the_epipolar_lines_is_a_residual():
    T = sideways(2, 0.2)
    flow = np.zeros((1, H, W, 2), np.float32)
    flow[..., 0], flow[..., 1] = -2.0, 1.0
    fit = fit_inverse_depth(flow, np.full((1, H, W), 0.5, np.float32), *relative_views(T, K[:2], 0, [1]), np.ones(1))
    np.testing.assert_allclose(fit.residual, 2.0, rtol=1e-3)  # 1 px off the line, over 0.5


def test_a_point_behind_the_camera_is_put_at_infinity_and_leaves_a_residual():
    T = sideways(2, 0.2)
    flow = np.zeros((1, H, W, 2), np.float32)
    flow[..., 0] = 2.0  # against the motion of everything in front of the camera
    fit = fit_inverse_depth(flow, np.full((1, H, W), 1.0, np.float32), *relative_views(T, K[:2], 0, [1]), np.ones(1))
    np.testing.assert_array_equal(fit.inverse_depth, 0)
    np.testing.assert_allclose(fit.residual, 2.0, rtol=1e-3)
    np.testing.assert_allclose(fit.signed, -0.25, rtol=1e-4)  # 2 px over -8 px for each unit of inverse depth


def test_a_pixel_that_no_view_sees_has_no_depth():
    T = sideways(2, 0.2)
    noise = np.full((1, H, W), np.inf, np.float32)
    fit = fit_inverse_depth(np.zeros((1, H, W, 2), np.float32), noise, *relative_views(T, K[:2], 0, [1]), np.ones(1))
    assert np.isnan(fit.inverse_depth).all()
    assert (fit.views == 0).all()
    assert fit.agreeing.max() == pytest.approx(0)


def test_what_the_depth_leaves_over_is_a_velocity_and_one_wrong_view_does_not_bend_it():
    T = sideways(5, 0.2)
    flow = np.zeros((4, H, W, 2), np.float32)
    for k in range(4):  # the depth explains the sideways part, half a pixel a frame downwards remains
        flow[k, ..., 0], flow[k, ..., 1] = -2.0 * (k + 1), 0.5 * (k + 1)
    steps, views = np.arange(1.0, 5.0), relative_views(T, K, 0, [1, 2, 3, 4])
    fit = fit_inverse_depth(flow, np.ones((4, H, W), np.float32), *views, steps)
    np.testing.assert_allclose(fit.inverse_depth, 0.25, rtol=1e-3)
    np.testing.assert_allclose(fit.signed, 0.25, rtol=1e-3)
    np.testing.assert_allclose(fit.velocity[0], 0.0, atol=1e-3)
    np.testing.assert_allclose(fit.velocity[1], 0.5, rtol=1e-3)
    flow[1, ..., 1] += 30.0
    bent = fit_inverse_depth(flow, np.ones((4, H, W), np.float32), *views, steps)
    np.testing.assert_allclose(bent.velocity[1], 0.5, atol=0.1)
