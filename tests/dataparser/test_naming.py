"""Names of clips, and of what is made from them."""

from pathlib import Path

import pytest
from fakes import FakePredictor, write_images

from das3r_ns.dataparser import cache
from das3r_ns.dataparser.naming import MAX_CLIP_NAME_BYTES, clip_name
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.dataparser.predict import predict
from das3r_ns.scene import is_scene_folder


@pytest.fixture
def predictor(monkeypatch):
    fake = FakePredictor()
    monkeypatch.setattr(cache, "build_predictor", lambda *_: (fake, "a test"))
    return fake


def test_long_names_are_cut_and_stay_different():
    names = [clip_name(Path(f"{'ä' * 120}{i}.mp4")) for i in range(3)]
    assert len(set(names)) == 3
    assert all(len(name.encode()) <= MAX_CLIP_NAME_BYTES for name in names)
    assert clip_name(Path("a" * 90 + ".mp4")) == "a" * 90


@pytest.mark.parametrize("name", ["n" * 240, "ü" * 120, "\U0001f389" * 60, "[a] *?"])
def test_no_name_loses_a_finished_prediction(tmp_path, predictor, name):
    shots = write_images(tmp_path / "shots").rename(tmp_path / name)
    folder = cache.cached_scene(shots, PredictionOptions(), tmp_path / "cache")
    assert is_scene_folder(folder)
    assert cache.cached_scene(shots, PredictionOptions(), tmp_path / "cache") == folder
    assert is_scene_folder(predict(shots, tmp_path / "out" / name))
    predict(shots, tmp_path / "out" / name, overwrite=True)
    assert [p.name for p in (tmp_path / "out").iterdir() if not p.name.endswith(".lock")] == [name]
    assert predictor.calls == 3


def test_a_renamed_clip_or_scene_is_not_predicted_again(tmp_path, predictor):
    shots = write_images(tmp_path / "shots")
    folder = cache.cached_scene(shots, PredictionOptions(), tmp_path / "cache")
    shots = shots.rename(tmp_path / "holiday")
    assert cache.cached_scene(shots, PredictionOptions(), tmp_path / "cache") == folder
    folder = folder.rename(tmp_path / "cache" / "the good one")
    assert cache.cached_scene(shots, PredictionOptions(), tmp_path / "cache") == folder
    assert predictor.calls == 1
    cache.cached_scene(shots, PredictionOptions(fov_deg=60.0), tmp_path / "cache")
    assert predictor.calls == 2


def test_an_empty_folder_is_a_place_for_the_result(tmp_path, predictor, monkeypatch):
    shots = write_images(tmp_path / "shots")
    (tmp_path / "out").mkdir()
    assert is_scene_folder(predict(shots, tmp_path / "out"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    predict(shots, Path("."))
    assert is_scene_folder(tmp_path / "here")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match="is already there"):
        predict(shots, tmp_path / "full")
