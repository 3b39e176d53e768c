"""Small parts of the model by themselves: exposure, depth supervision, metrics of a frame."""

import math

import pytest
import torch

from das3r_ns.model.depth import DepthSupervision
from das3r_ns.model.exposure import Exposure
from das3r_ns.model.frame_metrics import metrics


def test_exposure_is_stops_and_offset_and_lies_between_frames_in_time():
    exposure = Exposure(2)
    exposure.frame_index.copy_(torch.tensor([0, 4]))
    with torch.no_grad():
        exposure.frames[1][0] = 1.0
        exposure.frames[1][1] = 0.1
    render = torch.full((2, 2, 3), 0.25)
    torch.testing.assert_close(exposure.expose(render, 0), render)
    torch.testing.assert_close(exposure.expose(render, 1), torch.full((2, 2, 3), 0.6))
    halfway = exposure.expose_at(render, torch.tensor([2]))
    torch.testing.assert_close(halfway, torch.full((2, 2, 3), 0.25 * math.sqrt(2) + 0.05))


def test_an_uneven_exposure_is_a_polynomial_in_stops_between_frames_too():
    exposure = Exposure(2)
    exposure.frame_index.copy_(torch.tensor([0, 4]))
    with torch.no_grad():
        exposure.frames[1][2] = 2.0  # x: one stop down at -1/2, one up at +1/2
        exposure.frames[1][6, 0] = 16.0  # red, y^2
        exposure.frames[1][5, 2] = 4.0  # blue, xy: one stop either way
    render = torch.full((2, 2, 3), 0.25)
    red, green, blue = exposure.expose(render, 1).unbind(-1)
    torch.testing.assert_close(green, torch.tensor([[0.125, 0.5], [0.125, 0.5]]))
    torch.testing.assert_close(blue, torch.tensor([[0.25, 0.25], [0.0625, 1.0]]))
    wide = exposure.expose(torch.full((2, 4, 3), 0.25), 1)  # x = -3/4 .. 3/4, y = -1/4 and 1/4: one stop for red
    torch.testing.assert_close(wide[:, 0, 1], torch.full((2,), 0.25 * 2**-1.5))
    torch.testing.assert_close(wide[:, 3, 0], torch.full((2,), 0.25 * 2**2.5))
    torch.testing.assert_close(red, 16 * green)  # y = -1/2 and 1/2 in a square image: four stops
    halfway = exposure.expose_at(render, torch.tensor([2]))
    torch.testing.assert_close(halfway[0, :, 1], torch.tensor([0.25 * 2**-0.5, 0.25 * 2**0.5]))
    # 3 times 2 squared, 16 squared and 4 squared, over 15 values
    torch.testing.assert_close(exposure.regularizer(1), torch.tensor(2.5 * (3 * 4 + 256 + 16) / 15))


def test_depth_is_compared_as_inverse_depth_where_it_is_known_sure_and_static():
    depth = torch.full((1, 4, 4), 2.0)
    depth[0, 0] = 0.0  # unknown
    supervision = DepthSupervision(depth, torch.ones(1, 4, 4))
    opaque, static = torch.ones(4, 4, 1), torch.ones(4, 4, 1)
    rendered = torch.full((4, 4, 1), 4.0)
    assert float(supervision.loss(rendered, opaque, static, 0)) == pytest.approx(0.25)
    rendered[0] = 1e3  # unknown there: does not count
    static[1] = 0.0
    rendered[1] = 1e3  # moving there: does not count
    assert float(supervision.loss(rendered, opaque, static, 0)) == pytest.approx(0.25)
    assert float(supervision.loss(rendered, opaque, static * 0, 0)) == 0.0


def test_a_clip_without_any_depth_is_not_supervised():
    supervision = DepthSupervision(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4))
    assert float(supervision.loss(torch.ones(8, 8, 1), torch.ones(8, 8, 1), torch.ones(8, 8, 1), 0)) == 0.0


def test_metrics_say_what_they_average_over():
    image, static = torch.full((16, 16, 3), 0.5), torch.ones(16, 16, 1)
    static[:8] = 0.0
    render = image + torch.where(static > 0, 0.1, 0.5)
    values = metrics(render, image, static, has_mask=True)
    assert values["static_psnr"] == pytest.approx(20.0, abs=1e-3)
    assert values["paper_psnr"] == pytest.approx(20.0 + 10 * math.log10(2), abs=1e-3)
    assert values["psnr"] == pytest.approx(-10 * math.log10((0.01 + 0.25) / 2), abs=1e-3)
    assert "paper_psnr" not in metrics(render, image, static, has_mask=False)
    nothing = metrics(render, image, torch.zeros_like(static), has_mask=True)
    assert nothing["static_psnr"] == pytest.approx(values["psnr"])
