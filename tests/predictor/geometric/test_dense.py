"""The dense half of the geometric predictor on exact flow: depth of every frame, averaged over frames that agree."""

from dataclasses import replace

import numpy as np
import pytest

from das3r_ns import geometry
from das3r_ns.predictor.depth.inverse_depth import InverseDepth
from das3r_ns.predictor.depth.posed_flow import PosedFlow
from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.geometric.dense import _fuse_frames, depth_and_confidence, estimate_depth_and_masks
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.synthetic import SyntheticClip, SyntheticConfig, make_clip

OFFSETS = (1, 2, 4)
NOISE_PX = 0.3


class TrueFlow:
    """Flow of the static scene with noise that differs from pair to pair; frames are told by their own number."""

    def __init__(self, clip: SyntheticClip) -> None:
        self.clip = clip

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        i, j = int(a[0, 0, 0]), int(b[0, 0, 0])
        T, K = self.clip.T_world_camera.double(), self.clip.K.double()
        T_j_i = geometry.invert(T[j]) @ T[i]
        flow = geometry.rigid_flow(self.clip.clean_depth[i].double(), K, K, T_j_i)[0].numpy()
        noise = np.random.default_rng(1000 * i + j).normal(0, NOISE_PX, flow.shape)
        return (flow + noise).astype(np.float32)


@pytest.fixture(scope="module")
def clip() -> SyntheticClip:
    return make_clip(SyntheticConfig(num_frames=12, height=64, width=96, movers=0, seed=3))


@pytest.fixture(scope="module")
def posed(clip: SyntheticClip) -> PosedFlow:
    flow = FlowBetweenFrames(lambda i: np.full((64, 96, 3), i, np.uint8), (64, 96), TrueFlow(clip))
    K = clip.K.double().expand(len(clip), 3, 3).numpy()
    return PosedFlow(flow, clip.T_world_camera.double().numpy(), np.array(K), np.ones(len(clip), bool))


def test_frames_that_see_the_same_point_average_their_noise_away(clip: SyntheticClip, posed: PosedFlow):
    def image(i: int) -> np.ndarray:
        return clip.frames[i].numpy()

    static = np.ones((len(clip), 64, 96), bool)
    maps = estimate_depth_and_masks(posed, image, OFFSETS, MaskConfig(), static=static)
    truth = clip.clean_depth.numpy()
    fused = np.median(np.abs(maps.depth / truth - 1))
    fit = posed.fit(6, OFFSETS)
    assert fit is not None
    alone = np.nanmedian(np.abs(1 / np.maximum(fit.inverse_depth, 1e-9) / truth[6] - 1))
    # Up to seven frames with noise of their own; their errors are not quite independent.
    assert fused < 0.8 * alone
    assert fused < 0.02


def test_a_frame_whose_pose_is_not_known_lends_no_depth(clip: SyntheticClip, posed: PosedFlow):
    """Frame 6 stands in a wrong place: were it asked, the others would lose confidence beside it."""

    def image(i: int) -> np.ndarray:
        return clip.frames[i].numpy()

    static = np.ones((len(clip), 64, 96), bool)
    T = posed.T_world_camera.copy()
    T[6, :3, 3] += 1.0
    known = np.arange(len(clip)) != 6
    told = estimate_depth_and_masks(
        replace(posed, T_world_camera=T, pose_known=known), image, OFFSETS, MaskConfig(), static=static
    )
    untold = estimate_depth_and_masks(replace(posed, T_world_camera=T), image, OFFSETS, MaskConfig(), static=static)
    assert told.confidence[5].mean() > 1.1 * untold.confidence[5].mean()
    assert np.median(np.abs(told.depth[5] / clip.clean_depth[5].numpy() - 1)) < 0.02


def test_a_image_shown_twice_is_no_view_of_itself(clip: SyntheticClip, posed: PosedFlow):
    shown = [0, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10]
    flow = FlowBetweenFrames(lambda i: np.full((64, 96, 3), shown[i], np.uint8), (64, 96), TrueFlow(clip))
    repeated = replace(posed, flow=flow, T_world_camera=posed.T_world_camera[shown])
    for source, others in ((6, 5), (7, 5), (3, 5)):  # frames 2, 4, 5, 8 and 10 see frame 6; 7 is itself
        fit = repeated.fit(source, OFFSETS)
        assert fit is not None
        assert fit.views.max() == others
    standing = replace(posed, T_world_camera=np.tile(posed.T_world_camera[:1], (12, 1, 1)))
    still = standing.fit(6, OFFSETS)  # a camera on a tripod: nothing but views from the same place
    assert still is not None
    assert still.views.max() == 6


def test_in_the_fusion_a_frame_without_a_pose_is_not_asked(posed: PosedFlow):
    depth, confidence = np.full((2, 24, 32), 4.0, np.float32), np.ones((2, 24, 32), np.float32)
    depth[1] = 1.0  # contradicts
    K = np.tile(np.array([[40.0, 0, 16], [0, 40.0, 12], [0, 0, 1]]), (2, 1, 1))
    T = np.tile(np.eye(4), (2, 1, 1))
    for known, expected in ((True, 0.5), (False, 1.0)):
        found, sure = depth.copy(), confidence.copy()
        _fuse_frames(PosedFlow(posed.flow, T, K, np.array([True, known])), found, sure, (1,))
        np.testing.assert_allclose(found[0], 4.0, rtol=1e-5)
        np.testing.assert_allclose(sure[0], expected)


def test_a_pixel_that_one_view_alone_sees_has_no_depth():
    views = np.array([[0, 1, 2, 3]], np.float32)
    same = np.ones((1, 4), np.float32)
    fit = InverseDepth(
        inverse_depth=0.25 * same, std=0.05 * same, residual=same, agreeing=same, views=views, signed=0.25 * same,
        velocity=np.zeros((2, 1, 4), np.float32),
    )  # fmt: skip
    depth, confidence = depth_and_confidence(fit)
    np.testing.assert_allclose(depth, [[0, 0, 4, 4]])
    np.testing.assert_allclose(confidence, [[0, 0, 5, 5]])


def test_a_frame_that_shows_nothing_has_no_depth_and_nothing_static(clip: SyntheticClip, posed: PosedFlow):
    def image(i: int) -> np.ndarray:
        return clip.frames[i].numpy()

    static = np.ones((len(clip), 64, 96), bool)
    blank = np.arange(len(clip)) == 4
    maps = estimate_depth_and_masks(posed, image, OFFSETS, MaskConfig(), static=static, blank=blank)
    for values in (maps.depth, maps.confidence, 1 - maps.dynamic_prob):
        assert not values[4].any()
        assert (values[~blank] > 0).mean() > 0.9
