"""Scenes that version 0.1.0 cached are found again, by the names that its code gave them; changed settings are not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import wall_scene

from das3r_ns.dataparser import cache
from das3r_ns.dataparser.cache import cached_scene
from das3r_ns.dataparser.input_digest import digest_of_inputs
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.dataparser.scene_keys import folder_name, keys_of
from das3r_ns.predictor.cameras.config import MappingConfig
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.network.settings import NetworkPredictorConfig
from das3r_ns.scene import write_scene
from das3r_ns.video.config import VideoConfig

GEOMETRIC = GeometricPredictorConfig(masks=MaskConfig(refiner="none"))  # what `auto` means depends on the machine
DEFAULT = PredictionOptions(geometric=GEOMETRIC)
# `dataparser.cache._folder_name` of the tag v0.1.0, for a file walk.mp4 of these bytes and the same options there.
BYTES = b"frames of a walk"
OF_0_1_0 = {
    "default": (DEFAULT, "geometric", "walk-c5f4403d55-3b85d7"),
    "its default, said": (replace(DEFAULT, video=VideoConfig(max_frames=150)), "geometric", "walk-c5f4403d55-3b85d7"),
    "second frames": (
        replace(DEFAULT, video=VideoConfig(every=2, max_frames=150)),
        "geometric",
        "walk-82aa3402c6-a83b54",
    ),
    "others": (
        replace(
            DEFAULT, geometric=replace(GEOMETRIC, max_points=1000), video=VideoConfig(max_frames=None), fov_deg=60.0
        ),
        "geometric",
        "walk-d524aebae8-98d322",
    ),
    "network": (
        PredictionOptions(network=NetworkPredictorConfig(weights="w.pth")),
        "network",
        "walk-c5f4403d55-fdc987",
    ),
}


@pytest.fixture
def clip(tmp_path) -> Path:
    path = tmp_path / "walk.mp4"
    path.write_bytes(BYTES)
    return path


def names_of(clip: Path, options: PredictionOptions, predictor: str = "geometric") -> list[str]:
    content = digest_of_inputs(clip, options)
    return [folder_name(clip, key) for key in keys_of(clip, content, options, predictor)]


@pytest.mark.parametrize(("options", "predictor", "name"), OF_0_1_0.values(), ids=OF_0_1_0)
def test_the_names_are_those_that_version_0_1_0_gave(clip, options, predictor, name):
    assert names_of(clip, options, predictor)[1:] == [name]


@pytest.mark.parametrize(
    "options",
    [
        replace(DEFAULT, geometric=replace(GEOMETRIC, mapping=MappingConfig(lens="pinhole"))),
        replace(DEFAULT, geometric=replace(GEOMETRIC, mapping=MappingConfig(rolling_shutter=False))),
        replace(DEFAULT, geometric=replace(GEOMETRIC, flow_weights=Path("flow.pt"))),
        replace(DEFAULT, video=VideoConfig(alpha="opaque-moves")),
        replace(DEFAULT, video=VideoConfig(shot=2)),
        replace(DEFAULT, numbering="from-1"),
        replace(DEFAULT, masks=Path("masks")),
    ],
)
def test_where_a_setting_that_it_lacked_is_changed_its_scenes_are_others(clip, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "0.png").write_bytes(b"a mask")
    assert len(names_of(clip, options)) == 1


def test_where_a_setting_that_it_had_is_changed_its_scenes_are_others(clip):
    names = set(names_of(clip, replace(DEFAULT, video=VideoConfig(start_s=0.5))))
    assert names.isdisjoint(name for _, _, name in OF_0_1_0.values())


@pytest.mark.parametrize("lost", [False, True])
def test_its_scene_is_used_and_said_to_be_its_own(clip, tmp_path, capsys, monkeypatch, lost):
    place = tmp_path / "cache" / "walk-c5f4403d55-3b85d7"
    scene = wall_scene(4, (32, 48))
    write_scene(scene, torch.from_numpy(np.zeros((4, 32, 48, 3), np.uint8)), place)
    record = place / "predictor.json"
    record.write_text(record.read_text().replace(f'"{cache.__version__}"', '"0.1.0"'))
    monkeypatch.setattr(cache, "_told", set())
    monkeypatch.setattr(cache, "predict_scene", lambda *_, **__: pytest.fail("predicted again"))
    if lost:
        clip.unlink()
    assert cached_scene(clip, DEFAULT, tmp_path / "cache") == place
    assert ("das3r_ns 0.1.0 predicted it" in capsys.readouterr().out) is not lost
