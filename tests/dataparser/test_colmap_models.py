"""Models of COLMAP: found, read, and named where they are damaged."""

import struct

import numpy as np
import pycolmap
import pytest
import torch
from clip_with_cameras import N, made_clip, same_path, write_images, write_model
from hypothesis import given, settings
from hypothesis import strategies as st

from das3r_ns.dataparser.colmap_model import PARAMETERS, find_models, read_model
from das3r_ns.dataparser.inputs import read_inputs
from das3r_ns.dataparser.known_cameras import read_cameras
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.video.config import VideoConfig

made = pytest.fixture(scope="module")(made_clip)
LAYOUTS = ["sparse/0", "sparse", "", "colmap/sparse/0", "dense/sparse", "0"]


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_places_of_colmap_models(tmp_path, made, layout, text):
    write_model(made, tmp_path / "project" / layout, range(N), text=text)
    for place in {tmp_path / "project", tmp_path / "project" / layout, (tmp_path / "project" / layout).parent}:
        if place == tmp_path:
            continue
        (cameras,) = read_cameras(place)
        np.testing.assert_allclose(cameras.T_world_camera, made.T_world_camera.double(), atol=1e-6)
        np.testing.assert_allclose(cameras.K[3], made.K, atol=1e-3)


def test_of_several_models_the_one_with_most_of_the_frames(tmp_path, made, capsys):
    write_model(made, tmp_path / "sparse" / "0", range(3))
    write_model(made, tmp_path / "sparse" / "1", range(3, N))
    shots = write_images(made, tmp_path / "shots")
    clip, known = read_inputs(shots, PredictionOptions(cameras=tmp_path))
    assert len(clip) == N - 3
    same_path(known, made, slice(3, None))
    assert "2 COLMAP models" in capsys.readouterr().out
    clip, _ = read_inputs(shots, PredictionOptions(cameras=tmp_path, video=VideoConfig(end_s=2.5 / 30)))
    assert len(clip) == 3


def test_names_in_the_folders_of_a_rig(tmp_path, made):
    names = [f"cam{i % 2}/{i // 2:05d}.png" for i in range(N)]
    write_model(made, tmp_path / "sparse", range(N), names)
    write_images(made, tmp_path / "images", names)
    _, known = read_inputs(tmp_path / "images" / "cam1", PredictionOptions(cameras=tmp_path))
    same_path(known, made, slice(1, None, 2))


def test_names_with_spaces_in_text_models(tmp_path, made):
    write_model(made, tmp_path, range(3), [f"a clip {i}.png" for i in range(3)], text=True)
    assert [image.name for image in read_model(tmp_path)] == ["a clip 0.png", "a clip 1.png", "a clip 2.png"]


def test_parameters_of_all_models_of_colmap():
    for number, (name, count) in enumerate(PARAMETERS.items()):
        model = pycolmap.CameraModelId(number)
        assert model.name == name
        assert len(pycolmap.Camera.create_from_model_id(1, model, 100, 100, 100).params) == count


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *[(name, damage) for name in ("cameras.bin", "images.bin") for damage in ("count", "half", "empty")],
        ("images.bin", "points"),
    ],
)
def test_damaged_models_are_named_at_once(tmp_path, made, name, damage):
    """pycolmap waits for ever for 2^60 images, and makes a camera up from half a file."""
    write_model(made, tmp_path, range(3))
    content = bytearray((tmp_path / name).read_bytes())
    if damage == "count":
        content[:8] = struct.pack("<Q", 2**60)
    if damage == "half":
        del content[len(content) // 2 :]
    if damage == "empty":
        content.clear()
    if damage == "points":
        content[-8:] = struct.pack("<Q", 2**62)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        read_cameras(tmp_path)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_random_damage_to_a_model_is_harmless_or_named(tmp_path_factory, made, data):
    folder = tmp_path_factory.mktemp("model")
    write_model(made, folder, range(3), text=data.draw(st.booleans()))
    path = data.draw(st.sampled_from(sorted(folder.glob("cameras.*")) + sorted(folder.glob("images.*"))))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    some = data.draw(st.binary(min_size=1, max_size=9))
    content[at : at + data.draw(st.sampled_from([0, len(some), 10_000]))] = some
    path.write_bytes(content)
    try:
        for cameras in read_cameras(folder):
            assert np.isfinite(cameras.T_world_camera).all()
            assert torch.isfinite(cameras.K).all()
    except ValueError as error:
        assert str(folder) in str(error)  # noqa: PT017


def test_find_models_lists_each_once(tmp_path, made):
    write_model(made, tmp_path / "sparse" / "0", range(3))
    assert find_models(tmp_path) == [tmp_path / "sparse" / "0"]
    assert find_models(tmp_path / "sparse") == [tmp_path / "sparse" / "0"]
