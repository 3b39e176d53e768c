"""The Gaussian stage's losses and learning rates, against recorded reference numbers and against cases done by hand."""

import math

import numpy as np
import pytest
import torch

from das3r_ns.model import losses, schedules
from das3r_ns.model.schedules import (
    FusedAdamConfig,
    GatedAdam,
    GatedAdamConfig,
    LogLinearSchedulerConfig,
    log_linear,
)


@pytest.fixture(scope="module")
def recorded(data):
    with np.load(data / "losses.npz") as file:
        return {key: file[key] for key in file.files if key.startswith(("gs/", "psnr/", "lr/"))}


def image(array) -> torch.Tensor:
    return torch.from_numpy(array).permute(1, 2, 0)


def test_ssim_map_is_the_recorded_one(recorded):
    static = torch.from_numpy(recorded["gs/static"])[..., None]
    a, b = image(recorded["gs/render"]), image(recorded["gs/gt"])
    # Variances are differences of near-equal float32 numbers: single pixels differ in the fourth digit.
    close = {"atol": 2e-4, "rtol": 1e-3}
    torch.testing.assert_close(losses.ssim_map(a * static, b * static), image(recorded["gs/ssim_map"]), **close)
    torch.testing.assert_close(losses.ssim_map(a, b), image(recorded["gs/ssim_unmasked_map"]), **close)


def test_published_loss_and_its_gradients_are_the_recorded_ones(recorded):
    render = image(recorded["gs/render"]).clone().requires_grad_()
    static = torch.from_numpy(recorded["gs/static"])[..., None].clone().requires_grad_()
    truth = image(recorded["gs/gt"])
    loss = losses.published_loss(render, truth, static, float(recorded["gs/lambda_dssim"]))
    loss.backward()
    assert float(loss) == pytest.approx(float(recorded["gs/loss"]), rel=1e-5)
    torch.testing.assert_close(render.grad, image(recorded["gs/grad_render"]), atol=2e-8, rtol=1e-3)
    torch.testing.assert_close(static.grad[..., 0], torch.from_numpy(recorded["gs/grad_static"]), atol=2e-8, rtol=1e-3)
    unmasked = losses.published_loss(render, truth, torch.ones_like(static), 0.2)
    assert float(unmasked) == pytest.approx(float(recorded["gs/loss_unmasked"]), rel=1e-5)


def test_published_psnr_is_the_recorded_one_that_gates_the_cameras(recorded):
    render, truth = image(recorded["gs/render"]), image(recorded["gs/gt"])
    static = torch.from_numpy(recorded["gs/static"])[..., None]
    assert float(losses.published_psnr(render, truth, static)) == pytest.approx(
        float(recorded["psnr/train_mean"]), abs=1e-4
    )
    keep = 1 - torch.from_numpy(recorded["psnr/gt_dynamic_mask"]).float()[..., None]
    test = losses.published_psnr(render.clamp(0, 1), truth.clamp(0, 1), keep)
    assert float(test) == pytest.approx(float(recorded["psnr/test_mean"]), abs=1e-4)


@pytest.mark.parametrize(
    ("key", "first", "last", "steps"),
    [
        ("lr/xyz_for_unit_extent", 1.6e-4, 1.6e-6, 30000),
        ("lr/pose_q_and_t", 3e-5, 3e-6, 1000),
        ("lr/staticness_4000_iters", 3e-3, 3e-4, 4000),
    ],
)
def test_learning_rates_are_the_recorded_ones(recorded, key, first, last, steps):
    rates = [log_linear(int(i), first, last, steps) for i in recorded["lr/iterations"]]
    np.testing.assert_allclose(rates, recorded[key], rtol=1e-6)


def test_the_paper_method_follows_the_recorded_learning_rates(recorded):
    from das3r_ns.config import das3r_paper

    groups = das3r_paper.config.optimizers
    for group, key in (
        ("means", "lr/xyz_for_unit_extent"),
        ("camera_opt", "lr/pose_q_and_t"),
        ("staticness_maps", "lr/staticness_4000_iters"),
    ):
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer = groups[group]["optimizer"].setup([parameter])
        scheduler = groups[group]["scheduler"].setup().get_scheduler(optimizer, groups[group]["optimizer"].lr)
        rates = dict(zip(recorded["lr/iterations"].tolist(), recorded[key]))
        for step in range(1001):
            if step in rates:
                assert optimizer.param_groups[0]["lr"] == pytest.approx(rates[step], rel=1e-6)
            optimizer.step()
            scheduler.step()


def test_a_weighted_mean_counts_only_what_weighs():
    values = torch.tensor([[[1.0], [100.0]], [[3.0], [100.0]]])
    weight = torch.tensor([[[1.0], [0.0]], [[1.0], [0.0]]])
    assert float(losses.weighted_mean(values, weight)) == pytest.approx(2.0)
    assert float(losses.weighted_mean(values, torch.zeros_like(weight))) == 0.0


def test_a_frame_that_is_mostly_masked_weighs_as_much_as_any_other_per_static_pixel():
    truth = torch.rand(32, 48, 3)
    render = truth + 0.1
    everywhere, little = torch.ones(32, 48, 1), torch.zeros(32, 48, 1)
    little[:4] = 1.0
    full = losses.photometric_loss(render, truth, everywhere, ssim_lambda=0.0)
    part = losses.photometric_loss(render, truth, little, ssim_lambda=0.0)
    assert float(full) == pytest.approx(0.1, abs=1e-6)
    assert float(part) == pytest.approx(0.1, abs=1e-6)


def test_what_lies_in_a_moving_region_changes_neither_loss_nor_gradient():
    truth, static = torch.rand(40, 56, 3), torch.ones(40, 56, 1)
    static[10:30, 20:40] = 0.0
    other = torch.where(static > 0, truth, torch.rand(40, 56, 3))
    results = []
    for seen in (truth, other):
        render = (truth * 0.9).requires_grad_()
        loss = losses.photometric_loss(render, seen, static, 0.2)
        (gradient,) = torch.autograd.grad(loss, render)
        results.append((loss.detach(), gradient * static))
    torch.testing.assert_close(results[0], results[1])


def test_the_static_loss_is_zero_for_a_perfect_render_and_differentiable_in_float64():
    truth, static = torch.rand(12, 14, 3, dtype=torch.float64), torch.rand(12, 14, 1, dtype=torch.float64)
    assert float(losses.photometric_loss(truth, truth, static, 0.2)) == pytest.approx(0.0, abs=1e-12)
    render = torch.rand(12, 14, 3, dtype=torch.float64, requires_grad=True)
    fixed = losses.photometric_loss(render.detach(), truth, static, 1.0)
    assert 0 < float(fixed) < 2
    # With L1 alone the fill plays no part, so finite differences must agree.
    assert torch.autograd.gradcheck(lambda r: losses.photometric_loss(r, truth, static, 0.0), (render,))


def test_static_psnr_of_a_constant_error_is_its_decibels():
    truth, static = torch.full((8, 8, 3), 0.5), torch.ones(8, 8, 1)
    static[:4] = 0
    render = truth + 0.1
    assert float(losses.psnr(render, truth, static)) == pytest.approx(20.0, abs=1e-4)
    # Half of the pixels count as perfect: 10 log10(2) dB too much.
    assert float(losses.published_psnr(render, truth, static)) == pytest.approx(20.0 + 10 * math.log10(2), abs=1e-4)


def test_a_schedule_waits_and_leaves_plain_numbers_in_the_checkpoint(tmp_path):
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = FusedAdamConfig(lr=1e-2).setup([parameter])
    config = LogLinearSchedulerConfig(lr_final=1e-4, max_steps=10, start_step=3)
    scheduler = config.setup().get_scheduler(optimizer, 1e-2)
    rates = []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"])
        parameter.grad = torch.ones(3)
        optimizer.step()
        scheduler.step()
    assert rates[:3] == [0.0, 0.0, 0.0]
    assert rates[5] == pytest.approx(1e-3)
    assert rates[10] == pytest.approx(1e-4)
    torch.save({"o": optimizer.state_dict(), "s": scheduler.state_dict()}, tmp_path / "state.ckpt")
    torch.load(tmp_path / "state.ckpt", weights_only=True)


def test_a_schedule_holds_its_first_rate_before_it_falls():
    optimizer = FusedAdamConfig(lr=1e-2).setup([torch.nn.Parameter(torch.zeros(3))])
    config = LogLinearSchedulerConfig(lr_final=1e-4, max_steps=10, start_step=1, hold_until=6)
    (factor,) = config.setup().get_scheduler(optimizer, 1e-2).lr_lambdas
    # Straight from 1 to 1/100 in log between steps 6 and 10: half way, at step 8, a tenth.
    assert [factor(step) for step in (0, 1, 6, 8, 10, 12)] == pytest.approx([0.0, 1.0, 1.0, 0.1, 0.01, 0.01])


def test_the_lean_adam_gives_the_numbers_of_torchs_own(monkeypatch):
    steps = []
    taken = schedules._take_fused_step
    monkeypatch.setattr(schedules, "_take_fused_step", lambda *group: (steps.append(len(group[1])), taken(*group)))
    started = [torch.nn.Parameter(torch.arange(3.0)), torch.nn.Parameter(torch.ones(2, 2))]
    ours = [torch.nn.Parameter(p.detach().clone()) for p in started]
    own = torch.optim.Adam(started, lr=0.1, eps=1e-15, weight_decay=0.01, fused=True)
    lean = FusedAdamConfig(lr=0.1, weight_decay=0.01).setup(ours)
    generator = torch.Generator().manual_seed(0)
    for step in range(5):
        own.param_groups[0]["lr"] = lean.param_groups[0]["lr"] = 0.1 / (step + 1)
        for a, b in zip(started, ours):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        if step == 3:  # only one of them is seen in this step
            started[1].grad = ours[1].grad = None
        own.step()
        lean.step()
    assert steps == [2, 2, 1, 2]  # the first step is torch's own: it makes the state
    for a, b in zip(started, ours):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
        assert float(own.state[a]["step"]) == float(lean.state[b]["step"])
    before = ours[0].detach().clone()
    lean.found_inf = torch.ones(())  # type: ignore[attr-defined]  # a gradient scaler found one: no step
    lean.step()
    torch.testing.assert_close(ours[0], before, rtol=0, atol=0)
    lean.zero_grad()
    assert all(p.grad is None for p in ours)


def test_a_closed_gate_leaves_parameter_and_moments_as_they_were():
    gated = torch.nn.Parameter(torch.zeros(2))
    plain = torch.nn.Parameter(torch.zeros(2))
    optimizer = GatedAdamConfig(lr=0.1).setup([gated])
    reference = FusedAdamConfig(lr=0.1).setup([plain])
    assert isinstance(optimizer, GatedAdam)
    for step, opened in enumerate([False, True, False, False, True]):
        gated.grad = torch.tensor([1.0, -2.0]) * (step + 1)
        optimizer.gate = torch.tensor(opened)
        optimizer.step()
        if opened:
            plain.grad = gated.grad.clone()
            reference.step()
        torch.testing.assert_close(gated, plain)
    torch.testing.assert_close(optimizer.state[gated]["step"], reference.state[plain]["step"])
