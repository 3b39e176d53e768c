"""Depth from outside, against a true depth that triangulation sees with a known noise."""

import numpy as np
import torch

from das3r_ns.predictor.base import DepthPrior
from das3r_ns.predictor.depth.prior import align_depth, at_size, join_depth

N, SIZE = 5, (40, 60)


def scene(noise: float = 0.05) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True depth, what was triangulated, and its confidence (1 / relative noise)."""
    rng = np.random.default_rng(0)
    true = np.broadcast_to(2 + np.linspace(0, 3, SIZE[1]), (N, *SIZE)).astype(np.float32)
    own = true * np.exp(rng.normal(0, noise, true.shape)).astype(np.float32)
    return true, own, np.full(true.shape, 1 / noise, np.float32)


def prior_of(depth: np.ndarray, confidence: np.ndarray | None = None) -> DepthPrior:
    values = torch.from_numpy(np.ascontiguousarray(depth, np.float32))
    certain = (values > 0).float() if confidence is None else torch.from_numpy(confidence.astype(np.float32))
    return DepthPrior(values, certain, "a test")


def test_one_scale_of_the_clip_is_found_whatever_moves(capsys):
    true, own, confidence = scene()
    own[:, :20, :25] *= 1.7  # what moves along the epipolar lines
    aligned = align_depth(prior_of(true / 3.3), own, confidence)
    assert np.abs(aligned.scale / 3.3 - 1).max() < 0.01
    assert np.ptp(aligned.scale) == 0
    assert "multiplied by 3.3" in capsys.readouterr().out


def test_depth_in_the_units_of_the_cameras_is_left_as_it_is(capsys):
    true, own, confidence = scene()
    aligned = align_depth(prior_of(true), own, confidence)
    assert (aligned.scale == 1).all()
    assert (aligned.depth == true).all()
    assert capsys.readouterr().out == ""


def test_each_frame_has_its_scale_where_they_differ(capsys):
    true, own, confidence = scene()
    scales = np.array([1, 1, 1.5, 1.5, 1.5], np.float32)
    confidence[4] = 0  # of which nothing is triangulated: that of its neighbour
    aligned = align_depth(prior_of(true / scales[:, None, None]), own, confidence)
    assert np.abs(aligned.scale / scales - 1).max() < 0.01
    assert "differs from frame to frame" in capsys.readouterr().out


def test_the_noise_of_each_level_of_confidence_is_measured():
    true, own, confidence = scene(0.02)
    rng = np.random.default_rng(1)
    certain = np.where(np.arange(SIZE[0])[:, None] < 20, 0.9, 0.3) * np.ones((N, *SIZE))
    std = np.where(certain > 0.5, 0.03, 0.15)
    aligned = align_depth(prior_of(true * np.exp(rng.normal(0, std)), certain), own, confidence)
    assert np.abs(aligned.std[:, :20] / 0.03 - 1).max() < 0.15
    assert np.abs(aligned.std[:, 20:] / 0.15 - 1).max() < 0.15


def test_the_mean_of_both_is_better_than_either_and_outliers_of_either_do_no_harm():
    true, own, confidence = scene(0.05)
    rng = np.random.default_rng(2)
    given = true * np.exp(rng.normal(0, 0.05, true.shape))
    aligned = align_depth(prior_of(given), own, confidence)
    depth, sure = own.copy(), confidence.copy()
    join_depth(aligned, depth, sure)
    error = np.sqrt(np.mean(np.log(depth / true) ** 2))
    assert error < 0.75 * 0.05
    assert np.median(sure) > 1.25 * np.median(confidence)
    outliers = rng.random(true.shape) < 0.1
    coarse = align_depth(
        prior_of(np.where(outliers, 4 * given, given * np.exp(rng.normal(0, 0.1, true.shape)))), own, confidence
    )
    depth, sure = own.copy(), confidence.copy()
    join_depth(coarse, depth, sure)
    assert np.abs(np.log(depth / true))[outliers].max() < 0.3
    assert np.median(sure[outliers]) < np.median(sure[~outliers])


def test_triangulated_depth_that_is_better_than_it_states_is_not_spoilt():
    true, own, confidence = scene(0.005)
    confidence = confidence / 8  # it states 4 %
    rng = np.random.default_rng(3)
    aligned = align_depth(prior_of(true * np.exp(rng.normal(0, 0.05, true.shape))), own, confidence)
    depth, sure = own.copy(), confidence.copy()
    join_depth(aligned, depth, sure)
    assert np.sqrt(np.mean(np.log(depth / true) ** 2)) < 1.6 * 0.005
    assert (sure >= confidence).mean() > 0.95


def test_a_prior_fills_what_was_not_triangulated():
    true, own, confidence = scene()
    own[:, :, 30:], confidence[:, :, 30:] = 0, 0
    given = true.copy()
    given[:, 30:] = 0
    depth, sure = own.copy(), confidence.copy()
    join_depth(align_depth(prior_of(given), own, confidence), depth, sure)
    assert np.allclose(depth[:, :30, 30:], true[:, :30, 30:])
    assert (depth[:, 30:, 30:] == 0).all()
    assert (sure[:, 30:, 30:] == 0).all()
    assert (sure[:, :30] > 0).all()


def test_nothing_to_compare_with_leaves_it_as_it_is(capsys):
    true, own, confidence = scene()
    aligned = align_depth(prior_of(true), np.zeros_like(own), np.zeros_like(confidence))
    assert (aligned.depth == true).all()
    assert "nothing could be triangulated" in capsys.readouterr().out


def test_maps_are_read_at_the_centres_of_pixels():
    values = np.arange(24, dtype=np.float32).reshape(1, 4, 6)
    assert at_size(values, (2, 3)).tolist() == [[[7, 9, 11], [19, 21, 23]]]
    assert at_size(values, (4, 6)).tolist() == values.tolist()
