"""Images of one, two or three Gaussians whose values can be worked out by hand."""

import math

import pytest
import torch

from das3r_ns.model.rasterizer import rasterize

WIDTH, HEIGHT, FOCAL = 17, 17, 100.0  # pixels; the principal point is the centre of the middle pixel, (8, 8)


def gaussians(*centres, sigma=0.04, opacity=0.6, colors=None):
    """Round Gaussians at the centres (x, y, z), in front of a camera at the origin that looks along z."""
    count = len(centres)
    return {
        "means": torch.tensor(centres, dtype=torch.float64).reshape(count, 3),
        "quats": torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64).repeat(count, 1),
        "scales": torch.full((count, 3), sigma, dtype=torch.float64),
        "opacities": torch.as_tensor(opacity, dtype=torch.float64).expand(count).clone(),
        "colors": torch.tensor(colors or [[1.0, 0.5, 0.25]] * count, dtype=torch.float64).reshape(count, 3),
        "viewmats": torch.eye(4, dtype=torch.float64)[None],
        "Ks": torch.tensor([[[FOCAL, 0.0, 8.5], [0.0, FOCAL, 8.5], [0.0, 0.0, 1.0]]], dtype=torch.float64),
    }


def draw(scene, **options):
    return rasterize(**scene, width=WIDTH, height=HEIGHT, **options)


def test_one_gaussian_falls_off_from_its_opacity_and_ends_at_one_in_255():
    image, alpha, info = draw(gaussians((0.0, 0.0, 2.0)))
    variance = (FOCAL * 0.04 / 2.0) ** 2 + 0.3  # 2 pixels of standard deviation, and the blur of 0.3
    offsets = torch.arange(17, dtype=torch.float64) - 8.0
    squared = offsets[:, None] ** 2 + offsets[None, :] ** 2
    expected = 0.6 * torch.exp(-squared / (2 * variance))
    expected[squared > 2 * variance * math.log(255 * 0.6)] = 0.0
    torch.testing.assert_close(alpha[0, ..., 0], expected)
    assert alpha[0, 8, 8, 0] == pytest.approx(0.6)
    torch.testing.assert_close(image[0], expected[..., None] * torch.tensor([1.0, 0.5, 0.25]).double())
    # The radius is three standard deviations of the blurred splat, whose longer axis gsplat rounds up by 0.1 px^2.
    assert info["radii"].item() == math.ceil(3 * math.sqrt(variance + 0.1))
    torch.testing.assert_close(info["means2d"], torch.tensor([[[8.5, 8.5]]]).double())
    torch.testing.assert_close(info["conics"], torch.tensor([[[1 / variance, 0.0, 1 / variance]]]).double())


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_gaussian_covers_the_farther_whatever_their_order(order):
    centres, colors = [(0.0, 0.0, 1.0), (0.0, 0.0, 3.0)], [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    scene = gaussians(*[centres[i] for i in order], colors=[colors[i] for i in order])
    scene["opacities"] = torch.tensor([[0.6, 0.5][i] for i in order], dtype=torch.float64)
    image, alpha, _ = draw(scene, render_mode="RGB+D")
    torch.testing.assert_close(image[0, 8, 8], torch.tensor([0.6, 0.0, 0.4 * 0.5, 0.6 * 1.0 + 0.2 * 3.0]).double())
    assert alpha[0, 8, 8, 0] == pytest.approx(0.8)
    expected_depth, _, _ = draw(scene, render_mode="ED")
    assert expected_depth[0, 8, 8, 0] == pytest.approx((0.6 * 1.0 + 0.2 * 3.0) / 0.8)


def test_expected_depth_of_one_gaussian_is_its_depth_and_of_nothing_is_zero():
    depth, alpha, _ = draw(gaussians((0.0, 0.0, 2.0)), render_mode="ED")
    torch.testing.assert_close(depth[alpha > 0], torch.full_like(depth[alpha > 0], 2.0))
    assert (depth[alpha == 0] == 0).all()
    assert (alpha == 0).any()


def test_alpha_stops_at_0_999_and_what_would_leave_less_than_1e_4_is_not_drawn():
    scene = gaussians((0.0, 0.0, 1.0), (0.0, 0.0, 2.0), opacity=1.0, colors=[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    scene["opacities"].requires_grad_()
    image, alpha, _ = draw(scene)
    assert alpha[0, 8, 8, 0].item() == pytest.approx(0.999)
    torch.testing.assert_close(image[0, 8, 8].detach(), torch.tensor([0.999, 0.0, 0.0]).double())
    image[0, 8, 8].sum().backward()
    assert (scene["opacities"].grad == 0).all()


@pytest.mark.parametrize(
    "centre",
    [(0.0, 0.0, -2.0), (0.0, 0.0, 0.005), (0.0, 0.0, 60.0), (3.0, 0.0, 2.0), (0.0, -3.0, 2.0)],
    ids=["behind", "before the near plane", "past the far plane", "to the right", "above"],
)
def test_a_gaussian_out_of_view_gives_nothing_and_gets_no_gradient(centre):
    scene = {name: value.requires_grad_() for name, value in gaussians(centre).items()}
    image, alpha, info = draw(scene, far_plane=50.0, render_mode="RGB+ED")
    assert info["radii"].item() == 0
    assert (image == 0).all()
    assert (alpha == 0).all()
    image.sum().backward()
    assert all((value.grad == 0).all() for value in scene.values())


def test_no_gaussians_show_the_background():
    background = torch.tensor([[0.2, 0.4, 0.6]], dtype=torch.float64, requires_grad=True)
    scene = {name: value.requires_grad_() for name, value in gaussians().items()}
    image, alpha, info = draw(scene, backgrounds=background, render_mode="RGB+ED")
    torch.testing.assert_close(image[0, 3, 5].detach(), torch.tensor([0.2, 0.4, 0.6, 0.0]).double())
    assert (alpha == 0).all()
    assert info["means2d"].shape == (1, 0, 2)
    image.sum().backward()
    torch.testing.assert_close(background.grad, torch.full((1, 3), float(WIDTH * HEIGHT)).double())
    assert scene["means"].grad.shape == (0, 3)


def test_the_background_shows_through_what_is_left():
    background = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    image, _, _ = draw(gaussians((0.0, 0.0, 2.0)), backgrounds=background, render_mode="RGB+D")
    torch.testing.assert_close(image[0, 8, 8], torch.tensor([0.6, 0.3, 0.15 + 0.4, 1.2]).double())


def test_extra_channels_are_blended_like_colour_before_depth_and_over_nothing():
    scene = gaussians((0.0, 0.0, 1.0), (0.0, 0.0, 3.0))
    scene["opacities"] = torch.tensor([0.6, 0.5], dtype=torch.float64)
    extra = torch.tensor([[0.0, 5.0], [1.0, 5.0]], dtype=torch.float64)
    options = {"extra": extra, "backgrounds": torch.ones(1, 3, dtype=torch.float64)}
    image, _, _ = draw(scene, render_mode="RGB+D", **options)
    torch.testing.assert_close(image[0, 8, 8, 3:], torch.tensor([0.2, 0.8 * 5.0, 1.2]).double())
    alone, _, _ = draw(scene, render_mode="D", **options)
    torch.testing.assert_close(alone, image[..., 3:])


def test_antialiased_mode_keeps_the_light_of_a_splat_that_the_blur_widens():
    sharp = (FOCAL * 0.004 / 2.0) ** 2  # a fifth of a pixel
    _, classic, _ = draw(gaussians((0.0, 0.0, 2.0), sigma=0.004))
    _, antialiased, info = draw(gaussians((0.0, 0.0, 2.0), sigma=0.004), rasterize_mode="antialiased")
    factor = sharp / (sharp + 0.3)  # square root of the quotient of the determinants
    assert classic[0, 8, 8, 0] == pytest.approx(0.6)
    assert antialiased[0, 8, 8, 0] == pytest.approx(0.6 * factor)
    assert info["opacities"].item() == pytest.approx(0.6 * factor)


def test_a_zeroth_harmonic_gives_its_colour_from_everywhere():
    scene = gaussians((0.0, 0.0, 2.0))
    colour = torch.tensor([0.9, 0.4, 0.1], dtype=torch.float64)
    scene["colors"] = ((colour - 0.5) / (0.5 / math.sqrt(math.pi))).reshape(1, 1, 3)
    image, _, _ = draw(scene, sh_degree=0)
    torch.testing.assert_close(image[0, 8, 8], 0.6 * colour)


def test_a_longer_focal_length_and_a_shifted_centre_move_the_splat_as_they_should():
    scene = gaussians((0.1, -0.06, 2.0))
    scene["Ks"].requires_grad_()
    _, _, info = draw(scene)
    torch.testing.assert_close(info["means2d"].detach(), torch.tensor([[[8.5 + 5.0, 8.5 - 3.0]]]).double())
    (grad,) = torch.autograd.grad(info["means2d"][..., 0].sum(), scene["Ks"])
    assert grad[0, 0, 0] == pytest.approx(0.1 / 2.0)
    assert grad[0, 0, 2] == pytest.approx(1.0)


def test_a_camera_that_moves_right_sees_the_splat_move_left():
    scene = gaussians((0.0, 0.0, 2.0))
    scene["viewmats"][0, 0, 3] = -0.04  # T_camera_world: points move left by 0.04, so by 2 pixels
    image, _, _ = draw(scene)
    assert image[0, :, :, 0].argmax().item() == 8 * WIDTH + 6


def test_a_rotated_gaussian_is_long_where_its_long_axis_points():
    scene = gaussians((0.0, 0.0, 2.0))
    scene["scales"] = torch.tensor([[0.08, 0.01, 0.01]], dtype=torch.float64)
    half = math.radians(90.0) / 2
    scene["quats"] = torch.tensor([[3 * math.cos(half), 0.0, 0.0, 3 * math.sin(half)]], dtype=torch.float64)
    _, alpha, info = draw(scene)  # a quarter turn about z; the quaternion's length does not matter
    assert alpha[0, 12, 8, 0] > 0.3
    assert alpha[0, 8, 12, 0] == 0.0
    torch.testing.assert_close(info["conics"][0, 0], torch.tensor([1 / (0.25 + 0.3), 0.0, 1 / 16.3]).double())


def test_radius_clip_leaves_small_splats_out():
    scene = gaussians((0.0, 0.0, 2.0))
    radius = draw(scene)[2]["radii"].item()
    assert draw(scene, radius_clip=radius - 0.5)[2]["radii"].item() == radius
    assert draw(scene, radius_clip=float(radius))[2]["radii"].item() == 0


def test_a_splat_ends_at_the_tile_in_which_its_radius_ends():
    """Sixteen-pixel tiles are part of the image: gsplat draws a splat in the tiles its radius touches, no farther."""
    scene = gaussians((0.0, 0.0, 1.0), sigma=0.08, opacity=0.99)  # variance 64.3 px^2: radius 25, 1/255 at 26.7
    scene["Ks"][0, :2, 2] = 22.5
    _, alpha, info = rasterize(**scene, width=64, height=64)
    assert info["radii"].item() == 25
    row = alpha[0, 22, :, 0]
    assert row[47] == pytest.approx(0.99 * math.exp(-(25.0**2) / (2 * 64.3)))
    assert 0.99 * math.exp(-(26.0**2) / (2 * 64.3)) > 1 / 255  # would count by its alpha, yet 22.5 + 25 < 48
    assert row[48] == 0
