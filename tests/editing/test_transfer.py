"""Edits that survive a second prediction of their clip."""

import errno
from dataclasses import replace
from pathlib import Path

import cv2
import moving_square as world
import numpy as np
import pytest

from das3r_ns.dataparser import cache
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.dataparser.predict import predict
from das3r_ns.editing.session import EditSession
from das3r_ns.editing.transfer import NOT_TAKEN_OVER, EditSource, edits_for, sources_beside, take_over_edits
from das3r_ns.scene import Scene, read_edits, read_scene
from das3r_ns.scene.edit_store import EditStore
from das3r_ns.scene.edits import Edit

COUNT = 12
NOTHING = np.zeros(world.SIZE, bool)
NAMES = [f"frame_{i + 1:05d}" for i in range(COUNT)]


def edited(folder: Path, which: range = range(COUNT)) -> Path:
    """A scene of some of the frames, in which the square is an edit through the whole clip."""
    scene = write(folder, which)
    store = EditStore(scene, read_scene(scene).names)
    store.add(Edit("", "region", True, (), whole_clip=True, frame=1), {k: world.square(i) for k, i in enumerate(which)})
    store.close()
    return scene


def write(folder: Path, which: range) -> Path:
    """A prediction of some of the frames of the clip, in which nothing moves."""
    scene = world.write(folder, [NOTHING] * len(which), [NAMES[i] for i in which])
    for k, i in enumerate(which):
        cv2.imwrite(str(scene / "images" / f"frame_{k + 1:05d}.png"), world.frames(COUNT)[i][..., ::-1])
    return scene


def moving(scene: Path) -> np.ndarray:
    return (read_scene(scene).dynamic_prob > 0.5).numpy()


def test_a_prediction_of_other_frames_takes_them_over(tmp_path: Path) -> None:
    edited(tmp_path / "first", range(0, COUNT, 2))
    second = write(tmp_path / "second", range(COUNT))
    line = take_over_edits(second, sources_beside(second))
    assert line is not None
    assert "1 mark as moving" in line
    assert "first" in line
    found = moving(second)
    for i in range(COUNT - 1):  # every second one lies between two that have a layer
        assert world.overlap(found[i], world.square(i)) > (0.95 if i % 2 == 0 else 0.7), i
    assert read_edits(second).done[0].frame == 2  # where it was made


def test_a_scene_that_is_replaced_keeps_them(tmp_path: Path) -> None:
    scene = edited(tmp_path / "scene")
    before = moving(scene)
    new = write(tmp_path / ".scene.new.part", range(3, COUNT))
    line = take_over_edits(new, edits_for(scene), replaced=scene)
    assert line is not None
    assert "the earlier prediction" in line
    assert (moving(new) == before[3:]).all()
    assert not (new / NOT_TAKEN_OVER).exists()


def test_what_a_scene_that_replaces_another_cannot_take_over_is_kept_all_the_same(tmp_path: Path, monkeypatch) -> None:
    scene = edited(tmp_path / "scene", range(4))
    kept = {p.name: p.read_bytes() for p in (scene / "edits").rglob("*") if p.is_file()}
    new = world.write(tmp_path / "other", [NOTHING] * COUNT, NAMES)  # of another clip
    for path in (new / "images").iterdir():
        cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
    line = take_over_edits(new, edits_for(scene), replaced=scene)
    assert line is not None
    assert str(scene / NOT_TAKEN_OVER) in line
    assert {p.name: p.read_bytes() for p in (new / NOT_TAKEN_OVER).rglob("*") if p.is_file()} == kept

    def fails(*_):
        raise RuntimeError("no")

    third = write(tmp_path / "third", range(4))
    monkeypatch.setattr(EditStore, "add", fails)
    line = take_over_edits(third, edits_for(scene), replaced=scene)
    assert line is not None
    assert "could not be taken over: no" in line
    assert (third / NOT_TAKEN_OVER / "edits.json").is_file()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(EditStore, "add", full)
    with pytest.raises(OSError, match="No space"):  # the scene that would be replaced stays
        take_over_edits(write(tmp_path / "fourth", range(4)), edits_for(scene), replaced=scene)


def test_another_clip_with_the_same_names_takes_nothing_over(tmp_path: Path) -> None:
    edited(tmp_path / "first")
    other = world.write(tmp_path / "other", [NOTHING] * COUNT, NAMES)
    for path in (other / "images").iterdir():
        cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
    assert take_over_edits(other, sources_beside(other)) is None
    assert not (other / "edits").exists()


def test_what_a_scene_has_itself_stays(tmp_path: Path) -> None:
    edited(tmp_path / "first")
    second = edited(tmp_path / "second", range(4))
    assert take_over_edits(second, sources_beside(second)) is None
    assert len(read_edits(second).done) == 1


def test_edits_that_cannot_be_read_are_no_source(tmp_path: Path) -> None:
    scene = edited(tmp_path / "first")
    (scene / "edits" / "edits.json").write_text("{")
    assert EditSource.of(scene) is None


def test_predicting_again_by_the_command_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through `das3r predict --overwrite`, with other frames."""
    images = tmp_path / "clip"
    images.mkdir()
    for i, frame in enumerate(world.frames(COUNT)):
        cv2.imwrite(str(images / f"{i:03d}.png"), frame[..., ::-1])
    ready = read_scene(write(tmp_path / "ready", range(COUNT)))

    class Ready:
        name = "ready"

        def __call__(self, clip, known) -> Scene:  # type: ignore[no-untyped-def]
            n = len(clip)
            parts = ("T_world_camera", "K", "depth", "confidence", "dynamic_prob", "pose_known")
            return replace(ready, names=clip.names, provenance={}, **{p: getattr(ready, p)[:n] for p in parts})

    monkeypatch.setattr(cache, "build_predictor", lambda options: (Ready(), ""))
    out = tmp_path / "scene"
    options = PredictionOptions()
    predict(images, out, options)
    with EditSession(out) as session:
        session.lasso(4, [(0.1, 0.1), (0.4, 0.1), (0.4, 0.6), (0.1, 0.6)], moving=True)
    before = moving(out)[4]
    assert before.any()
    options.video.start_s = 0.1  # frames are numbered anew
    predict(images, out, options, overwrite=True)
    names = read_scene(out).names
    place = names.index("004.png")
    assert (moving(out)[place] == before).all()
