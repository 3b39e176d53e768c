"""The batched way through a clip gives what the plain network gives, pair by pair."""

import pytest
import torch
from tiny_network import TINY, small_heads

from das3r_ns.predictor.network import inference as module
from das3r_ns.predictor.network.inference import predict_pairs
from das3r_ns.predictor.network.model import PairwiseNetwork
from das3r_ns.predictor.network.settings import InferenceConfig, PairGraph

narrow = pytest.fixture(scope="module", autouse=True)(small_heads)


@pytest.fixture(scope="module")
def network() -> PairwiseNetwork:
    torch.manual_seed(1)
    return PairwiseNetwork(TINY).eval()


def run(network, images, edges, **settings):
    return predict_pairs(network, images, edges, InferenceConfig(**settings))


@pytest.mark.parametrize("size", [(32, 48), (48, 32), (48, 80), (32, 32)])
@pytest.mark.parametrize("batch", [1, 3, 32])
def test_every_pair_equals_the_plain_network(network, size, batch):
    images = torch.rand(3, 3, *size) * 2 - 1
    edges = PairGraph("complete").edges(3)
    found = run(network, images, edges, max_batch=batch)
    first, second = found.edges.T
    assert found.edges.tolist() == [list(edge) for edge in edges]
    with torch.inference_mode():
        expected = network(images[first], images[second])
    for name in ("pointmap1", "pointmap2", "confidence1", "confidence2", "dynamic_prob1"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=2e-5, rtol=1e-4)


def test_each_frame_is_encoded_once(network, monkeypatch):
    seen = []
    encode = network.encode
    monkeypatch.setattr(network, "encode", lambda images: (seen.append(len(images)), encode(images))[1])
    run(network, torch.rand(5, 3, 32, 32), PairGraph().edges(5), max_batch=2)
    assert sum(seen) == 5


def test_frames_that_two_windows_share_are_encoded_once_and_give_the_same(network, monkeypatch):
    images, edges = torch.rand(7, 3, 32, 48), PairGraph().edges(4)
    windows = (range(4), range(3, 7), [0, 3, 6, 5])
    alone = [run(network, images[list(frames)], edges, max_batch=2) for frames in windows]
    seen, memory = [], module.FrameMemory(keep=1)
    encode = network.encode
    monkeypatch.setattr(network, "encode", lambda images: (seen.append(len(images)), encode(images))[1])
    for frames, expected in zip(windows, alone):
        config = InferenceConfig(max_batch=2)
        found = predict_pairs(network, images[list(frames)], edges, config, frames, memory)
        torch.testing.assert_close(found.pointmap1, expected.pointmap1, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.dynamic_prob1, expected.dynamic_prob1)
        torch.testing.assert_close(found.descriptors, expected.descriptors)
        assert list(memory.known) == [frames[-1]]
    assert sum(seen) == 4 + 3 + 3


def test_the_unused_mask_head_is_never_run(network, monkeypatch):
    monkeypatch.setattr(network.downstream_head_dynamic_mask2, "forward", lambda *_: pytest.fail("not needed"))
    run(network, torch.rand(2, 3, 32, 32), [(0, 1), (1, 0)])


def test_identical_frames_and_two_frames_only(network):
    found = run(network, torch.zeros(2, 3, 32, 48), PairGraph().edges(2))
    assert len(found) == 2
    torch.testing.assert_close(found.pointmap1[0], found.pointmap1[1])


def test_bfloat16_stays_close_and_gives_float32(network):
    images = torch.rand(2, 3, 32, 48) * 2 - 1
    exact, rough = (run(network, images, [(0, 1)], precision=p) for p in ("float32", "bfloat16"))
    assert rough.pointmap1.dtype == torch.float32
    assert not torch.equal(rough.pointmap1, exact.pointmap1)
    torch.testing.assert_close(rough.pointmap1, exact.pointmap1, atol=0.02, rtol=0.05)


def test_a_pair_that_is_not_finite_is_left_out_with_a_warning(network, monkeypatch):
    images = torch.rand(3, 3, 32, 32)
    edges = PairGraph(window=1).edges(3)
    original = module.points_and_confidence
    calls = []

    def broken(raw):
        points, confidence = original(raw)
        calls.append(0)
        if len(calls) == 3:  # first view of the second batch
            points = points.clone()
            points[0, 4, 4, 2] = float("nan")
        return points, confidence

    monkeypatch.setattr(module, "points_and_confidence", broken)
    with pytest.warns(UserWarning, match=r"1 of 4 pairs .*first: \[1, 2\]"):
        found = run(network, images, edges, max_batch=1)
    assert found.edges.tolist() == [[0, 1], [1, 0], [2, 1]]
    assert len(found.pointmap1) == len(found.dynamic_prob1) == 3


def test_float32_is_float32_whatever_is_set_around_and_the_settings_come_back(network, monkeypatch):
    cudnn, within = torch.backends.cudnn, []

    def settings():
        return cudnn.allow_tf32, cudnn.benchmark, torch.get_float32_matmul_precision()

    before = settings()
    encode = network.encode
    monkeypatch.setattr(network, "encode", lambda images: (within.append(settings()), encode(images))[1])
    try:
        cudnn.benchmark = cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("high")  # as nerfstudio does
        run(network, torch.rand(2, 3, 32, 32), [(0, 1)], precision="float32")
        assert within == [(False, False, "highest")]
        assert settings() == (True, True, "high")
    finally:
        cudnn.allow_tf32, cudnn.benchmark = before[:2]
        torch.set_float32_matmul_precision(before[2])


def test_nothing_finite_is_an_error(network):
    with pytest.raises(RuntimeError, match="all 2 pairs"):
        run(network, torch.full((2, 3, 32, 32), float("nan")), [(0, 1), (1, 0)])


def test_pairs_that_do_not_fit_the_clip_are_refused(network):
    with pytest.raises(ValueError, match="indices 0 to 1"):
        run(network, torch.rand(2, 3, 32, 32), [(0, 2)])


def test_a_small_budget_means_small_batches():
    cpu, size = torch.device("cpu"), (288, 512)
    one = module.activation_bytes_per_pair(size, torch.float32)
    assert module.batch_size(InferenceConfig(memory_gib=4.5 * one / module.GIB), size, torch.float32, cpu) == 4
    assert module.batch_size(InferenceConfig(memory_gib=0.01), size, torch.float32, cpu) == 1
    assert module.batch_size(InferenceConfig(memory_gib=1000.0), size, torch.float32, cpu) == 32
