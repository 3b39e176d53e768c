"""What stands out: barriers counted by hand, trust, and an object that only its depth or its motion tells apart."""

import numpy as np
import pytest

from das3r_ns.predictor.depth.inverse_depth import InverseDepth
from das3r_ns.predictor.masks.saliency_cues import (
    barrier_to_border,
    border_strips,
    contrasts,
    floating,
    log_odds,
    trust,
)

H, W = 36, 48
OBJECT = (slice(12, 24), slice(16, 32))


def fit_with(signed, velocity):
    flat = np.ones((H, W), np.float32)
    return InverseDepth(np.maximum(signed, 0), flat, flat, flat, flat, signed, velocity)


def test_the_barrier_is_the_least_that_must_be_crossed_on_the_way_to_the_border():
    values = np.zeros((7, 9), np.float32)
    values[2:5, 3:6] = 3.0  # a wall around the middle
    values[3, 4] = 1.0
    distance = barrier_to_border(values)
    assert distance[0, 0] == 0
    assert distance[2, 3] == 3.0
    assert distance[3, 4] == 3.0  # out over the wall: between 0 and 3
    values[4, 4] = 2.0  # a lower place in the wall
    assert barrier_to_border(values)[3, 4] == 2.0


def test_what_touches_the_border_does_not_stand_out():
    values = np.zeros((20, 30), np.float32)
    values[10:, 5:15] = 5.0
    np.testing.assert_array_equal(barrier_to_border(values)[10:, 5:15], 0.0)


def test_each_cue_sees_the_object_that_differs_in_it():
    grey = np.full((H, W, 3), 120, np.uint8)
    red = grey.copy()
    red[OBJECT] = (220, 40, 40)
    near, still = np.ones((H, W), np.float32), np.zeros((2, H, W), np.float32)
    behind, moves = near.copy(), still.copy()
    behind[OBJECT] = -1.0  # beyond infinity; the surroundings are at d / (d + median) = 1/2, it at -1/2
    moves[0][OBJECT] = 0.8
    colour = contrasts(red, fit_with(near, still))
    depth = contrasts(grey, fit_with(behind, still))
    motion = contrasts(grey, fit_with(near, moves))
    inside = (slice(16, 20), slice(22, 26))
    assert colour[inside][..., 0].min() > 0.9
    assert depth[inside][..., 1].min() > 0.7
    assert motion[inside][..., 2].min() > 0.55
    for found in (colour, depth, motion):
        assert found[:6].max() < 0.1
    assert colour[inside][..., 1:].max() < 0.1


def test_what_hangs_before_the_scene_floats_and_what_stands_on_the_ground_does_not():
    grey, still = np.full((H, W, 3), 120, np.uint8), np.zeros((2, H, W), np.float32)
    wall = np.ones((H, W), np.float32)
    # Ground from the height of the object's foot down: its inverse depth grows towards the camera, beside it too.
    ground = wall.copy()
    ground[20:] = np.linspace(1, 12, H - 20, dtype=np.float32)[:, None]

    def floats(inverse_depth: np.ndarray) -> np.ndarray:
        return floating(contrasts(grey, fit_with(inverse_depth, still))[..., 1][None])[0]

    hanging, standing, near = wall.copy(), ground.copy(), wall.copy()
    hanging[OBJECT] = 12.0
    standing[8:30, 18:30] = ground[29, 0]  # meets the ground where it is as near as the object
    near[OBJECT] = 3.0
    assert floats(hanging)[16:20, 22:26].min() > 0.1
    assert floats(standing).max() == 0
    assert floats(near).max() == 0  # a little nearer is nothing unusual


def test_trust_is_the_share_of_what_stands_out_that_moves():
    moving = np.full((3, 10, 10), -8.0, np.float32)
    moving[:, :, :4] = 8.0
    outstanding = np.ones((3, 10, 10), np.float32)
    np.testing.assert_allclose(trust(moving, outstanding), 0.4, atol=0.01)
    assert trust(moving, np.full_like(outstanding, 0.01)).max() < 0.02  # next to nothing stands out


def test_trust_belongs_to_its_time():
    moving = np.full((121, 6, 6), -8.0, np.float32)
    moving[:60] = 8.0
    found = trust(moving, np.ones_like(moving))[:, 0, 0]
    assert found[0] > 0.95
    assert found[120] < 0.05
    assert found[60] == pytest.approx(0.5, abs=0.05)


def test_log_odds_are_capped():
    np.testing.assert_allclose(log_odds(np.array([0.0, 0.5, 1.0], np.float32), 0.05), [-2.944, 0.0, 2.944], atol=1e-3)


def test_border_strips_hold_the_border_alone_but_for_the_outermost_pixels():
    maps = np.zeros((2, 12, 14), np.float32)
    maps[:, 4:8, 4:8] = 20.0
    maps[:, 0] = maps[:, -1] = 20.0
    assert border_strips(maps).shape == (2, 2 * (12 + 14))
    np.testing.assert_array_equal(border_strips(maps)[:, : 2 * 14], 0.0)
    maps[:, :, 2] = 1.0
    assert border_strips(maps)[0, 28:40].sum() >= 10
