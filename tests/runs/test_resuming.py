"""Trainings that stop, are killed, meet a full disk, or are moved: nothing is lost and they go on exactly."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import scene_from_truth, tiny_config, train

from das3r_ns.files.whole import DiskFullError
from das3r_ns.pipeline import Das3rTrainer
from das3r_ns.runs import trainer as trainers
from das3r_ns.runs.checkpoints import checkpoint_path, checkpoint_steps
from das3r_ns.runs.loading import load_run, read_run_config
from das3r_ns.runs.scene_of_run import identity

pytestmark = pytest.mark.xdist_group("nerfstudio")


def config_for(scene: Path, out: Path, **settings: Any) -> Any:
    """`das3r-lite` with everything that remembers something from step to step switched on."""
    config = tiny_config("das3r-lite", scene, out)
    model = config.pipeline.model
    model.warmup_length, model.refine_every, model.resolution_schedule = 2, 4, 4
    model.remarking.at_steps, model.exposure, model.camera_optimizer.mode = (12,), True, "quaternion"
    config.steps_per_save, config.timestamp = 5, "now"
    for name, value in settings.items():
        setattr(config, name, value)
    return config


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    return scene_from_truth(tmp_path_factory.mktemp("resuming") / "walk")


@pytest.fixture(scope="module")
def undisturbed(scene, tmp_path_factory) -> Path:
    return train(config_for(scene, tmp_path_factory.mktemp("undisturbed")))[0].parent


def final_bytes(run: Path) -> bytes:
    return checkpoint_path(run / "nerfstudio_models", 15).read_bytes()


def test_a_resumed_training_ends_with_the_bytes_of_one_that_never_stopped(scene, undisturbed, tmp_path):
    killed = shutil.copytree(undisturbed, tmp_path / "killed")
    assert checkpoint_steps(killed / "nerfstudio_models") == [15, 10]
    newest = checkpoint_path(killed / "nerfstudio_models", 15)
    newest.write_bytes(newest.read_bytes()[:1000])  # killed while it was written, by an earlier release
    resumed, losses, _ = train(config_for(scene, tmp_path, load_dir=killed / "nerfstudio_models"))
    assert len(losses) == 5
    assert final_bytes(resumed.parent) == final_bytes(undisturbed)


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request) -> Iterator[signal.Signals]:
    """A signal with Python's own handler: what a script's shell starts with `&`, tests too, ignores Ctrl-C."""
    own = signal.default_int_handler if request.param == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(request.param, own)
    yield request.param
    signal.signal(request.param, before)


def test_a_signal_ends_the_training_after_its_step_and_it_goes_on_from_there(
    scene, undisturbed, tmp_path, monkeypatch, capfd, number
):
    step_taken = Das3rTrainer.take_step

    def signalled(self: Any, step: int) -> Any:
        if step == 7:
            os.kill(os.getpid(), number)
        return step_taken(self, step)

    before = signal.getsignal(number)
    monkeypatch.setattr(Das3rTrainer, "take_step", signalled)
    config = config_for(scene, tmp_path / "a")
    with pytest.raises(SystemExit) as ended:
        train(config)
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) == before
    models = config.get_checkpoint_dir()
    assert checkpoint_steps(models)[0] == 7
    assert "Stopped after step 8 of 16; it is saved. To go on: ns-train das3r-lite" in " ".join(
        capfd.readouterr().out.split()
    )
    monkeypatch.undo()
    resumed, losses, _ = train(config_for(scene, tmp_path / "b", load_dir=models))
    assert len(losses) == 8
    assert final_bytes(resumed.parent) == final_bytes(undisturbed)


def test_a_full_disk_at_a_save_is_one_line_and_the_next_save_tries_again(
    scene, undisturbed, tmp_path, monkeypatch, capfd
):
    save, full = trainers.save_checkpoint, [True]

    def sometimes(state: Any, folder: Path, step: int, keep: int | None) -> Any:
        if full[0]:
            full[0] = False
            raise DiskFullError(f"there is no room for the checkpoint of step {step + 1}.")
        return save(state, folder, step, keep)

    monkeypatch.setattr(trainers, "save_checkpoint", sometimes)
    run = train(config_for(scene, tmp_path))[0].parent
    said = " ".join(capfd.readouterr().out.split())
    assert "Step 6 was not saved: there is no room for the checkpoint of step 6. There is no earlier one." in said
    assert checkpoint_steps(run / "nerfstudio_models") == [15, 10]
    assert final_bytes(run) == final_bytes(undisturbed)
    full[0] = True
    monkeypatch.setattr(Das3rTrainer, "_saved_step", None)
    with pytest.raises(DiskFullError, match="the last checkpoint of the training could not be saved"):
        train(config_for(scene, tmp_path / "last", steps_per_save=1000))


def test_a_run_that_was_moved_loads_from_where_it_is_on_its_own_scene(scene, undisturbed, tmp_path):
    run = shutil.copytree(undisturbed, tmp_path / "a new name")
    moved = shutil.copytree(scene, run / "kept scene")
    other = shutil.copytree(scene, tmp_path / "another")
    (other / "predictor.json").write_text((other / "predictor.json").read_text() + "\n")
    assert identity(moved) == identity(scene) != identity(other)
    away = scene.rename(scene.with_name("elsewhere"))
    try:
        config: Any = read_run_config(run / "config.yml")
        assert config.pipeline.datamanager.data == moved
        loaded = load_run(run / "config.yml")
        assert loaded.checkpoint == checkpoint_path(run / "nerfstudio_models", 15)
        assert loaded.pipeline.datamanager.train_dataset.metadata["scene_folder"] == str(moved)
    finally:
        away.rename(scene)
    newest = torch.load(loaded.checkpoint, weights_only=True)["pipeline"]
    torch.testing.assert_close(loaded.pipeline.model.means.data, newest["_model.gauss_params.means"])
