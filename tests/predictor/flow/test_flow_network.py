"""The flow network's parts against what they must be, worked out by hand."""

import pytest
import torch

from das3r_ns.predictor.flow.network import FlowNetwork
from das3r_ns.predictor.flow.network_parts import Upsampling
from das3r_ns.predictor.flow.sampling import cells, look_up, warp


def test_a_look_up_reads_the_correlation_of_the_cell_that_the_flow_points_to():
    b, h, w, radius = 2, 8, 10, 3
    correlations = torch.rand(b * h * w, 1, h, w)
    flow = torch.zeros(b, 2, h, w)
    flow[1, 0], flow[1, 1] = 2, -1
    found = look_up([correlations], flow, radius).reshape(b, 7, 7, h, w)
    values = correlations.reshape(b, h, w, h, w)
    assert found[0, 3, 3, 4, 5] == pytest.approx(values[0, 4, 5, 4, 5].item())
    assert found[1, 3, 3, 4, 5] == pytest.approx(values[1, 4, 5, 3, 7].item(), abs=1e-5)
    assert found[1, 5, 2, 4, 5] == pytest.approx(values[1, 4, 5, 5, 6].item(), abs=1e-5)  # 2 rows on, 1 column back
    assert found[0, 0, 0, 0, 0] == 0  # out of view


def test_coarser_scales_are_read_at_the_same_place():
    h, w = 16, 16
    columns = cells(h, w, torch.device("cpu"))[0].expand(h * w, 1, h, w)
    pyramid = [columns, torch.nn.functional.avg_pool2d(columns, 2)]
    found = look_up(pyramid, torch.full((1, 2, h, w), 0.25), 0)
    inside = found[0, :, 4:12, 4:12]
    torch.testing.assert_close(inside[0], inside[1])
    torch.testing.assert_close(inside[0, 0], torch.arange(4, 12) + 0.25)


def test_upsampling_gives_each_fine_pixel_a_mean_of_the_cells_around_it():
    torch.manual_seed(0)
    upsampling = Upsampling(4, 2)
    flow = cells(6, 8, torch.device("cpu"))[None]
    fine = upsampling(torch.rand(1, 4, 6, 8), flow)
    assert fine.shape == (1, 2, 12, 16)
    offset = fine[0] - flow[0].repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert offset.abs().max() <= 1
    # All weight on the right neighbour of every cell: each pixel takes its column plus one.
    for layer in upsampling.weights:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.zeros_(layer.weight)
    bias = torch.zeros(9, 2, 2)
    bias[5] = 50
    upsampling.weights[-1].bias.data = bias.flatten()
    fine = upsampling(torch.rand(1, 4, 6, 8), flow)
    torch.testing.assert_close(fine[0, 0, :, :14], (torch.arange(14) // 2 + 1.0).expand(12, 14))


def test_warping_by_a_whole_pixel_shifts():
    values = torch.rand(1, 3, 5, 6)
    moved = warp(values, torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 5, 6))
    torch.testing.assert_close(moved[..., :3, :5], values[..., 2:, 1:])
    assert (moved[..., 3:, :] == 0).all()


def test_matching_finds_the_cell_with_the_same_features():
    network = FlowNetwork()
    torch.manual_seed(0)
    features = 20 * torch.nn.functional.normalize(torch.randn(1, 128, 16, 20), dim=1)
    moved = features.roll((2, 3), (2, 3))
    _, _, matched = network.correlate(features, moved)
    torch.testing.assert_close(matched[0, 0, :13, :16], torch.full((13, 16), 24.0), atol=0.05, rtol=0)
    torch.testing.assert_close(matched[0, 1, :13, :16], torch.full((13, 16), 16.0), atol=0.05, rtol=0)
