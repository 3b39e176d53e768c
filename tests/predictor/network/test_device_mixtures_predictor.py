"""Network, alignment and the network's training on a GPU that is pretended: nothing mixes devices."""

from __future__ import annotations

import contextlib
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from pretend_cuda import CUDA, PretendedTensor, on_gpu, pretended_gpu
from tiny_network import TINY, small_heads
from tiny_training import MASKS_ALONE, SMALL, make_clip_set, random_batch

from das3r_ns.predictor.network.alignment import KnownGeometry, align
from das3r_ns.predictor.network.alignment.objective import FlowObservations, Observations, evaluate
from das3r_ns.predictor.network.alignment.optimise import Descent
from das3r_ns.predictor.network.alignment.state import AlignmentState
from das3r_ns.predictor.network.inference import FrameMemory, predict_pairs
from das3r_ns.predictor.network.model import PairwiseNetwork
from das3r_ns.predictor.network.pairs import PairPredictions
from das3r_ns.predictor.network.settings import AlignmentConfig, InferenceConfig
from das3r_ns.predictor.training.data.clips import ClipFolders
from das3r_ns.predictor.training.data.loading import Loaded
from das3r_ns.predictor.training.data.order import Order
from das3r_ns.predictor.training.features import feed
from das3r_ns.predictor.training.features.frozen import RecordLayout
from das3r_ns.predictor.training.features.store import FeatureConfig, FeatureStore
from das3r_ns.predictor.training.loop.logs import Meter
from das3r_ns.predictor.training.loop.losses import LossConfig
from das3r_ns.predictor.training.loop.parts import select_parts
from das3r_ns.predictor.training.loop.step import TrainingStep
from das3r_ns.predictor.training.loop.validation import validate, validation_plan

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which tests this better")
narrow = pytest.fixture(scope="module", autouse=True)(small_heads)
FRAMES = 7


@pytest.fixture(autouse=True)
def _rotary_positions_written_out(monkeypatch):
    monkeypatch.setattr("das3r_ns.predictor.network.rope_kernel.kernel_works", lambda device: False)


def test_the_network_looks_at_pairs():
    network = PairwiseNetwork(TINY)
    with pretended_gpu():
        network.to("cuda")
        memory, images = FrameMemory(1), torch.rand(3, 3, 32, 48)
        settings = InferenceConfig(precision="float32", memory_gib=1.0)
        for frames in ((0, 1, 2), (2, 3, 4)):
            found = predict_pairs(network, images, [(0, 1), (1, 2), (2, 0)], settings, frames, memory)
            assert all(value.is_cuda for value in vars(found).values())


@pytest.mark.parametrize("known", [False, True])
def test_pairs_are_aligned(known, data: Path, monkeypatch):
    """All but the steps themselves, whose gradients cannot be had here."""

    def measured(
        state: AlignmentState, seen: Observations, config: AlignmentConfig, frozen: Any, flow: Any = None
    ) -> Descent:
        observed: FlowObservations = flow()
        objective = evaluate(state, seen, config.smoothness_weight, observed, config.flow_weight)
        assert all(term.is_cuda for term in vars(objective).values())
        return Descent(state, objective.total[None])

    monkeypatch.setattr(sys.modules[align.__module__], "descend", measured)
    with np.load(data / "alignment.npz") as stored:
        names = ("edges", "pred_pts3d_i", "pred_pts3d_j", "pred_conf_i", "pred_conf_j", "pred_mask_i")
        maps = [torch.from_numpy(stored[name]) for name in names]
    height, width = maps[3].shape[1:]
    T = torch.eye(4).repeat(FRAMES, 1, 1)
    T[:, 0, 3] = torch.arange(FRAMES) * 0.1
    cameras = KnownGeometry(T_world_camera=T) if known else KnownGeometry()
    with pretended_gpu():
        predictions = PairPredictions(*on_gpu(maps), torch.zeros(FRAMES, 1, device="cuda"))
        flow = np.zeros((height, width, 2), np.float32), np.zeros((height, width), np.float32)
        found = align(predictions, FRAMES, AlignmentConfig(), cameras, lambda i, j: flow)
    assert isinstance(found.depth, PretendedTensor)
    assert isinstance(found.K, PretendedTensor)
    assert found.confidence.host.isfinite().all()


class AtOnce:
    """A pool of threads without threads: another one knows nothing of the pretence."""

    def __init__(self, *_: Any) -> None:
        pass

    def submit(self, function: Any, *arguments: Any) -> Future:
        future: Future = Future()
        future.set_result(function(*arguments))
        return future

    def shutdown(self, **_: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("memory", "gib", "loss"),
    [("host", 0.0, LossConfig()), ("host", 0.1, MASKS_ALONE), ("gpu", 0.1, LossConfig())],
    ids=["disk", "host", "gpu"],
)
def test_features_are_kept_and_read_back(memory, gib, loss, tmp_path, monkeypatch):
    network = PairwiseNetwork(SMALL)
    select_parts(network, "heads", needs_points=True)
    step = TrainingStep(network, "heads", loss, symmetrise=True).eval()
    order = Order((6,), pairs_per_epoch=4, global_batch=2, sizes=((32, 48),), seed=0, recurring=1)
    layouts = {(32, 48): RecordLayout.of(SMALL, (32, 48), True, loss.needs_points, torch.float32)}
    monkeypatch.setattr(feed, "ThreadPoolExecutor", AtOnce)
    monkeypatch.setattr(PretendedTensor, "record_stream", lambda *_: None)
    for name, made in (("Stream", mock.Mock()), ("current_stream", mock.Mock()), ("stream", contextlib.nullcontext)):
        monkeypatch.setattr(torch.cuda, name, made)
    images = iter([random_batch(), random_batch()])

    with pretended_gpu(), torch.no_grad():
        step.to("cuda")
        store = FeatureStore(FeatureConfig(1, gib, memory), tmp_path, order, layouts, CUDA, processes=1)
        store.open({})
        meter, losses = Meter(CUDA), []

        def batches() -> Any:
            return order.batches(range(4), 2, 0, 1)

        with feed.FeatureFeed(batches, lambda _: (Loaded(b, []) for b in images), store, step.freeze) as features:
            for _ in range(4):
                batch, problems = features.next()
                assert not problems
                assert batch.records.is_cuda
                result = step(batch)
                meter.add(result.loss, result.views, 2, 0.0)
                losses.append(float(result.loss))
        assert meter.means().is_cuda
    assert losses[2:] == losses[:2]
    assert (sum(1 for _ in tmp_path.glob("epoch_*/*")) > 0) == (gib == 0)


def test_everything_learns_and_is_validated(tmp_path):
    network = PairwiseNetwork(SMALL)
    select_parts(network, "all", needs_points=True)
    step = TrainingStep(network, "all", LossConfig(), symmetrise=True)
    source = ClipFolders(make_clip_set(tmp_path) / "val", max_stride=3, seed=0)
    plan, _ = validation_plan(source, 2, 48, 2)
    with pretended_gpu():
        step.to("cuda")
        assert step(random_batch().to(CUDA)).loss.is_cuda
        scores, images, _ = validate(step, source, plan, workers=0, device=CUDA, add_up=lambda sums: sums)
    assert scores.frames == 2
    assert images.rgb.device.type == "cpu"
