"""The CPU rasterizer against a slow plain one in float64: values and every gradient."""

import pytest
import torch
from raster_reference import random_scene, rasterize_reference

from das3r_ns.model.rasterizer import rasterize


def _run(render, scene, **options):
    leaves = {name: value.clone().requires_grad_() for name, value in scene.items()}
    image, alpha = render(**leaves, width=40, height=36, sh_degree=3, **options)[:2]
    weights = torch.Generator().manual_seed(1)
    loss = (image * torch.randn(image.shape, generator=weights, dtype=torch.float64)).sum()
    loss = loss + (alpha * torch.randn(alpha.shape, generator=weights, dtype=torch.float64)).sum()
    loss.backward()
    return image.detach(), alpha.detach(), {name: leaf.grad for name, leaf in leaves.items()}


@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
@pytest.mark.parametrize("cameras", [1, 2])
def test_values_and_gradients_agree_with_the_plain_reference(rasterize_mode, cameras):
    scene = random_scene(60, 40, 36, cameras=cameras)
    image, alpha, grads = _run(rasterize, scene, render_mode="RGB+ED", rasterize_mode=rasterize_mode)
    true_image, true_alpha, true_grads = _run(
        rasterize_reference, scene, expected_depth=True, rasterize_mode=rasterize_mode
    )
    assert 0.1 < true_alpha.mean() < 0.9
    torch.testing.assert_close(image, true_image, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(alpha, true_alpha, rtol=1e-9, atol=1e-11)
    true_grads["Ks"][:, 0, 1] = true_grads["Ks"][:, 1, 0] = 0.0  # skew is not used
    for name, grad in grads.items():
        torch.testing.assert_close(grad, true_grads[name], rtol=1e-8, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
