"""Depth of points that most targets agree about."""

import numpy as np
import pytest

from das3r_ns.predictor.cameras.sfm.depth_kernel import search_depth

FOCAL, CX, CY = 100.0, 80.0, 60.0


def search(t: np.ndarray, rho_seen: np.ndarray, pixel=(30.0, 25.0), away: float = 0.0) -> tuple[float, float]:
    """One point, and targets that only shift by t [k 3] and see it where it would be at the inverse depths given."""
    ray = np.array([(pixel[0] - CX) / FOCAL, (pixel[1] - CY) / FOCAL, 1.0])
    at = ray + rho_seen[:, None] * t
    observed = at[:, :2] / at[:, 2:] * FOCAL + [CX, CY]
    observed[:, 1] += away
    T = np.zeros((len(t), 3, 4))
    T[:, :, :3], T[:, :, 3] = np.eye(3), t
    found, within = np.zeros(1), np.zeros(1)
    search_depth(
        T,
        FOCAL,
        CX,
        CY,
        np.array([pixel]),
        observed[:, None],
        np.ones((len(t), 1)),
        np.full(len(t), 0.5),
        found,
        within,
    )
    return found[0], within[0]


SHIFTS = np.array([[0.3, 0.1, 0.4], [-0.2, 0.3, 0.5], [0.4, -0.3, -0.3]])


def test_exact_targets_give_the_exact_depth():
    assert search(SHIFTS, np.full(3, 0.5)) == (pytest.approx(0.5, abs=1e-6), 3.0)


def test_the_depth_of_most_wins_over_one_that_is_nearer_to_infinity():
    rho, within = search(SHIFTS, np.array([0.5, 0.02, 0.5]))
    assert rho == pytest.approx(0.5, abs=1e-3)
    assert within == 2.0


def test_what_does_not_move_is_at_infinity_and_never_behind():
    assert search(SHIFTS, np.zeros(3))[0] == pytest.approx(0.0, abs=1e-9)
    assert search(SHIFTS, np.full(3, -0.3))[0] == 0.0


def test_targets_beyond_the_tolerance_do_not_count():
    assert search(SHIFTS, np.full(3, 0.5), away=40.0)[1] == 0.0
