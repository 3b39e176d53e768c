"""Radial distortion: where undistorted pixels were filmed, checked against the polynomial written down by hand."""

import numpy as np
import pytest
import torch

from das3r_ns.scene import RadialLens

BARREL = RadialLens(focal_px=100.0, cx=80.0, cy=45.0, k1=-0.2, k2=0.03)


def filmed_image(lens: RadialLens, height: int, width: int) -> np.ndarray:
    """What the lens shows of a scene whose colour is a smooth function of the direction, found by bisection."""
    v, u = np.mgrid[:height, :width] + 0.5
    x, y = (u - lens.cx) / lens.focal_px, (v - lens.cy) / lens.focal_px
    distorted = np.hypot(x, y)
    low, high = np.zeros_like(distorted), np.full_like(distorted, 1.6)
    for _ in range(50):
        r = (low + high) / 2
        beyond = r * (1 + lens.k1 * r**2 + lens.k2 * r**4) > distorted
        low, high = np.where(beyond, low, r), np.where(beyond, r, high)
    scale = low / np.maximum(distorted, 1e-9)
    return colour(x * scale, y * scale)


def colour(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack((127 + 100 * np.sin(6 * x), 127 + 100 * np.cos(5 * y), 127 + 90 * np.sin(4 * (x + y))), axis=-1)


def straight_image(lens: RadialLens, height: int, width: int) -> np.ndarray:
    v, u = np.mgrid[:height, :width] + 0.5
    return colour((u - lens.cx) / lens.focal_px, (v - lens.cy) / lens.focal_px)


@pytest.mark.parametrize("lens", [BARREL, RadialLens(100.0, 80.0, 45.0, 0.1), RadialLens(100.0, 75.0, 50.0, -0.1)])
def test_an_undistorted_image_is_what_a_pinhole_of_the_same_focal_length_sees(lens: RadialLens):
    frames = torch.from_numpy(filmed_image(lens, 90, 160).round().astype(np.uint8))[None]
    straight = lens.undistort_frames(frames)[0].numpy()
    difference = np.abs(straight - straight_image(lens, 90, 160)).max(axis=-1)
    assert difference[lens.filmed(90, 160)].max() < 3


def test_a_barrel_fills_the_image_and_a_pincushion_leaves_a_border():
    assert BARREL.filmed(90, 160).all()
    filmed = RadialLens(100.0, 80.0, 45.0, 0.1).filmed(90, 160)
    # In the middle of the upper border r = 0.45, so that the lens shows it 0.45 * 0.45^2 * 0.1 * 100 = 0.9 px beyond.
    assert not filmed[0, 80]
    assert filmed[1, 80]
    assert not filmed[0, 0]


def test_maps_say_what_is_beyond_the_border():
    lens = RadialLens(100.0, 80.0, 45.0, 0.1)
    maps = lens.undistort_maps(torch.zeros(2, 90, 160), beyond=1.0)
    np.testing.assert_array_equal(maps[1].numpy() == 1, ~lens.filmed(90, 160))


def test_a_lens_follows_its_image_when_that_is_resized_or_gets_a_border():
    half = BARREL.resized(0.5)
    assert (half.focal_px, half.cx, half.cy, half.k1, half.k2) == (50.0, 40.0, 22.5, -0.2, 0.03)
    large, small = filmed_image(BARREL, 90, 160), filmed_image(half, 45, 80)
    np.testing.assert_allclose(large.reshape(45, 2, 80, 2, 3).mean(axis=(1, 3)), small, atol=2)
    moved = BARREL.shifted(right=4.0, down=6.0)
    assert (moved.cx, moved.cy, moved.focal_px) == (84.0, 51.0, 100.0)
    assert "barrel" in str(BARREL)
    assert "k1 -0.200" in str(BARREL)
