"""Ground that is hidden in every frame: what is painted there, what it costs elsewhere, and that it is told."""

from dataclasses import replace

import pytest
import torch
from tiny_run import scene_from_truth, tiny_config, train

from das3r_ns.model.hidden import HiddenConfig, HiddenGround, continuation, distance_to_ground, guessed
from das3r_ns.scene import read_frames_of_scene, read_scene, write_scene

OBJECT = (slice(20, 40), slice(30, 60))


def image_with_an_object(ground=(0.2, 0.6, 0.3)):
    image = torch.tensor(ground).expand(60, 96, 3).clone()
    image[OBJECT] = torch.tensor([1.0, 0.0, 0.0])
    moving = torch.zeros(60, 96)
    moving[OBJECT] = 1.0
    return image, moving


def test_a_hole_in_an_even_ground_becomes_ground():
    image, moving = image_with_an_object()
    painted, hidden = continuation(image, moving, 0.02)
    assert painted.shape == (1, 3, 60, 96)
    torch.testing.assert_close(painted[0].permute(1, 2, 0), image[:1, :1].expand(60, 96, 3), atol=5 / 255, rtol=0)
    assert (hidden[0, 0][OBJECT] == 1).all()
    # Grown by 2 % of 96 pixels: two, and no more.
    assert hidden[0, 0, 30, 28] == 1
    assert hidden[0, 0, 30, 26] == 0


def test_continuations_of_large_images_are_small():
    painted, hidden = continuation(torch.rand(480, 854, 3), torch.zeros(120, 214), 0.012)
    assert painted.shape == (1, 3, 108, 192)
    assert hidden.max() == 0


def test_a_image_that_moves_as_a_whole_is_not_continued():
    _, hidden = continuation(torch.rand(60, 96, 3), torch.ones(60, 96), 0.012)
    assert hidden.max() == 0


def test_the_loss_counts_hidden_pixels_alone_and_its_gradient_points_to_the_ground():
    image, moving = image_with_an_object()
    ground = HiddenGround(moving[None], HiddenConfig(grow=0.02))
    render = image.clone().requires_grad_()
    loss = distance_to_ground(render, *ground.of_frame(image, 0))
    (gradient,) = torch.autograd.grad(loss, render)
    assert gradient[:15].abs().max() == 0
    assert (gradient[25:35, 35:55].sign() == torch.tensor([1.0, -1.0, -1.0])).all()
    expected = (0.8 + 0.6 + 0.3) / 3 * 600 / (60 * 96)  # the object's 600 pixels; its rim looks like the ground already
    assert float(loss.detach()) == pytest.approx(expected, rel=0.02)


def test_made_up_is_what_fewer_than_two_frames_show():
    # Ten frames; each Gaussian paints 5 pixels in each of them, static ones in 0, 1, 3 and 10 frames.
    static, everywhere = torch.tensor([0.0, 5.0, 15.0, 50.0]), torch.full((4,), 50.0)
    assert guessed(static, everywhere, 10, HiddenConfig()).flatten().tolist() == [1, 1, 0, 0]


def test_where_an_object_never_moves_away_a_continuation_is_learned_and_said_to_be_unseen(
    tmp_path,
):
    scene_folder = scene_from_truth(tmp_path / "walk")
    scene, frames = read_scene(scene_folder), read_frames_of_scene(scene_folder)
    h, w = scene.image_size
    corner = (slice(None), slice(h // 2, h), slice(0, w // 2))
    frames, dynamic_prob = frames.clone(), torch.zeros_like(scene.dynamic_prob)
    frames[corner] = torch.tensor([255, 0, 255], dtype=torch.uint8)
    dynamic_prob[corner] = 1.0
    folder = write_scene(replace(scene, dynamic_prob=dynamic_prob), frames, tmp_path / "corner")
    config = tiny_config("das3r-lite", folder, tmp_path / "out")
    path, _, trainer = train(config)
    loss = trainer.pipeline.get_train_loss_dict(len(trainer.pipeline.datamanager.train_dataset))[1]
    assert float(loss["hidden"].detach()) > 0
    from nerfstudio.utils.eval_utils import eval_setup

    pipeline = eval_setup(path)[1]
    model, camera = pipeline.model, pipeline.datamanager.train_dataset.cameras[:1]

    def unseen() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            outputs = model.get_outputs_for_camera(camera)
        return outputs["unseen"][..., 0], outputs["accumulation"][..., 0] > 0.5

    found, covered = unseen()
    assert found[h // 2 + 6 : h - 2, 2 : w // 2 - 6].mean() > 0.6
    assert found[2 : h // 2 - 6, 2 : w - 2].mean() < 0.3
    # As if no static pixel had shown any Gaussian, though all paint.
    support = model.support()
    model._guessed, model.support = None, lambda: support * torch.tensor([0.0, 1.0])
    found, covered = unseen()
    assert covered.any()
    assert (found[covered] == 1).all()
