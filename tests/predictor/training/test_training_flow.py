"""Worlds with exact flow, and `das3r train-flow`: three steps on a CPU, the same run resumed."""

import json
import math
from pathlib import Path

import pytest
import torch

from das3r_ns.predictor.flow.network import FlowNetwork, load_flow_network
from das3r_ns.predictor.flow.sampling import warp
from das3r_ns.predictor.training.flow import painting, worlds
from das3r_ns.predictor.training.flow.config import FlowDataConfig, FlowOptimConfig, TrainFlowConfig
from das3r_ns.predictor.training.flow.degradations import blur_along, compress, degrade
from das3r_ns.predictor.training.flow.figures import attach_limbs, draw_figures
from das3r_ns.predictor.training.flow.gradients import StepGradients
from das3r_ns.predictor.training.flow.losses import unlikelihood
from das3r_ns.predictor.training.flow.motion import (
    CameraMotion,
    ObjectMotion,
    Surface,
    draw_object_motion,
    move,
)
from das3r_ns.predictor.training.flow.shapes import coverage, draw_shapes
from das3r_ns.predictor.training.flow.textures import make_textures
from das3r_ns.predictor.training.flow.train import CHECKPOINT, LOG, WEIGHTS, FlowRun, learning_rate, train_flow
from das3r_ns.predictor.training.flow.validation import FlowScores, near_outlines
from das3r_ns.predictor.training.flow.worlds import draw_pairs
from das3r_ns.predictor.training.loop.engine import make_fabric


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def textures():
    return make_textures(4, 64, generator(), leaves=10)


def still_camera(focal: float, translation: tuple[float, float, float]) -> CameraMotion:
    return CameraMotion(torch.tensor([focal]), torch.eye(3)[None], torch.tensor([translation]))


def flat(inverse_depth: float) -> Surface:
    return Surface(torch.tensor([[[0.0, 0.0, inverse_depth]]]), torch.zeros(1, 1, 1))


PLACES = torch.tensor([[[[0.0, 10.0, -20.0]], [[0.0, 4.0, 8.0]]]])  # b 2 rows columns


def test_a_sideways_step_moves_pixels_by_focal_times_step_times_inverse_depth():
    moved = move(PLACES, still_camera(100.0, (-0.2, 0.0, 0.0)), flat(0.25), None, torch.zeros(1, 2))
    torch.testing.assert_close(moved - PLACES, torch.tensor([-5.0, 0.0]).view(1, 2, 1, 1).expand_as(PLACES))


def test_a_step_forward_magnifies():
    # At depth 4 a step of 1 leaves 3: everything is 4/3 as far from the middle. The scene comes by -1 in z.
    moved = move(PLACES, still_camera(100.0, (0.0, 0.0, -1.0)), flat(0.25), None, torch.zeros(1, 2))
    torch.testing.assert_close(moved, PLACES * 4 / 3)


def test_of_several_planes_the_nearest_moves_the_pixel():
    surface = Surface(torch.tensor([[[0.0, 0.0, 0.1], [0.01, 0.0, 0.1]]]), torch.zeros(1, 1, 1))
    moved = move(PLACES, still_camera(100.0, (-1.0, 0.0, 0.0)), surface, None, torch.zeros(1, 2))
    torch.testing.assert_close((moved - PLACES)[0, 0, 0], torch.tensor([-10.0, -20.0, -10.0]))


def test_an_object_turns_about_its_centre_and_shifts():
    turn = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
    own = ObjectMotion(turn, torch.tensor([[3.0, 1.0]]), torch.zeros(1, 2, 1, 1))
    moved = move(PLACES, still_camera(100.0, (0.0, 0.0, 0.0)), flat(0.5), own, torch.tensor([[10.0, 4.0]]))
    torch.testing.assert_close(moved[0, :, 0, 1], torch.tensor([13.0, 5.0]))  # the centre shifts alone
    torch.testing.assert_close(moved[0, :, 0, 0], torch.tensor([10.0 + 4 + 3, 4.0 - 10 + 1]))


def test_what_both_images_show_is_found_where_the_flow_points(textures):
    pairs = draw_pairs(6, (96, 128), textures, generator(3), degraded=False)
    assert 0.6 < pairs.visible.float().mean() < 1
    moving = pairs.flow.norm(dim=1) > 1
    assert moving.float().mean() > 0.2
    error = (warp(pairs.second, pairs.flow) - pairs.first).abs().mean(1)
    still = (pairs.second - pairs.first).abs().mean(1)
    inner = pairs.visible & ~near_outlines(pairs.layer)
    assert error[inner].median() < 0.01
    assert error[inner & moving].mean() < 0.3 * still[inner & moving].mean()
    assert error[~pairs.visible].mean() > 3 * error[inner].mean()  # covered pixels show something else there


def test_covered_and_vanished_pixels_are_not_visible():
    flow = torch.zeros(1, 2, 1, 5)
    flow[0, 0, 0] = torch.tensor([0.0, 1.0, 0.0, 0.0, 4.0])
    layer = torch.tensor([[[0, 0, 2, 1, 1]]], dtype=torch.uint8)
    layer_in_second = torch.tensor([[[0, 0, 1, 1, 1]]], dtype=torch.uint8)
    visible = worlds._visible(flow, layer, layer_in_second)
    assert visible[0, 0].tolist() == [True, False, True, True, False]


def test_a_layer_shows_its_texture_turned_shifted_and_with_its_own_channels_and_contrast():
    side, values = 4, torch.arange(16, dtype=torch.uint8).view(4, 4)
    texture = torch.stack((values * 10, values + 30, 200 - values, values * 3))[None]
    quarter_turn = torch.tensor([[[0.0, -1], [1, 0]]])  # x of the texture is -y of the image, its y is x
    # Texels (column, row) of the middle of which is asked: (0, 0), (3, 1), (2, 3).
    column, row = torch.tensor([0, 3, 2]), torch.tensor([0, 1, 3])
    in_texture = torch.stack((column, row)) + 0.5 - side / 2 - torch.tensor([[0.5], [-1.0]]) * side / 2
    places = torch.stack((in_texture[1], -in_texture[0]))[None, :, None]
    how = painting.Paint(
        texture, quarter_turn, torch.tensor([[[[0.5, -1.0]]]]), torch.tensor([[2, 0, 1]]),
        torch.full((1, 1, 1, 1), 0.5), torch.full((1, 1, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.1),
    )  # fmt: skip
    seen = painting.paint(places, how)
    assert seen.shape == (1, 4, 1, 3)
    texels = texture[0, :, row, column].float() / 255
    rgb = texels[[2, 0, 1]]
    rgb = (rgb + rgb.mean(0)) / 2
    rgb = (rgb + rgb.mean(1, keepdim=True)) / 2 + 0.1
    torch.testing.assert_close(seen[0, :3, 0], rgb, atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[0, 3, 0], texels[3], atol=1e-5, rtol=0)


def test_the_same_seed_draws_the_same_pairs(textures):
    one, same, other = (draw_pairs(2, (64, 72), textures, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.first, same.first)
    assert torch.equal(one.flow, same.flow)
    assert not torch.equal(one.first, other.first)
    assert one.first.min() >= 0
    assert one.first.max() <= 1


def test_shapes_cover_their_middle_and_not_what_is_far():
    shapes = draw_shapes(32, 100, generator())._replace(roughness=torch.zeros(32))
    grid = torch.stack(torch.meshgrid(torch.arange(-400.0, 401, 4), torch.arange(-400.0, 401, 4), indexing="xy"))
    covered = coverage(shapes, grid.expand(32, -1, -1, -1), torch.zeros(32, 201, 201))
    assert (covered[:, 100, 100] > 0.4).all()
    assert (covered[:, [0, -1]] == 0).all()


def test_limbs_hang_on_their_figure_in_both_images():
    batch, layers = 20, 4
    figures, parent = draw_figures(batch, layers, generator())
    limb = parent >= 0
    assert 0.2 < limb.float().mean() < 0.5
    assert not limb[:, 0].any()
    assert (parent < torch.arange(layers)).all()  # on something behind it
    root = figures.root.view(batch, layers) - layers * torch.arange(batch)[:, None]
    assert torch.equal(root[~limb], torch.arange(layers).expand(batch, -1)[~limb])
    assert torch.equal(root[limb], root.gather(1, parent.clamp_min(0))[limb])

    own = draw_object_motion(batch * layers, (32, 40), generator(1), torch.ones(batch * layers))
    shapes = draw_shapes(batch * layers, 200, generator(2))
    centre, moved, joined = attach_limbs(parent, figures, torch.zeros(batch * layers, 2), own, shapes, generator(3))

    def goes(layer: int, place: torch.Tensor) -> torch.Tensor:
        return moved.matrix[layer] @ (place - centre[layer]) + centre[layer] + moved.shift[layer]

    for b, k in limb.nonzero().tolist():
        layer, on = b * layers + k, b * layers + int(parent[b, k])
        # What both move alike is the one point x with A x = c: the joint. It lies on the parent, and beside the limb's
        # middle by three quarters of the limb's length.
        A = moved.matrix[layer] - moved.matrix[on]
        joint = torch.linalg.solve(A, goes(on, torch.zeros(2)) - goes(layer, torch.zeros(2)))
        if torch.linalg.cond(A) > 50:  # hardly swings
            continue
        assert (joint - centre[on]).norm().item() == pytest.approx(0.6 * joined.size[on].item(), rel=0.05, abs=0.1)
        assert (joint - centre[layer]).norm().item() == pytest.approx(
            0.75 * joined.size[layer].item(), rel=0.05, abs=0.1
        )
        torch.testing.assert_close(moved.bend[layer], own.bend[figures.root[layer]])
    alone = ~limb.flatten()
    torch.testing.assert_close(moved.shift[alone], own.shift[alone])
    torch.testing.assert_close(joined.size[alone], shapes.size[alone])


def test_layers_that_move_on_their_own_are_marked(textures, monkeypatch):
    monkeypatch.setattr(worlds, "draw_figures", lambda b, n, g: (draw_figures(b, n, g)[0], torch.full((b, n), -1)))
    for share in (0.0, 1.0):
        monkeypatch.setattr(worlds, "MOVING_SHARE", share)
        pairs = draw_pairs(2, (64, 72), textures, generator(), degraded=False)
        assert torch.equal(pairs.moving, (pairs.layer > 0) & (share > 0))


def test_motion_blur_is_the_mean_over_the_trail():
    ramp = torch.arange(40.0).expand(1, 3, 20, 40) / 40
    trail = torch.zeros(1, 2, 20, 40)
    trail[:, 0] = 8
    torch.testing.assert_close(blur_along(ramp, trail)[..., 5:-5], ramp[..., 5:-5])
    edge = (ramp > 0.5).float()
    blurred = blur_along(edge, trail)[0, 0, 10]
    assert ((blurred > 0.02) & (blurred < 0.98)).nonzero().flatten().tolist() == list(range(17, 25))
    torch.testing.assert_close(blur_along(edge, 0 * trail), edge)


def test_compression_by_steps_of_zero_changes_nothing_and_keeps_even_surfaces():
    images = torch.rand(2, 3, 20, 30)
    torch.testing.assert_close(compress(images, torch.tensor([0.0, 2.0]))[0], images[0])
    even = torch.full((1, 3, 16, 16), 128 / 255)
    torch.testing.assert_close(
        compress(even, torch.tensor([1.0])), even, atol=8 / 255 / 8, rtol=0
    )  # half of a step of 16 / 8
    assert (compress(images, torch.tensor([0.0, 2.0]))[1] - images[1]).abs().mean() > 0.02


def test_degraded_images_keep_size_and_range():
    images = torch.rand(4, 3, 40, 48)
    trail, moving = torch.full((4, 2, 40, 48), 9.0), torch.ones(4, 40, 48)
    for image in degrade((images, images), (trail, trail), (moving, moving), generator()):
        assert image.shape == images.shape
        assert image.isfinite().all()


def test_likely_matches_at_the_true_place_cost_little():
    shares = torch.zeros(1, 12, 3, 4)
    shares[0, torch.arange(12), torch.arange(12) // 4, torch.arange(12) % 4] = 0.9
    flow, weight = torch.zeros(1, 2, 3, 4), torch.ones(1, 3, 4)
    assert unlikelihood(shares, flow, weight).item() == pytest.approx(-math.log(0.9 + 1e-4))
    flow[:, 0] = 1
    assert unlikelihood(shares, flow, weight).item() == pytest.approx(-math.log(1e-4))


def test_scores_are_those_of_the_visible_pixels_of_each_displacement():
    truth = torch.tensor([[[[1.0, 20.0, 50.0, 1.0]], [[0.0, 0.0, 0.0, 0.0]]]])
    flow = truth + torch.tensor([0.0, 2.0, 4.0, 9.0]).view(1, 1, 1, 4) * torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    visible = torch.tensor([[[True, True, True, False]]])
    scores = FlowScores()
    scores.add(flow, truth, visible, torch.tensor([[[False, True, True, False]]]))
    table = scores.table()
    assert table["all"] == (2.0, pytest.approx(100 / 3))
    assert table["0-10 px"] == (0.0, 0.0)
    assert table["10-40 px"] == (2.0, 0.0)
    assert table["40-120 px"] == (4.0, 100.0)
    assert table["outlines"] == (3.0, 50.0)
    assert table["hidden"] == (9.0, 100.0)
    assert "120+ px" not in table


def test_the_learning_rate_rises_once_and_falls_to_nearly_nothing():
    optim = FlowOptimConfig(learning_rate=1.0, warmup_share=0.1)
    rates = [learning_rate(progress, optim) for progress in (0.0, 0.05, 0.1, 0.55, 1.0, 2.0)]
    assert rates == pytest.approx([0.02, 0.51, 1.0, 0.501, 0.002, 0.002])


def config_for(out, **changes) -> TrainFlowConfig:
    return TrainFlowConfig(
        out,
        data=FlowDataConfig(size=(128, 128), textures=2, texture_side=32, val_pairs=1),
        optim=FlowOptimConfig(steps=3, ema_decay=0.5),
        batch_size=1,
        updates=1,
        refinements=1,
        device="cpu",
        log_every=1,
        **changes,
    )


def test_three_steps_train_and_a_resumed_run_is_the_same(tmp_path):
    whole = train_flow(config_for(tmp_path / "whole"))
    assert whole == tmp_path / "whole" / WEIGHTS
    assert whole.stat().st_size < 5_000_000
    logged = [json.loads(line) for line in (tmp_path / "whole" / LOG).read_text().splitlines()]
    assert [line["step"] for line in logged if "loss" in line] == [1, 2, 3]
    assert any("all/epe" in line for line in logged)
    assert list((tmp_path / "whole" / "images").glob("*.jpg"))

    train_flow(config_for(tmp_path / "parts", stop_after_steps=1))
    train_flow(config_for(tmp_path / "parts", resume=True))
    one, other = (torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("whole", "parts"))
    assert one["step"] == other["step"] == 3
    for name, values in one["network"].items():
        torch.testing.assert_close(values, other["network"][name], rtol=0, atol=0)
    start = FlowNetwork().state_dict()
    assert any(not torch.equal(start[name], values) for name, values in one["network"].items())

    network = load_flow_network(whole)
    for name, values in network.named_parameters():
        torch.testing.assert_close(values, one["average"][name], atol=2e-3, rtol=2e-3)

    again = config_for(tmp_path / "again", weights=whole)  # another run may start from its weights
    for name, values in FlowRun(again, make_fabric(again)).network.named_parameters():
        assert torch.equal(values, network.get_parameter(name))
        assert values.requires_grad

    with pytest.raises(FileExistsError, match="--resume"):
        train_flow(config_for(tmp_path / "whole"))
    (tmp_path / "parts" / CHECKPOINT).write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be resumed"):
        train_flow(config_for(tmp_path / "parts", resume=True))


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: FlowDataConfig(size=(100, 130)), "multiples of 8"),
        (lambda: FlowDataConfig(texture_side=100), "power of 2"),
        (lambda: FlowOptimConfig(steps=0), "above 0"),
        (lambda: FlowOptimConfig(ema_decay=1.0), "ema-decay"),
        (lambda: TrainFlowConfig(Path("out"), batch_size=0), "batch_size"),
    ],
)
def test_settings_that_make_no_sense_are_refused(build, said):
    with pytest.raises(ValueError, match=said):
        build()


def gradients_of_a_line(device: str, record: bool) -> tuple[StepGradients, torch.nn.Conv2d]:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(2, 3, 3).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def compute(drawn: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        loss = (layer(torch.rand(2, 2, 5, 5, generator=drawn, device=device)) ** 2).mean()
        return loss, loss.detach()[None]

    return StepGradients(list(layer.parameters()), compute, torch.device(device), record), layer


def test_gradients_of_a_step_are_those_of_its_seed_alone():
    gradients, layer = gradients_of_a_line("cpu", record=True)
    figures = gradients(5)
    loss = (layer(torch.rand(2, 2, 5, 5, generator=generator(5))) ** 2).mean()
    weight, bias = torch.autograd.grad(loss, list(layer.parameters()))
    assert figures.item() == pytest.approx(loss.item())
    torch.testing.assert_close(layer.weight.grad, weight)
    torch.testing.assert_close(gradients.buffer[-3:], bias)
    assert layer.weight.grad is not None
    assert layer.weight.grad.stride() == layer.weight.stride()
    gradients(6)
    assert not torch.allclose(layer.weight.grad, weight)
    gradients(5)
    torch.testing.assert_close(layer.weight.grad, weight)  # nothing of the step before is left


@pytest.mark.gpu
def test_a_recorded_step_gives_the_gradients_of_an_eager_one():
    (recorded, _), (eager, _) = (gradients_of_a_line("cuda", record) for record in (True, False))
    for seed in (1, 2, 3, 4, 5, 1):  # recorded from the fourth on
        torch.testing.assert_close(recorded(seed), eager(seed))
        torch.testing.assert_close(recorded.buffer, eager.buffer)
