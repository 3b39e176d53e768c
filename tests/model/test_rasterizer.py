"""The CPU rasterizer against a slow, plain one in float64 (values, every gradient) and against finite differences."""

import pytest
import torch
from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci, _spherical_harmonics
from raster_reference import random_scene, rasterize_reference

from das3r_ns.model.rasterizer import rasterize
from das3r_ns.model.rasterizer.harmonics import harmonics_to_color
from das3r_ns.model.rasterizer.inputs import ProjectionSettings
from das3r_ns.model.rasterizer.projection import project


def _values_and_gradients(render, scene, **options):
    """Image, alpha and the gradients of a random combination of both."""
    leaves = {name: value.clone().requires_grad_() for name, value in scene.items()}
    image, alpha = render(**leaves, **options)[:2]
    g = torch.Generator().manual_seed(1)
    loss = (image * torch.randn(image.shape, generator=g, dtype=torch.float64).to(image)).sum()
    loss = loss + (alpha * torch.randn(alpha.shape, generator=g, dtype=torch.float64).to(alpha)).sum()
    loss.backward()
    grads = {name: leaf.grad for name, leaf in leaves.items()}
    grads["Ks"][:, 0, 1] = grads["Ks"][:, 1, 0] = 0.0  # the reference has a skew, ours does not
    return image.detach(), alpha.detach(), grads


@pytest.mark.parametrize(
    ("size", "count", "cameras", "degree", "mode"),
    [
        ((40, 36), 60, 1, 3, "classic"),
        ((40, 36), 60, 2, 2, "antialiased"),
        ((33, 50), 60, 3, 1, "classic"),
        ((16, 16), 60, 1, 0, "antialiased"),
        ((7, 3), 25, 1, 3, "classic"),
    ],
)
def test_values_and_gradients_agree_with_the_plain_reference(size, count, cameras, degree, mode):
    width, height = size
    scene = random_scene(count, width, height, cameras=cameras, degree=3)
    options = {"width": width, "height": height, "sh_degree": degree, "rasterize_mode": mode}
    image, alpha, grads = _values_and_gradients(rasterize, scene, render_mode="RGB+ED", **options)
    true_image, true_alpha, true_grads = _values_and_gradients(
        rasterize_reference, scene, expected_depth=True, **options
    )
    assert 0.05 < true_alpha.mean() < 0.95
    torch.testing.assert_close(image, true_image, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(alpha, true_alpha, rtol=1e-9, atol=1e-11)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, true_grads[name], rtol=1e-8, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def test_a_crowded_image_agrees_in_float32():
    """Many layers: pixels close early, lists are long. Also seven plain channels in place of harmonics."""
    scene = random_scene(400, 70, 50)
    scene["scales"] *= 2.0
    scene["opacities"] = scene["opacities"].sqrt()
    scene["colors"] = torch.rand(400, 7, dtype=torch.float64)
    scene["backgrounds"] = torch.rand(1, 7, dtype=torch.float64)
    true_image, true_alpha, true_grads = _values_and_gradients(rasterize_reference, scene, width=70, height=50)
    single = {name: value.float() for name, value in scene.items()}
    image, alpha, grads = _values_and_gradients(rasterize, single, width=70, height=50, render_mode="RGB+D")
    assert (true_alpha > 0.999).float().mean() > 0.1
    # A splat on the edge of counting (alpha 1/255) may count in one and not in the other: few pixels, little light.
    assert (image - true_image).abs().max() < 0.02
    assert (image - true_image).abs().mean() < 2e-5
    assert (alpha - true_alpha).abs().mean() < 1e-5
    for name, grad in grads.items():
        error = (grad - true_grads[name]).norm() / true_grads[name].norm()
        assert error < 2e-3, f"{name}: {error}"


def test_gradcheck_of_the_whole():
    scene = random_scene(6, 20, 18)
    names = list(scene)
    scene["opacities"] = scene["opacities"].clamp(0.2, 0.9)

    def render(*tensors):
        image, alpha, _ = rasterize(
            **dict(zip(names, tensors)),
            width=20,
            height=18,
            sh_degree=3,
            render_mode="RGB+ED",
            rasterize_mode="antialiased",
        )
        return image, alpha

    leaves = [scene[name].requires_grad_() for name in names]
    assert torch.autograd.gradcheck(render, leaves, fast_mode=True, eps=1e-7, atol=1e-5, rtol=1e-4)


def test_gradcheck_of_projection_and_colours():
    scene = random_scene(4, 24, 20, cameras=2)
    scene["means"][0] = torch.tensor([3.0, -2.5, 1.0])  # so far out that the Jacobian is held at the border
    scene["scales"][0] = 1.5
    settings = ProjectionSettings(24, 20, 0.01, 1e10, 0.3, 0.0)
    geometry = [scene[name].requires_grad_() for name in ("means", "quats", "scales", "viewmats", "Ks")]
    assert (project(*geometry, settings).radii > 0).all()
    assert torch.autograd.gradcheck(lambda *g: project(*g, settings)[1:5], geometry)
    eyes = torch.randn(2, 3, dtype=torch.float64).requires_grad_()
    radii = torch.ones(2, 4, dtype=torch.int32)
    for degree in range(4):
        assert torch.autograd.gradcheck(
            lambda c, m, e, degree=degree: harmonics_to_color(c, m, e, radii, degree),
            [scene["colors"].requires_grad_(), scene["means"], eyes],
        )


def test_projection_agrees_with_gsplats_torch_implementation():
    scene = random_scene(300, 64, 48, cameras=2)
    splats = project(
        *(scene[name] for name in ("means", "quats", "scales", "viewmats", "Ks")),
        ProjectionSettings(64, 48, 0.01, 1e10, 0.3, 0.0),
    )
    covars, _ = _quat_scale_to_covar_preci(scene["quats"], scene["scales"], compute_preci=False)
    radii, *others = _fully_fused_projection(
        scene["means"], covars, scene["viewmats"], scene["Ks"], 64, 48, calc_compensations=True
    )
    assert torch.equal(splats.radii, radii)
    seen = radii > 0
    assert 0.2 < seen.double().mean() < 0.95
    for ours, theirs in zip(splats[1:5], others):
        torch.testing.assert_close(ours[seen], theirs[seen], rtol=1e-9, atol=1e-10)
        assert (ours[~seen] == 0).all()


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_colours_agree_with_gsplats_torch_implementation(degree):
    scene = random_scene(50, 64, 48)
    eyes = torch.randn(1, 3, dtype=torch.float64)
    ours = harmonics_to_color(scene["colors"], scene["means"], eyes, torch.ones(1, 50, dtype=torch.int32), degree)
    theirs = _spherical_harmonics(degree, scene["means"] - eyes, scene["colors"]) + 0.5
    torch.testing.assert_close(ours[0], theirs.clamp_min(0.0))


def test_absgrad_is_the_sum_of_the_absolute_gradients_of_single_pixels():
    scene = random_scene(12, 20, 18)
    leaves = {name: value.clone().requires_grad_() for name, value in scene.items()}
    image, _, info = rasterize(**leaves, width=20, height=18, sh_degree=3, absgrad=True)
    expected = torch.zeros_like(info["means2d"])
    for v in range(18):
        for u in range(20):
            (grad,) = torch.autograd.grad(image[0, v, u].sum(), info["means2d"], retain_graph=True)
            expected += grad.abs()
    info["means2d"].grad = None  # autograd.grad has added to it
    image.sum().backward()
    torch.testing.assert_close(info["means2d"].absgrad, expected)
    assert (info["means2d"].grad.abs() <= expected + 1e-12).all()
