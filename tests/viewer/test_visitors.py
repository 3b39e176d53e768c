"""Where a visitor stands and how wide the window looks; how large and of which colour the frames in the scene are."""

import math

import numpy as np
import pytest

from das3r_ns.scene.trust import (
    DISTRUSTED_RGB,
    HALF_TRUSTED_RGB,
    NO_RECORD_RGB,
    TRUSTED_RGB,
    colour_of_trust,
    trust_of_frames,
)
from das3r_ns.viewer.frusta import frustum_size
from das3r_ns.viewer.visitors import MAX_FOV, covering_fov

K = np.array([[100.0, 0, 80], [0, 100.0, 45], [0, 0, 1]])


def test_a_window_of_the_frames_shape_sees_the_whole_frame():
    assert covering_fov((90, 160), K, 160 / 90) == pytest.approx(2 * math.atan(0.45))


@pytest.mark.parametrize("aspect", [0.4, 1.0, 16 / 9, 3.0])
def test_no_window_sees_beyond_the_frame_and_one_side_is_filled(aspect):
    half_height = math.tan(covering_fov((90, 160), K, aspect) / 2)
    across, down = half_height * aspect / 0.8, half_height / 0.45
    assert across <= 1 + 1e-9
    assert down <= 1 + 1e-9
    assert max(across, down) == pytest.approx(1)


def test_a_principal_point_off_the_middle_narrows_the_view():
    off = K.copy()
    off[1, 2] = 30
    assert covering_fov((90, 160), off, 0.5) == pytest.approx(2 * math.atan(0.3))


def test_a_fisheye_is_not_opened_beyond_what_a_window_can_show():
    wide = np.array([[10.0, 0, 80], [0, 10.0, 45], [0, 0, 1]])
    assert covering_fov((90, 160), wide, 1.0) == MAX_FOV


def test_frusta_are_as_large_as_their_distance_within_shares_of_the_depth():
    path = np.zeros((9, 3))
    path[:, 0] = np.arange(9) * 0.02
    assert frustum_size(path, depth=1.0) == pytest.approx(0.03)
    assert frustum_size(np.zeros((9, 3)), depth=2.0) == pytest.approx(0.02)  # a tripod
    assert frustum_size(path * 100, depth=1.0) == pytest.approx(0.05)
    assert frustum_size(path[:1], depth=1.0) == pytest.approx(0.01)  # a single frame


def test_colours_follow_trust():
    assert colour_of_trust(1.0) == TRUSTED_RGB
    assert colour_of_trust(0.5) == HALF_TRUSTED_RGB
    assert colour_of_trust(0.0) == colour_of_trust(-3.0) == DISTRUSTED_RGB
    assert colour_of_trust(None) == NO_RECORD_RGB
    assert colour_of_trust(0.75) == (152, 185, 75)


@pytest.mark.parametrize(
    ("said", "trust"),
    [
        ({"quality": {"frames": {"trust": [1, 0.5]}}}, [1.0, 0.5]),
        ({"quality": {"frames": {"trust": [1, None]}}}, [1.0, None]),
        ({"quality": {"frames": {"trust": [1]}}}, [None, None]),
        ({"quality": None}, [None, None]),
        ({"quality": ["x"]}, [None, None]),
        ({}, [None, None]),
    ],
)
def test_trust_is_what_the_record_says_of_every_frame_or_nothing(said, trust):
    assert trust_of_frames(said, 2) == trust
