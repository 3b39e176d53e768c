"""A training that takes over edits of its masks while it runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import FRAMES, STEPS, scene_from_truth, tiny_config, train

from das3r_ns.pipeline import Das3rTrainer
from das3r_ns.runs import live_edits
from das3r_ns.scene import Edit, EditStore, read_scene

LEFT = np.zeros((48, 64), bool)
LEFT[:, :24] = True


def edit(scene: Path, moving: bool, layer: np.ndarray = LEFT, frames: range = range(FRAMES)) -> None:
    store = EditStore(scene, read_scene(scene).names)
    store.add(Edit("", "brush", moving, ()), dict.fromkeys(frames, layer))
    store.close()


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return scene_from_truth(tmp_path / "scene")


def train_and_edit(config: Any, scene: Path, moving: bool, at_step: int = 5) -> tuple[Any, list[int]]:
    """A training in which an edit is made at a step; the trainer, and the number of Gaussians before each step."""
    counts = []
    step_of = Das3rTrainer.take_step

    def taken(self: Any, step: int) -> Any:
        counts.append(self.pipeline.model.num_points)
        if step == at_step:
            edit(scene, moving)
        return step_of(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_edits, "EVERY_STEPS", 5)
        patch.setattr(Das3rTrainer, "take_step", taken)
        _, losses, trainer = train(config)
    assert len(losses) == STEPS
    assert np.isfinite(losses).all()
    return trainer, counts


def test_what_is_called_moving_teaches_no_more_and_its_ghost_goes(scene: Path, tmp_path: Path) -> None:
    trainer, counts = train_and_edit(tiny_config("das3r-lite", scene, tmp_path / "out"), scene, moving=True)
    model = trainer.pipeline.model
    assert counts[6] < counts[5]
    for frame in range(FRAMES):
        assert (model.maps.start[frame][LEFT] < 0.01).all()
        assert not model.maps.counted(frame, 48, 64)[LEFT].any()
    # Gaussians, optimizers and what density control has counted still belong together.
    for name, parameter in model.gauss_params.items():
        (held,) = trainer.optimizers.optimizers[name].param_groups[0]["params"]
        assert held is parameter
        assert trainer.optimizers.optimizers[name].state[parameter]["exp_avg"].shape == parameter.shape
    masks = [data["mask"][..., 0].cpu() for data in trainer.pipeline.datamanager.cached_train]
    assert not any(mask[:, :24].any() for mask in masks)


def test_what_is_given_back_is_filled(tmp_path: Path) -> None:
    """A scene whose left part was taken for moving from the start, then called static."""
    scene = scene_from_truth(tmp_path / "scene")
    edit(scene, moving=True)
    config = tiny_config("das3r-lite", scene, tmp_path / "out")
    trainer, counts = train_and_edit(config, scene, moving=False)
    model = trainer.pipeline.model
    assert counts[6] > counts[5]
    assert (model.maps.start[0][LEFT] > 0.99).all()
    for name, parameter in model.gauss_params.items():
        assert len(parameter) == model.num_points
        (held,) = trainer.optimizers.optimizers[name].param_groups[0]["params"]
        assert held is parameter


def test_a_training_without_edits_reads_nothing(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("the scene was read")

    monkeypatch.setattr(live_edits.SceneFiles, "open", opened)
    _, losses, trainer = train(tiny_config("das3r-lite", scene, tmp_path / "out"))
    assert len(losses) == STEPS
    assert trainer.pipeline.live_edits.edited_maps() == {}


def test_edits_that_cannot_be_read_stop_nothing(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(live_edits, "EVERY_STEPS", 5)
    step_of = Das3rTrainer.take_step

    def taken(self: Any, step: int) -> Any:
        if step == 5:
            edit(scene, True)
            next((scene / "edits").glob("*/frame_00001.png")).unlink()
        return step_of(self, step)

    monkeypatch.setattr(Das3rTrainer, "take_step", taken)
    _, losses, trainer = train(tiny_config("das3r-lite", scene, tmp_path / "out"))
    assert len(losses) == STEPS
    assert "were not taken over" in capsys.readouterr().out
    assert not (trainer.pipeline.model.dynamic_prob[:, :, :24] == 1).all()


def test_a_resumed_run_takes_over_what_was_edited_since(scene: Path, tmp_path: Path) -> None:
    config = tiny_config("das3r-lite", scene, tmp_path / "out")
    _, _, before = train(config)
    assert before.pipeline.model.maps.start[0][LEFT].float().mean() > 0.5
    edit(scene, True)
    again = tiny_config("das3r-lite", scene, tmp_path / "again")
    again.load_dir = before.checkpoint_dir
    _, _, trainer = train(again)
    assert (trainer.pipeline.model.maps.start[:, LEFT] < 0.01).all()
