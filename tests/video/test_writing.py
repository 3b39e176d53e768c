"""Videos that are written: at the right times, and refused before any work where they cannot be."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import FakePredictor, texture

from das3r_ns.dataparser import cache
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.render.clip import clip_times
from das3r_ns.render.static_video import render_static
from das3r_ns.scene import read_scene
from das3r_ns.video import VideoConfig
from das3r_ns.video.index import index_video
from das3r_ns.video.writing import check_ending, steps_are_even, video_writer

UNEVEN_S = [*(i / 15 for i in range(10)), *(2.1 + i / 15 for i in range(10))]


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi"])
@pytest.mark.parametrize("times_s", [UNEVEN_S, [i / 29.97 for i in range(20)]], ids=["uneven", "even"])
def test_each_image_is_shown_at_its_time(tmp_path, ending, times_s):
    path = tmp_path / f"a{ending}"
    with video_writer(path, (len(times_s) - 1) / times_s[-1], times_s) as write:
        for i in range(len(times_s)):
            write(np.full((48, 64, 3), 10 * i, np.uint8))
    read = np.array(index_video(path).times_s)
    np.testing.assert_allclose(read - read[0], times_s, atol=0.5 / 15)
    assert list(tmp_path.iterdir()) == [path]


def test_steps_that_containers_round_are_even():
    assert steps_are_even([0.0, 0.033, 0.067, 0.1])
    assert not steps_are_even(UNEVEN_S)


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.gif", "ends in .gif, and videos are written as .avi"), ("a", "has no ending"), ("a.png", "ends in .png")],
)
def test_an_ending_that_cannot_be_written_is_said_before_anything_is_loaded(tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        render_static(tmp_path / "there_is_no_config.yml", tmp_path / name)
    with pytest.raises(ValueError, match="is a folder"):
        check_ending(tmp_path)


def test_times_reach_the_scene_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "build_predictor", lambda *_: (FakePredictor(), "a test"))
    video = tmp_path / "uneven.mp4"
    with video_writer(video, 7.0, UNEVEN_S) as write:
        for i in range(len(UNEVEN_S)):
            write(np.roll(texture(1, (64, 96))[0], i, axis=1))
    folder = cache.cached_scene(video, PredictionOptions(), tmp_path / "cache")
    assert read_scene(folder).times_s == pytest.approx(UNEVEN_S, abs=1e-3)
    later = cache.cached_scene(video, PredictionOptions(video=VideoConfig(start_s=1.0)), tmp_path / "cache")
    assert read_scene(later).times_s == pytest.approx(UNEVEN_S[10:], abs=1e-3)


def test_times_come_from_the_scene_folder(tmp_path):
    def pipeline(description: dict) -> SimpleNamespace:
        (tmp_path / "predictor.json").write_text(json.dumps(description))
        dataset = SimpleNamespace(metadata={"scene_folder": tmp_path})
        return SimpleNamespace(datamanager=SimpleNamespace(train_dataset=dataset))

    assert clip_times(pipeline({"fps": 10.0, "times_s": [0.0, 0.1, 1.0]}), 3) == [0.0, 0.1, 1.0]
    assert clip_times(pipeline({"fps": 10.0, "times_s": [0.0, 0.1]}), 3) is None
    assert clip_times(pipeline({"fps": 10.0}), 3) is None
