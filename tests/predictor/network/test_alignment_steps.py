"""The alignment's steps: plain, recorded where that works, and with what goes on around them."""

import pytest
import torch

from das3r_ns.predictor.network.alignment import steps as module
from das3r_ns.predictor.network.alignment.state import quat_to_matrix
from das3r_ns.predictor.network.alignment.steps import Steps, float32_products

RATES = [0.1 * 0.9**k for k in range(30)]


def valley(device: str = "cpu") -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A point beside the lowest one, (3, 3), and a scale of the objective that may change."""
    torch.manual_seed(0)
    return torch.zeros(2, device=device, requires_grad=True), [torch.ones((), device=device)]


def run(device: str, record: bool) -> tuple[torch.Tensor, torch.Tensor, Steps]:
    point, scale = valley(device)
    steps = Steps([point], RATES, lambda: scale[0] * (point - 3).square().sum().sqrt(), record)
    for k in range(20):
        if k == 10:  # as when the flow term sets in
            scale[0] = torch.full((), 2.0, device=device)
            steps.forget()
        steps.take()
    return point.detach(), steps.trace, steps


def test_steps_are_those_of_adam_with_the_rates_given():
    point, trace, _ = run("cpu", record=True)
    expected, scale = valley()
    adam = torch.optim.Adam([expected], betas=(0.9, 0.9))
    for k in range(20):
        adam.param_groups[0]["lr"] = RATES[k]
        adam.zero_grad()
        ((2 if k >= 10 else 1) * scale[0] * (expected - 3).square().sum().sqrt()).backward()
        adam.step()
    torch.testing.assert_close(point, expected.detach())
    assert trace[:20].isfinite().all()
    assert trace[20:].isnan().all()
    assert trace[10] > 1.5 * trace[9]


@pytest.mark.gpu
def test_recorded_steps_are_the_plain_ones():
    plain, plain_trace, _ = run("cuda", record=False)
    recorded, trace, steps = run("cuda", record=True)
    assert steps._graph is not None
    torch.testing.assert_close(recorded, plain)
    torch.testing.assert_close(trace[:20], plain_trace[:20])


@pytest.mark.gpu
def test_what_cannot_be_recorded_is_done_step_by_step():
    point, _ = valley("cuda")

    def objective() -> torch.Tensor:
        total = (point - 3).square().sum()
        float(total)  # waits for the device, which a recording must not
        return total

    steps = Steps([point], RATES, objective, record=True)
    for _ in range(module.WARM_UP_STEPS):
        steps.take()
    with pytest.warns(UserWarning, match="cannot be recorded"):
        steps.take()
    steps.take()
    taken = steps.trace[: module.WARM_UP_STEPS + 2]
    assert (taken.diff() < 0).all()
    assert torch.rand(8, device="cuda").std() > 0  # the device's random numbers did not suffer


def test_products_are_float32_within_whatever_is_set_around():
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        with float32_products():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_quaternion_turns_as_it_should():
    half = 0.5**0.5
    quarter_about = torch.tensor([[half, 0, 0, half], [0, half, 0, half], [0, 0, 3 * half, 3 * half]])
    turned = quat_to_matrix(quarter_about)
    expected = [
        [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
        [[0, 0, 1], [0, 1, 0], [-1, 0, 0]],
        [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
    ]
    torch.testing.assert_close(turned, torch.tensor(expected).float(), atol=1e-6, rtol=0)
