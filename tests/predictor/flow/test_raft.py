"""RAFT as flow: the same as torchvision's network called plainly, from any thread; wrong weights are said."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from misbehaving_server import Server
from torchvision.models.optical_flow import Raft_Small_Weights, raft_large, raft_small

from das3r_ns.files.download import DownloadError, Patience
from das3r_ns.predictor.flow import raft
from das3r_ns.predictor.flow.estimator import FlowBothWays
from das3r_ns.predictor.flow.raft import RaftFlow, kept_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, Path]:
    """Random weights of both networks: what flow they give is nonsense, but always the same."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("raft")
    files = {}
    for size, build in (("small", raft_small), ("large", raft_large)):
        files[size] = folder / f"{size}.pth"
        torch.save(build(weights=None).state_dict(), files[size])
    return files


@pytest.fixture(autouse=True)
def _three_updates(monkeypatch):
    monkeypatch.setattr(raft, "STEPS", 3)


def image(seed: int, h: int = 128, w: int = 136) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (h, w, 3), np.uint8)


@pytest.mark.parametrize("size", ["small", "large"])
def test_flow_is_what_torchvision_gives(weights, size):
    a, b = image(0), image(1)
    network = (raft_small if size == "small" else raft_large)(weights=None).eval()
    network.load_state_dict(torch.load(weights[size], weights_only=True))
    batches = [torch.from_numpy(p).permute(2, 0, 1)[None] for p in (a, b)]
    ready = Raft_Small_Weights.DEFAULT.transforms()(*batches)
    flow = RaftFlow(weights[size], "cpu")
    assert isinstance(flow, FlowBothWays)
    found = flow.both(a, b)
    for pair, way in zip((ready, ready[::-1]), found, strict=True):
        with torch.inference_mode():
            expected = network(*pair, num_flow_updates=3)[-1][0].permute(1, 2, 0).numpy()
        assert np.abs(expected).max() > 1
        np.testing.assert_allclose(way, expected, atol=1e-3)
    np.testing.assert_array_equal(flow(a, b), found[0])


def test_images_of_any_size_keep_it(weights):
    assert RaftFlow(weights["small"], "cpu")(image(0, 70, 131), image(1, 70, 131)).shape == (70, 131, 2)


def test_threads_do_not_disturb_one_another(weights):
    flow = RaftFlow(weights["small"], "cpu")
    pairs = [(image(2 * i), image(2 * i + 1)) for i in range(4)]
    alone = [flow(*pair) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        for one, together in zip(alone, pool.map(lambda pair: flow(*pair), pairs), strict=True):
            np.testing.assert_allclose(together, one, atol=1e-3)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="leave raft_weights out to have them fetched, or use flow dis"):
        RaftFlow(tmp_path / "raft.pth")


@pytest.fixture
def server(monkeypatch, tmp_path, weights):
    """Offers the small network's weights under a name that ends with their checksum; nothing is kept here yet."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(raft, "PATIENCE", Patience(attempts=2, first_wait_s=0.01, timeout_s=5.0))
    running = Server()
    content = weights["small"].read_bytes()
    name = f"raft_small-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    running.files[name] = content
    monkeypatch.setattr(raft, "WEIGHTS_URL", f"{running.url}/{name}")
    yield running
    running.close()


def test_weights_come_by_themselves_once(server, tmp_path):
    assert kept_weights() is None
    server.faults = ["cut"]
    first = RaftFlow(device="cpu")(image(0), image(1))
    assert len(server.requests) == 2
    kept = kept_weights()
    assert kept is not None
    assert kept.parent == tmp_path / "checkpoints"
    np.testing.assert_array_equal(RaftFlow(device="cpu")(image(0), image(1)), first)
    assert len(server.requests) == 2


@pytest.mark.parametrize("fault", ["404", "500", "other content"])
def test_weights_that_cannot_be_had_say_what_works_without(server, fault):
    if fault == "other content":
        name = next(iter(server.files))
        server.files[name] = server.files[name][::-1]
    else:
        server.faults = [fault] * 9
    with pytest.raises(DownloadError, match="or use flow dis"):
        RaftFlow()
    assert kept_weights() is None


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
@pytest.mark.parametrize("size", ["small", "large"])
def test_on_a_gpu_flow_is_the_same_within_its_precision(weights, size):
    expected = RaftFlow(weights[size], "cpu")
    flow = RaftFlow(weights[size])
    for h, w in ((256, 384), (256, 384), (200, 300)):  # recorded, run again, recorded anew
        a, b = image(h, h, w), image(w, h, w)
        truth, found = np.stack(expected.both(a, b)), np.stack(flow.both(a, b))
        assert np.abs(found - truth).mean() < 0.02 * np.abs(truth).mean()
        np.testing.assert_array_equal(np.stack(flow.both(a, b)), found)
    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(lambda _: np.stack(flow.both(a, b)), range(8)):
            np.testing.assert_array_equal(together, found)
