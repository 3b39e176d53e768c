"""Scenes of former releases are edited as today's, and edits that a former release stored are read as it meant them."""

import shutil
import zipfile
from pathlib import Path

import cv2
import moving_square as world
import numpy as np
import pytest

from das3r_ns.editing.session import EditSession
from das3r_ns.editing.transfer import sources_beside, take_over_edits
from das3r_ns.scene import read_scene

FILES = Path(__file__).parents[1] / "data" / "scenes_of_releases"
COUNT = 6


def unpacked(release: str, folder: Path) -> Path:
    with zipfile.ZipFile(FILES / f"{release}.zip") as archive:
        archive.extractall(folder)
    return folder


def moving(scene: Path) -> np.ndarray:
    return (read_scene(scene).dynamic_prob > 0.5).numpy()


@pytest.mark.parametrize("release", ["0.1.0", "0.2.0"])
def test_a_scene_of_a_former_release_keeps_edits(release: str, tmp_path: Path) -> None:
    scene = unpacked(release, tmp_path / "scene")
    shutil.rmtree(scene / "edits", ignore_errors=True)
    predicted = {p.relative_to(scene): p.read_bytes() for p in scene.rglob("*") if p.is_file()}
    today = world.write(tmp_path / "today", [np.zeros(world.SIZE, bool)] * COUNT)
    for folder in (scene, today):
        with EditSession(folder) as session:
            said = session.click(5, world.middle(world.square(5)), moving=True, whole_clip=True).text
        assert "6 of 6 frames" in said
    found = moving(scene)
    assert (found == moving(today)).all()
    assert all(found[i][world.square(i)].mean() > 0.95 for i in range(COUNT))
    shutil.rmtree(today)  # lest its edits are taken over below
    assert {name: (scene / name).read_bytes() for name in predicted} == predicted
    copied = shutil.copytree(scene, tmp_path / "elsewhere" / "copy")
    assert (moving(copied) == found).all()
    # Predicted again by this release, beside it.
    again = world.write(tmp_path / "again", [np.zeros(world.SIZE, bool)] * COUNT)
    line = take_over_edits(again, sources_beside(again))
    assert line is not None
    assert "1 mark as moving" in line
    assert (moving(again) == found).all()


def test_edits_of_a_former_release_mean_what_they_meant(tmp_path: Path) -> None:
    scene = unpacked("0.2.0", tmp_path / "scene")
    with np.load(FILES / "0.2.0_moving.npz") as stored:
        expected = np.unpackbits(stored["moving"], axis=-1).astype(bool)
    assert (moving(scene) == expected).all()
    with EditSession(scene) as session:
        assert [edit["tool"] for edit in session.state()["edits"]] == ["region", "brush", "lasso"]
        session.redo()  # what was undone when the scene was put away
        first = moving(scene)[0]
        assert (first & ~expected[0]).sum() > 20
        session.undo()
        assert (moving(scene) == expected).all()
        region = session.state()["edits"][0]["id"]
        session.remove(region)
    without = moving(scene)
    assert not without[1].any()
    assert without[4].any()  # the brush
    assert cv2.connectedComponents(without[4].astype(np.uint8))[0] >= 2
