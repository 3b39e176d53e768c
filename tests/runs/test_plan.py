"""Budgets: plans worked out by hand, and what a run makes of one."""

import copy
import json
import sys

import pytest
import torch
import yaml
from tiny_run import FRAMES, scene_from_truth, tiny_config, train

from das3r_ns import config as methods
from das3r_ns.dataparser.outputs import split_frames
from das3r_ns.pipeline import Das3rRunConfig
from das3r_ns.runs.plan import ClipMeasures, MethodSteps, make_plan, step_milliseconds
from das3r_ns.runs.planning import RECORD, measure_clip, own_settings, plan_run
from das3r_ns.scene import read_scene

OWN = MethodSteps(steps=3000, max_gaussians=500_000, max_points=300_000, refine_every=100, steps_per_save=2000)
DAVIS = ClipMeasures(frames=50, pixels=854 * 480, path_over_depth=1.0, surface=3.0)
WALK = ClipMeasures(frames=300, pixels=1920 * 1080, path_over_depth=8.0, surface=5.0)


def test_a_short_clip_gets_the_methods_own_settings():
    plan = make_plan(DAVIS, "normal", OWN)
    assert (plan.steps, plan.stretch, plan.learning_rate, plan.refine_every) == (3000, 1.0, 1.0, 100)
    assert (plan.max_gaussians, plan.max_points, plan.steps_per_save) == (500_000, 300_000, 2000)
    assert plan.seconds == pytest.approx(3 * (2.5 + 4 * 0.40992 + 4 * 0.5))


def test_steps_follow_frames_until_the_time_is_over():
    # 5 images of 2.0736 MP, 10 pixels a Gaussian: 1 036 800, and a step of 2.5 + 8.2944 + 4.1472 ms. 300 frames ask for
    # 18 000 steps of 6.67 ms.
    plan = make_plan(WALK, "normal", OWN)
    assert plan.max_gaussians == 1_036_800
    assert step_milliseconds(1_036_800, WALK.pixels, True) == pytest.approx(14.9416)
    assert step_milliseconds(20_000, 320 * 180, False) == pytest.approx(18 + 31.104 + 6.8)
    assert plan.steps == round(18_000 * (20 / 3) / 14.9416) == 8031
    assert plan.seconds == pytest.approx(120.0, abs=0.1)
    assert plan.max_points == round(300_000 * 1_036_800 / 500_000)
    assert plan.refine_every == 268  # 100 a 3000 steps, and no more than there are frames
    # A tenth at 30 000 steps would be a third of the rate: 3 ** -log10(8031 / 3000).
    assert plan.learning_rate == pytest.approx(0.6253, abs=1e-3)
    assert make_plan(WALK, "quick", OWN).seconds == pytest.approx(20.0, abs=2.5)
    assert make_plan(WALK, "best", OWN).seconds == pytest.approx(480.0, abs=0.1)


def test_budgets_are_in_order_on_every_clip():
    for frames in (2, 10, 50, 300, 1500):
        for pixels in (320 * 180, 854 * 480, 1920 * 1080, 3840 * 2160):
            clip = ClipMeasures(frames, pixels, 1.0, 1.0 + frames / 50)
            for on_gpu in (True, False):
                quick, normal, best = (make_plan(clip, name, OWN, on_gpu) for name in ("quick", "normal", "best"))
                assert 1500 <= quick.steps <= normal.steps <= best.steps
                assert quick.max_gaussians <= normal.max_gaussians <= best.max_gaussians
                assert 1 / 3 <= best.learning_rate <= normal.learning_rate <= quick.learning_rate <= 1


def test_a_number_of_steps_is_taken_as_it_is():
    plan = make_plan(DAVIS, 30_000, OWN)
    assert (plan.budget, plan.steps, plan.stretch) == ("steps", 30_000, 10.0)
    assert plan.learning_rate == pytest.approx(1 / 3)
    assert make_plan(DAVIS, 300, OWN).learning_rate == 1.0
    assert "300 steps" in make_plan(DAVIS, 300, OWN).line()
    with pytest.raises(ValueError, match=r"--budget must be .* got 0"):
        make_plan(DAVIS, 0, OWN)


def test_gaussians_stay_within_the_memory_and_below_what_the_user_set():
    huge = ClipMeasures(1000, 3840 * 2160, 50.0, 40.0)
    assert make_plan(huge, "best", OWN).max_gaussians == 6_000_000
    assert make_plan(huge, "best", OWN, gpu_bytes=8 << 30).max_gaussians == int(0.4 * (8 << 30) / 1600)
    assert make_plan(huge, "best", OWN, gpu_bytes=1 << 30).max_gaussians == 500_000
    assert make_plan(huge, "best", OWN, on_gpu=False).max_gaussians == 2_000_000
    assert make_plan(huge, "best", OWN, max_gaussians=7).max_gaussians == 7


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return scene_from_truth(tmp_path_factory.mktemp("plan") / "scene")


def settings(method, scene, tmp_path):
    config = copy.deepcopy(getattr(methods, method.replace("-", "_")).config)
    config.data = config.pipeline.datamanager.data = scene
    config.output_dir, config.experiment_name, config.timestamp = tmp_path / "out", "clip", "now"
    return config


def test_the_plan_of_a_short_clip_changes_nothing_and_is_recorded(scene, tmp_path, capsys):
    config, own = settings("das3r", scene, tmp_path), methods.das3r.config
    plan = plan_run(config, tmp_path)
    assert plan is not None
    assert (config.optimizers, config.pipeline.model) == (own.optimizers, own.pipeline.model)
    assert (config.max_num_iterations, config.steps_per_save) == (3000, 2000)
    assert f"Plan (normal): {FRAMES} frames" in capsys.readouterr().out
    record = json.loads((tmp_path / RECORD).read_text())
    assert (record["steps"], record["clip"]["frames"]) == (3000, FRAMES)


def test_every_schedule_is_stretched_with_the_steps(scene, tmp_path):
    config = settings("das3r-lite", scene, tmp_path)
    own = copy.deepcopy(methods.das3r_lite.config)
    config.budget = 2400
    plan_run(config, tmp_path)
    model, rate = config.pipeline.model, 3 ** -(torch.log10(torch.tensor(3.0)).item())
    assert (config.max_num_iterations, config.steps_per_save) == (2400, 400)
    assert (model.resolution_schedule, model.sh_degree_interval) == (600, 1200)
    assert (model.warmup_length, model.stop_split_at) == (300, 1800)
    means, maps = config.optimizers["means"], config.optimizers["staticness_maps"]
    assert means["optimizer"].lr == pytest.approx(4.8e-4 * rate)
    assert means["scheduler"].lr_final == pytest.approx(4.8e-6 * rate)
    assert (means["scheduler"].max_steps, means["scheduler"].hold_until) == (2400, 1200)
    assert maps["optimizer"].lr == 0.1, "each frame has its own maps"
    assert maps["scheduler"].start_step == 300
    assert own == methods.das3r_lite.config, "settings of the method itself were changed"


def test_what_the_user_sets_wins(scene, tmp_path, monkeypatch):
    config = settings("das3r-lite", scene, tmp_path)
    config.budget, config.pipeline.model.stop_split_at = 2400, 500
    config.pipeline.model.max_gaussians = 100_000  # with which the plan would start from more points
    config.optimizers["means"]["optimizer"].lr = 1e-3
    words = ["ns-train", "das3r-lite", "--pipeline.model.warmup-length", "100", "--steps-per-save=400"]
    words += ["das3r-data", "--max-points", "40000"]
    monkeypatch.setattr(sys, "argv", words)  # the method's own value, said explicitly
    plan_run(config, tmp_path)
    model = config.pipeline.model
    assert (model.stop_split_at, model.warmup_length, model.resolution_schedule) == (500, 100, 600)
    assert config.pipeline.datamanager.dataparser.max_points == 40_000
    assert config.optimizers["means"]["optimizer"].lr == 1e-3
    monkeypatch.setattr(sys, "argv", ["ns-train", "das3r-lite", "--max-num-iterations", "800"])
    config = settings("das3r-lite", scene, tmp_path)
    config.budget = "best"
    plan = plan_run(config, tmp_path)
    assert plan is not None
    assert config.max_num_iterations == plan.steps == 800


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("budget", 0, "--budget must be quick, normal, best or a number of steps of 1 or more, got 0"),
        ("budget", "fast", "got fast"),
        ("gpu_cache_gib", -1.0, "--pipeline.datamanager.gpu-cache-gib must not be negative, got -1"),
    ],
)
def test_a_mistake_is_told_before_anything_is_done(scene, tmp_path, name, value, said):
    config = settings("das3r-lite", scene, tmp_path)
    setattr(config.pipeline.datamanager if "cache" in name else config, name, value)
    with pytest.raises(ValueError, match=said):
        config.set_timestamp()
    assert not config.output_dir.exists()


def test_no_budget_leaves_the_settings_as_they_stand(scene, tmp_path):
    config = settings("das3r-paper", scene, tmp_path)
    before = copy.deepcopy(config)
    assert plan_run(config, tmp_path) is None
    assert config == before
    assert not (tmp_path / RECORD).exists()


def test_a_training_follows_its_plan_and_a_resumed_one_goes_on_with_it(scene, tmp_path, capsys):
    from nerfstudio.utils import writer  # in a circle with its configs, which have to come first

    def budgeted(out, steps):
        config = tiny_config("das3r-lite", scene, tmp_path / out)
        config.max_num_iterations = methods.das3r_lite.config.max_num_iterations
        config.budget = steps
        return config

    path, losses, trainer = train(budgeted("first", 6))
    assert len(losses) == 6
    saved = yaml.load(path.read_text(), Loader=yaml.Loader)
    assert (saved.max_num_iterations, saved.budget) == (6, 6)
    assert saved.optimizers["means"]["scheduler"].max_steps == 6
    assert "training 6 steps" in capsys.readouterr().out
    # Stopped after four of six steps: it has two left, whatever the clip would be given anew.
    trainer.save_checkpoint(3)
    for checkpoint in trainer.checkpoint_dir.glob("*5.ckpt"):
        checkpoint.unlink()
    again = budgeted("again", methods.das3r_lite.config.budget)
    again.load_dir = trainer.checkpoint_dir
    path, losses, _ = train(again)
    assert len(losses) == 2
    assert writer.GLOBAL_BUFFER["max_iter"] == 6, "nerfstudio would tell the time left from the two steps alone"
    assert yaml.load(path.read_text(), Loader=yaml.Loader).max_num_iterations == 6


def test_surface_counts_every_part_once(scene):
    scene = read_scene(scene)
    one = measure_clip(scene, [0])
    clip = measure_clip(scene, split_frames(len(scene), "train", "all", 8))
    assert (one.frames, one.path_over_depth, one.surface) == (1, 0.0, 1.0)
    assert clip.frames == FRAMES
    assert clip.path_over_depth > 0
    assert 1.0 <= clip.surface < FRAMES / 2
    assert measure_clip(scene, [0, 0, 0, 0]).surface == one.surface


def test_own_settings_are_those_of_the_method():
    config = methods.das3r.config
    assert isinstance(config, Das3rRunConfig)
    assert own_settings(config) == OWN
