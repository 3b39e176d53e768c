"""The global alignment against recorded numbers, worked examples and slow plain references."""

from pathlib import Path

import numpy as np
import pytest
import torch

from das3r_ns import geometry
from das3r_ns.evaluation.metrics.poses import pose_errors
from das3r_ns.predictor.network.alignment import AlignmentError
from das3r_ns.predictor.network.alignment.objective import (
    FlowObservations,
    Observations,
    View,
    add_by_frame,
    camera_smoothness,
    evaluate,
    flow_disagreement,
    observe,
    pixel_subset,
)
from das3r_ns.predictor.network.alignment.optimise import descend, objective_on_all_pixels, solve_depth
from das3r_ns.predictor.network.alignment.start import (
    edge_scores,
    focal_from_points,
    frame_confidence,
    initial_state,
    spanning_tree,
    start_from_tree,
)
from das3r_ns.predictor.network.alignment.state import AlignmentState, decode_translation, encode_translation
from das3r_ns.predictor.network.pairs import PairPredictions
from das3r_ns.predictor.network.settings import AlignmentConfig

FRAMES, HEIGHT, WIDTH = 7, 32, 48
# The recorded run counts pixels from 0 and has the principal point at (W/2, H/2); our first pixel is at (0.5, 0.5).
PRINCIPAL_POINT = (WIDTH / 2 + 0.5, HEIGHT / 2 + 0.5)


@pytest.fixture(scope="module")
def fixture(data: Path) -> dict[str, np.ndarray]:
    with np.load(data / "alignment.npz") as stored:
        return {key: stored[key] for key in stored.files if not key.startswith("graph")}


@pytest.fixture(scope="module")
def predictions(fixture) -> PairPredictions:
    names = ("edges", "pred_pts3d_i", "pred_pts3d_j", "pred_conf_i", "pred_conf_j", "pred_mask_i")
    return PairPredictions(*(torch.from_numpy(fixture[name]) for name in names), torch.zeros(FRAMES, 1))


@pytest.fixture(scope="module")
def seen(predictions) -> Observations:
    return observe(predictions, FRAMES, principal_point=PRINCIPAL_POINT)


def recorded_state(fixture: dict[str, np.ndarray], name: str) -> AlignmentState:
    edges, cameras = (torch.from_numpy(fixture[f"{name}/{part}"]) for part in ("pw_poses", "im_poses"))
    return AlignmentState(
        edge_quat_xyzw=edges[:, :4],
        edge_translation_code=edges[:, 4:7],
        edge_log_scale=edges[:, 7],
        camera_quat_xyzw=cameras[:, :4],
        camera_translation_code=cameras[:, 4:],
        focal_code=torch.from_numpy(fixture[f"{name}/im_focals"])[0],
        log_depth=torch.from_numpy(fixture[f"{name}/im_depthmaps"]),
        log_base_scale=torch.tensor(0.5).log(),
    )


@pytest.mark.parametrize("name", ["init", "perturbed", "final"])
def test_recorded_states_decode_and_cost_what_was_recorded(name, fixture, seen):
    state = recorded_state(fixture, name)

    def close(found: torch.Tensor, key: str, atol: float) -> None:
        torch.testing.assert_close(found, torch.from_numpy(fixture[f"{name}/{key}"]).to(found), atol=atol, rtol=1e-5)

    close(state.T_world_camera(), "cam2world", 2e-6)
    close(state.focal()[:, None], "focal_px", 1e-4)
    close(state.log_depth.exp().view(FRAMES, HEIGHT, WIDTH), "depth", 1e-5)
    close(state.edge_scale(), "pairwise_scale", 1e-6)
    linear, offset = state.edge_similarities()
    stored = torch.from_numpy(fixture[f"{name}/pairwise_sim3"])
    torch.testing.assert_close(linear, stored[:, :3, :3], atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(offset, stored[:, :3, 3], atol=2e-6, rtol=1e-5)
    cost = evaluate(state, seen)
    found = [float(term) for term in (cost.total, cost.first, cost.second, cost.smoothness)]
    np.testing.assert_allclose(found, fixture[f"{name}/loss"], atol=1e-5 * max(1, found[0]), rtol=0)


def test_gradients_are_the_recorded_ones(fixture, seen):
    state = recorded_state(fixture, "perturbed")
    for tensor in state.tensors().values():
        tensor.requires_grad_(True)
    evaluate(state, seen).total.backward()
    found = {name: tensor.grad for name, tensor in state.tensors().items()}
    expected = {key: torch.from_numpy(fixture[f"perturbed/grad/{key}"]) for key in ("pw_poses", "im_poses")}
    edges = torch.cat(
        [found["edge_quat_xyzw"], found["edge_translation_code"], found["edge_log_scale"][:, None]], dim=1
    )
    cameras = torch.cat([found["camera_quat_xyzw"], found["camera_translation_code"]], dim=1)
    for ours, theirs in (
        (edges, expected["pw_poses"]),
        (cameras, expected["im_poses"]),
        (found["focal_code"], torch.from_numpy(fixture["perturbed/grad/im_focals"])[0]),
        (found["log_depth"], torch.from_numpy(fixture["perturbed/grad/im_depthmaps"])),
    ):
        assert (ours - theirs).norm() < 1e-4 * theirs.norm()
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_the_distance_term_differentiates_as_plain_autograd_does(fixture, seen):
    state = recorded_state(fixture, "perturbed")
    doubles = {name: tensor.double().requires_grad_(True) for name, tensor in state.tensors().items()}
    state = state.with_tensors(**doubles)
    world = state.world_points(seen.offsets.double())
    linear, offset = state.edge_similarities()
    total = torch.zeros((), dtype=torch.float64)
    for view in (seen.first, seen.second):
        for k, frame in enumerate(view.frame.tolist()):
            moved = linear[k] @ view.points[k].double() + offset[k, :, None]
            total = total + (view.weight[k].double() * (world[frame] - moved).square().sum(0).sqrt()).sum()
    total = total / seen.first.weight.numel() / (state.log_base_scale.exp() / 0.5)
    expected = torch.autograd.grad(total, list(doubles.values()))

    singles = {name: tensor.detach().float().requires_grad_(True) for name, tensor in doubles.items()}
    cost = evaluate(state.with_tensors(**singles), seen, smoothness_weight=0.0)
    found = torch.autograd.grad(cost.total, list(singles.values()))
    for name, ours, plain in zip(singles, found, expected):
        assert (ours - plain).norm() < 5e-5 * plain.norm(), name


def test_adding_by_frame_equals_the_incidence_product():
    # A GPU uses the product, for runs that repeat exactly; here both ways are compared.
    frame, values = torch.tensor([2, 0, 2, 1]), torch.randn(4, 3, 5)
    sums = torch.zeros(3, 3, 5)
    add_by_frame(sums, frame, values)
    incidence = torch.nn.functional.one_hot(frame, 3).T.float()
    torch.testing.assert_close(sums, (incidence @ values.flatten(1)).view_as(sums))


def test_the_spanning_tree_is_the_recorded_one(fixture, predictions, seen):
    torch.testing.assert_close(edge_scores(seen), torch.from_numpy(fixture["mst/edge_score"]), atol=1e-5, rtol=0)
    edges = [tuple(edge) for edge in fixture["edges"].tolist()]
    tree = spanning_tree(edges, fixture["mst/edge_score"].tolist(), FRAMES)
    assert tree == [tuple(edge) for edge in fixture["mst/tree_edges"].tolist()]


def test_the_start_is_the_recorded_one(fixture, seen):
    start = start_from_tree(seen)
    torch.testing.assert_close(start.T_world_camera, torch.from_numpy(fixture["mst/im_poses"]), atol=1e-4, rtol=0)
    points = torch.from_numpy(fixture["mst/pts3d"]).flatten(1, 2).transpose(1, 2)
    torch.testing.assert_close(start.world_points, points, atol=1e-4, rtol=0)
    state, expected = initial_state(start, seen), recorded_state(fixture, "init")
    torch.testing.assert_close(state.T_world_camera(), expected.T_world_camera(), atol=1e-4, rtol=0)
    torch.testing.assert_close(state.edge_scale(), expected.edge_scale(), atol=1e-4, rtol=0)
    torch.testing.assert_close(state.log_depth, expected.log_depth, atol=1e-4, rtol=0)


def test_every_frame_gets_its_own_focal_estimate(fixture, seen):
    estimates = focal_from_points(seen.first.points, seen.offsets)
    torch.testing.assert_close(estimates.double(), torch.from_numpy(fixture["mst/edge_focal"]), atol=1e-4, rtol=0)
    focal = start_from_tree(seen).focal
    # Published: frames 2 and 5 receive the estimate of an edge of frame 1, frame 4 that of frame 2 (fault 4). Ours come
    # from an edge of the frame itself; the mean moves by less than 0.01 px, as the record foretells.
    for frame, value in enumerate(focal.tolist()):
        own = fixture["mst/edge_focal"][fixture["edges"][:, 0] == frame]
        assert np.abs(own - value).min() < 1e-4
    assert abs(float(focal.mean()) - fixture["mst/im_focals"].mean()) < 0.01


def published_run(seen: Observations, state: AlignmentState):
    return descend(state, seen, AlignmentConfig.published())


@pytest.fixture(scope="module")
def descent(fixture, seen):
    return published_run(seen, recorded_state(fixture, "init"))


def test_published_settings_reach_the_published_result(fixture, seen, descent):
    # Single parameters drift apart between runs (fault 28); the objective and the errors do not.
    np.testing.assert_allclose(descent.trace[:2].numpy(), fixture["loss_curve"][:2], rtol=1e-4)
    assert len(descent.trace) == 300
    final = float(evaluate(descent.state, seen).total)
    errors = pose_errors(descent.state.T_world_camera(), torch.from_numpy(fixture["gt_cam2world"]))
    assert final <= 0.0435
    assert errors.ate <= 0.0070
    assert float(descent.state.focal()[0]) == pytest.approx(45, abs=0.05)


def test_the_step_size_falls_as_recorded(fixture):
    config = AlignmentConfig.published()
    np.testing.assert_allclose([config.rate(k) for k in range(300)], fixture["lr_curve"], rtol=1e-9)
    fast = AlignmentConfig()
    assert fast.rate(0) == fast.learning_rate
    assert all(fast.rate(k + 1) < fast.rate(k) for k in range(299))


def test_the_fast_way_is_as_good_as_the_published_one(fixture, seen, predictions, descent):
    config = AlignmentConfig()
    assert config.stride_for(288, 512) == 4
    assert config.stride_for(HEIGHT, WIDTH) == 1, "small images keep all pixels"
    fast = descend(initial_state(start_from_tree(seen), seen), seen, config)
    depth = solve_depth(fast.state, seen, config.depth_rounds)
    ours = objective_on_all_pixels(fast.state, seen, depth, config)
    assert float(ours.total) <= float(evaluate(descent.state, seen).total)
    errors = pose_errors(fast.state.T_world_camera(), torch.from_numpy(fixture["gt_cam2world"]))
    assert errors.ate <= 0.0070


def test_known_values_do_not_move_and_convergence_ends_the_steps(fixture, seen):
    state = recorded_state(fixture, "init")
    frozen = frozenset({"camera_quat_xyzw", "camera_translation_code", "focal_code", "log_base_scale"})
    settings = AlignmentConfig(tolerance=0.2, flow_start=0.0)
    short = descend(state, seen, settings, frozen)
    assert len(short.trace) == 75, "a loose tolerance is met at the third look"
    assert torch.equal(short.state.T_world_camera(), state.T_world_camera())
    assert torch.equal(short.state.focal_code, state.focal_code)
    assert not torch.equal(short.state.log_depth, state.log_depth)


def test_solved_depth_is_the_minimum_along_every_ray(fixture, seen):
    state = recorded_state(fixture, "final")
    depth = solve_depth(state, seen, rounds=60)
    best = float(objective_on_all_pixels(state, seen, depth, AlignmentConfig()).total)
    assert best <= float(evaluate(state, seen).total)
    for factor in (0.999, 1.001):
        assert best < float(objective_on_all_pixels(state, seen, depth * factor, AlignmentConfig()).total)
    # Against a fine search at one pixel.
    frame, pixel = 3, 700
    trial = depth.clone().repeat(1, 1)
    costs = []
    for candidate in torch.linspace(0.98, 1.02, 401) * depth[frame, pixel]:
        trial[frame, pixel] = candidate
        costs.append(float(objective_on_all_pixels(state, seen, trial, AlignmentConfig()).total))
    assert abs(int(np.argmin(costs)) - 200) <= 3


def test_solved_depth_far_from_the_middle_of_the_image_is_that_of_a_search():
    # One pixel at 45 degrees, seen by three edges of one frame; cameras and edges are the identity.
    offsets = torch.tensor([[40.0], [0.0]])
    targets = torch.tensor([[1.0, 0.1, 1.2], [2.0, 0.0, 1.5], [1.1, -0.4, 1.6]])
    confidence = torch.tensor([[2.0], [3.0], [4.0]]).exp()
    still = torch.tensor([[0.0, 0, 0, 1]])
    state = AlignmentState(
        edge_quat_xyzw=still.expand(3, 4),
        edge_translation_code=torch.zeros(3, 3),
        edge_log_scale=torch.zeros(3),
        camera_quat_xyzw=still,
        camera_translation_code=torch.zeros(1, 3),
        focal_code=20 * torch.tensor([40.0]).log(),
        log_depth=torch.zeros(1, 1),
        log_base_scale=torch.tensor(0.0),
    )
    view = View(torch.zeros(3, dtype=torch.long), targets[:, :, None], confidence, confidence.log())
    nothing = View(torch.zeros(0, dtype=torch.long), torch.zeros(0, 3, 1), torch.zeros(0, 1), torch.zeros(0, 1))
    found = float(solve_depth(state, Observations(view, nothing, offsets, 1), rounds=200))
    trial = torch.linspace(0.5, 3, 25001)
    miss = (trial[:, None, None] * torch.tensor([1.0, 0.0, 1.0]) - targets).norm(dim=-1)
    assert found == pytest.approx(float(trial[(miss * confidence.log()[:, 0]).sum(1).argmin()]), abs=1e-3)


def test_distances_do_not_depend_on_the_unit_of_the_world(fixture, seen):
    state = recorded_state(fixture, "perturbed")
    position = decode_translation(state.camera_translation_code)
    larger = state.with_tensors(
        camera_translation_code=encode_translation(3 * position),
        log_depth=state.log_depth + np.log(3),
        log_base_scale=state.log_base_scale + np.log(3),
    )
    ours, theirs = evaluate(state, seen), evaluate(larger, seen)
    torch.testing.assert_close(ours.first, theirs.first, rtol=1e-5, atol=0)
    torch.testing.assert_close(ours.second, theirs.second, rtol=1e-5, atol=0)


def test_focal_of_exact_points_is_exact_even_with_outliers():
    offsets = geometry.pixel_grid(24, 32).flatten(0, 1).T - torch.tensor([[16.0], [12.0]])
    depth = torch.rand(24 * 32) + 1
    points = torch.cat([offsets / 40 * depth, depth[None]])
    points[:, ::10] += 0.5  # a tenth of the image is wrong
    torch.testing.assert_close(focal_from_points(points[None], offsets), torch.tensor([40.0]), atol=0.1, rtol=0)


def test_smoothness_of_a_straight_step_is_its_length():
    rotation, position = torch.eye(3).repeat(3, 1, 1), torch.tensor([[0.0, 0, 0], [3, 4, 0], [3, 4, 0]])
    assert float(camera_smoothness(rotation, position)) == pytest.approx(5.0)
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    turned = torch.stack([torch.eye(3), quarter])
    assert float(camera_smoothness(turned, torch.zeros(2, 3))) == pytest.approx(2.0)  # sqrt of 4 entries of 1


def test_translation_codes_come_back():
    translation = torch.tensor([[-5.0, 0.0, 1e-3], [100.0, -1e-3, 2.0]])
    torch.testing.assert_close(decode_translation(encode_translation(translation)), translation, rtol=1e-4, atol=1e-6)


def test_the_pixel_subset_sits_in_the_middle_of_its_cells():
    assert pixel_subset(4, 8, 4, torch.device("cpu")).tolist() == [2 * 8 + 2, 2 * 8 + 6]
    assert pixel_subset(2, 2, 1, torch.device("cpu")).tolist() == [0, 1, 2, 3]


def test_confidence_of_a_frame_is_the_recorded_maximum(fixture, seen):
    found = frame_confidence(seen).view(FRAMES, HEIGHT, WIDTH)
    assert torch.equal(found, torch.from_numpy(fixture["im_conf_before_clean"]))


def test_frames_that_hang_together_with_nothing_are_named():
    with pytest.raises(AlignmentError, match=r"2 of 4 frames \(first: 2\)"):
        spanning_tree([(0, 1), (1, 0), (2, 3)], [1.0, 2.0, 0.5], 4)


@pytest.fixture
def sideways() -> tuple[AlignmentState, torch.Tensor]:
    """Two cameras, the second 0.2 to the right; depth 4; focal length 100. So points move left by 5 pixels."""
    offsets = geometry.pixel_grid(6, 8).flatten(0, 1).T - torch.tensor([[4.0], [3.0]])
    state = AlignmentState(
        edge_quat_xyzw=torch.tensor([[0.0, 0, 0, 1]] * 2),
        edge_translation_code=torch.zeros(2, 3),
        edge_log_scale=torch.zeros(2),
        camera_quat_xyzw=torch.tensor([[0.0, 0, 0, 1]] * 2),
        camera_translation_code=encode_translation(torch.tensor([[0.0, 0, 0], [0.2, 0, 0]])),
        focal_code=20 * torch.tensor([100.0]).log(),
        log_depth=torch.tensor(4.0).log().expand(2, 48).clone(),
        log_base_scale=torch.tensor(0.5).log(),
    )
    return state, offsets


def flow_of(state, offsets, flow, trusted=None) -> float:
    trusted = torch.ones(1, 48, dtype=torch.bool) if trusted is None else trusted
    observed = FlowObservations(torch.tensor([0]), torch.tensor([1]), flow, trusted)
    return float(flow_disagreement(state, state.world_points(offsets), offsets, observed))


def test_flow_that_the_cameras_explain_costs_nothing(sideways):
    exact = torch.stack([torch.full((48,), -5.0), torch.zeros(48)])[None]
    assert flow_of(*sideways, exact) == pytest.approx(0, abs=1e-4)
    # Off by 3 pixels in x: log(1 + 9) / 2, over two coordinates half of it, counted for both directions.
    off = exact + torch.tensor([3.0, 0.0])[:, None]
    assert flow_of(*sideways, off) == pytest.approx(np.log(10) / 2, abs=1e-3)


def test_flow_is_gated_by_trust_and_by_outlier(sideways):
    flow = torch.stack([torch.full((48,), -5.0), torch.zeros(48)])[None]
    flow[:, 0, :10] += 3
    occluded = torch.ones(1, 48, dtype=torch.bool)
    occluded[:, :10] = False
    assert flow_of(*sideways, flow, occluded) == pytest.approx(0, abs=1e-4)  # published: not looked at (fault 21)
    flow[:, 0, :10] += 100
    assert flow_of(*sideways, flow) == pytest.approx(0, abs=1e-4)  # beyond 50 pixels
    nothing = torch.zeros(1, 48, dtype=torch.bool)
    assert flow_of(*sideways, flow, nothing) == 0
