"""The first Gaussians: sizes from neighbours, seed points from metadata."""

import torch

from das3r_ns.model.neighbours import morton_code, rms_neighbour_distance
from das3r_ns.model.start import StartConfig, initialize_gaussians, read_seeds


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
    values = initialize_gaussians(seeds, StartConfig(scale="pixel"), num_frames=25, sh_degree=2)
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
    size = initialize_gaussians(seeds, StartConfig(), 2, 0)["scales"].exp()
    assert size.max() <= 0.01 + 1e-6


def test_points_on_moving_objects_are_left_out_and_the_budget_is_kept():
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
