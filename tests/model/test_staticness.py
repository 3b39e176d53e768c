"""Staticness maps, the search for missed motion, and the judgement of Gaussians by where they paint."""

import math

import pytest
import torch

from das3r_ns.model.remarking import ErrorMemory, RemarkingConfig, missed_motion, support
from das3r_ns.model.staticness import FLOOR, StaticnessConfig, StaticnessMaps, dilated, initial_staticness


def test_maps_start_at_one_minus_dynamic_prob():
    probability = torch.tensor([[[0.0, 0.25], [0.5, 1.0]]])
    for learn in ("frames", "clip"):
        maps = StaticnessMaps(probability, StaticnessConfig(learn=learn))
        expected = torch.tensor([[1 - FLOOR, 0.75], [0.5, FLOOR]])
        torch.testing.assert_close(maps.values(0), expected, atol=1e-6, rtol=1e-5)


def test_dilation_reaches_a_square_around_each_pixel():
    probability = torch.zeros(1, 9, 20)
    probability[0, 4, 10] = 1.0
    static = initial_staticness(probability, StaticnessConfig(dilate=0.1))  # 0.1 of 20 pixels: two
    moving = static[0] < 0.5
    assert moving.sum() == 25
    assert moving[2:7, 8:13].all()
    torch.testing.assert_close(dilated(probability, 0 + 1)[0, 3:6, 9:12], torch.ones(3, 3))


def test_caution_lowers_the_log_odds():
    static = initial_staticness(torch.tensor([[[0.2]]]), StaticnessConfig(caution=math.log(4)))
    assert float(static) == pytest.approx(0.5, abs=1e-5)  # odds of 4 to 1 for static become even


def test_weights_have_the_size_of_the_image_and_only_their_frame_has_a_gradient():
    maps = StaticnessMaps(torch.rand(3, 6, 8), StaticnessConfig())
    weight = maps.weight(1, 12, 16)
    assert weight.shape == (12, 16, 1)
    weight.sum().backward()
    assert maps.maps[0].grad is None
    assert maps.maps[2].grad is None
    assert maps.maps[1].grad is not None
    smaller = maps.weight(1, 3, 4)
    torch.testing.assert_close(smaller.mean(), maps.values(1).mean(), atol=0.05, rtol=0)


def test_pixels_below_the_cut_teach_the_render_nothing():
    maps = StaticnessMaps(torch.tensor([[[0.2, 0.6, 0.49]]]), StaticnessConfig(cut=0.5))
    counted = maps.counted(0, 1, 3)[0, :, 0]
    torch.testing.assert_close(counted, torch.tensor([0.8, 0.0, 0.51]), atol=1e-4, rtol=0)
    assert not counted.requires_grad


def test_the_prior_is_zero_at_the_start_and_pulls_back():
    maps = StaticnessMaps(torch.tensor([[[0.2, 0.7]]]), StaticnessConfig())
    assert float(maps.prior(0)) == pytest.approx(0.0, abs=1e-7)
    with torch.no_grad():
        maps.maps[0] -= 2.0
    maps.prior(0).backward()
    assert float(maps.prior(0)) > 0.1
    assert (maps.maps[0].grad < 0).all()  # descending raises the maps again


def test_the_prior_keeps_the_maps_from_falling_to_zero_everywhere():
    """The published loss falls with the weights; with the prior the maps stay, without it they go."""
    from das3r_ns.model.losses import published_loss

    render, truth = torch.full((8, 8, 3), 0.4), torch.full((8, 8, 3), 0.6)
    left = {}
    for strength in (0.0, 0.5):
        maps = StaticnessMaps(torch.full((1, 8, 8), 0.05), StaticnessConfig())
        optimizer = torch.optim.Adam(maps.parameters(), lr=0.1)
        for _ in range(200):
            loss = published_loss(render, truth, maps.weight(0, 8, 8), 0.2) + strength * maps.prior(0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        left[strength] = float(maps.values(0).mean())
    assert left[0.0] < 0.05
    assert left[0.5] > 0.75


def test_pixels_settle_where_the_docstring_says():
    """s (1 - s) (e - m) = lambda (s - s0), m the mean error."""
    start, strength = 0.5, 0.1
    maps = StaticnessMaps(torch.full((1, 1, 400), 1 - start), StaticnessConfig())
    errors = torch.full((1, 400, 1), 0.02)
    errors[0, 0] = 0.3
    optimizer = torch.optim.Adam(maps.parameters(), lr=0.02)
    for _ in range(1500):
        weight = maps.weight(0, 1, 400)
        loss = (errors * weight).sum() / weight.sum() + strength * maps.prior(0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    s = float(maps.values(0)[0, 0])
    weight = maps.weight(0, 1, 400)
    mean = float((errors * weight).sum() / weight.sum())
    # The data term is divided by the sum of weights, the prior by the number of pixels.
    share = float(weight.mean())
    assert s * (1 - s) * (0.3 - mean) / share == pytest.approx(strength * (start - s), abs=3e-3)
    assert s < 0.35


def test_clamped_maps_stay_between_zero_and_one_and_are_read_pixel_by_pixel():
    maps = StaticnessMaps(torch.rand(2, 3, 4), StaticnessConfig(learn="clip"))
    with torch.no_grad():
        maps.maps[0] += 5.0
    maps.confine()
    assert maps.maps[0].max() <= 1 - FLOOR
    with torch.no_grad():
        maps.maps[0].copy_(torch.linspace(0.1, 0.9, 24).view(2, 3, 4))
    flat = (1 * 3 + 2) * 4 + 3  # frame 1, row 2, column 3
    assert float(maps.of_pixels(torch.tensor([flat]))) == pytest.approx(0.9)
    with pytest.raises(ValueError, match="learn='clip'"):
        StaticnessMaps(torch.rand(2, 3, 4), StaticnessConfig()).of_pixels(torch.tensor([0]))


@pytest.mark.parametrize("learn", ["frames", "clip"])
def test_marking_lowers_the_map_and_what_the_prior_pulls_to(learn):
    maps = StaticnessMaps(torch.zeros(2, 3, 4), StaticnessConfig(learn=learn))
    lowered = torch.ones(3, 4)
    lowered[1, 2] = 0.1
    maps.lower(1, lowered)
    assert float(maps.values(1)[1, 2]) == pytest.approx(0.1, abs=1e-4)
    assert float(maps.start[1, 1, 2]) == pytest.approx(0.1, abs=1e-3)
    assert float(maps.values(0).min()) > 0.99
    assert float(maps.values(1)[0].min()) > 0.99


def _clip_with_a_missed_leg():
    probability = torch.zeros(5, 40, 60)
    probability[:, 10:20, 20:30] = 1.0  # the body, found
    errors = torch.full((5, 40, 60), 0.01)
    errors[2, 20:30, 24:27] = 0.2  # the leg, missed in one frame
    errors[2, 2:8, 50:58] = 0.2  # a texture not learned yet, far from any motion
    return errors, probability, 1 - probability


def test_a_missed_leg_is_marked_and_a_far_texture_is_not():
    errors, probability, static = _clip_with_a_missed_leg()
    config = RemarkingConfig(reach=0.2, grow=0.0, frames=0)
    missed = missed_motion(errors, probability, static, config)
    assert missed[2, 21:29, 25].all()
    assert not missed[2, 2:8, 50:58].any()
    assert not missed[[0, 1, 3, 4]].any()


def test_evidence_in_a_neighbouring_frame_counts():
    errors, probability, static = _clip_with_a_missed_leg()
    probability[2] = 0.0
    alone = missed_motion(errors, probability, static, RemarkingConfig(reach=0.2, frames=0))
    with_neighbours = missed_motion(errors, probability, static, RemarkingConfig(reach=0.2, frames=1))
    assert not alone[2].any()
    assert with_neighbours[2, 21:29, 25].all()


def test_a_frame_not_seen_yet_marks_nothing():
    _, probability, static = _clip_with_a_missed_leg()
    assert not missed_motion(torch.zeros(5, 40, 60), probability, static, RemarkingConfig()).any()


def test_errors_are_remembered_at_the_size_of_the_maps():
    memory = ErrorMemory((2, 4, 6), torch.device("cpu"))
    error = torch.zeros(8, 12, 1)
    error[2:4, 4:6] = 1.0
    memory.remember(1, error)
    assert float(memory.errors[1, 1, 2]) == pytest.approx(1.0)
    assert float(memory.errors.sum()) == pytest.approx(1.0)


def test_support_is_the_blending_weight_on_static_and_on_all_pixels():
    """Two Gaussians, one pixel row of three: each paints known shares."""
    blending = torch.tensor([[0.5, 0.25, 0.0], [0.0, 0.5, 1.0]])  # Gaussian x pixel

    def render(frame, values):
        return torch.einsum("gp,gc->pc", blending, values)[None]

    def weight(frame):
        return torch.tensor([[[1.0], [1.0], [0.0]]])

    total = support(render, weight, num_frames=2, values=torch.zeros(2, 2))
    torch.testing.assert_close(total, torch.tensor([[1.5, 1.5], [1.0, 3.0]]))
