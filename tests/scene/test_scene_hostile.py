"""Scene folders that are damaged or meant to harm are refused at once, with file, frame and value."""

import contextlib
import shutil
import tempfile
import threading
from pathlib import Path

import psutil
import pytest
from hostile_scenes import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scene import make_scene

from das3r_ns import scene


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    made, frames = make_scene()
    return scene.write_scene(made, frames, tmp_path_factory.mktemp("good") / "scene")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_scene_is_refused_at_once(tmp_path, good, name):
    damage, message = HOSTILE[name]
    folder = Path(shutil.copytree(good, tmp_path / "scene"))
    damage(folder)
    errors: list[BaseException] = []

    def read() -> None:
        try:
            scene.read_scene(folder)
        except BaseException as error:
            errors.append(error)

    before = psutil.Process().memory_info().rss
    reader = threading.Thread(target=read, daemon=True)  # a reader that hangs must not hang the tests
    reader.start()
    reader.join(timeout=20)
    assert not reader.is_alive(), "hangs"
    assert errors, "was read"
    assert psutil.Process().memory_info().rss - before < 1 << 30
    assert not (tmp_path / "executed").exists()
    assert not Path("executed").exists()
    with pytest.raises(scene.SceneFolderError, match=message):
        raise errors[0]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_damage_is_harmless_or_named(good, data):
    """Bytes changed, put in or cut off anywhere: the scene is read, or refused as a scene, and nothing else happens."""
    files = sorted(path.relative_to(good) for path in good.rglob("*") if path.is_file() and "images" not in path.parts)
    name = data.draw(st.sampled_from(files))
    content = bytearray((good / name).read_bytes())
    kind = data.draw(st.sampled_from(["change", "insert", "cut"]))
    at = data.draw(st.integers(0, min(len(content) - 1, 2000)))
    some = data.draw(st.binary(min_size=1, max_size=12))
    if kind == "cut":
        del content[at:]
    else:
        content[at : at + (len(some) if kind == "change" else 0)] = some
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(good, Path(place) / "scene"))
        (folder / name).write_bytes(content)
        with contextlib.suppress(scene.SceneFolderError):
            scene.read_scene(folder)


def test_the_good_one_is_read(good):
    assert len(scene.read_scene(good)) == 3
