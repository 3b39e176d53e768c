"""A training step under bfloat16 autocast: frozen weights cast once, truths in float32, gradients where they belong."""

import pytest
import torch
from tiny_network import TINY, small_heads

from das3r_ns.predictor.network.model import PairwiseNetwork
from das3r_ns.predictor.training.data.loading import PairBatch, ViewBatch
from das3r_ns.predictor.training.loop.losses import LossConfig
from das3r_ns.predictor.training.loop.parts import select_parts
from das3r_ns.predictor.training.loop.step import TrainingStep

narrow = pytest.fixture(scope="module", autouse=True)(small_heads)


def random_batch(pairs: int = 2, height: int = 32, width: int = 48) -> PairBatch:
    def view() -> ViewBatch:
        rgb = torch.randint(0, 256, (pairs, height, width, 3), dtype=torch.uint8)
        K = torch.tensor([[50.0, 0, width / 2], [0, 50.0, height / 2], [0, 0, 1]]).repeat(pairs, 1, 1)
        T = torch.eye(4).repeat(pairs, 1, 1)
        T[:, :3, 3] = torch.rand(pairs, 3)
        return ViewBatch(rgb, 1 + torch.rand(pairs, height, width), rgb[..., 0] & 1, K, T)

    return PairBatch(view(), view())


@pytest.mark.parametrize("train", ["heads", "decoder", "all"])
def test_a_step_in_bfloat16_has_nearly_the_loss_and_gradients_of_float32(train):
    torch.manual_seed(3)
    network, batch = PairwiseNetwork(TINY), random_batch()
    learning = select_parts(network, train, needs_points=True)
    step = TrainingStep(network, train, LossConfig(), symmetrise=True).eval()  # no dropout
    names = list(step.state_dict())
    found = []
    for bfloat16 in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            loss = step(batch).loss
        loss.backward()
        found.append((loss.detach(), torch.cat([weight.grad.flatten() for weight in learning.values()])))
        step.zero_grad()
    (exact_loss, exact), (loss, gradient) = found
    torch.testing.assert_close(loss, exact_loss, atol=0, rtol=0.02)
    assert not torch.equal(loss, exact_loss)
    assert (gradient - exact).norm() < 0.1 * exact.norm()
    assert list(step.state_dict()) == names  # the cast copy is no part of the model
    assert all(weight.dtype == torch.float32 for weight in step.parameters())
    assert bool(step._cast) == (train != "all")


def test_the_truth_stays_exact_under_autocast():
    batch = random_batch()
    exact = batch.truths()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = batch.truths()
    for a, b in zip(exact, found):
        assert torch.equal(a.pointmap, b.pointmap)
