"""Evidence of motion: the threshold, the smoothing that stops at edges, the appearance grid, the whole cleaning."""

import numpy as np
import pytest

from das3r_ns.predictor.appearance import AppearanceGrid
from das3r_ns.predictor.edge_aware import smooth_within_edges
from das3r_ns.predictor.flow import FlowBetweenFrames
from das3r_ns.predictor.masks import MaskConfig, clean_masks, motion_probability


def test_the_residual_at_the_threshold_is_as_likely_to_move_as_not_and_no_view_means_static():
    config = MaskConfig(threshold=2.0, median_px=1)
    residual = np.array([[2.0, 0.0, 3.0, np.nan]], np.float32)
    probability = motion_probability(residual, config)
    assert probability[0, 0] == pytest.approx(0.5)
    assert probability[0, 1] < 0.01
    assert probability[0, 2] > 0.95
    assert probability[0, 3] < 0.01


def test_smoothing_averages_where_the_picture_is_even_and_not_over_an_edge():
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
    picture = np.zeros((36, 64, 3), np.uint8)
    picture[:, :32] = (200, 30, 30)
    picture[:, 32:] = (30, 30, 200)
    values = np.zeros((3, 36, 64), np.float32)
    values[:, ::2, :32] = 1.0  # every second row of the red half
    grid = AppearanceGrid(3, (36, 64))
    grid.fill(values, lambda i: picture)
    found = grid.look_up(1, picture)
    np.testing.assert_allclose(found[4:-4, :32], 0.5, atol=0.1)
    np.testing.assert_allclose(found[:, 32:], 0.0, atol=1e-6)


def test_cleaning_fills_the_thing_and_removes_specks():
    n, h, w = 5, 60, 80
    picture = np.full((h, w, 3), 120, np.uint8)
    picture[20:40, 30:60] = (220, 40, 40)
    truth = np.zeros((h, w), bool)
    truth[20:40, 30:60] = True
    rng = np.random.default_rng(0)
    evidence = np.where(truth, rng.random((n, h, w)) < 0.7, rng.random((n, h, w)) < 0.1).astype(np.float32)
    still = FlowBetweenFrames(lambda i: picture, (h, w), lambda a, b: np.zeros((h, w, 2), np.float32))
    cleaned = clean_masks(evidence, lambda i: picture, still, MaskConfig())
    found = cleaned > 0.5
    overlap = (found & truth).sum() / (found | truth).sum(axis=(1, 2)).mean() / n
    assert overlap > 0.9
    assert ((evidence[0] > 0.5) & truth).sum() / ((evidence[0] > 0.5) | truth).sum() < 0.6  # it was not easy
