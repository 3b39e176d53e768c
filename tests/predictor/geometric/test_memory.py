"""A clip that will not fit the memory is told before it is predicted."""

import pytest
import torch

from das3r_ns.predictor.base import PredictionError
from das3r_ns.predictor.geometric import memory
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.geometric.predictor import GeometricPredictor
from das3r_ns.video import Clip

GIB = 2**30


def test_the_need_is_the_sum_of_frames_maps_and_flow():
    config = GeometricPredictorConfig(map_longest_side=400, offsets=(1, 2), flow_memory_mb=1)
    need = memory.memory_need(10, (300, 800), config)
    assert need.frames == 2 * 10 * 300 * 800 * 3  # read already; two copies may follow
    assert need.maps == 10 * 150 * 400 * memory.BYTES_OF_MAPS
    assert need.flow == 1 << 20
    assert need.total == need.frames + need.maps + need.flow + memory.FIXED_BYTES


def test_flow_is_kept_for_neighbours_and_in_its_share_for_frames_further_apart():
    frames, one = 10, 150 * 400 * memory.BYTES_OF_FLOW

    def flow(offsets: tuple[int, ...], memory_mb: int) -> int:
        config = GeometricPredictorConfig(map_longest_side=400, offsets=offsets, flow_memory_mb=memory_mb)
        return memory.memory_need(frames, (300, 800), config).flow

    both_ways = 2 * frames * one
    assert flow((1, 2, 4), 10_000) == both_ways + 2 * both_ways  # there is room for all
    assert flow((1,), 10_000) == both_ways
    budget = int(both_ways / (1 - memory.APART_SHARE)) // 2**20 + 2  # MiB: full of neighbours
    assert flow((1, 2, 4, 8), budget) == both_ways + int(memory.APART_SHARE * (budget << 20))


def test_more_of_anything_needs_more():
    config = GeometricPredictorConfig()
    base = memory.memory_need(100, (480, 854), config).total
    assert memory.memory_need(200, (480, 854), config).total > base
    assert memory.memory_need(100, (720, 1280), config).total > base
    assert memory.memory_need(100, (480, 854), GeometricPredictorConfig(map_longest_side=600)).total > base


def test_a_clip_that_will_not_fit_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: GIB // 2)
    clip = Clip(torch.randint(0, 255, (6, 96, 128, 3), dtype=torch.uint8), 30.0, tuple("abcdef"))
    with pytest.raises(PredictionError, match=r"6 frames of 128x96 need about 1.0 GiB.*0.5 GiB are free.*--video.max"):
        GeometricPredictor()(clip)


def test_the_number_of_frames_that_is_named_fits(monkeypatch):
    config = GeometricPredictorConfig()
    need = memory.memory_need(400, (480, 854), config).total
    monkeypatch.setattr(memory, "available_bytes", lambda: int(0.8 * need))
    warning = memory.check_memory(400, (480, 854), config)
    assert warning is not None
    assert "may not fit" in warning
    fitting = int(warning.split("--video.max-frames ")[1].split(",")[0])
    assert 100 < fitting < 400
    assert memory.check_memory(fitting, (480, 854), config) is None
