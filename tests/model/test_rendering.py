"""Splats seen from a view: axes, focal factor, extra channels, smaller images."""

import pytest
import torch

from das3r_ns.model.poses import view_matrix
from das3r_ns.model.rendering import Splats, View, draw


def one_splat(position, **changes) -> Splats:
    values = {
        "means": torch.tensor([position], dtype=torch.float64),
        "quats": torch.tensor([[1.0, 0.2, 0.3, 0.1]], dtype=torch.float64),
        "scales": torch.tensor([[0.2, 0.1, 0.3]], dtype=torch.float64),
        "opacities": torch.tensor([0.8], dtype=torch.float64),
        "colors": torch.tensor([[1.0, 0.5, 0.25]], dtype=torch.float64),
    }
    return Splats(**{**values, **changes})


def looking_view(focal_factor=1.0, focal=40.0) -> View:
    T = view_matrix(torch.eye(4, dtype=torch.float64)[None, :3], torch.tensor(focal_factor, dtype=torch.float64))
    K = torch.tensor([[[focal, 0, 16], [0, focal, 12], [0, 0, 1]]], dtype=torch.float64)
    return View(T, K, 24, 32)


def test_an_opengl_camera_at_the_origin_sees_what_lies_along_minus_z():
    image = draw(one_splat([0.0, 0.3, -2.0]), looking_view(), with_depth=True)
    row, column = divmod(int(image.alpha.argmax()), 32)
    assert row < 12  # y is up, so it shows in the upper half
    assert column in (15, 16)
    assert image.depth is not None
    assert float(image.depth[row, column]) == pytest.approx(2.0, abs=1e-6)


def test_a_focal_factor_in_the_view_is_the_same_image_as_a_longer_focal_length():
    splat = one_splat([0.2, 0.1, -2.0])
    by_factor = draw(splat, looking_view(focal_factor=1.15))
    by_focal = draw(splat, looking_view(focal=40.0 * 1.15))
    torch.testing.assert_close(by_factor.color, by_focal.color, atol=1e-9, rtol=1e-6)


def test_the_focal_factor_has_the_gradient_of_finite_differences():
    splat, target = one_splat([0.3, 0.2, -2.0]), draw(one_splat([0.25, 0.2, -2.0]), looking_view()).color

    def loss(log_factor):
        T = view_matrix(torch.eye(4, dtype=torch.float64)[None, :3], log_factor.exp())
        view = View(T, looking_view().K, 24, 32)
        return (draw(splat, view).color - target).square().sum()

    at = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(at), at)
    step = 1e-6
    numeric = (loss(at.detach() + step) - loss(at.detach() - step)) / (2 * step)
    assert float(gradient) == pytest.approx(float(numeric), rel=1e-4)


def test_extra_values_and_depth_come_after_the_colours():
    splat = one_splat([0.0, 0.0, -2.0])
    extra = torch.tensor([[0.25]], dtype=torch.float64)
    image = draw(splat, looking_view(), extra=extra, with_depth=True)
    assert image.color.shape == (24, 32, 3)
    torch.testing.assert_close(image.extra, 0.25 * image.alpha)
    carried = draw(splat.carrying(extra.expand(1, 2)), looking_view())
    torch.testing.assert_close(carried.color, image.extra.expand(24, 32, 2))


def test_a_shrunk_view_shows_the_same_with_fewer_pixels():
    view = looking_view()
    small = view.shrunk(2)
    assert (small.height, small.width) == (12, 16)
    torch.testing.assert_close(small.K[0, 0], torch.tensor([20.0, 0.0, 8.0], dtype=torch.float64))
    assert view.shrunk(1) is view
