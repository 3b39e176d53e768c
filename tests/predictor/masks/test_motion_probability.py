"""Evidence of motion: the threshold, the smoothing that stops at edges, the appearance grid, the whole cleaning."""

import numpy as np

from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.masks.bilateral_grid import AppearanceGrid
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.masks.edge_aware_filter import smooth_within_edges
from das3r_ns.predictor.masks.evidence import SURPRISE, Evidence, clean_residual, residual_weight
from das3r_ns.predictor.masks.motion_probability import motion_probability, pool_evidence
from das3r_ns.predictor.masks.temporal import average_along_flow, filter_along_flow


def still(image):
    """Flow of a clip in which nothing moves."""
    size = image.shape[:2]
    return FlowBetweenFrames(lambda i: image, size, lambda a, b: np.zeros((*size, 2), np.float32))


def evidence_of(residual, outstanding=(0.4, 0.5, 0.5), weight=1.0):
    """Evidence of all frames, well measured and with neutral cues unless told."""
    evidence = Evidence.empty(len(residual), residual.shape[1:])
    evidence.residual[:] = residual
    evidence.weight[:] = weight
    evidence.values[..., 2:] = outstanding
    return evidence


def pooled(residual, image, config, weight=1.0):
    evidence = evidence_of(residual, weight=weight)
    pool_evidence(evidence, lambda i: image, still(image), config)
    return evidence


def test_evidence_at_the_threshold_is_as_likely_to_move_as_not_and_one_softness_more_is_073():
    config = MaskConfig(threshold=2.0, softness=0.5)
    residual = np.zeros((1, 8, 8), np.float32)
    residual[0, 4, 4:6] = 2.0, 2.5
    probability = motion_probability(evidence_of(residual), config)
    np.testing.assert_allclose(probability[0, 4, 4:6], [0.5, 1 / (1 + np.exp(-1))], rtol=2e-3)
    assert probability[0, 0, 0] < 0.02


def test_where_objects_that_stand_out_move_what_does_not_stand_out_needs_more_evidence():
    residual = np.zeros((3, 20, 30), np.float32)
    residual[:, 5:15, 5:15] = 1.85  # an object, not quite moving enough alone
    residual[:, 5:15, 20:25] = 2.05  # and its wake, just enough alone
    evidence = evidence_of(residual)
    evidence.cue("colour")[:] = 0.0
    evidence.cue("colour")[:, 5:15, 5:15] = 1.0
    probability = motion_probability(evidence, MaskConfig())
    assert (probability[:, 5:15, 5:15] > 0.8).all()
    assert (probability[:, 5:15, 20:25] < 0.2).all()
    alone = motion_probability(evidence, MaskConfig(colour_contrast=0.0))
    assert (alone[:, 5:15, 5:15] < 0.5).all()
    assert (alone[:, 5:15, 20:25] > 0.5).all()


def test_what_stands_out_in_a_scene_at_rest_stays_at_rest():
    evidence = evidence_of(np.full((3, 20, 30), 0.4, np.float32), (0.0, 0.0, 0.0))
    evidence.cue("colour")[:, 5:15, 5:15] = 1.0
    evidence.cue("depth")[:, 5:15, 5:15] = (
        0.69  # nearer than its surroundings, but not by so much that nothing could hold it
    )
    assert motion_probability(evidence, MaskConfig()).max() < 0.05


def test_where_the_border_moves_only_what_moves_unlike_it_is_an_object():
    residual = np.full((3, 20, 30), 2.6, np.float32)  # all around seems to move
    residual[:, 3:17, 3:27] = 0.3
    residual[:, 5:15, 5:15] = 2.6
    evidence = evidence_of(residual, (0.4, 0.5, 0.05))
    evidence.cue("motion")[:, 5:15, 5:15] = 0.8
    probability = motion_probability(evidence, MaskConfig())
    assert (probability[:, 5:15, 5:15] > 0.5).all()  # more likely than not, and no more: motion is in doubt
    assert (probability[:, :4] < 0.5).all()


def test_what_inexact_cameras_leave_everywhere_is_not_motion():
    residual = np.full((3, 20, 30), 2.0, np.float32)  # a shaky camera with a rolling shutter
    residual[:, 5:15, 5:15] = 6.0
    evidence = evidence_of(residual, (0.4, 0.5, 0.5))
    found = motion_probability(evidence, MaskConfig())
    assert found[:, :4].max() < 0.5
    assert found[:, 5:15, 5:15].min() > 0.5
    assert (
        motion_probability(evidence, MaskConfig(), background_verified=True)[:, :4].min() > 0.5
    )  # unless they are known to be right


def test_where_cameras_are_sure_an_object_that_reaches_the_border_moves_though_it_stands_out_from_nothing():
    residual = np.full((3, 20, 30), 0.4, np.float32)
    residual[:, :, :18] = 2.6  # an object before more than half of the image
    evidence = evidence_of(residual, (0.1, 0.1, 0.05))
    sure = motion_probability(evidence, MaskConfig(), background_verified=True)
    assert (sure[:, :, :18] > 0.7).all()
    assert (sure[:, :, 18:] < 0.05).all()
    assert (motion_probability(evidence, MaskConfig())[:, :, :18] < 0.5).all()


def test_an_object_that_floats_moves_though_a_depth_explains_its_motion():
    evidence = Evidence.empty(3, (24, 32))
    evidence.cue("depth")[:, 8:16, 12:20] = 0.8
    found = motion_probability(evidence, MaskConfig(floating=8.0))
    assert found[:, 8:16, 12:20].min() > 0.5
    assert found[:, :6].max() < 0.1
    assert motion_probability(evidence, MaskConfig()).max() < 0.1


def test_no_view_means_no_evidence_and_the_median_removes_a_speck():
    residual = np.full((9, 9), 0.5, np.float32)
    residual[0] = np.nan
    residual[5, 5] = 3.0
    plain = clean_residual(residual, MaskConfig(median_px=1))
    np.testing.assert_array_equal(plain[0], 0.0)
    assert plain[5, 5] == 3.0
    assert clean_residual(residual, MaskConfig(median_px=5))[5, 5] == 0.5


def test_cues_are_told_by_name_and_share_the_array_that_flow_carries():
    evidence = Evidence.empty(2, (3, 4))
    evidence.cue("motion")[1] = 0.5
    evidence.residual[0], evidence.weight[0] = 2.0, 0.5
    assert len(evidence) == 2
    np.testing.assert_array_equal(evidence.values[1, 0, 0], [0, 0, 0, 0, 0.5])
    np.testing.assert_array_equal(evidence.values[0, 0, 0], [2, 0.5, 0, 0, 0])


def test_averages_along_the_flow_follow_the_object_and_leave_out_what_is_not_seen():
    n, h, w = 3, 6, 12

    def two_to_the_right(a, b):  # one frame later everything is 2 pixels further right
        flow = np.zeros((h, w, 2), np.float32)
        flow[..., 0] = 2.0 * (int(b[0, 0, 0]) - int(a[0, 0, 0]))
        return flow

    flow = FlowBetweenFrames(lambda i: np.full((h, w, 3), i, np.uint8), (h, w), two_to_the_right)
    values = np.zeros((n, h, w), np.float32)
    for i in range(n):
        values[i, :, 4 + 2 * i] = (3.0, 6.0, 9.0)[i]
    mean = average_along_flow(values, 1, flow, (1,))
    np.testing.assert_allclose(mean[:, 6], 6.0)  # (3 + 6 + 9) / 3
    np.testing.assert_allclose(mean[:, 7], 0.0)
    np.testing.assert_allclose(average_along_flow(values, 0, flow, (1, 2))[:, 4], 6.0)
    channels = np.stack((values, 2 * values), axis=-1)
    np.testing.assert_allclose(average_along_flow(channels, 1, flow, (1,))[:, 6], [[6.0, 12.0]] * h)
    values[:, :, 11] = 4.0
    # The last column comes from outside the image and leaves it again: one frame at a time sees it.
    np.testing.assert_allclose(average_along_flow(values, 2, flow, (1,))[:, 11], (4.0 + 0.0) / 2)
    np.testing.assert_allclose(average_along_flow(values, 0, flow, (1,))[:, 11], 4.0)


def clip_that_shifts(n, shape, step):
    """Flow of a clip in which everything is `step` pixels further right each frame, and how often it was asked for."""
    asked = []

    def shift(a, b):
        asked.append((int(a[0, 0, 0]), int(b[0, 0, 0])))
        return np.dstack((np.full(shape, step * (asked[-1][1] - asked[-1][0])), np.zeros(shape))).astype(np.float32)

    return FlowBetweenFrames(lambda i: np.full((*shape, 3), i, np.uint8), shape, shift), asked


def filtered(values, flow, memory):
    mean = values.copy()
    filter_along_flow(mean, flow, memory)
    return mean


def test_a_long_clip_is_averaged_block_by_block_as_all_at_once():
    n, shape, memory = 11, (4, 30), 0.75  # blocks of 3, 3, 3 and 2 frames
    flow, _ = clip_that_shifts(n, shape, 2)
    values = np.random.default_rng(0).uniform(0, 4, (n, *shape, 2)).astype(np.float16)
    mean = filtered(values, flow, memory)
    for i, x in ((0, 4), (3, 13), (7, 16), (10, 25)):
        seen = [j for j in range(n) if 0 <= x + 2 * (j - i) <= shape[1] - 1]
        weights = np.array([memory ** abs(j - i) for j in seen])
        wanted = weights @ np.array([values[j, 1, x + 2 * (j - i), 0] for j in seen], float) / weights.sum()
        np.testing.assert_allclose(mean[i, 1, x, 0], wanted, rtol=3e-3)


def test_memory_weighs_a_frame_by_its_distance_in_time_and_follows_the_object():
    flow, asked = clip_that_shifts(4, (4, 12), 2)
    values = np.zeros((4, 4, 12, 4), np.float16)
    for i, value in enumerate((8.0, 4.0, 2.0, 1.0)):
        values[i, :, 3 + 2 * i] = value
    mean = filtered(values, flow, 0.5)
    # Weights 1, 1/2, 1/4, 1/8 seen from frame 0; 1/2, 1, 1/2, 1/4 from frame 1.
    np.testing.assert_allclose(mean[0, :, 3], (8 + 2 + 0.5 + 0.125) / 1.875, rtol=2e-3)
    np.testing.assert_allclose(mean[1, :, 5], (4 + 4 + 1 + 0.25) / 2.25, rtol=2e-3)
    np.testing.assert_allclose(mean[1, :, 4], 0.0)
    assert {abs(a - b) for a, b in asked} == {1}  # no flow but that between neighbours
    np.testing.assert_array_equal(filtered(values, flow, 0.0), values)


def test_memory_ends_where_a_pixel_is_not_seen():
    flow, _ = clip_that_shifts(3, (4, 12), 2)
    values = np.ones((3, 4, 12, 4), np.float16)
    values[0] = 7.0
    values[2] = 4.0
    mean = filtered(values, flow, 1.0)
    np.testing.assert_allclose(mean[2, :, 6], (7 + 1 + 4) / 3, rtol=2e-3)
    np.testing.assert_allclose(mean[2, :, 3], (1 + 4) / 2, rtol=2e-3)  # came into view after frame 0
    np.testing.assert_allclose(mean[2, :, 0], 4.0)
    np.testing.assert_allclose(mean[0, :, 11], 7.0)  # out of view at once


def test_memory_takes_nothing_along_flow_that_does_not_lead_back():
    def one_way(a, b):
        return np.full((4, 12, 2), 2.0 if b[0, 0, 0] > a[0, 0, 0] else 0.0, np.float32)  # back ends 2.8 pixels off

    flow = FlowBetweenFrames(lambda i: np.full((4, 12, 3), i, np.uint8), (4, 12), one_way)
    values = np.zeros((2, 4, 12, 4), np.float16)
    values[1] = 5.0
    np.testing.assert_array_equal(filtered(values, flow, 0.9), values)


def test_an_object_that_rests_at_first_moves_from_the_start():
    n, h, w = 16, 40, 60
    image = np.full((h, w, 3), 120, np.uint8)
    image[10:30, 20:40] = (40, 40, 220)
    residual = np.full((n, h, w), 0.3, np.float32)
    residual[:5, 10:30, 20:40] = 1.4  # turns around: nearly nothing
    residual[5:, 10:30, 20:40] = 2.8
    found = {}
    for memory in (0.0, 0.9):
        config = MaskConfig(memory=memory)
        found[memory] = motion_probability(pooled(residual, image, config), config)
    assert found[0.0][0, 12:28, 22:38].max() < 0.5
    assert found[0.9][0, 12:28, 22:38].min() > 0.5
    assert found[0.9][:, :6].max() < 0.1


def test_a_pixel_that_is_measured_well_is_judged_by_itself_and_others_by_what_surrounds_them():
    n, h, w = 5, 40, 80
    image = np.full((h, w, 3), 120, np.uint8)
    image[10:30, 20:60] = (40, 40, 220)
    residual = np.full((n, h, w), 0.3, np.float32)
    residual[:, 10:30, 20:50] = 3.0
    residual[:, 10:30, 50:60] = 0.5  # of the same colour, and at rest
    well, badly = np.ones_like(residual), np.ones_like(residual)
    badly[:, 10:30, 50:60] = 0.0  # no flow leads back from there
    end = (slice(None), slice(15, 25), slice(54, 58))
    lent = pooled(residual, image, MaskConfig(own=0.0), well).residual[end]
    known = pooled(residual, image, MaskConfig(), well).residual[end]
    unknown = pooled(residual, image, MaskConfig(), badly).residual[end]
    assert (lent > known + 0.15).all()
    np.testing.assert_allclose(known, lent + (0.5 - lent) / 1.2, atol=0.1)  # weight 1 against 0.2
    assert unknown.min() > 2.5


def test_what_flow_never_measured_is_not_called_moving():
    n, h, w = 3, 40, 80
    image = np.full((h, w, 3), 120, np.uint8)
    residual = np.full((n, h, w), 2.8, np.float32)
    evidence = evidence_of(residual, weight=0.001)
    pool_evidence(evidence, lambda i: image, still(image), MaskConfig())
    assert motion_probability(evidence, MaskConfig()).max() < 0.3


def test_a_small_object_is_not_averaged_away_by_the_even_scene_around_it():
    n, h, w = 5, 90, 160
    image = np.full((h, w, 3), 150, np.uint8)
    image[40:46, 70:80] = (160, 150, 150)  # a car in haze, of nearly the same colour
    residual = np.full((n, h, w), 0.2, np.float32)
    residual[:, 40:46, 70:80] = 3.0
    found = motion_probability(pooled(residual, image, MaskConfig()), MaskConfig(colour_contrast=0.0))
    assert found[:, 42:44, 73:77].min() > 0.5
    assert found[:, :30].max() < 0.1


def test_agreement_within_a_large_uncertainty_says_little_and_contradiction_says_something():
    residual = np.array([[0.5, 1.75, 3.0]], np.float32)
    np.testing.assert_allclose(
        residual_weight(residual, np.full_like(residual, 0.01)), [[0.01, SURPRISE / 2, SURPRISE]], atol=1e-6
    )
    np.testing.assert_array_equal(residual_weight(residual, np.ones_like(residual)), 1.0)
    np.testing.assert_array_equal(residual_weight(np.zeros((1, 1), np.float32), None), 0.0)


def test_smoothing_averages_where_the_image_is_even_and_not_over_an_edge():
    guide = np.zeros((40, 60, 1), np.float32)
    guide[:, 30:] = 1.0
    noisy = np.random.default_rng(0).normal(0, 1, (40, 60)).astype(np.float32)
    noisy[:, 30:] += 10
    smooth = smooth_within_edges(noisy, guide, reach_px=10.0, contrast=0.05)
    assert smooth[:, :30].std() < 0.3
    assert abs(smooth[20, 29]) < 1.0
    assert abs(smooth[20, 30] - 10) < 1.0
    even = smooth_within_edges(noisy, np.zeros_like(guide), reach_px=10.0, contrast=0.05)
    assert 3 < even[20, 29] < 7  # without the edge, both sides mix


def test_smoothing_leaves_a_constant_alone():
    guide = np.random.default_rng(0).uniform(size=(20, 30, 3)).astype(np.float32)
    smooth = smooth_within_edges(np.full((20, 30), 0.7, np.float32), guide, 5.0, 0.3)
    np.testing.assert_allclose(smooth, 0.7, atol=1e-5)


def test_the_grid_gives_each_colour_its_own_mean():
    image = np.zeros((36, 64, 3), np.uint8)
    image[:, :32] = (200, 30, 30)
    image[:, 32:] = (30, 30, 200)
    values = np.zeros((3, 36, 64, 2), np.float32)
    values[:, ::2, :32, 0] = 1.0  # every second row of the red half
    values[..., 1] = 0.25
    grid = AppearanceGrid(3, (36, 64))
    grid.fill(values, lambda i: image)
    found = grid.look_up(1, image)
    np.testing.assert_allclose(found[0, 4:-4, :32], 0.5, atol=0.1)
    np.testing.assert_allclose(found[0, :, 32:], 0.0, atol=1e-6)
    np.testing.assert_allclose(found[1], 0.25, atol=1e-6)


def test_pooling_fills_the_object_and_removes_specks():
    n, h, w = 5, 60, 80
    image = np.full((h, w, 3), 120, np.uint8)
    image[20:40, 30:60] = (220, 40, 40)
    truth = np.zeros((h, w), bool)
    truth[20:40, 30:60] = True
    rng = np.random.default_rng(0)
    evidence = np.where(truth, rng.random((n, h, w)) < 0.8, rng.random((n, h, w)) < 0.1).astype(np.float32) * 3.25
    alone = evidence[0] > 1.95
    assert (alone & truth).sum() / (alone | truth).sum() < 0.6  # it is not easy
    found = motion_probability(pooled(evidence, image, MaskConfig()), MaskConfig())
    moving = found > 0.5
    overlap = (moving & truth).sum(axis=(1, 2)) / (moving | truth).sum(axis=(1, 2))
    assert overlap.min() > 0.87


def test_an_object_that_moves_slowly_but_steadily_is_found_where_each_frame_alone_says_no():
    n, h, w = 9, 40, 60
    image = np.full((h, w, 3), 120, np.uint8)
    image[10:30, 20:40] = (40, 40, 220)
    rng = np.random.default_rng(0)
    evidence = np.full((n, h, w), 0.6, np.float32)
    evidence[:, 10:30, 20:40] = 2.17
    evidence += rng.normal(0, 0.6, evidence.shape).astype(np.float32)
    assert 0.4 < (evidence[4, 10:30, 20:40] > 1.95).mean() < 0.75
    filtered = pooled(evidence, image, MaskConfig())
    assert (motion_probability(filtered, MaskConfig())[4, 12:28, 22:38] > 0.5).all()
    assert (filtered.residual[4, :8] < 1.0).all()
