"""Preprocessing against recorded numbers, and the way back from network pixels to the clip's."""

from pathlib import Path

import numpy as np
import pytest
import torch

from das3r_ns.predictor.network.preprocess import framing, preprocess_frames


@pytest.fixture(scope="module")
def fixture(data: Path) -> dict[str, np.ndarray]:
    with np.load(data / "preprocess.npz") as stored:
        return dict(stored)


def test_sizes_are_the_recorded_ones(fixture):
    for width, height, out_width, out_height in fixture["size_table_long512"].tolist():
        assert framing((height, width)).size == (out_height, out_width), (width, height)


@pytest.mark.parametrize("case", range(5))
def test_pixels_are_exactly_the_recorded_ones(case, fixture):
    frames = torch.from_numpy(fixture[f"case{case}/input_rgb_u8"])[None]
    images, framed = preprocess_frames(frames, long_side=64)
    assert list(framed.size) == fixture[f"case{case}/true_shape"][0].tolist()
    # Equal up to the last bit of (x / 127.5 - 1), which the two ways of writing it round differently.
    torch.testing.assert_close(images, torch.from_numpy(fixture[f"case{case}/img"]), atol=1.2e-7, rtol=0)


def test_intrinsics_follow_the_resize_and_the_crop_and_come_back():
    framed = framing((436, 1024))  # resized to 218 x 512, then 5 rows cut off above and below
    assert (framed.resized, framed.offset, framed.size) == ((218, 512), (5, 0), (208, 512))
    K = torch.tensor([[1000.0, 0, 512], [0, 1000, 218], [0, 0, 1]])
    expected = torch.tensor([[500.0, 0, 256], [0, 500, 104], [0, 0, 1]])
    torch.testing.assert_close(framed.K_to_network(K), expected)
    torch.testing.assert_close(framed.K_to_image(framed.K_to_network(K)), K)


def test_maps_return_to_the_whole_image_with_unknown_borders():
    framed = framing((436, 1024))
    maps = torch.full((1, 208, 512), 2.0)
    padded = framed.pad(maps)
    assert padded.shape == (1, 218, 512)
    assert padded[0, :5].eq(0).all()
    assert padded[0, -5:].eq(0).all()
    assert framed.pad(maps, replicate=True).eq(2).all()
    image = torch.zeros(1, 436, 1024)
    image[:, :10] = 1  # exactly the rows that are cut off
    assert framed.crop(image).eq(0).all()


def test_a_strip_is_refused():
    with pytest.raises(ValueError, match="2000x40"):
        framing((40, 2000))
