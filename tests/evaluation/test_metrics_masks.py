"""J and F against masks whose scores can be counted by hand, and against plain references."""

import numpy as np
import pytest
import torch

from das3r_ns.evaluation.metrics import boundary_f, calibration_counts, jaccard, mask_scores, pair_masks_per_frame
from das3r_ns.evaluation.metrics.masks import outline


def _square(top: int, left: int, side: int, size: tuple[int, int] = (60, 80)) -> torch.Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_two_squares_that_share_a_half_have_j_of_one_third():
    a, b = _square(10, 10, 20), _square(10, 20, 20)  # 400 pixels each, 200 shared, 600 together
    assert jaccard(a[None], b[None]).tolist() == pytest.approx([200 / 600])


def test_two_empty_masks_agree_and_an_empty_one_against_an_object_does_not():
    empty, full = torch.zeros(1, 8, 8, dtype=torch.bool), torch.ones(1, 8, 8, dtype=torch.bool)
    assert jaccard(empty, empty).tolist() == [1.0]
    assert jaccard(empty, full).tolist() == [0.0]
    assert boundary_f(empty, empty).tolist() == [1.0]
    assert boundary_f(empty, _square(2, 2, 3, (8, 8))[None]).tolist() == [0.0]


def test_what_is_missed_and_what_is_a_false_alarm_are_told_apart():
    truth = torch.zeros(3, 2, 4, dtype=torch.bool)
    truth[:2, :, :2] = True  # 4 of 8 pixels move; in the last frame none
    predicted = torch.zeros_like(truth)
    predicted[0, 0, :3] = True  # 2 of 4 found, 1 of 4 false
    predicted[2, 0, 0] = True
    scores = mask_scores(predicted, truth)
    assert scores.moving_marked[:2].tolist() == [0.5, 0.0]
    assert scores.moving_marked[2].isnan()
    assert scores.static_marked.tolist() == [0.25, 0.0, 0.125]
    assert scores.moving_marked_mean == 0.25
    assert scores.static_marked_mean == pytest.approx(0.125)


def test_calibration_counts_pixels_and_moving_ones_by_their_probability():
    probability = torch.tensor([[0.0, 0.05, 0.1, 0.85, 0.85, 1.0]])
    truth = torch.tensor([[False, True, False, True, False, True]])
    pixels, moving, total = calibration_counts(probability, truth)
    assert pixels.tolist() == [2, 1, 0, 0, 0, 0, 0, 0, 2, 1]
    assert moving.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    np.testing.assert_allclose(total, [0.05, 0.1, 0, 0, 0, 0, 0, 0, 1.7, 1.0], atol=1e-6)


def test_recall_counts_the_frames_above_one_half_and_not_those_at_it():
    truth = torch.zeros(4, 1, 4, dtype=torch.bool)
    truth[:, 0, :2] = True
    predicted = truth.clone()
    predicted[1, 0, 1] = False  # J = 1/2 exactly: not above
    predicted[2] = ~truth[2]  # J = 0
    scores = mask_scores(predicted, truth)
    assert scores.j.tolist() == [1.0, 0.5, 0.0, 1.0]
    assert scores.j_recall == 0.5
    assert scores.j_mean == pytest.approx(2.5 / 4)


def test_the_outline_of_a_square_is_its_right_and_lower_rim_and_the_pixels_before_its_left_and_upper_one():
    drawn = outline(_square(2, 2, 2, (6, 6)).numpy())
    expected = np.array(
        [
            [0, 0, 0, 0, 0, 0],
            [0, 1, 1, 1, 0, 0],
            [0, 1, 0, 1, 0, 0],
            [0, 1, 1, 1, 0, 0],
            [0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0],
        ]
    )
    np.testing.assert_array_equal(drawn, expected)


def test_an_object_that_touches_the_edge_has_no_outline_there():
    full_width = torch.zeros(8, 8, dtype=torch.bool)
    full_width[:, 5:] = True
    assert outline(full_width.numpy()).sum() == 8  # one column, none along the image's edge


def test_f_forgives_a_shift_within_the_tolerance_and_not_one_beyond():
    # Diagonal of 60 x 80 is 100, so the tolerance is ceil(0.8) = 1 pixel.
    truth = _square(20, 20, 20)[None]
    assert boundary_f(_square(20, 21, 20)[None], truth).item() == 1.0
    # Shifted by 3: of the 82 outline pixels of either square, those of the two upright sides lie 3 from the other's,
    # and only the stretches along the level sides still match.
    assert 0.3 < boundary_f(_square(20, 23, 20)[None], truth).item() < 0.6
    assert boundary_f(_square(20, 60, 15)[None], truth).item() == 0.0


def test_j_agrees_with_scikit_learn_and_f_with_euclidean_distances_of_scipy():
    from scipy.ndimage import distance_transform_edt, gaussian_filter
    from sklearn.metrics import jaccard_score

    rng = np.random.default_rng(3)
    height, width = 120, 200
    masks = np.stack([gaussian_filter(rng.standard_normal((height, width)), 9) > 0.01 for _ in range(6)])
    predicted, truth = masks[:3], masks[3:]
    j = jaccard(torch.from_numpy(predicted), torch.from_numpy(truth))
    f = boundary_f(torch.from_numpy(predicted), torch.from_numpy(truth))
    radius = np.ceil(0.008 * np.hypot(height, width))
    for i in range(3):
        assert float(j[i]) == pytest.approx(jaccard_score(truth[i].ravel(), predicted[i].ravel()), abs=1e-12)
        a, b = outline(predicted[i]).astype(bool), outline(truth[i]).astype(bool)
        precision = (distance_transform_edt(~b)[a] <= radius).mean()
        recall = (distance_transform_edt(~a)[b] <= radius).mean()
        assert float(f[i]) == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-12)


def test_masks_of_pairs_become_masks_of_frames_as_in_the_reference(data):
    z = np.load(data / "losses.npz")
    mean, maximum = pair_masks_per_frame(
        torch.from_numpy(z["dyna/edges"]), torch.from_numpy(z["dyna/mask_view1"]), num_frames=4
    )
    torch.testing.assert_close(mean, torch.from_numpy(z["dyna/avg"]))
    torch.testing.assert_close(maximum, torch.from_numpy(z["dyna/max"]))
    np.testing.assert_array_equal((mean > 0.5).numpy(), z["dyna/binary_avg_gt_0.5"])


def test_a_frame_that_no_pair_speaks_for_is_named():
    with pytest.raises(ValueError, match=r"frames \[1\] are the first view of no pair"):
        pair_masks_per_frame(torch.tensor([[0, 1], [2, 1]]), torch.zeros(2, 3, 3), num_frames=3)
