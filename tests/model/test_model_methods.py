"""The methods as trained: what the paper's recipe fixes, what ours does, and data without das3r's metadata."""

import numpy as np
import pytest
import torch
from tiny_run import FRAMES, STEPS, scene_from_truth, tiny_config, train

from das3r_ns.model import shutter
from das3r_ns.synthetic import SyntheticConfig

pytestmark = pytest.mark.xdist_group("nerfstudio")


@pytest.fixture(scope="session")
def scene(tmp_path_factory):
    return scene_from_truth(tmp_path_factory.mktemp("methods") / "walk")


@pytest.fixture(scope="session")
def paper(scene, tmp_path_factory):
    return train(tiny_config("das3r-paper", scene, tmp_path_factory.mktemp("paper")))


def test_the_paper_starts_from_every_pixel_and_keeps_every_gaussian(paper):
    _, losses, trainer = paper
    model = trainer.pipeline.model
    assert model.num_points == FRAMES * 48 * 64
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_the_paper_ties_staticness_of_gaussian_and_pixel(paper):
    _, _, trainer = paper
    model = trainer.pipeline.model
    assert "staticness" not in model.gauss_params
    maps = model.maps.maps[0].detach()
    assert ((maps > 0) & (maps < 1)).all()
    # Pixels are taken in order, every one.
    torch.testing.assert_close(model.gaussian_staticness.detach(), maps.flatten())
    moved = (maps - model.maps.start).abs()
    assert moved.max() > 1e-3


def test_the_paper_moves_cameras_only_above_26_decibels(scene, tmp_path):
    config = tiny_config("das3r-paper", scene, tmp_path)
    config.max_num_iterations = 3
    _, _, trainer = train(config)
    poses = trainer.pipeline.model.camera_optimizer
    assert all(float(c.detach().abs().max()) == 0.0 for c in poses.corrections)  # a 3-step render is far below
    config = tiny_config("das3r-paper", scene, tmp_path)
    config.max_num_iterations, config.pipeline.model.camera_optimizer.min_psnr = 3, 1.0
    _, _, trainer = train(config)
    poses = trainer.pipeline.model.camera_optimizer
    assert sum(float(c.detach().abs().max()) > 0 for c in poses.corrections) == 3


def test_the_paper_scales_the_means_rate_to_the_cameras(paper):
    from das3r_ns.pipeline import camera_extent

    _, _, trainer = paper
    extent = camera_extent(trainer.pipeline.datamanager.train_dataset.cameras)
    centres = trainer.pipeline.datamanager.train_dataset.cameras.camera_to_worlds[:, :, 3]
    assert extent == pytest.approx(1.1 * float((centres - centres.mean(0)).norm(dim=-1).max()))
    group = trainer.optimizers.optimizers["means"].param_groups[0]
    assert group["initial_lr"] == pytest.approx(1.6e-4 * extent)
    assert trainer.config.optimizers["means"]["optimizer"].lr == 1.6e-4  # the saved config stays as given


def test_the_paper_opens_harmonics_every_3000_steps(paper):
    model = paper[2].pipeline.model
    degrees = []
    for step in (0, 2999, 3000, 6000, 9000, 20000):
        model.update_to_step(step)
        degrees.append(model.splats(shown=False).degree)
    model.update_to_step(STEPS - 1)
    assert degrees == [0, 0, 1, 2, 3, 3]


def test_the_default_method_learns_and_drops_what_nobody_sees(scene, tmp_path):
    config = tiny_config("das3r", scene, tmp_path)
    model = config.pipeline.model
    model.warmup_length, model.refine_every, model.resolution_schedule, model.remarking.at_steps = 2, 4, 4, (8,)
    _, losses, trainer = train(config)
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    shown = trainer.pipeline.eval() and trainer.pipeline.model
    camera = trainer.pipeline.datamanager.train_dataset.cameras[:1]
    outputs = shown.get_outputs_for_camera(camera)
    assert list(outputs) == ["rgb", "depth", "accumulation", "staticness", "unseen", "background"]
    for name, image in outputs.items():
        assert image.shape[:2] == (48, 64), name
        assert torch.isfinite(image).all(), name
    assert outputs["staticness"].max() <= 1.0
    assert outputs["unseen"].mean() < 0.2


def test_what_no_static_pixel_shows_is_dropped(scene, tmp_path):
    """A Gaussian in front of all cameras' moving pixels alone goes, one on the wall stays."""
    config = tiny_config("das3r", scene, tmp_path)
    config.max_num_iterations = FRAMES + 1
    config.pipeline.model.densify, config.pipeline.model.remarking.at_steps = False, (10**6,)
    _, _, trainer = train(config)
    model = trainer.pipeline.model
    with torch.no_grad():
        for maps in model.maps.maps:
            maps.fill_(-6.0)  # everything moves ...
        before = model.num_points
        model.maps.maps[0][:, :32] = 6.0  # ... but the left half of the first frame
    model.remark()
    assert 0 < model.num_points < before
    view = model.training_view(0)
    camera_points = model.means @ view.T_camera_world[0, :3, :3].T + view.T_camera_world[0, :3, 3]
    column = camera_points[:, 0] / camera_points[:, 2] * view.K[0, 0, 0] + view.K[0, 0, 2]
    assert float((column < 36).float().mean()) > 0.95


@pytest.mark.parametrize("share", [0.0, 0.8])
def test_training_finds_out_how_long_the_shutter_was_open(share, tmp_path, monkeypatch):
    monkeypatch.setattr(shutter, "START", 0.25)  # neither of both
    clip = SyntheticConfig(num_frames=10, height=90, width=160, movers=0, shutter=share)  # 3 pixels a frame
    config = tiny_config("das3r-lite", scene_from_truth(tmp_path / "shake", clip), tmp_path)
    config.max_num_iterations, config.pipeline.model.resolution_schedule = 100, 1
    _, _, trainer = train(config)
    found = abs(float(trainer.pipeline.model.shutter.open.detach()))
    # On the way there after so few steps; and blur that all frames share may end up in the scene as well.
    assert 0.28 < found < 0.8 if share else found < 0.1


def test_plain_nerfstudio_data_trains_and_renders_without_our_metadata(scene, tmp_path):
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    config = tiny_config("das3r-lite", scene, tmp_path)
    config.pipeline.datamanager.dataparser = NerfstudioDataParserConfig(
        load_3D_points=True, downscale_factor=1, eval_mode="all"
    )
    _, losses, trainer = train(config)
    model = trainer.pipeline.model
    assert model.maps is None
    assert float(model.gaussian_staticness.min()) > 0.98
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    values = trainer.pipeline.get_average_eval_image_metrics()
    assert values["static_psnr"] > 10


@pytest.mark.parametrize("method", ["das3r", "das3r-lite", "das3r-paper"])
def test_whatever_a_method_can_learn_has_an_optimizer(scene, tmp_path, method):
    config = tiny_config(method, scene, tmp_path)
    config.max_num_iterations = 1
    model = config.pipeline.model
    model.exposure = model.motion_blur = model.camera_optimizer.refine_focal = True
    model.camera_optimizer.mode = "quaternion"
    _, _, trainer = train(config)
    learned = {"exposure", "shutter", "focal", "camera_opt", "staticness_maps"}
    assert learned <= set(trainer.optimizers.optimizers)


def test_options_without_meaning_are_refused(scene, tmp_path):
    config = tiny_config("das3r", scene, tmp_path)
    config.pipeline.model.use_bilateral_grid = True
    with pytest.raises(ValueError, match=r"--pipeline\.model\.exposure"):
        train(config)


@pytest.mark.parametrize(
    ("method", "option", "value"), [("das3r-lite", "learn", "clip"), ("das3r-paper", "densify", True)]
)
def test_gaussians_without_a_pixel_share_no_staticness_with_one(scene, tmp_path, method, option, value):
    config = tiny_config(method, scene, tmp_path)
    model = config.pipeline.model
    setattr(model if option == "densify" else model.staticness, option, value)
    with pytest.raises(ValueError, match=r"--pipeline\.model\.densify False"):
        train(config)


def test_asking_for_a_gpu_that_is_not_there_is_told_at_once(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = tiny_config("das3r", scene, tmp_path)
    config.machine.device_type = "cuda"
    with pytest.raises(RuntimeError, match=r"--machine\.device-type cpu"):
        train(config)


def test_the_line_about_the_machine_says_where_and_how_long(scene, tmp_path):
    from das3r_ns.pipeline import device_line

    for method, expected in (("das3r", "hours"), ("das3r-lite", "minutes")):
        config = tiny_config(method, scene, tmp_path)
        config.machine.device_type = "cpu"
        assert "No GPU" in device_line(config)
        assert expected in device_line(config)
