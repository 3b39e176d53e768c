"""Flow by our own network as an estimator: any size, the same every time, wrong weights are said."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from das3r_ns.files.json_files import to_jsonable
from das3r_ns.predictor.flow.best_of import BestOfFlow
from das3r_ns.predictor.flow.dis import DisFlow
from das3r_ns.predictor.flow.estimator import FlowBothWays
from das3r_ns.predictor.flow.learned import LearnedFlow
from das3r_ns.predictor.flow.network import FlowNetwork, load_flow_network
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.geometric.predictor import GeometricPredictor
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.training.flow.train import save_flow_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights, with norms that have seen something: what flow they give is nonsense, but always the same."""
    torch.manual_seed(0)
    network = FlowNetwork()
    with torch.no_grad():
        for values in (network.update.head[-1].weight, network.refine.head.weight):
            values.normal_(0, 0.05)
        network(torch.rand(2, 3, 128, 128), torch.rand(2, 3, 128, 128), 1, 1)
    path = tmp_path_factory.mktemp("flow") / "flow.safetensors"
    save_flow_weights(network, path)
    return path


def image(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def test_both_ways_are_what_the_network_gives_one_after_the_other(weights):
    a, b = image(0, 128, 144), image(1, 128, 144)
    network = load_flow_network(weights)
    flow = LearnedFlow(weights, "cpu", updates=2, refinements=1)
    assert isinstance(flow, FlowBothWays)
    found = flow.both(a, b)
    first, second = (torch.from_numpy(i).permute(2, 0, 1)[None] / 255 for i in (a, b))
    for pair, way in zip(((first, second), (second, first)), found, strict=True):
        with torch.inference_mode():
            expected = network(*pair, 2, 1, torch.tensor([False])).final[-1][0].permute(1, 2, 0).numpy()
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(way, expected, atol=2e-3)
    np.testing.assert_array_equal(flow(a, b), found[0])


@pytest.mark.parametrize(("height", "width"), [(64, 64), (131, 70), (70, 131), (150, 90)])
def test_images_of_any_size_keep_it(weights, height, width):
    there, back = LearnedFlow(weights, "cpu", 1, 1).both(image(0, height, width), image(1, height, width))
    assert there.shape == back.shape == (height, width, 2)
    assert np.isfinite(there).all()


def test_large_images_are_reduced_and_their_flow_is_in_their_own_pixels(weights):
    a, b = image(0, 128, 160), image(1, 128, 160)
    large = [i.repeat(2, 0).repeat(2, 1) for i in (a, b)]
    small = LearnedFlow(weights, "cpu", 1, 1)(a, b)
    reduced = LearnedFlow(weights, "cpu", 1, 1, max_side_px=160)(*large)
    assert reduced.shape == (256, 320, 2)
    np.testing.assert_allclose(reduced[64:192:8, 64:256:8], 2 * small[32:96:4, 32:128:4], atol=0.2)


def test_threads_get_the_same_flow(weights):
    flow = LearnedFlow(weights, "cpu", 1, 1)
    images = [image(i, 128, 128) for i in range(4)]
    alone = [flow(images[i], images[i + 1]) for i in range(3)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda i: flow(images[i], images[i + 1]), range(3)))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_wrong_weights_are_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="train-flow"):
        LearnedFlow(tmp_path / "none.safetensors", "cpu")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="does not hold weights"):
        LearnedFlow(tmp_path / "broken.safetensors", "cpu")
    save_file({"other": torch.zeros(3)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(ValueError, match="does not hold weights"):
        LearnedFlow(tmp_path / "other.safetensors", "cpu")


@pytest.mark.parametrize("flow", ["learned", "best"])
def test_learned_flow_without_weights_is_refused_before_the_long_work(flow):
    with pytest.raises(ValueError, match=f"{flow} needs --geometric.flow-weights"):
        GeometricPredictorConfig(flow=flow).check()


def test_of_two_estimators_each_pixel_takes_the_one_that_is_right_there():
    class Half:
        """Right in one half of the image, 9 px off in the other."""

        def __init__(self, left: bool) -> None:
            self.left = left

        def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
            flow = np.zeros((*a.shape[:2], 2), np.float32)
            wrong = slice(80, None) if self.left else slice(None, 80)
            flow[:, wrong] = (9, 0)
            return flow

    a = cv2.GaussianBlur(image(3, 120, 160), (0, 0), 2)
    best = BestOfFlow((Half(left=True), Half(left=False)))
    assert isinstance(best, FlowBothWays)
    for flow in best.both(a, a):
        away = np.abs(np.arange(160) - 80) > 12  # a patch across the seam is right by neither
        assert (np.linalg.norm(flow[:, away], axis=-1) == 0).mean() > 0.97


def test_auto_takes_the_network_whose_weights_are_named_and_the_scene_says_which(weights):
    def resolved(**settings: object) -> str:
        return GeometricPredictorConfig(**settings).resolve_auto().flow  # type: ignore[arg-type]

    assert resolved() == "dis"
    assert resolved(flow_weights=weights) == "best"
    assert resolved(raft_weights=weights) == "raft"
    assert resolved(flow="dis", flow_weights=weights) == "dis"
    predictor = GeometricPredictor(GeometricPredictorConfig(flow_weights=weights, masks=MaskConfig(refiner="none")))
    assert isinstance(predictor._estimator, BestOfFlow)
    assert [type(estimator) for estimator in predictor._estimator.estimators] == [DisFlow, LearnedFlow]
    recorded = to_jsonable(predictor.config)  # what the scene's provenance holds
    assert (recorded["flow"], recorded["flow_weights"]) == ("best", str(weights))
    with pytest.raises(ValueError, match="say which with"):
        GeometricPredictorConfig(flow_weights=weights, raft_weights=weights).check()
    # Scenes that were predicted before there was auto are found again.
    assert GeometricPredictorConfig().cache_key() == GeometricPredictorConfig(flow="dis").cache_key()


def test_images_beyond_the_largest_side_take_the_memory_of_that_side(weights, monkeypatch):
    asked = []
    flow = LearnedFlow(weights, "cpu", 1, 1)

    def record(pair: torch.Tensor) -> torch.Tensor:
        asked.append(tuple(pair.shape))
        return torch.full((2, 2, *pair.shape[2:]), 3.0)

    monkeypatch.setattr(flow, "_flow", record)
    for height, width in ((1080, 1920), (1920, 1080), (1024, 576)):
        there, _ = flow.both(image(0, height, width), image(1, height, width))
        assert there.shape == (height, width, 2)
        np.testing.assert_allclose(there, 3 * max(height, width) / 1024, rtol=1e-3)
    assert asked == [(2, 3, 576, 1024), (2, 3, 1024, 576), (2, 3, 1024, 576)]


@pytest.mark.gpu
def test_on_a_gpu_it_is_the_same_but_for_rounding(weights):
    a, b = image(0, 135, 241), image(1, 135, 241)
    gpu = LearnedFlow(weights, "cuda")
    found = gpu(a, b)
    expected = LearnedFlow(weights, "cpu")(a, b)
    assert np.abs(found - expected).mean() < 0.05 * max(np.abs(expected).mean(), 1)
    np.testing.assert_array_equal(gpu(a, b), found)
