"""RAFT as flow: the same as torchvision's network called plainly, from any thread; wrong weights are said."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.optical_flow import raft_large, raft_small
from torchvision.transforms._presets import OpticalFlow

from das3r_ns.predictor.flow import FlowBothWays
from das3r_ns.predictor.raft import STEPS, RaftFlow


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Random weights of the small network: what flow they give is nonsense, but always the same."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("raft") / "small.pth"
    torch.save(raft_small(weights=None).state_dict(), file)
    return file


def picture(seed: int, h: int = 128, w: int = 136) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (h, w, 3), np.uint8)


def test_flow_is_what_torchvision_gives(weights):
    a, b = picture(0), picture(1)
    network = raft_small(weights=None).eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    batches = [torch.from_numpy(p).permute(2, 0, 1)[None] for p in (a, b)]
    with torch.inference_mode():
        expected = network(*OpticalFlow()(*batches), num_flow_updates=STEPS)[-1][0].permute(1, 2, 0).numpy()
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(RaftFlow(weights, "cpu")(a, b), expected, atol=1e-3)


def test_both_ways_at_once_are_one_and_the_other(weights):
    flow, a, b = RaftFlow(weights, "cpu"), picture(0), picture(1)
    assert isinstance(flow, FlowBothWays)
    forward, backward = flow.both(a, b)
    np.testing.assert_allclose(forward, flow(a, b), atol=1e-3)
    np.testing.assert_allclose(backward, flow(b, a), atol=1e-3)
    assert np.abs(forward - backward).max() > 1


def test_pictures_of_any_size_keep_it(weights):
    assert RaftFlow(weights, "cpu")(picture(0, 70, 131), picture(1, 70, 131)).shape == (70, 131, 2)


def test_threads_do_not_disturb_one_another(weights):
    flow = RaftFlow(weights, "cpu")
    pairs = [(picture(2 * i), picture(2 * i + 1)) for i in range(4)]
    alone = [flow(*pair) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        for one, together in zip(alone, pool.map(lambda pair: flow(*pair), pairs), strict=True):
            np.testing.assert_allclose(together, one, atol=1e-3)


def test_the_large_network_is_told_by_its_weights(tmp_path):
    torch.manual_seed(0)
    network = raft_large(weights=None)
    torch.save(network.state_dict(), tmp_path / "large.pth")
    assert RaftFlow(tmp_path / "large.pth", "cpu")(picture(0), picture(1)).shape == (128, 136, 2)


def test_without_weights_it_says_what_works_without(tmp_path):
    with pytest.raises(FileNotFoundError, match="use flow dis"):
        RaftFlow(tmp_path / "raft.pth")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", {"layer": torch.zeros(2)}, [1, 2]])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    file = tmp_path / "raft.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(ValueError, match=r"does not hold weights of torchvision's RAFT. Give .* or use flow dis"):
        RaftFlow(file)


@pytest.mark.gpu
def test_on_a_gpu_flow_is_the_same_within_half_precision(weights):
    a, b = picture(0, 256, 384), picture(1, 256, 384)
    expected = RaftFlow(weights, "cpu").both(a, b)
    flow = RaftFlow(weights)
    found = flow.both(a, b)
    scale = np.abs(expected).mean()
    assert np.abs(np.stack(found) - np.stack(expected)).mean() < 0.02 * scale
    np.testing.assert_array_equal(flow.both(a, b), found)
