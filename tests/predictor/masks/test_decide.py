"""The order of the stages that decide what moves, and what each says over those before it."""

from dataclasses import replace

import numpy as np
import pytest

from das3r_ns.predictor.depth.posed_flow import PosedFlow
from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.masks.calibration import SHARES, calibrated
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.masks.decide import MaskInputs, combine_user_masks, decide_dynamic_prob
from das3r_ns.predictor.masks.evidence import Evidence, collect_evidence

N, H, W = 4, 24, 32
OBJECT = (slice(8, 16), slice(10, 20))
IMAGE = np.full((H, W, 3), 120, np.uint8)
IMAGE[OBJECT] = (40, 40, 220)


def moving_flow(i: int, j: int) -> np.ndarray:
    flow = np.zeros((H, W, 2), np.float32)
    flow[(*OBJECT, 0)] = 0.0 if i == j else 5.0 * np.sign(j - i)
    return flow


def inputs(**given) -> MaskInputs:
    flow = FlowBetweenFrames(
        lambda i: np.full((H, W, 3), i, np.uint8),
        (H, W),
        lambda a, b: moving_flow(int(a[0, 0, 0]), int(b[0, 0, 0])),
    )
    K = np.tile(np.array([[30.0, 0, W / 2], [0, 30.0, H / 2], [0, 0, 1]]), (N, 1, 1))
    posed = PosedFlow(flow, np.tile(np.eye(4), (N, 1, 1)), K, np.ones(N, bool))
    evidence = Evidence.empty(N, (H, W))
    evidence.residual[:] = 0.3
    evidence.residual[(slice(None), *OBJECT)] = 3.0
    evidence.weight[:] = 1.0
    evidence.values[..., 2:] = (0.4, 0.5, 0.5)
    ones = np.ones((N, H, W), np.float32)
    return replace(MaskInputs(posed, 2 * ones, ones, lambda i: IMAGE, lambda i: IMAGE, evidence), **given)


CONFIG = MaskConfig(refiner="none", colour_contrast=0.0, depth_contrast=0.0)


def inside(dynamic: np.ndarray) -> np.ndarray:
    return dynamic[(slice(None), *OBJECT)][:, 2:-2, 2:-2]


def test_motion_alone_finds_the_object_and_the_depth_of_the_rest():
    found = decide_dynamic_prob(inputs(), CONFIG)
    assert inside(found.dynamic_prob).min() > 0.5
    assert found.dynamic_prob[:, :4].max() < 0.1
    assert found.static_depth == 2.0


def test_the_refiner_sees_motion_and_the_images_and_its_word_counts_after_motion():
    seen = {}

    def refiner(dynamic_prob, image, flow, doubt):
        seen["motion"], seen["image"], seen["doubt"] = inside(dynamic_prob).min(), image(1), doubt
        return np.zeros_like(dynamic_prob)

    found = decide_dynamic_prob(inputs(image=lambda i: 2 * IMAGE), CONFIG, refiner)
    assert seen["motion"] > 0.5
    np.testing.assert_array_equal(seen["image"], 2 * IMAGE)
    np.testing.assert_array_equal(seen["doubt"], np.zeros(N))
    assert found.dynamic_prob.max() == 0


def test_user_masks_of_some_frames_replace_what_was_found_there_alone():
    static = np.ones((N, 2 * H, 2 * W), bool)
    static[:, :H] = False
    some = inputs(user_static=static, user_given=np.array([True, False, False, True]))
    found = decide_dynamic_prob(some, CONFIG).dynamic_prob
    motion = decide_dynamic_prob(inputs(), CONFIG).dynamic_prob
    assert (found[[0, 3], : H // 2] == 1).all()
    assert (found[[0, 3], H // 2 :] == 0).all()
    np.testing.assert_array_equal(found[[1, 2]], motion[[1, 2]])


def test_user_masks_replace_what_was_found_and_ask_neither_evidence_nor_refiner():
    static = np.ones((N, 2 * H, 2 * W), bool)
    static[:, : 2 * H // 2] = False
    given = inputs(user_static=static, evidence=None)

    def refiner(*_):
        raise AssertionError("asked")

    found = decide_dynamic_prob(given, CONFIG, refiner).dynamic_prob
    np.testing.assert_array_equal(found[:, : H // 2], 1.0)
    np.testing.assert_array_equal(found[:, H // 2 :], 0.0)


def test_user_masks_go_together_with_what_was_found():
    found, user = np.array([[[0.9, 0.9, 0.2, 0.2]]], np.float32), np.array([[[1.0, 0.0, 1.0, 0.0]]], np.float32)
    expected = {
        "replace": [1.0, 0.0, 1.0, 0.0],
        "add": [1.0, 0.9, 1.0, 0.2],
        "subtract": [0.0, 0.9, 0.0, 0.2],
        "intersect": [0.9, 0.0, 0.2, 0.0],
    }
    for mode, values in expected.items():
        np.testing.assert_allclose(combine_user_masks(found, user, mode)[0, 0], values)


def test_a_user_mask_that_subtracts_keeps_what_it_does_not_cover():
    static = np.ones((N, H, W), bool)
    static[:, :, :15] = False  # the left half of the object is called moving, and taken away
    found = decide_dynamic_prob(inputs(user_static=static, user_mask_mode="subtract"), CONFIG).dynamic_prob
    assert found[:, 11:13, 12].max() == 0
    assert found[:, 11:13, 17].min() > 0.5


def test_overlays_and_blank_frames_have_the_last_word():
    overlay, blank = np.zeros((H, W), bool), np.zeros(N, bool)
    overlay[-3:], blank[2] = True, True
    found = decide_dynamic_prob(inputs(overlay_mask=overlay, blank=blank), CONFIG, lambda p, *_: 0 * p).dynamic_prob
    assert found[:, -3:].min() == 1
    assert found[2].min() == 1
    assert found[0, :-3].max() == 0


def test_no_evidence_and_no_mask_is_an_error():
    with pytest.raises(ValueError, match="evidence of motion"):
        decide_dynamic_prob(inputs(evidence=None), CONFIG)


def test_evidence_is_collected_from_any_cameras_and_flow():
    given = inputs()
    posed = replace(given.posed, pose_known=np.array([True, True, True, False]))
    evidence = collect_evidence(posed, given.map_image, (1,), replace(CONFIG, median_px=1))
    assert evidence.residual[1][OBJECT][2:-2, 2:-2].min() > 1.8
    assert evidence.residual[1][:4].max() < 0.1
    assert evidence.values[3].max() == 0  # without a pose of its own a frame says nothing


def test_calibration_keeps_the_order_and_one_half_where_they_are():
    values = np.linspace(0, 1, 1001, dtype=np.float32)
    for refiner in SHARES:
        found = calibrated(values[None, None].copy(), refiner)[0, 0]
        assert (np.diff(found) >= 0).all()
        np.testing.assert_array_equal(found > 0.5, values > 0.5)
        assert 0 <= found.min() < 0.01
        assert 0.98 < found.max() <= 1
    np.testing.assert_array_equal(calibrated(values[None, None].copy(), "sam2")[0, 0], values)


def test_a_hint_counts_as_far_as_motion_bears_it_out():
    motion = decide_dynamic_prob(inputs(), CONFIG).dynamic_prob
    right = np.full((N, H, W), 0.05, np.float32)
    right[(slice(None), *OBJECT)] = 0.95
    found = decide_dynamic_prob(inputs(hint=right), CONFIG).dynamic_prob
    assert inside(found).min() > inside(motion).min()
    for nonsense in (1 - right, np.zeros_like(right), np.ones_like(right)):
        found = decide_dynamic_prob(inputs(hint=nonsense), CONFIG).dynamic_prob
        np.testing.assert_array_equal(found > 0.5, motion > 0.5)
