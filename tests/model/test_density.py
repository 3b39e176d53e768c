"""Density control: what grows, what goes, and what goes along with it."""

import math

import pytest
import torch

from das3r_ns.model.density import StaticDensity, effective_opacity, prune


def gaussians(count: int) -> tuple[dict[str, torch.nn.Parameter], dict[str, torch.optim.Optimizer]]:
    params = {
        "means": torch.rand(count, 3),
        "scales": torch.full((count, 3), -5.0),
        "quats": torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        "opacities": torch.zeros(count, 1),
        "staticness": torch.linspace(-3, 3, count)[:, None],
    }
    params = {name: torch.nn.Parameter(value) for name, value in params.items()}
    optimizers = {name: torch.optim.Adam([p], lr=0.1) for name, p in params.items()}
    for name, p in params.items():
        p.grad = torch.ones_like(p)
        optimizers[name].step()
    return params, optimizers


def step_info(count: int, gradient: torch.Tensor) -> dict:
    means2d = torch.zeros(1, count, 2)
    means2d.grad = gradient
    return {"means2d": means2d, "radii": torch.ones(1, count), "width": 64, "height": 48, "n_cameras": 1}


def grown(max_gaussians: int) -> tuple[dict, dict, dict]:
    params, optimizers = gaussians(10)
    strategy = StaticDensity(
        grow_grad2d=0.5, grow_scale3d=1.0, refine_start_iter=0, refine_every=1, prune_opa=0.0,
        prune_scale3d=10.0, max_gaussians=max_gaussians,
    )  # fmt: skip
    state = strategy.initialize_state()
    gradient = torch.zeros(1, 10, 2)
    gradient[0, [2, 5, 7], 0] = torch.tensor([0.1, 0.3, 0.2])  # 3.2, 9.6 and 6.4 in screen units
    strategy.step_post_backward(params, optimizers, state, 1, step_info(10, gradient))
    return params, optimizers, state


def test_gaussians_with_a_large_gradient_are_doubled_with_their_staticness():
    params, optimizers, state = grown(100)
    assert len(params["means"]) == 13
    torch.testing.assert_close(params["staticness"][10:], params["staticness"][[2, 5, 7]])
    assert len(state["grad2d"]) == 13
    for name, p in params.items():
        assert len(optimizers[name].state[p]["exp_avg"]) == 13


def test_the_ceiling_is_spent_on_the_largest_gradients():
    params, _, _ = grown(12)
    assert len(params["means"]) == 12
    torch.testing.assert_close(params["staticness"][10:], params["staticness"][[5, 7]])


def test_a_gaussian_nobody_sees_gathers_no_gradient():
    strategy = StaticDensity(refine_every=1000)
    params, optimizers = gaussians(3)
    state = strategy.initialize_state()
    info = step_info(3, torch.ones(1, 3, 2))
    info["radii"][0, 1] = 0
    strategy.step_post_backward(params, optimizers, state, 1, info)
    assert state["count"].tolist() == [1.0, 0.0, 1.0]
    assert state["grad2d"][1] == 0.0
    assert float(state["grad2d"][0]) == pytest.approx(math.hypot(32, 24))


def test_pruning_judges_opacity_times_staticness_and_keeps_one():
    params, optimizers = gaussians(5)
    with torch.no_grad():
        params["opacities"].fill_(0.0)
        params["staticness"].copy_(torch.logit(torch.tensor([0.01, 0.5, 0.9, 0.02, 0.7]))[:, None])
    opacity = effective_opacity(params)
    torch.testing.assert_close(opacity, torch.tensor([0.005, 0.25, 0.45, 0.01, 0.35]))
    assert prune(params, optimizers, {}, opacity < 0.1) == 2
    assert len(params["means"]) == 3
    assert prune(params, optimizers, {}, torch.ones(3, dtype=torch.bool)) == 2
    assert float(effective_opacity(params)) == pytest.approx(0.45)


def test_opacities_are_not_reset_before_the_first_step():
    strategy = StaticDensity(reset_every=2, prune_opa=0.01, refine_start_iter=100)
    params, optimizers = gaussians(3)
    state = strategy.initialize_state()
    before = params["opacities"].detach().clone()
    strategy.step_post_backward(params, optimizers, state, 0, step_info(3, torch.zeros(1, 3, 2)))
    torch.testing.assert_close(params["opacities"].detach(), before)
    strategy.step_post_backward(params, optimizers, state, 2, step_info(3, torch.zeros(1, 3, 2)))
    torch.testing.assert_close(params["opacities"].sigmoid(), torch.full((3, 1), 0.02))
