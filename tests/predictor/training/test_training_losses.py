"""The predictor's loss and learning rate against numbers recorded from the published implementation."""

from pathlib import Path

import numpy as np
import pytest
import torch

from das3r_ns import geometry
from das3r_ns.predictor.training.loop.logs import _mosaic
from das3r_ns.predictor.training.loop.losses import (
    LossConfig,
    ViewPrediction,
    ViewTruth,
    pair_loss,
    validation_criterion,
)
from das3r_ns.predictor.training.loop.schedule import OptimConfig, learning_rate
from das3r_ns.predictor.training.loop.validation import ValidationImages

CASES = ["full", "partial"]
Leaves = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def recorded(data: Path) -> dict[str, np.ndarray]:
    with np.load(data / "losses.npz") as stored:
        return dict(stored)


def recorded_pair(recorded, case) -> tuple[Leaves, list[ViewPrediction], list[ViewTruth]]:
    """Predictions as leaves of the graph (probabilities, as the reference takes them), and the truth in camera 1."""
    tensor = lambda name: torch.from_numpy(recorded[f"mask_loss/{name}"])  # noqa: E731
    T_camera1_world = geometry.invert(tensor("camera_pose1"))
    leaves: Leaves = {}
    predictions, truths = [], []
    for view in (1, 2):
        for short, name in (("pts", "pred_pts3d"), ("conf", "pred_conf"), ("mask", "pred_mask")):
            leaves[f"{short}{view}"] = tensor(f"{name}{view}").requires_grad_()
        predictions.append(
            ViewPrediction(
                mask_logits=leaves[f"mask{view}"].logit(),
                pointmap=leaves[f"pts{view}"],
                confidence=leaves[f"conf{view}"],
            )
        )
        truths.append(
            ViewTruth(
                pointmap=geometry.transform(T_camera1_world[:, None, None], tensor(f"gt_pts3d{view}")),
                valid=tensor(f"{case}/valid{view}"),
                dynamic=tensor(f"{case}/gt_mask{view}"),
            )
        )
    return leaves, predictions, truths


@pytest.mark.parametrize("case", CASES)
def test_training_loss_and_its_parts_are_the_recorded_ones(case, recorded):
    _, predictions, truths = recorded_pair(recorded, case)
    total, views = pair_loss(predictions, truths, LossConfig())
    detail = {
        key.split("/")[-1]: float(value) for key, value in recorded.items() if f"mask_loss/{case}/train_detail" in key
    }
    assert total.item() == pytest.approx(float(recorded[f"mask_loss/{case}/train_loss"]), abs=2e-6)
    for view, names in zip(
        views,
        (
            ("conf_loss_1", "conf_mmask_loss_1", "Regr3D_MMask_pts3d_1", "Regr3D_MMask_mmask_1"),
            ("conf_loss2", "conf_mmask_loss_2", "Regr3D_MMask_pts3d_2", "Regr3D_MMask_mmask_2"),
        ),
    ):
        assert [float(part) for part in view] == pytest.approx([detail[name] for name in names], abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_the_training_loss_are_the_recorded_ones(case, recorded):
    leaves, predictions, truths = recorded_pair(recorded, case)
    pair_loss(predictions, truths, LossConfig())[0].backward()
    for name, leaf in leaves.items():
        expected = torch.from_numpy(recorded[f"mask_loss/{case}/grad_{name}"])
        assert leaf.grad is not None
        assert expected.abs().max() > 1e-4  # there is something to compare
        torch.testing.assert_close(leaf.grad, expected, rtol=1e-4, atol=5e-8)


@pytest.mark.parametrize("case", CASES)
def test_validation_criterion_is_the_recorded_one(case, recorded):
    _, predictions, truths = recorded_pair(recorded, case)
    found = validation_criterion(predictions, truths)
    assert float(found) == pytest.approx(float(recorded[f"mask_loss/{case}/test_loss"]), abs=2e-6)


def test_learning_rate_is_the_recorded_one(recorded):
    found = [learning_rate(float(epoch), OptimConfig()) for epoch in recorded["lr/predictor_epoch"]]
    np.testing.assert_allclose(found, recorded["lr/predictor"], rtol=1e-9, atol=1e-15)


def test_without_confidence_weighting_the_mask_term_is_the_plain_cross_entropy():
    logits = torch.zeros(1, 2, 2)  # probability 1/2 everywhere: log 2 per pixel
    truth = ViewTruth(torch.ones(1, 2, 2, 3), torch.ones(1, 2, 2, dtype=torch.bool), torch.eye(2)[None])
    prediction = ViewPrediction(logits, None, None)
    total, views = pair_loss([prediction] * 2, [truth] * 2, LossConfig(point_weight=0.0, confidence_weighting=False))
    assert total.item() == pytest.approx(2 * np.log(2), rel=1e-6)
    assert float(views[0].points) == 0


def test_a_batch_without_a_valid_pixel_costs_nothing_and_has_finite_gradients():
    logits = torch.zeros(1, 4, 4, requires_grad=True)
    points = torch.ones(1, 4, 4, 3, requires_grad=True)
    truth = ViewTruth(
        torch.full((1, 4, 4, 3), torch.inf), torch.zeros(1, 4, 4, dtype=torch.bool), torch.full((1, 4, 4), torch.nan)
    )
    prediction = ViewPrediction(logits, points, torch.full((1, 4, 4), 2.0))
    total, _ = pair_loss([prediction] * 2, [truth] * 2, LossConfig())
    total.backward()
    assert total.item() == 0
    for leaf in (logits, points):
        assert leaf.grad is not None
        assert leaf.grad.abs().max() == 0


def test_a_confidently_wrong_mask_still_has_a_gradient():
    logits = torch.full((1, 2, 2), 40.0, requires_grad=True)  # its sigmoid is exactly 1 in float32
    truth = ViewTruth(torch.ones(1, 2, 2, 3), torch.ones(1, 2, 2, dtype=torch.bool), torch.zeros(1, 2, 2))
    config = LossConfig(point_weight=0.0, confidence_weighting=False)
    pair_loss([ViewPrediction(logits, None, None)] * 2, [truth] * 2, config)[0].backward()
    assert logits.grad is not None
    assert (logits.grad > 0.1).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"learning_rate": 1e-7}, "0 < min_learning_rate"),
        ({"epochs": 2, "warmup_epochs": 3.0}, "--optim.warmup-epochs"),
        ({"ema_decay": 1.0}, "below 1"),
    ],
)
def test_an_impossible_schedule_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        OptimConfig(**wrong)


def test_logged_images_stand_in_a_row_a_frame_beside_true_and_predicted_mask():
    rgb = torch.randint(0, 255, (2, 3, 4, 3), dtype=torch.uint8)
    truth, predicted = torch.full((2, 3, 4), 0.5), torch.zeros(2, 3, 4)
    truth[0, 1, 2] = predicted[1, 2, 3] = 1.0
    mosaic = _mosaic(ValidationImages(rgb, truth, predicted))
    assert mosaic.shape == (6, 12, 3)
    assert mosaic.dtype == torch.uint8
    assert torch.equal(mosaic[:3, :4], rgb[0])
    assert torch.equal(mosaic[3:, :4], rgb[1])
    expected = torch.full((6, 4), 128, dtype=torch.uint8)
    expected[1, 2] = 255
    assert torch.equal(mosaic[:, 4:8], expected[..., None].expand(-1, -1, 3))
    expected = torch.zeros(6, 4, dtype=torch.uint8)
    expected[5, 3] = 255
    assert torch.equal(mosaic[:, 8:], expected[..., None].expand(-1, -1, 3))
