"""Random damage to a scene folder is harmless or named; what is meant to harm is tried by `tests/hostile`."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scene import make_scene

from das3r_ns import scene


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    made, frames = make_scene()
    return scene.write_scene(made, frames, tmp_path_factory.mktemp("good") / "scene")


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
