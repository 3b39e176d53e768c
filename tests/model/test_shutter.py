"""Motion blur and rolling shutter, against lines and fields worked out by hand."""

import pytest
import torch

from das3r_ns import geometry
from das3r_ns.model.shutter import GAMMA_TOE, blurred, motion_field

SIZE = (24, 40)


def light(colors: torch.Tensor) -> torch.Tensor:
    return (colors + GAMMA_TOE) ** 2


def sideways(pixels: float, down: float = 0.0) -> torch.Tensor:
    """A field that moves everything by so many pixels in a frame interval."""
    field = torch.empty(5, 7, 2)
    field[..., 0], field[..., 1] = pixels * 2 / SIZE[1], down * 2 / SIZE[0]
    return field


def shares(share: float, across: float = 0.0, down: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(share), torch.tensor([across, down])


def test_a_bright_line_spreads_over_the_share_of_its_motion_and_loses_no_light():
    render = torch.zeros(*SIZE, 3)
    render[:, 20] = 1.0
    film = light(blurred(render, *shares(0.5), sideways(12.0)))
    spread = (film - GAMMA_TOE**2).sum(dim=(0, 2)) / (SIZE[0] * 3 * (light(torch.ones(1)) - GAMMA_TOE**2))
    assert spread.sum() == pytest.approx(1, abs=1e-4)
    columns = torch.arange(SIZE[1]) - 20.0
    assert (spread * columns).sum() == pytest.approx(0, abs=1e-4)
    # Nine equal parts of 6 pixels, drawn with a triangle one pixel wide to each side: (6^2 (1 - 1/81)) / 12 + 1/6
    assert (spread * columns**2).sum() == pytest.approx(36 / 12 * 80 / 81, abs=0.25)
    assert spread[(columns.abs() > 4)].sum() == 0


def test_nothing_happens_without_motion_or_with_a_shutter_that_is_open_for_no_time():
    render = torch.rand(*SIZE, 3)
    torch.testing.assert_close(blurred(render, *shares(0.9, 0.1, 0.2), sideways(0.0)), render, atol=1e-5, rtol=0)
    torch.testing.assert_close(blurred(render, *shares(0.0), sideways(9.0)), render, atol=1e-5, rtol=0)


def test_rows_that_are_read_later_show_what_has_moved_on():
    """Everything moves right by 8 pixels an interval, of which half passes from the top to the bottom: the lowest row
    shows it 2 pixels further right, the highest 2 further left."""
    render = torch.zeros(*SIZE, 3)
    render[:, 20] = 1.0
    film = light(blurred(render, *shares(0.0, down=0.5), sideways(8.0)))[..., 0] - GAMMA_TOE**2
    columns = torch.arange(SIZE[1]) + 0.0
    where = (film * columns).sum(dim=1) / film.sum(dim=1)
    rows = (torch.arange(SIZE[0]) + 0.5) / SIZE[0] - 0.5
    torch.testing.assert_close(where, 20 + 4 * rows, atol=1e-3, rtol=0)
    across = light(blurred(render, *shares(0.0, across=0.5), sideways(8.0)))[..., 0] - GAMMA_TOE**2
    place = (across[0] * columns).sum() / across[0].sum()
    # The line is where x = 20 + 4 ((x + 1/2) / 40 - 1/2), x the column.
    assert place == pytest.approx((20 + 4 * (0.5 / 40 - 0.5)) / (1 - 4 / 40), abs=0.05)


def test_light_adds_up_and_not_the_numbers_that_stand_for_it():
    render = torch.zeros(*SIZE, 3)
    render[:, ::2] = 1.0
    film = blurred(render, *shares(0.5), sideways(9 * 2 * 2.0))  # nine moments two pixels apart, and the bars as well
    torch.testing.assert_close(film[:, 10:-10], render[:, 10:-10], atol=1e-4, rtol=0)
    film = blurred(render, *shares(0.25), sideways(36.0))[:, 8:-8]  # one apart: five of one kind and four of the other
    bright, dark = light(torch.ones(1)), light(torch.zeros(1))
    expected = torch.where(render[:, 8:-8] == 1, 5 * bright + 4 * dark, 4 * bright + 5 * dark)
    torch.testing.assert_close(film, (expected / 9).sqrt() - GAMMA_TOE, atol=1e-4, rtol=0)


def test_gradients_are_those_of_small_steps():
    torch.manual_seed(0)
    render = torch.rand(6, 8, 3, dtype=torch.float64, requires_grad=True)
    share, readout = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.43, [0.1, 0.2]))
    field = 0.5 * torch.rand(3, 4, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *a: blurred(*a, field), (render, share, readout), eps=1e-7, atol=1e-4)


def test_share_and_readout_are_found_from_a_filmed_image():
    torch.manual_seed(1)
    render = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 20), SIZE, mode="bilinear")[0].permute(1, 2, 0)
    field = sideways(7.0, -4.0)
    image = blurred(render, *shares(0.6, 0.0, 0.3), field)
    share, readout = torch.tensor(0.2, requires_grad=True), torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([share, readout], lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        (blurred(render, share, readout, field) - image).square().mean().backward()
        optimizer.step()
    assert float(share.detach()) == pytest.approx(0.6, abs=0.03)
    assert readout.tolist() == pytest.approx([0.0, 0.3], abs=0.03)


def test_the_field_is_the_flow_that_a_small_motion_of_the_camera_causes():
    size, maps = (48, 64), (12, 16)
    K = geometry.intrinsics(60.0, *size, dtype=torch.float64)
    depth = 1 + torch.rand(maps, dtype=torch.float64)
    twist = 1e-4 * torch.tensor([0.3, -0.5, 0.7, 0.2, 0.4, -0.6], dtype=torch.float64)
    T = torch.linalg.matrix_exp(
        torch.tensor(
            [
                [0, -twist[2], twist[1], twist[3]],
                [twist[2], 0, -twist[0], twist[4]],
                [-twist[1], twist[0], 0, twist[5]],
                [0, 0, 0, 0],
            ],
            dtype=torch.float64,
        )
    )
    K_maps = geometry.rescale_intrinsics(K, size, maps)
    flow, _ = geometry.rigid_flow(depth, K_maps, K_maps, T)
    field = motion_field(1 / depth, K, size, twist)
    halves = torch.tensor([maps[1] / 2, maps[0] / 2], dtype=torch.float64)
    torch.testing.assert_close(field * halves, flow, atol=1e-7, rtol=1e-3)
