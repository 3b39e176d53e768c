"""Optical flow: a known shift is found, the round trip tells what is hidden, memory is bounded."""

import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.flow.dis import DisFlow
from das3r_ns.predictor.flow.flow_maps import resize_flow, round_trip_error, sample


def textured(h: int, w: int) -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 255, (h, w, 3)).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 2).clip(0, 255).astype(np.uint8)


def test_dis_finds_a_known_shift():
    wide = textured(120, 180)
    a, b = wide[:, 10:170], wide[:, 7:167]  # the image moves 3 pixels to the right
    flow = DisFlow()(np.ascontiguousarray(a), np.ascontiguousarray(b))
    inner = flow[20:-20, 20:-20]
    assert np.median(inner[..., 0]) == pytest.approx(3.0, abs=0.1)
    assert np.median(inner[..., 1]) == pytest.approx(0.0, abs=0.1)


def test_the_same_images_give_the_same_flow():
    a, b = textured(90, 120), np.roll(textured(90, 120), 2, axis=1)
    np.testing.assert_array_equal(DisFlow()(a, b), DisFlow()(a, b))


def test_resizing_scales_the_values_by_side():
    flow = np.full((40, 60, 2), (6.0, 4.0), np.float32)
    small = resize_flow(flow, (10, 30))
    np.testing.assert_allclose(small, np.broadcast_to((3.0, 1.0), (10, 30, 2)))


def test_a_consistent_round_trip_has_no_error_and_leaving_the_image_has_infinite():
    forward = np.full((20, 30, 2), (4.0, 0.0), np.float32)
    error = round_trip_error(forward, -forward)
    np.testing.assert_allclose(error[:, :26], 0.0, atol=1e-6)
    assert np.isinf(error[:, 26:]).all()
    np.testing.assert_allclose(round_trip_error(forward, 0 * forward)[:, :26], 4.0)


def test_sampling_looks_up_where_the_pixel_went():
    values = np.arange(30, dtype=np.float32)[None].repeat(20, axis=0)
    flow = np.full((20, 30, 2), (2.5, 0.0), np.float32)
    np.testing.assert_allclose(sample(values, flow)[:, :27], values[:, :27] + 2.5)


def test_flow_is_kept_while_memory_allows_and_computed_again_after():
    calls = []

    def estimator(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        calls.append((int(a[0, 0, 0]), int(b[0, 0, 0])))
        return np.full((8, 8, 2), calls[-1][1] - calls[-1][0], np.float32)

    one = 8 * 8 * 2 * 2  # bytes of a field in half precision
    flow = FlowBetweenFrames(lambda i: np.full((8, 8, 3), i, np.uint8), (8, 8), estimator, memory_bytes=2 * one)
    flow(0, 1)
    flow(0, 1)
    assert calls == [(0, 1)]
    flow(1, 2)
    flow(2, 3)  # pushes (0, 1) out
    assert flow(0, 1)[0, 0, 0] == 1
    assert calls == [(0, 1), (1, 2), (2, 3), (0, 1)]


def test_threads_that_ask_for_the_same_flow_share_it():
    calls, begun, go_on = [], threading.Event(), threading.Event()

    def slow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        calls.append((int(a[0, 0, 0]), int(b[0, 0, 0])))
        begun.set()
        go_on.wait(10)
        return np.full((8, 8, 2), 3.0, np.float32)

    flow = FlowBetweenFrames(lambda i: np.full((8, 8, 3), i, np.uint8), (8, 8), slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(flow, 0, 1)
        assert begun.wait(10)
        second = pool.submit(flow, 0, 1)
        go_on.set()
        np.testing.assert_array_equal(first.result(10), second.result(10))
    assert calls == [(0, 1)]


def test_flow_that_failed_is_tried_again():
    failures = [RuntimeError("no memory")]

    def estimator(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if failures:
            raise failures.pop()
        return np.zeros((8, 8, 2), np.float32)

    flow = FlowBetweenFrames(lambda i: np.zeros((8, 8, 3), np.uint8), (8, 8), estimator)
    with pytest.raises(RuntimeError, match="no memory"):
        flow(0, 1)
    assert (flow(0, 1) == 0).all()


class BothWays:
    """An estimator that gives both directions in one call: the difference of what the images show."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        raise AssertionError("one way alone costs as much")

    def both(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first, second = int(a[0, 0, 0]), int(b[0, 0, 0])
        self.calls.append((first, second))
        self.begun.set()
        self.go_on.wait(10)
        if first == second:
            raise RuntimeError("no memory")
        forward = np.full((8, 8, 2), second - first, np.float32)
        return forward, -forward


def test_an_estimator_of_both_ways_is_asked_once_for_both():
    estimator = BothWays()
    flow = FlowBetweenFrames(lambda i: np.full((8, 8, 3), i, np.uint8), (8, 8), estimator)
    forward, error = flow.checked(5, 2)
    assert estimator.calls == [(5, 2)]
    assert (forward == -3).all()
    assert error[3:, 3:].max() == 0
    assert (flow(2, 5) == 3).all()


def test_who_asks_for_the_way_back_waits_for_the_call_that_runs():
    estimator = BothWays()
    estimator.go_on.clear()
    flow = FlowBetweenFrames(lambda i: np.full((8, 8, 3), i, np.uint8), (8, 8), estimator)
    with ThreadPoolExecutor(2) as pool:
        there = pool.submit(flow, 0, 4)
        assert estimator.begun.wait(10)
        back = pool.submit(flow, 4, 0)
        estimator.go_on.set()
        np.testing.assert_array_equal(there.result(10), -back.result(10))
    assert estimator.calls == [(0, 4)]


def test_a_call_for_both_ways_that_failed_fails_both_and_is_tried_again():
    shown = [0, 0]
    flow = FlowBetweenFrames(lambda i: np.full((8, 8, 3), shown[i], np.uint8), (8, 8), BothWays())
    with pytest.raises(RuntimeError, match="no memory"):
        flow(0, 1)
    with pytest.raises(RuntimeError, match="no memory"):
        flow(1, 0)
    shown[1] = 2
    assert (flow(1, 0) == -2).all()


def test_flow_computed_again_for_its_way_back_counts_once():
    one = 8 * 8 * 2 * 2
    estimator = BothWays()
    flow = FlowBetweenFrames(lambda i: np.full((8, 8, 3), i, np.uint8), (8, 8), estimator, memory_bytes=5 * one)
    flow(0, 1)  # three eighths are for flow between frames apart
    flow(0, 1)  # the way back is the older one now
    flow(2, 3)  # pushes it out
    flow(1, 0)  # both anew; one is there
    flow(0, 1)
    flow(1, 0)
    assert estimator.calls == [(0, 1), (2, 3), (1, 0)]
    kept = flow._neighbours
    assert kept._left == kept._memory_bytes - one * len(kept._flow) >= 0


def test_flow_between_frames_apart_does_not_drive_out_that_between_neighbours():
    one = 8 * 8 * 2 * 2
    estimator = BothWays()
    flow = FlowBetweenFrames(lambda i: np.full((8, 8, 3), i, np.uint8), (8, 8), estimator, memory_bytes=16 * one)
    for i in range(5):
        flow(i, i + 1)
    for i in range(8):
        flow(i, i + 4)  # twice as much as there is room for
    before = len(estimator.calls)
    for i in range(5):
        flow(i + 1, i)
    flow(7, 11)
    assert len(estimator.calls) == before
    flow(0, 4)
    assert len(estimator.calls) == before + 1
    flow.forget_apart(asked_again=True)  # not all is there any more
    flow(7, 11)
    assert len(estimator.calls) == before + 2
    assert flow._apart._left == flow._apart._memory_bytes - 2 * one


def test_flow_that_is_asked_for_again_is_kept_when_all_of_it_is_there():
    one = 8 * 8 * 2 * 2
    estimator = BothWays()
    flow = FlowBetweenFrames(lambda i: np.full((8, 8, 3), i, np.uint8), (8, 8), estimator, memory_bytes=32 * one)
    for i in range(4):
        flow(i, i + 4)
    flow.forget_apart(asked_again=True)
    before = len(estimator.calls)
    for i in range(4):
        flow(i + 4, i)
    assert len(estimator.calls) == before
    flow.forget_apart()
    flow(0, 4)
    assert len(estimator.calls) == before + 1
