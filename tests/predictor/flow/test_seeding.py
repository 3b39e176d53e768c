"""Flow beyond what dense flow finds by itself: shifts of a textured plane, known to the pixel."""

import cv2
import numpy as np
import pytest

from das3r_ns.predictor.flow import seeding
from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.flow.dis import DisFlow
from das3r_ns.predictor.flow.matches import ClipMatcher, Matches

SIZE = (216, 384)


def plane(width: int = 900) -> np.ndarray:
    """Texture of all sizes, down to a few pixels."""
    rng = np.random.default_rng(4)
    layers = [
        cv2.resize(rng.integers(0, 255, (SIZE[0] // s, width // s, 3), np.uint8), (width, SIZE[0])) for s in (4, 12, 40)
    ]
    return np.mean(layers, axis=0).astype(np.uint8)


def flow_between(shifts: tuple[int, ...], matcher: bool) -> FlowBetweenFrames:
    wide = plane()
    frames = [np.ascontiguousarray(wide[:, shift : shift + SIZE[1]]) for shift in shifts]
    match = ClipMatcher(lambda i: frames[i], "sift") if matcher else None
    return FlowBetweenFrames(lambda i: frames[i], SIZE, DisFlow(), matcher=match)


def share_right(flow: FlowBetweenFrames, i: int, j: int, shift: float) -> float:
    """Of the pixels that stay in view."""
    error = np.linalg.norm(flow(i, j) - np.array([-shift, 0]), axis=-1)
    return float((error[:, int(shift) :] < 1).mean())


def test_a_shift_of_half_the_image_needs_matches():
    assert share_right(flow_between((0, 190), matcher=False), 0, 1, 190) < 0.2
    found = flow_between((0, 190), matcher=True)
    assert share_right(found, 0, 1, 190) > 0.9
    # The way back was found with it.
    error = np.linalg.norm(found(1, 0) - np.array([190, 0]), axis=-1)
    assert (error[:, :190] < 1).mean() > 0.9


def test_a_long_step_follows_from_short_ones(monkeypatch):
    def no_matches(i: int, j: int) -> Matches:
        raise AssertionError("short steps were enough")

    flow = flow_between((0, 25, 50, 75, 100), matcher=True)
    monkeypatch.setattr(flow, "matcher", no_matches)
    assert share_right(flow, 0, 4, 100) > 0.9


def test_short_motion_is_left_as_it_is():
    plain, led = flow_between((0, 8), matcher=False), flow_between((0, 8), matcher=True)
    np.testing.assert_array_equal(plain(0, 1), led(0, 1))


def test_a_chain_adds_its_steps_and_fills_what_it_cannot_see():
    def constant(u: float, v: float) -> np.ndarray:
        return np.broadcast_to(np.array([u, v], np.float32), (*SIZE, 2)).copy()

    guess = seeding.chain((constant(20, 4), constant(-20, -4)), (constant(30, -4), constant(-30, 4)), SIZE)
    assert guess is not None
    np.testing.assert_allclose(guess[0], constant(50, 0), atol=1e-3)
    np.testing.assert_allclose(guess[1], constant(-50, 0), atol=1e-3)


def test_a_chain_through_a_frame_that_finds_nothing_says_nothing():
    lost = np.full((*SIZE, 2), 1000, np.float32)
    still = np.zeros((*SIZE, 2), np.float32)
    assert seeding.chain((still, still), (lost, lost), SIZE) is None


def test_matches_of_two_planes_bend_the_guess_to_each():
    rng = np.random.default_rng(0)
    source = rng.uniform((0, 0), SIZE[::-1], (600, 2)).astype(np.float32)
    moved = np.where(source[:, :1] < 100, 60.0, 20.0).astype(np.float32)  # the near plane is on the left
    guess = seeding.guess_from_matches(Matches(source, source + moved * np.array([1, 0], np.float32), True), SIZE)
    assert guess is not None
    assert guess[0][100, 30, 0] == pytest.approx(60, abs=5)
    assert guess[0][100, 300, 0] == pytest.approx(20, abs=2)


def test_frames_that_do_not_match_give_no_guess():
    assert (
        seeding.guess_from_matches(Matches(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), False), SIZE)
        is None
    )
    rng = np.random.default_rng(1)
    frames = [cv2.resize(rng.integers(0, 255, (40, 70, 3), np.uint8), SIZE[::-1]) for _ in range(2)]
    assert not ClipMatcher(lambda i: frames[i], "sift")(0, 1).linked
