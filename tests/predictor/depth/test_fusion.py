"""Fusion of depth maps: what frames agree on, against truths worked out by hand."""

import numpy as np

from das3r_ns.predictor.depth.fusion import fuse_inverse_depth
from das3r_ns.predictor.depth.inverse_depth import relative_views

H, W, FX = 24, 32, 40.0
K = np.tile(np.array([[FX, 0, W / 2], [0, FX, H / 2], [0, 0, 1.0]]), (4, 1, 1))


def fuse(own, others, T, own_weight=1.0, other_weight=1.0):
    """Frame 0 with frames 1, 2, ..., each of one inverse depth or of a map."""
    maps = np.stack([np.broadcast_to(np.float32(d), (H, W)) for d in others]).astype(np.float32)
    views = relative_views(T, K[: len(T)], 0, list(range(1, len(T))))
    own = np.broadcast_to(np.float32(own), (H, W)).copy()
    return fuse_inverse_depth(
        own, np.full((H, W), own_weight, np.float32), maps, np.full(maps.shape, other_weight, np.float32), *views
    )


def beside(num: int) -> np.ndarray:
    """Cameras a hundredth apart: at depth 4 everything moves a tenth of a pixel."""
    T = np.tile(np.eye(4), (num, 1, 1))
    T[:, 0, 3] = 0.01 * np.arange(num)
    return T


def test_depth_is_carried_back_from_a_camera_that_stepped_forward():
    T = np.tile(np.eye(4), (2, 1, 1))
    T[1, 2, 3] = 1.0  # a wall at depth 4 is 3 away from there
    fused, share = fuse(1 / 4, [1 / 3], T)
    np.testing.assert_allclose(fused, 1 / 4, rtol=1e-4)
    np.testing.assert_allclose(share, 1.0)


def test_frames_that_agree_are_averaged_by_weight():
    fused, share = fuse(0.250, [0.252, 0.252, 0.252], beside(4), own_weight=1.0, other_weight=1.0)
    inner = fused[:, 2:-2]
    # 0.8 % apart of 5 %: all four count about alike.
    np.testing.assert_allclose(inner, (0.250 + 3 * 0.252) / 4, rtol=1e-3)
    np.testing.assert_allclose(share[:, 2:-2], 1.0)
    sure, _ = fuse(0.250, [0.252, 0.252, 0.252], beside(4), own_weight=30.0, other_weight=1.0)
    assert (np.abs(sure[:, 2:-2] - 0.250) < np.abs(inner - 0.250) / 3).all()


def test_what_two_others_agree_on_replaces_what_no_one_confirms():
    fused, share = fuse(0.5, [0.25, 0.25], beside(3))
    np.testing.assert_allclose(fused[:, 2:-2], 0.25, rtol=1e-3)
    np.testing.assert_allclose(share[:, 2:-2], 2 / 3, rtol=1e-5)


def test_one_other_alone_does_not_overrule_a_pixel_but_costs_it_confidence():
    fused, share = fuse(0.5, [0.25], beside(2))
    np.testing.assert_allclose(fused, 0.5, rtol=1e-5)
    np.testing.assert_allclose(share[:, 2:-2], 0.5)


def test_what_is_hidden_from_a_frame_is_not_spoilt_by_it():
    """Left half of the wall at 4 is behind an object at 2 in one other frame; two more see the wall."""
    hidden = np.full((H, W), 0.25, np.float32)
    hidden[:, :16] = 0.5
    fused, share = fuse(0.25, [hidden, 0.25, 0.25], beside(4))
    np.testing.assert_allclose(fused[:, 2:-2], 0.25, rtol=1e-3)
    np.testing.assert_allclose(share[:, 2:14], 0.75)
    np.testing.assert_allclose(share[:, 18:-3], 1.0)


def test_unknown_stays_unknown_and_says_nothing():
    own = np.full((H, W), 0.25, np.float32)
    own[:, :16] = 0
    fused, share = fuse(own, [0.0, 0.25], beside(3))
    np.testing.assert_array_equal(fused[:, :16], 0)
    np.testing.assert_allclose(fused[:, 18:-2], 0.25, rtol=1e-3)
    np.testing.assert_allclose(share[:, 18:-2], 1.0)
