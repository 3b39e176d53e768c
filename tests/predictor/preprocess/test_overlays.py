"""Bars, signs and words over a clip are told from the scene, left out, and put back as what no frame shows."""

import cv2
import numpy as np
import pytest
import torch

from das3r_ns import geometry
from das3r_ns.predictor.base import UserPriors
from das3r_ns.predictor.preprocess.overlays import (
    Overlays,
    _two_ways,
    find_overlays,
    priors_inside,
    remove_overlays,
    restore_full_frame,
)
from das3r_ns.predictor.seed_points import no_points
from das3r_ns.scene import Scene
from das3r_ns.video.clip import Clip

HEIGHT, WIDTH = 120, 160


def sliding(steps: list[tuple[int, int]], sky: int = 0) -> np.ndarray:
    """Frames cut out of one textured image, moved by (right, down) pixels; `sky` rows of it are of one dark grey."""
    texture = np.random.default_rng(0).uniform(0, 255, (60, 80, 3)).astype(np.float32)
    wall = cv2.resize(texture, (400, 300), interpolation=cv2.INTER_CUBIC).clip(40, 255).astype(np.uint8)
    wall[: 50 + sky] = 12
    return np.stack([wall[50 + v : 50 + v + HEIGHT, u : u + WIDTH] for u, v in steps])


def walking(**options) -> np.ndarray:
    return sliding([(5 * k, 2 * (k % 3)) for k in range(16)], **options)


def found(frames: np.ndarray) -> Overlays | None:
    return find_overlays(torch.from_numpy(frames))


def disk(alpha: float) -> np.ndarray:
    frames = walking()
    there = cv2.circle(np.zeros((HEIGHT, WIDTH, 1), np.float32), (130, 30), 14, (alpha,), -1)
    return (frames * (1 - there) + there * np.array([255, 30, 30])).astype(np.uint8)


def test_over_a_scene_that_moves_lies_nothing():
    assert found(walking()) is None


@pytest.mark.parametrize("alpha", [1.0, 0.6])
def test_a_sign_that_stays_is_found_whole_and_little_around_it(alpha):
    over = found(disk(alpha))
    assert over is not None
    assert not over.has_bars
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    radius = np.hypot(column - 130, row - 30)
    assert over.signs[radius <= 14].all()
    assert not over.signs[radius > 22].any()


def test_an_edge_along_which_the_camera_moves_is_no_sign():
    frames = sliding([(5 * k, 0) for k in range(16)])
    frames[:, 50:54] = 255
    assert found(frames) is None


def test_edges_of_one_direction_make_no_sign_and_those_of_two_do():
    line, corner = np.zeros((2, 40, 6), np.float32)
    line[:, :3] = 30  # across columns; a little noise along them
    line[:, 3:] = np.random.default_rng(0).normal(0, 2, (40, 3))
    corner[:20, :3] = corner[20:, 3:] = 30
    assert not _two_ways(line)
    assert _two_ways(corner)


def test_what_a_camera_keeps_in_the_middle_wavers_and_is_no_sign():
    frames = walking()
    for k, frame in enumerate(frames):
        cv2.circle(
            frame, (80 * 16 + 8 * (k % 3), 60 * 16), 14 * 16, (255, 30, 30), -1, cv2.LINE_AA, 4
        )  # by half a pixel
    assert found(frames) is None


def test_where_the_camera_stands_still_nothing_is_told_from_the_scene():
    noise = np.random.default_rng(1).normal(0, 2, (16, HEIGHT, WIDTH, 3))
    assert found((sliding([(0, 0)] * 16) + noise).clip(0, 255).astype(np.uint8)) is None


def test_bars_end_two_pixels_inside_the_scene():
    frames = walking()
    frames[:, :15] = frames[:, -12:] = 3
    over = found(frames)
    assert over is not None
    assert (over.rows, over.columns) == ((17, HEIGHT - 14), (0, WIDTH))
    assert str(over) == "bars, which leave 160x89 of 160x120 pixels"


def test_bars_are_cut_only_as_far_as_the_scene_is_out_of_the_middle():
    frames = walking()
    frames[:, :15] = frames[:, -12:] = 3
    over = found(frames)
    assert over is not None
    clip = remove_overlays(Clip(torch.from_numpy(frames), 10.0, tuple("abcdefghijklmnop")), over)
    assert torch.equal(clip.frames, torch.from_numpy(frames[:, 3:]))
    assert over.overlay_mask is not None
    assert over.overlay_mask[:14].all()
    assert over.overlay_mask[-14:].all()
    assert not over.overlay_mask[14:-14].any()


def test_an_even_border_that_is_not_black_and_a_black_one_that_is_not_even_are_no_bars():
    grey, dark = walking(), walking()
    grey[:, :15] = 60
    dark[:, :15] //= 10  # 4 to 25
    assert found(grey) is None
    assert found(dark) is None


def test_words_in_a_bar_leave_it_one():
    frames = walking()
    frames[:, :, :25] = 0
    for frame in frames:
        cv2.putText(frame, "TV", (3, 80), 0, 0.3, (255, 255, 255), 1)
    over = found(frames)
    assert over is not None
    assert over.columns == (27, WIDTH)
    assert over.overlay_mask is None  # all is cut off


def test_a_night_sky_without_a_sharp_border_is_no_bar():
    # Black enough for a bar down to row 28, then on as evenly to row 70, where the scene begins.
    dusk = (10 + np.arange(HEIGHT) / 2).astype(np.uint8)[:, None, None]
    assert found(np.where(np.arange(HEIGHT)[:, None, None] < 70, dusk, walking())) is None


def test_a_fade_from_black_makes_no_bars():
    frames = walking()
    frames[0] = 0
    assert found(frames) is None


def test_a_image_without_bars_and_signs_moves_everywhere():
    frames = disk(1.0)
    frames[:, :15] = 0
    over = found(frames)
    assert over is not None
    clip = remove_overlays(Clip(torch.from_numpy(frames), 10.0, tuple("abcdefghijklmnop")), over)
    assert clip.size == (HEIGHT - 17, WIDTH)
    red = (clip.frames[..., 0].int() - clip.frames[..., 1].int()) > 200  # as the sign is, and no wall
    assert not red[:, 30 - 17, 130].any()
    assert find_overlays(clip.frames) is None


def test_what_is_known_moves_with_the_corner_of_the_image():
    over = Overlays(np.zeros((100, 200), bool), (30, 80), (20, 200))  # 30 rows above and 20 below: 10 too many
    K = geometry.intrinsics(150.0, 100, 200).expand(2, 3, 3).clone()
    mask = torch.zeros(2, 100, 200)
    mask[:, 10, 20] = 1
    inside = priors_inside(UserPriors(T_world_camera=torch.eye(4).expand(2, 4, 4), K=K, dynamic_mask=mask), over)
    assert inside.K is not None
    assert inside.dynamic_mask is not None
    assert inside.K[0, :2, 2].tolist() == [80.0, 40.0]  # (100, 50) less (20, 10)
    assert K[0, 0, 2] == 100
    assert inside.dynamic_mask.shape == (2, 90, 180)
    assert inside.dynamic_mask[0, 0, 0] == 1


def test_a_scene_put_back_between_bars_keeps_its_pixels_and_its_rays():
    # Of 15 rows above and 25 below the last 10 are cut off. Maps at half the size: 45 rows of 50.
    over = Overlays(np.zeros((100, 200), bool), (15, 75), (0, 200))
    depth = torch.arange(45.0 * 100).reshape(1, 45, 100) + 1
    scene = Scene(
        T_world_camera=torch.eye(4)[None],
        K=geometry.intrinsics(150.0, 90, 200)[None],
        image_size=(90, 200),
        depth=depth,
        confidence=torch.ones(1, 45, 100),
        dynamic_prob=torch.zeros(1, 45, 100),
        points=no_points(),
        pose_known=torch.ones(1, dtype=torch.bool),
        names=("a",),
    )
    whole = restore_full_frame(scene, over)
    assert (whole.image_size, whole.map_size) == ((100, 200), (50, 100))
    assert whole.K[0, :2, 2].tolist() == [100.0, 45.0]  # the middle of what the bars leave
    torch.testing.assert_close(whole.depth[:, :45], depth)
    for maps, beyond in ((whole.depth, 0), (whole.confidence, 0), (whole.dynamic_prob, 1)):
        assert (maps[:, 45:] == beyond).all()
    assert (whole.dynamic_prob[:, :45] == 0).all()
