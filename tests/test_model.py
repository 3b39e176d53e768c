"""Parts of the model by themselves: start, neighbours, cameras, exposure, depth, density control, renders, metrics."""

import math

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType

from das3r_ns.model.density import StaticDensity, effective_opacity, prune
from das3r_ns.model.depth import DepthSupervision
from das3r_ns.model.exposure import Exposure
from das3r_ns.model.frame_metrics import metrics
from das3r_ns.model.neighbours import morton_code, rms_neighbour_distance
from das3r_ns.model.poses import (
    PoseRefinement,
    PoseRefinementConfig,
    between_frames,
    compose,
    rigid_motion,
    view_matrix,
)
from das3r_ns.model.rendering import Splats, View, draw
from das3r_ns.model.start import StartConfig, first_gaussians, read_seeds


def cameras_along_x(count: int, frame_index: list[int] | None = None) -> Cameras:
    """Cameras that look along -z of the world (OpenGL axes), one unit apart."""
    poses = torch.eye(4)[:3].repeat(count, 1, 1)
    poses[:, 0, 3] = torch.arange(count).float()
    return Cameras(
        camera_to_worlds=poses,
        fx=torch.full((count, 1), 50.0),
        fy=torch.full((count, 1), 50.0),
        cx=torch.full((count, 1), 32.0),
        cy=torch.full((count, 1), 24.0),
        width=torch.full((count, 1), 64),
        height=torch.full((count, 1), 48),
        camera_type=CameraType.PERSPECTIVE,
        metadata={"frame_index": torch.tensor(frame_index or list(range(count)))[:, None]},
    )


def refinement(count: int = 4, frame_index: list[int] | None = None, **options) -> PoseRefinement:
    poses = PoseRefinement(PoseRefinementConfig(**options), num_cameras=count)
    cameras = cameras_along_x(count, frame_index)
    poses.set_cameras(cameras, cameras.metadata["frame_index"][:, 0])
    return poses


# --- neighbours and start ---


def test_neighbour_distances_of_a_grid_are_its_spacing():
    axis = torch.arange(12) * 0.25
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    torch.testing.assert_close(rms_neighbour_distance(points), torch.full((12**3,), 0.25), atol=1e-5, rtol=0)


def test_neighbour_distances_are_close_to_those_of_a_tree():
    from scipy.spatial import cKDTree

    uv = torch.rand(5000, 2)
    points = torch.stack((uv[:, 0], uv[:, 1], 0.3 * torch.sin(5 * uv[:, 0])), dim=-1)
    distances, _ = cKDTree(points.numpy()).query(points.numpy(), k=4)
    truth = torch.from_numpy(distances[:, 1:]).square().mean(dim=-1).sqrt().float()
    found = rms_neighbour_distance(points)
    assert (found >= truth * (1 - 1e-4)).all()
    assert float((found / truth).quantile(0.9)) < 1.1


def test_fewer_than_four_points_have_no_neighbours_and_doubled_points_have_distance_zero():
    assert rms_neighbour_distance(torch.rand(3, 3)).tolist() == [0.0, 0.0, 0.0]
    assert rms_neighbour_distance(torch.ones(8, 3)).max() == 0.0


def test_the_curve_interleaves_bits_with_x_lowest():
    step = 1 / (1 << 20)
    cells = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [3, 0, 0]]) + 0.5
    assert morton_code(cells.double() * step).tolist() == [0, 1, 2, 4, 9]


def seed_metadata(count: int = 50) -> dict:
    return {
        "points3D_xyz": torch.rand(count, 3),
        "points3D_rgb": torch.randint(0, 256, (count, 3), dtype=torch.uint8),
        "points3D_scale": torch.full((count,), 0.01),
        "points3D_staticness": torch.linspace(0, 1, count),
        "points3D_pixel": torch.zeros(count, 3, dtype=torch.int32),
    }


def test_gaussians_start_with_the_colour_size_opacity_and_staticness_of_their_pixel():
    seeds = read_seeds(seed_metadata(), None, StartConfig(min_staticness=0.0))
    assert seeds is not None
    values = first_gaussians(seeds, StartConfig(scale="pixel"), num_frames=25, sh_degree=2)
    torch.testing.assert_close(values["scales"].exp(), torch.full((50, 3), 0.01))
    torch.testing.assert_close(values["opacities"].sigmoid(), torch.full((50, 1), 1 / 25))
    torch.testing.assert_close(values["features_dc"] * 0.28209479 + 0.5, seeds.rgb / 255, atol=1e-5, rtol=0)
    assert values["features_rest"].shape == (50, 8, 3)
    torch.testing.assert_close(
        values["staticness"].sigmoid()[:, 0], seeds.staticness.clamp(1e-3, 1 - 1e-3), atol=1e-5, rtol=1e-4
    )


def test_neighbour_sizes_never_exceed_the_pixel():
    metadata = seed_metadata()
    metadata["points3D_xyz"][:2] = torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5001]])
    seeds = read_seeds(metadata, None, StartConfig(min_staticness=0.0))
    assert seeds is not None
    size = first_gaussians(seeds, StartConfig(), 2, 0)["scales"].exp()
    assert size.max() <= 0.01 + 1e-6


def test_points_on_moving_things_are_left_out_and_the_budget_is_kept():
    metadata = seed_metadata(101)
    seeds = read_seeds(metadata, None, StartConfig(min_staticness=0.5))
    assert seeds is not None
    assert len(seeds) == 51
    few = read_seeds(metadata, None, StartConfig(min_staticness=0.5, max_points=10))
    assert few is not None
    assert len(few) == 10
    assert few.staticness.min() >= 0.5


def test_plain_seed_points_start_static_and_broken_ones_are_dropped():
    xyz = torch.rand(20, 3)
    xyz[3] = torch.nan
    seeds = read_seeds({}, (xyz, torch.zeros(20, 3)), StartConfig())
    assert seeds is not None
    assert len(seeds) == 19
    assert seeds.staticness.min() == 1.0
    assert read_seeds({}, None, StartConfig()) is None


# --- cameras ---


def test_a_correction_moves_the_camera_along_its_own_axes():
    poses = refinement()
    turned = torch.tensor([[0.0, -1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    poses.camera_to_worlds[2] = turned  # its x axis is the world's y
    with torch.no_grad():
        poses.corrections[2][0] = 0.1
    torch.testing.assert_close(poses.refined(2)[0, :, 3], torch.tensor([0.0, 0.1, 0.0]), atol=1e-6, rtol=0)


def test_a_correction_turns_the_camera_by_twice_the_arc_tangent_of_its_vector_part():
    motion = rigid_motion(torch.tensor([[0.1, 0.2, 0.3, 0.0, 0.0, 0.1]]))[0]
    assert math.atan2(float(motion[1, 0]), float(motion[0, 0])) == pytest.approx(2 * math.atan(0.1), abs=1e-6)
    torch.testing.assert_close(motion[:, :3] @ motion[:, :3].T, torch.eye(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(motion[:, 3], torch.tensor([0.1, 0.2, 0.3]))
    still = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rigid_motion, (still,))


def test_given_cameras_are_refined_once_and_moved_ones_never():
    poses, cameras = refinement(), cameras_along_x(4)
    with torch.no_grad():
        for correction in poses.corrections:
            correction += 0.05
    once, factors = poses.refine(cameras, cameras.metadata["frame_index"])
    torch.testing.assert_close(once, torch.cat([poses.refined(i) for i in range(4)]).detach())
    cameras.camera_to_worlds = once
    twice, _ = poses.refine(cameras, cameras.metadata["frame_index"])
    torch.testing.assert_close(twice, once)
    aside = cameras_along_x(4)
    aside.camera_to_worlds[:, 1, 3] += 0.3
    untouched, _ = poses.refine(aside, aside.metadata["frame_index"])
    torch.testing.assert_close(untouched, aside.camera_to_worlds)
    assert factors.tolist() == [1.0] * 4


def test_a_refined_focal_length_is_not_applied_twice():
    poses, cameras = refinement(refine_focal=True), cameras_along_x(4)
    with torch.no_grad():
        poses.log_focal.fill_(math.log(1.1))
    _, factors = poses.refine(cameras, cameras.metadata["frame_index"])
    torch.testing.assert_close(factors, torch.full((4,), 1.1))
    cameras.fx = cameras.fx * factors[:, None]
    _, again = poses.refine(cameras, cameras.metadata["frame_index"])
    assert again.tolist() == [1.0] * 4


def test_held_out_frames_get_the_correction_between_their_neighbours_if_asked():
    held_out = cameras_along_x(5)[2:3]
    for interpolate, shift in ((True, 0.2), (False, 0.0)):
        poses = refinement(4, frame_index=[0, 1, 3, 4], interpolate=interpolate)
        with torch.no_grad():
            poses.corrections[1][1] = 0.1
            poses.corrections[2][1] = 0.3
        moved, _ = poses.refine(held_out, held_out.metadata["frame_index"])
        assert float(moved[0, 1, 3]) == pytest.approx(shift, abs=1e-6)


def test_values_between_frames_are_straight_lines_constant_beyond_the_ends():
    values = [torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([3.0])]
    at = torch.tensor([0, 1, 2, 3, 4, 9])
    between = between_frames(values, torch.tensor([1, 2, 4]), at)
    assert between[:, 0].tolist() == [0.0, 0.0, 1.0, 2.0, 3.0, 3.0]


def test_only_the_frame_of_a_step_has_a_gradient():
    poses = refinement()
    (poses.refined(1).sum() + poses.regularizer(1)).backward()
    assert poses.corrections[1].grad is not None
    assert all(poses.corrections[i].grad is None for i in (0, 2, 3))


def test_cameras_that_are_switched_off_stay_and_need_no_optimizer():
    poses, cameras = refinement(mode="off"), cameras_along_x(4)
    groups: dict = {}
    poses.get_param_groups(groups)
    assert groups == {}
    with torch.no_grad():
        poses.corrections[0] += 1.0
    torch.testing.assert_close(poses.refine(cameras, cameras.metadata["frame_index"])[0], cameras.camera_to_worlds)


def one_splat(position, **changes) -> Splats:
    values = {
        "means": torch.tensor([position], dtype=torch.float64),
        "quats": torch.tensor([[1.0, 0.2, 0.3, 0.1]], dtype=torch.float64),
        "scales": torch.tensor([[0.2, 0.1, 0.3]], dtype=torch.float64),
        "opacities": torch.tensor([0.8], dtype=torch.float64),
        "colors": torch.tensor([[1.0, 0.5, 0.25]], dtype=torch.float64),
    }
    return Splats(**{**values, **changes})


def looking_view(focal_factor=1.0, focal=40.0) -> View:
    T = view_matrix(torch.eye(4, dtype=torch.float64)[None, :3], torch.tensor(focal_factor, dtype=torch.float64))
    K = torch.tensor([[[focal, 0, 16], [0, focal, 12], [0, 0, 1]]], dtype=torch.float64)
    return View(T, K, 24, 32)


def test_an_opengl_camera_at_the_origin_sees_what_lies_along_minus_z():
    picture = draw(one_splat([0.0, 0.3, -2.0]), looking_view(), with_depth=True)
    row, column = divmod(int(picture.alpha.argmax()), 32)
    assert row < 12  # y is up, so it shows in the upper half
    assert column in (15, 16)
    assert picture.depth is not None
    assert float(picture.depth[row, column]) == pytest.approx(2.0, abs=1e-6)


def test_a_focal_factor_in_the_view_is_the_same_picture_as_a_longer_focal_length():
    splat = one_splat([0.2, 0.1, -2.0])
    by_factor = draw(splat, looking_view(focal_factor=1.15))
    by_focal = draw(splat, looking_view(focal=40.0 * 1.15))
    torch.testing.assert_close(by_factor.color, by_focal.color, atol=1e-9, rtol=1e-6)


def test_the_focal_factor_has_the_gradient_of_finite_differences():
    splat, target = one_splat([0.3, 0.2, -2.0]), draw(one_splat([0.25, 0.2, -2.0]), looking_view()).color

    def loss(log_factor):
        T = view_matrix(torch.eye(4, dtype=torch.float64)[None, :3], log_factor.exp())
        view = View(T, looking_view().K, 24, 32)
        return (draw(splat, view).color - target).square().sum()

    at = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(at), at)
    step = 1e-6
    numeric = (loss(at.detach() + step) - loss(at.detach() - step)) / (2 * step)
    assert float(gradient) == pytest.approx(float(numeric), rel=1e-4)


def test_extra_values_and_depth_come_after_the_colours():
    splat = one_splat([0.0, 0.0, -2.0])
    extra = torch.tensor([[0.25]], dtype=torch.float64)
    picture = draw(splat, looking_view(), extra=extra, with_depth=True)
    assert picture.color.shape == (24, 32, 3)
    torch.testing.assert_close(picture.extra, 0.25 * picture.alpha)
    carried = draw(splat.carrying(extra.expand(1, 2)), looking_view())
    torch.testing.assert_close(carried.color, picture.extra.expand(24, 32, 2))


def test_a_shrunk_view_shows_the_same_with_fewer_pixels():
    view = looking_view()
    small = view.shrunk(2)
    assert (small.height, small.width) == (12, 16)
    torch.testing.assert_close(small.K[0, 0], torch.tensor([20.0, 0.0, 8.0], dtype=torch.float64))
    assert view.shrunk(1) is view


def test_compose_is_the_product_of_motions():
    a, b = torch.eye(4)[None, :3].clone(), torch.eye(4)[None, :3].clone()
    a[0, :, 3] = torch.tensor([1.0, 2.0, 3.0])
    b[0, :2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    torch.testing.assert_close(compose(a, b)[0, :, 3], torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(compose(b, a)[0, :, 3], torch.tensor([-2.0, 1.0, 3.0]))


# --- exposure and depth ---


def test_exposure_is_stops_and_offset_and_lies_between_frames_in_time():
    exposure = Exposure(2)
    exposure.frame_index.copy_(torch.tensor([0, 4]))
    with torch.no_grad():
        exposure.frames[1][0] = 1.0
        exposure.frames[1][1] = 0.1
    render = torch.full((2, 2, 3), 0.25)
    torch.testing.assert_close(exposure.expose(render, 0), render)
    torch.testing.assert_close(exposure.expose(render, 1), torch.full((2, 2, 3), 0.6))
    halfway = exposure.expose_at(render, torch.tensor([2]))
    torch.testing.assert_close(halfway, torch.full((2, 2, 3), 0.25 * math.sqrt(2) + 0.05))


def test_an_uneven_exposure_is_a_polynomial_in_stops_between_frames_too():
    exposure = Exposure(2)
    exposure.frame_index.copy_(torch.tensor([0, 4]))
    with torch.no_grad():
        exposure.frames[1][2] = 2.0  # x: one stop down at -1/2, one up at +1/2
        exposure.frames[1][6, 0] = 16.0  # red, y^2
    render = torch.full((2, 2, 3), 0.25)
    red, green, _ = exposure.expose(render, 1).unbind(-1)
    torch.testing.assert_close(green, torch.tensor([[0.125, 0.5], [0.125, 0.5]]))
    wide = exposure.expose(torch.full((2, 4, 3), 0.25), 1)  # x = -3/4 .. 3/4, y = -1/4 and 1/4: one stop for red
    torch.testing.assert_close(wide[:, 0, 1], torch.full((2,), 0.25 * 2**-1.5))
    torch.testing.assert_close(wide[:, 3, 0], torch.full((2,), 0.25 * 2**2.5))
    torch.testing.assert_close(red, 16 * green)  # y = -1/2 and 1/2 in a square picture: four stops
    halfway = exposure.expose_at(render, torch.tensor([2]))
    torch.testing.assert_close(halfway[0, :, 1], torch.tensor([0.25 * 2**-0.5, 0.25 * 2**0.5]))
    # 3 times 2 squared and 16 squared, over 15 values
    torch.testing.assert_close(exposure.regularizer(1), torch.tensor(2.5 * (3 * 4 + 256) / 15))


def test_depth_is_compared_as_inverse_depth_where_it_is_known_sure_and_static():
    depth = torch.full((1, 4, 4), 2.0)
    depth[0, 0] = 0.0  # unknown
    supervision = DepthSupervision(depth, torch.ones(1, 4, 4))
    opaque, static = torch.ones(4, 4, 1), torch.ones(4, 4, 1)
    rendered = torch.full((4, 4, 1), 4.0)
    assert float(supervision.loss(rendered, opaque, static, 0)) == pytest.approx(0.25)
    rendered[0] = 1e3  # unknown there: does not count
    static[1] = 0.0
    rendered[1] = 1e3  # moving there: does not count
    assert float(supervision.loss(rendered, opaque, static, 0)) == pytest.approx(0.25)
    assert float(supervision.loss(rendered, opaque, static * 0, 0)) == 0.0


def test_a_clip_without_any_depth_is_not_supervised():
    supervision = DepthSupervision(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4))
    assert float(supervision.loss(torch.ones(8, 8, 1), torch.ones(8, 8, 1), torch.ones(8, 8, 1), 0)) == 0.0


# --- density control ---


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


# --- metrics ---


def test_metrics_say_what_they_average_over():
    picture, static = torch.full((16, 16, 3), 0.5), torch.ones(16, 16, 1)
    static[:8] = 0.0
    render = picture + torch.where(static > 0, 0.1, 0.5)
    values = metrics(render, picture, static, has_mask=True)
    assert values["static_psnr"] == pytest.approx(20.0, abs=1e-3)
    assert values["paper_psnr"] == pytest.approx(20.0 + 10 * math.log10(2), abs=1e-3)
    assert values["psnr"] == pytest.approx(-10 * math.log10((0.01 + 0.25) / 2), abs=1e-3)
    assert "paper_psnr" not in metrics(render, picture, static, has_mask=False)
    nothing = metrics(render, picture, torch.zeros_like(static), has_mask=True)
    assert nothing["static_psnr"] == pytest.approx(values["psnr"])
