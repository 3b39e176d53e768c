"""Deinterlacing: what becomes of the second field while the camera moves, and while it stands still."""

import av
import cv2
import numpy as np
import pytest

from das3r_ns.video.interlacing import camera_moves, deinterlaced

HEIGHT, WIDTH = 96, 128
RNG = np.random.default_rng(0)
SCENE = np.clip(128 + 90 * cv2.GaussianBlur(RNG.normal(0, 3, (HEIGHT, 2 * WIDTH)), (0, 0), 1.2), 0, 255)


def seen_from(x: float) -> np.ndarray:
    """The scene as grey values, `x` pixels along."""
    shift = np.array([[1.0, 0, -x], [0, 1, 0]])
    return cv2.warpAffine(SCENE, shift, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC).clip(16, 235)


def as_video(images: list[np.ndarray], pixel_format: str) -> list[av.VideoFrame]:
    frames = []
    for i, image in enumerate(images):
        grey = np.repeat(image.round().astype(np.uint8)[..., None], 3, axis=2)
        frames.append(av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format=pixel_format))
        frames[-1].pts = i
    return frames


def grey(frame: av.VideoFrame) -> np.ndarray:
    return frame.to_ndarray(format="gray").astype(float)


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "nv12", "yuv422p10le"])
def test_while_the_camera_moves_the_second_field_says_nothing(order, pixel_format):
    second = slice(1, None, 2) if order == "tff" else slice(0, None, 2)
    first = [seen_from(2.0 * i) for i in range(6)]
    results = []
    for late in (1.0, 0.3):  # how far the camera is when the second field is taken
        woven = [image.copy() for image in first]
        for i, image in enumerate(woven):
            image[second] = seen_from(2.0 * i + late)[second]
        results.append([grey(frame) for frame in deinterlaced(as_video(woven, pixel_format), order)])
    assert len(results[0]) == 6
    for one, other, true in zip(*results, first):
        assert np.abs(one - other).max() <= 1
        assert np.abs(one - true)[4:-4].mean() < 8  # half of the rows are not known
        assert np.abs(one - true)[4:-4][1 if order == "bff" else 0 :: 2].mean() < 1  # the others stay


def test_while_the_camera_stands_still_all_rows_stay():
    images = [seen_from(0.0) for _ in range(5)]
    for image in images[1:]:
        image[40:60, 20:50] = RNG.uniform(16, 235)  # an object that changes moves by itself
    rebuilt = list(deinterlaced(as_video(images, "yuv420p"), "tff"))
    assert len(rebuilt) == 5
    for result, image in zip(rebuilt[1:], images[1:]):  # before the first there is none to compare with
        still = np.ones(image.shape, bool)
        still[36:64, 16:54] = still[:4] = still[-4:] = False
        assert np.abs(grey(result) - image)[still].max() <= 3


@pytest.mark.parametrize(("shift", "noise", "moves"), [(0, 3, False), (0.05, 3, False), (0.6, 3, True), (5, 0, True)])
def test_motion_of_the_camera_is_told_from_noise(shift, noise, moves):
    first, second = (
        (seen_from(x)[::2] + RNG.normal(0, noise, (HEIGHT // 2, WIDTH))).clip(0, 255).astype(np.uint8)
        for x in (0, shift)
    )
    assert camera_moves(first, second) == moves


def test_nothing_is_said_of_frames_without_detail_or_of_another_size():
    even = np.full((HEIGHT // 2, WIDTH), 90, np.uint8)
    assert not camera_moves(even, even + 40)
    assert not camera_moves(even, even[:, :-1])
    assert not camera_moves(None, even)
