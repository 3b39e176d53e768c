"""A steadier path: even motion stays as it is, shake goes by as much as the kernel says."""

import math

import pytest
import roma
import torch

from das3r_ns.render.stabilised import stabilise, stabilise_focal


def path(positions: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    T = torch.eye(4, dtype=torch.float64).repeat(len(positions), 1, 1)
    T[:, :3, :3] = roma.rotvec_to_rotmat(turns)
    T[:, :3, 3] = positions
    return T


EVEN_S = torch.arange(40, dtype=torch.float64) / 20
UNEVEN_S = torch.cat((EVEN_S[:15], EVEN_S[15:] * 1.7 + 0.9))


@pytest.mark.parametrize("times_s", [EVEN_S, UNEVEN_S], ids=["even", "uneven"])
def test_what_moves_and_turns_at_an_even_speed_stays_to_the_ends(times_s):
    straight = path(
        times_s[:, None] * torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64),
        times_s[:, None] * torch.tensor([0.2, 0.5, -0.1], dtype=torch.float64),
    )
    torch.testing.assert_close(stabilise(straight, times_s.tolist(), 0.4), straight, atol=1e-9, rtol=0)


def test_shake_goes_down_by_what_the_kernel_averages():
    n, fps, sigma_s = 4000, 30, 0.2
    noise = torch.randn(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.01
    shaken = path(noise[:, :3], noise[:, 3:])
    smooth = stabilise(shaken, [i / fps for i in range(n)], sigma_s)
    # The mean of white noise under a Gaussian of s frames has 1 / (2 sqrt(pi) s) of its variance.
    expected = 0.01 / math.sqrt(2 * math.sqrt(math.pi) * sigma_s * fps)
    assert float(smooth[:, :3, 3].std()) == pytest.approx(expected, rel=0.1)
    assert float(roma.rotmat_to_rotvec(smooth[:, :3, :3]).std()) == pytest.approx(expected, rel=0.1)


def test_poses_stay_rotations_and_half_turns_are_no_jump():
    turns = torch.linspace(-0.5, 0.5, 30, dtype=torch.float64)[:, None] * torch.tensor([0, 0, 2 * math.pi]).double()
    smooth = stabilise(path(torch.zeros(30, 3).double(), turns), [i / 10 for i in range(30)], 0.2)
    R = smooth[:, :3, :3]
    torch.testing.assert_close(R @ R.mT, torch.eye(3).double().expand(30, 3, 3), atol=1e-9, rtol=0)
    torch.testing.assert_close(R, roma.rotvec_to_rotmat(turns), atol=1e-9, rtol=0)


def test_frames_far_apart_and_single_ones_stay():
    T = path(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double(), torch.zeros(3, 3).double())
    torch.testing.assert_close(stabilise(T, [0.0, 10.0, 20.0], 0.1), T, atol=1e-12, rtol=0)
    torch.testing.assert_close(stabilise(T[:1], [0.0], 0.1), T[:1])


def test_a_lens_that_zooms_evenly_stays_and_a_jump_is_spread():
    times_s = EVEN_S.tolist()
    focal = 300 * torch.exp(EVEN_S)[:, None].expand(40, 2)
    torch.testing.assert_close(stabilise_focal(focal, times_s, 0.3), focal, atol=1e-6, rtol=0)
    jump = torch.where(EVEN_S < 1, 300.0, 600.0)[:, None].expand(40, 2)
    steps = stabilise_focal(jump, times_s, 0.2).log().diff(dim=0)
    assert float(steps.abs().max()) < 0.2 * math.log(2)


@pytest.mark.parametrize("sigma_s", [0.0, -1.0, math.nan, math.inf])
def test_nonsense_is_refused(sigma_s):
    with pytest.raises(ValueError, match="a positive number of seconds"):
        stabilise(torch.eye(4).double()[None], [0.0], sigma_s)


def test_a_time_for_each_camera():
    with pytest.raises(ValueError, match="1 cameras and 2 times"):
        stabilise(torch.eye(4).double()[None], [0.0, 1.0], 0.2)
