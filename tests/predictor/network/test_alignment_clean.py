"""Dynamic maps and cleaned confidences against recorded arrays and a slow plain loop."""

from pathlib import Path

import numpy as np
import pytest
import torch

from das3r_ns import geometry
from das3r_ns.predictor.network.alignment.clean import aggregate_masks, clean_confidence


@pytest.fixture(scope="module")
def fixture(data: Path) -> dict[str, torch.Tensor]:
    with np.load(data / "alignment.npz") as stored:
        wanted = (
            "edges", "pred_mask_i", "dyna_avg", "dyna_max", "dynamic_mask", "im_conf_before_clean",
            "im_conf_after_clean", "conf_map_after_clean", "final/depth", "final/cam2world", "final/focal_px",
        )  # fmt: skip
        return {key: torch.from_numpy(stored[key]) for key in wanted}


def test_dynamic_maps_are_the_recorded_ones(fixture):
    mean, highest = aggregate_masks(fixture["edges"][:, 0], fixture["pred_mask_i"], 7)
    torch.testing.assert_close(mean, fixture["dyna_avg"], atol=2e-7, rtol=0)
    assert torch.equal(highest, fixture["dyna_max"])
    assert torch.equal(mean > 0.5, fixture["dynamic_mask"])


def test_dynamic_maps_with_unequal_counts_are_the_recorded_ones(data):
    with np.load(data / "losses.npz") as stored:
        dyna = {key: torch.from_numpy(stored[key]) for key in stored.files if key.startswith("dyna/")}
    mean, highest = aggregate_masks(dyna["dyna/edges"][:, 0], dyna["dyna/mask_view1"], 4)
    torch.testing.assert_close(mean, dyna["dyna/avg"], atol=2e-7, rtol=0)
    assert torch.equal(highest, dyna["dyna/max"])
    assert torch.equal(mean > 0.5, dyna["dyna/binary_avg_gt_0.5"])


def test_a_frame_that_is_first_in_no_pair_counts_as_static():
    mean, highest = aggregate_masks(torch.tensor([1]), torch.full((1, 2, 2), 0.8), 2)
    assert mean[0].eq(0).all()
    assert highest[1].eq(0.8).all()


def recorded_scene(fixture):
    K = torch.eye(3).repeat(7, 1, 1)
    K[:, 0, 0] = K[:, 1, 1] = fixture["final/focal_px"][:, 0]
    K[:, 0, 2], K[:, 1, 2] = 24.5, 16.5  # recorded with the first pixel at (0, 0) and the principal point at (24, 16)
    return fixture["final/depth"], fixture["final/cam2world"], K


def test_cleaned_confidence_is_exactly_the_recorded_one(fixture):
    cleaned = clean_confidence(fixture["im_conf_before_clean"], *recorded_scene(fixture), tolerance=0.001)
    assert torch.equal(cleaned, fixture["im_conf_after_clean"])
    torch.testing.assert_close(cleaned.log(), fixture["conf_map_after_clean"], atol=1e-6, rtol=0)
    assert 0.51 < float((cleaned == 0).float().mean()) < 0.53


def test_our_tolerance_spares_what_is_only_noise(fixture):
    # The published tolerance throws away 52 % of this scene, all of it within the noise of the depth (fault 26).
    cleaned = clean_confidence(fixture["im_conf_before_clean"], *recorded_scene(fixture), tolerance=0.02)
    assert float((cleaned == 0).float().mean()) < 0.15


def slow_cleaning(confidence, depth, T_world_camera, K, tolerance):
    """Pair by pair and pixel by pixel, as the reference's description has it."""
    n, height, width = depth.shape
    cleaned = confidence.clone()
    points = geometry.unproject(depth, K)
    for i in range(n):
        for j in range(n):
            if i == j:
                continue
            moved = geometry.transform(geometry.invert(T_world_camera[j]) @ T_world_camera[i], points[i])
            for row in range(height):
                for column in range(width):
                    x, y, z = moved[row, column].tolist()
                    if z <= 0:
                        continue
                    u = round(x / z * float(K[j, 0, 0]) + float(K[j, 0, 2]) - 0.5)
                    v = round(y / z * float(K[j, 1, 1]) + float(K[j, 1, 2]) - 0.5)
                    if not (0 <= u < width and 0 <= v < height):
                        continue
                    in_front = z < (1 - tolerance) * float(depth[j, v, u])
                    if in_front and cleaned[i, row, column] < cleaned[j, v, u]:
                        cleaned[i, row, column] = 0
    return cleaned


def test_cleaning_equals_the_plain_loop_also_behind_cameras():
    torch.manual_seed(5)
    depth = torch.rand(3, 6, 8, dtype=torch.float64) * 3 + 0.5
    confidence = torch.rand(3, 6, 8, dtype=torch.float64) + 1
    T = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    T[1, 0, 3], T[2, 2, 3] = 0.3, 2.5  # a step to the side, and one past half of the points
    K = geometry.intrinsics(8.0, 6, 8, torch.float64).repeat(3, 1, 1)
    found = clean_confidence(confidence, depth, T, K, 0.05)
    assert torch.equal(found, slow_cleaning(confidence, depth, T, K, 0.05))
    assert 0 < (found == 0).sum() < found.numel()
