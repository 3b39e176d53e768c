"""Gaussians on a GPU that the CPU draws, and gsplat's two layouts of radii."""

import gsplat.rendering
import pytest
import torch
from pretend_cuda import on_gpu, on_host, pretended_gpu

from das3r_ns.model.rasterizer import rasterize


def splats(n: int = 5) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    return {
        "means": torch.rand(n, 3, generator=rng) + torch.tensor([-0.5, -0.5, 2.0]),
        "quats": torch.randn(n, 4, generator=rng),
        "scales": 0.1 + 0.1 * torch.rand(n, 3, generator=rng),
        "opacities": 0.5 + 0.4 * torch.rand(n, generator=rng),
        "colors": torch.rand(n, 4, 3, generator=rng),
        "viewmats": torch.eye(4)[None],
        "Ks": torch.tensor([[[30.0, 0.0, 16.0], [0.0, 30.0, 12.0], [0.0, 0.0, 1.0]]]),
    }


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_the_cpu_draws_gaussians_that_are_on_a_gpu(monkeypatch, by):
    options = {"width": 32, "height": 24, "sh_degree": 1, "render_mode": "RGB+ED"}
    expected, alpha, _ = rasterize(**splats(), **options)
    if by == "argument":
        options["rasterizer"] = "cpu"
    else:
        monkeypatch.setenv("DAS3R_RASTERIZER", "cpu")
    with pretended_gpu(), torch.no_grad():
        render, seen, info = rasterize(**on_gpu(splats()), **options)
        assert render.is_cuda
        assert seen.is_cuda
        assert not info["means2d"].is_cuda
        render, seen = on_host((render, seen))
    torch.testing.assert_close(render, expected)
    torch.testing.assert_close(seen, alpha)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.tensor([[3, 0, 7]]), [[3, 0, 7]]),  # gsplat 1.4
        (torch.tensor([[[3, 2], [0, 4], [5, 7]]]), [[3, 0, 7]]),  # gsplat 1.5: x and y; neither 0 where drawn
    ],
)
def test_radii_mean_the_same_with_both_versions_of_gsplat(monkeypatch, given, expected):
    def rasterization(means, *_, width=4, height=4, **__):
        image = means.new_zeros((1, 4, 4, 3))
        return image, image[..., :1], {"radii": given, "means2d": torch.zeros(1, 3, 2)}

    monkeypatch.setattr(gsplat.rendering, "rasterization", rasterization)
    with pretended_gpu(), torch.no_grad():
        _, _, info = rasterize(**on_gpu(splats(3)), width=4, height=4, sh_degree=1)
    assert info["radii"].tolist() == expected
