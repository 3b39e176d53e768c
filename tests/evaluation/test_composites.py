"""Composites of real footage (benchmarks/composites.py): what is laid where, and that truth and images agree."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import composites

from das3r_ns.datasets import read_truth_folder


@pytest.fixture
def clips(tmp_path) -> Path:
    """A walk of 24 even frames that grow brighter, and a sequence whose object is a red square on black."""
    walk, davis = tmp_path / "clips" / "walk", tmp_path / "clips" / "davis" / "square"
    walk.mkdir(parents=True)
    video = cv2.VideoWriter(str(walk / "walk.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 30, (160, 120))
    for i in range(24):
        video.write(np.full((120, 160, 3), 20 + 8 * i, np.uint8))
    video.release()
    T = np.tile(np.eye(4), (24, 1, 1))
    T[:, 0, 3] = np.arange(24)
    np.savetxt(walk / "T_world_camera.txt", T.reshape(-1, 16))
    for name in ("images", "dynamic_masks"):
        (davis / name).mkdir(parents=True)
        for i in range(3):
            image = np.zeros((90, 160, 3), np.uint8)
            image[30:60, 40 + 5 * i : 70 + 5 * i] = (0, 0, 255) if name == "images" else 255
            cv2.imwrite(str(davis / name / f"{i}.png"), image if name == "images" else image[..., 0])
    return tmp_path / "clips"


def test_there_and_back():
    assert composites.there_and_back(np.arange(8), 4).tolist() == [0, 1, 2, 3, 2, 1, 0, 1]
    assert composites.there_and_back(np.arange(3), 1).tolist() == [0, 0, 0]


def test_an_object_lies_over_every_fourth_frame_of_the_walk(tmp_path, clips):
    options = composites.Options(clips, tmp_path, fast="square", num_frames=8)
    composites.make("fast", options, _empty(tmp_path / "fast"))
    clip = read_truth_folder(tmp_path / "fast")
    assert clip.T_world_camera is not None
    assert clip.K is not None
    assert clip.dynamic_mask is not None
    assert clip.T_world_camera[:, 0, 3].tolist() == [0, 4, 8, 12, 16, 20, 22, 18]
    assert float(clip.K[0, 0, 0]) == 525 * 160 / 640
    image = cv2.imread(str(tmp_path / "fast" / "images" / "00001.png"))
    mask = clip.dynamic_mask(1).numpy()
    assert mask.sum() == 30 * 30
    assert mask[60:90, 45:75].all()  # the frame stands on the lower edge: 30 rows lower
    assert np.abs(image[mask].astype(int) - (0, 0, 255)).max() <= 1
    assert np.abs(image[~mask].astype(int) - (20 + 8 * 4)).max() <= 6  # as the video's codec has it


def test_a_far_object_is_a_third_as_large(tmp_path, clips):
    composites.make("far", composites.Options(clips, tmp_path, far="square", num_frames=2), _empty(tmp_path / "far"))
    mask = cv2.imread(str(tmp_path / "far" / "dynamic_masks" / "00000.png"), cv2.IMREAD_GRAYSCALE)
    assert mask.astype(bool).sum() == pytest.approx(100, rel=0.15)


def test_a_crop_has_the_field_of_view_that_it_says(tmp_path, clips):
    ramp = np.tile(np.arange(160, dtype=np.uint8), (120, 1))[..., None].repeat(3, axis=2)
    narrow = composites.narrowed(ramp)[60, :, 0].astype(float)
    per_pixel = np.polyfit(np.arange(160), narrow, 1)[0]
    assert 1 / per_pixel == pytest.approx(composites.narrow_factor(160), rel=1e-2)
    assert narrow.mean() == pytest.approx(ramp[60, :, 0].mean(), abs=0.5)  # around the middle
    composites.make(
        "narrow", composites.Options(clips, tmp_path, narrow="square", num_frames=2), _empty(tmp_path / "n")
    )
    K = np.loadtxt(tmp_path / "n" / "K.txt")
    assert np.degrees(2 * np.arctan(80 / K[0, 0])) == pytest.approx(composites.NARROW_DEG)


def test_the_return_goes_over_the_walk_four_times_with_movers(tmp_path, clips):
    composites.make("return", composites.Options(clips, tmp_path, return_frames=9), _empty(tmp_path / "return"))
    x = np.loadtxt(tmp_path / "return" / "T_world_camera.txt").reshape(-1, 4, 4)[:, 0, 3]
    assert x.tolist() == [0, 12, 23, 12, 0, 12, 23, 11, 0] or x[[0, 2, 4, 6, 8]].tolist() == [0, 23, 0, 23, 0]
    masks = [cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) > 0 for p in (tmp_path / "return" / "dynamic_masks").iterdir()]
    assert 0.01 < np.mean(masks) < 0.5


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder
