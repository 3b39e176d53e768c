"""Frames that lie too far apart, and the frame rate that would do."""

import cv2
import numpy as np
import pytest
import torch

from das3r_ns.predictor.preprocess.frame_spacing import FrameSpacing, frame_spacing
from das3r_ns.video.clip import Clip

WIDTH, HEIGHT = 160, 96


def pan(step_px: int, count: int = 8, fps: float = 10.0) -> Clip:
    rng = np.random.default_rng(0)
    wide = cv2.resize(rng.integers(0, 255, (48, 400, 3), np.uint8), (WIDTH * 8, HEIGHT), interpolation=cv2.INTER_CUBIC)
    frames = np.stack([wide[:, i * step_px : i * step_px + WIDTH] for i in range(count)])
    return Clip(torch.from_numpy(frames.copy()), fps, tuple(f"{i:05d}" for i in range(count)))


def test_the_frame_rate_that_would_do_is_in_proportion_to_the_motion():
    far = FrameSpacing(step_share=0.15, fps=10.0)
    assert far.too_far
    assert far.wanted_fps == 30
    assert "30 frames per second (--video.fps 30; now 10)" in far.advice()
    assert "15 % of the image" in far.advice()
    assert FrameSpacing(0.121, 1.0).wanted_fps == pytest.approx(2.5)


def test_of_slow_clips_no_number_is_told():
    near = FrameSpacing(step_share=0.04, fps=10.0)
    assert not near.too_far
    assert near.advice() == "more frames per second (--video.fps)"


@pytest.mark.parametrize(("step_px", "share"), [(4, 0.025), (10, 0.0625)])
def test_motion_is_measured(step_px: int, share: float):
    assert frame_spacing(pan(step_px)).step_share == pytest.approx(share, rel=0.1)


def test_motion_that_is_lost_is_too_far():
    spacing = frame_spacing(pan(130))
    assert spacing.too_far
    assert spacing.wanted_fps > 20
