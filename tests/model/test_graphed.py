"""Recorded parts of a step: the same numbers as without recording."""

from functools import partial

import pytest
import torch

from das3r_ns.model import exposure
from das3r_ns.model.frame_loss import ExtraTerms, frame_terms
from das3r_ns.model.graphed import Graphed
from das3r_ns.model.poses import refined_view
from das3r_ns.model.staticness import StaticnessConfig

LOSS = partial(frame_terms, ssim_lambda=0.2, config=StaticnessConfig(cut=0.5), extras=ExtraTerms())
WHOLE = partial(LOSS, extras=ExtraTerms(exposure=True, hidden_weight=0.1))


def frame(device: str, height: int = 24, width: int = 32):
    rgb = torch.rand(height, width, 3, device=device, requires_grad=True)
    static = torch.rand(12, 16, device=device, requires_grad=True)
    start = torch.rand(12, 16, device=device)
    return rgb, torch.rand(height, width, 3, device=device), static, start, torch.ones((), device=device)


def frame_with_extras(device: str):
    values = (0.1 * torch.randn(7, 3, device=device)).requires_grad_()
    ground, hidden = torch.rand(1, 3, 6, 8, device=device), torch.rand(1, 1, 6, 8, device=device)
    polynomial = exposure.polynomial(24, 32, torch.device(device), torch.float32)
    return *frame(device), values, polynomial, ground, hidden


def camera(device: str):
    given = torch.eye(4, device=device)[:3]
    correction = (0.1 * torch.randn(6, device=device)).requires_grad_()
    return given, correction, torch.zeros((), device=device)


def value_and_gradients(function, arguments):
    outputs = [o.clone() for o in function(*arguments)]
    learned = [a for a in arguments if a.requires_grad]
    total = sum(o.sum() * (k + 1) for k, o in enumerate(outputs) if o.requires_grad)
    return outputs, torch.autograd.grad(total, learned)


def test_on_a_cpu_the_function_is_called_as_it_is():
    calls = []
    graphed = Graphed(lambda a: (calls.append(1), (2 * a,))[1])
    assert float(graphed(torch.ones(1))[0]) == 2.0
    assert float(graphed(torch.ones(1))[0]) == 2.0
    assert len(calls) == 2


def test_a_pixel_below_the_cut_gives_the_render_no_gradient_and_its_map_one():
    rgb, image, _, start, one = frame("cpu", 12, 16)
    static = torch.full((12, 16), 0.98)
    static[:, 8:] = 0.475  # below the cut of 0.5
    static.requires_grad_()
    terms = LOSS(rgb, image, static, start, one)
    assert torch.equal(terms.weight[:, 8:], torch.zeros(12, 8, 1))
    (gradient,) = torch.autograd.grad(terms.photometric, rgb, retain_graph=True)
    # The window of SSIM reaches 5 pixels over the edge, where the render is compared with itself.
    assert float(gradient[:, 13:].abs().max()) == 0.0
    (pull,) = torch.autograd.grad(terms.staticness, static)
    assert float(pull[:, 8:].abs().min()) > 0.0


def test_terms_of_exposure_and_hidden_ground_are_those_of_the_exposed_render():
    rgb, image, static, start, one, values, polynomial, ground, hidden = frame_with_extras("cpu")
    terms = WHOLE(rgb, image, static, start, one, values, polynomial, ground, hidden)
    shown = exposure.exposed(rgb, values, polynomial)
    torch.testing.assert_close(terms[:5], LOSS(shown, image, static, start, one)[:5])
    torch.testing.assert_close(terms.exposure, values[:2].square().mean() + 2.5 * values[2:].square().mean())
    large = torch.nn.functional.interpolate(torch.cat((ground, hidden), 1), (24, 32), mode="bilinear")[0]
    by_hand = 0.1 * sum(float(((shown[..., k] - large[k]).abs() * large[3]).sum()) for k in range(3)) / (24 * 32 * 3)
    assert float(terms.hidden.detach()) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize(("function", "arguments"), [(LOSS, frame), (WHOLE, frame_with_extras), (refined_view, camera)])
def test_recorded_and_plain_agree_in_values_and_gradients_on_every_call(function, arguments):
    graphed = Graphed(function)
    for _ in range(3):  # the first call records, the others replay
        given = arguments("cuda")
        outputs, gradients = value_and_gradients(graphed, given)
        expected, true_gradients = value_and_gradients(function, given)
        for ours, theirs in zip((*outputs, *gradients), (*expected, *true_gradients)):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert len(graphed._recorded) == 1


@pytest.mark.gpu
def test_another_size_of_image_is_recorded_anew():
    graphed = Graphed(LOSS)
    graphed(*frame("cuda"))
    given = frame("cuda", 48, 64)
    torch.testing.assert_close(graphed(*given)[0], LOSS(*given)[0])
    assert len(graphed._recorded) == 2
