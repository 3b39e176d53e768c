"""A clip is predicted once: later commands find the scene, killed runs leave nothing, a bad place is said first."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from fakes import FakePredictor, write_images
from PIL import Image

from das3r_ns.dataparser import cache, cache_folder
from das3r_ns.dataparser.cache import cached_scene
from das3r_ns.dataparser.input_digest import digest_of_inputs
from das3r_ns.dataparser.naming import clip_name
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.dataparser.parser import Das3rDataParserConfig
from das3r_ns.dataparser.predict import predict
from das3r_ns.files import hashing as digests
from das3r_ns.runtime import progress
from das3r_ns.scene import is_scene_folder, read_scene
from das3r_ns.video.config import VideoConfig


@pytest.fixture
def predictor(monkeypatch) -> FakePredictor:
    fake = FakePredictor()
    monkeypatch.setattr(cache, "build_predictor", lambda *_: (fake, "a test"))
    return fake


@pytest.fixture
def shots(tmp_path) -> Path:
    return write_images(tmp_path / "shots")


def test_the_second_time_nothing_is_predicted_or_read(tmp_path, shots, predictor, monkeypatch):
    parser = Das3rDataParserConfig(data=shots, cache_dir=tmp_path / "cache").setup()
    train = parser.get_dataparser_outputs(split="train")
    monkeypatch.setattr(cache, "build_predictor", lambda *_: pytest.fail("built a predictor"))
    monkeypatch.setattr(cache, "read_inputs", lambda *_: pytest.fail("read the frames"))
    later = Das3rDataParserConfig(data=shots, cache_dir=tmp_path / "cache", eval_mode="interval").setup()
    evaluated = later.get_dataparser_outputs(split="val")
    assert predictor.calls == 1
    assert evaluated.metadata["scene_folder"] == train.metadata["scene_folder"]


def test_a_change_of_content_or_options_is_another_scene(tmp_path, shots, predictor):
    place = tmp_path / "cache"
    first = cached_scene(shots, PredictionOptions(), place)
    assert cached_scene(shots, PredictionOptions(), place) == first
    assert cached_scene(shots, PredictionOptions(video=VideoConfig(every=2)), place) != first
    assert cached_scene(shots, PredictionOptions(fov_deg=60.0), place) != first
    masks = write_images(tmp_path / "masks")
    for mask in masks.iterdir():
        Image.fromarray(np.zeros((48, 64), np.uint8)).save(mask)
    with_masks = cached_scene(shots, PredictionOptions(masks=masks), place)
    Image.fromarray(np.eye(48, 64, dtype=np.uint8) * 255).save(masks / "00002.png")
    assert cached_scene(shots, PredictionOptions(masks=masks), place) not in (first, with_masks)
    Image.fromarray(np.full((48, 64, 3), 9, np.uint8)).save(shots / "00003.png")
    assert cached_scene(shots, PredictionOptions(), place) != first
    assert predictor.calls == 6


def test_corrected_cameras_are_another_scene(tmp_path, shots, predictor):
    frames = [
        {
            "file_path": f"{i:05d}.png",
            "transform_matrix": np.eye(4).tolist(),
            "fl_x": 80,
            "cx": 32,
            "cy": 24,
            "w": 64,
            "h": 48,
        }
        for i in range(6)
    ]
    cameras = tmp_path / "cameras" / "transforms.json"
    cameras.parent.mkdir()
    cameras.write_text(json.dumps({"frames": frames}))
    options = PredictionOptions(cameras=cameras.parent)
    first = cached_scene(shots, options, tmp_path / "cache")
    (cameras.parent / "notes.txt").write_text("says nothing about cameras")
    assert cached_scene(shots, options, tmp_path / "cache") == first
    frames[3]["fl_x"] = 81
    cameras.write_text(json.dumps({"frames": frames}))
    assert cached_scene(shots, options, tmp_path / "cache") != first


def test_a_copy_of_the_clip_under_its_name_is_found(tmp_path, shots, predictor):
    first = cached_scene(shots, PredictionOptions(), tmp_path / "cache")
    shutil.copytree(shots, tmp_path / "elsewhere" / "shots")
    assert cached_scene(tmp_path / "elsewhere" / "shots", PredictionOptions(), tmp_path / "cache") == first


def test_auto_keeps_the_scene_it_has_when_weights_arrive(tmp_path, shots, predictor, monkeypatch):
    monkeypatch.setattr(cache, "resolve", lambda *_: ("geometric", "no weights"))
    first = cached_scene(shots, PredictionOptions(), tmp_path / "cache")
    monkeypatch.setattr(cache, "resolve", lambda *_: ("network", "weights"))
    assert cached_scene(shots, PredictionOptions(), tmp_path / "cache") == first
    assert cached_scene(shots, PredictionOptions(predictor="geometric"), tmp_path / "cache") == first
    assert cached_scene(shots, PredictionOptions(predictor="network"), tmp_path / "cache") != first


def test_a_scene_of_weights_that_were_trained_on_is_told_of(tmp_path, shots, predictor, capsys):
    weights, place = tmp_path / "best", tmp_path / "cache"
    weights.mkdir()
    options = PredictionOptions(predictor="network")
    options.network.weights = str(weights)
    predictor.name = "network"
    (weights / "model.safetensors").write_bytes(b"one epoch")
    folder = cached_scene(shots, options, place)
    assert cached_scene(shots, options, place) == folder
    assert "has changed" not in capsys.readouterr().out
    (weights / "model.safetensors").write_bytes(b"two epochs")
    assert cached_scene(shots, options, place) == folder
    assert f"--network.weights has changed since that scene was predicted: delete {folder}" in capsys.readouterr().out
    shutil.rmtree(weights)
    cache._told.clear()
    assert cached_scene(shots, options, place) == folder  # the scene outlives its weights
    assert "has changed" not in capsys.readouterr().out


def test_a_scene_outlives_its_clip(tmp_path, shots, predictor, capsys):
    config = Das3rDataParserConfig(data=shots, cache_dir=tmp_path / "cache")
    first = cached_scene(shots, config, config.cache_dir)
    shutil.rmtree(shots)
    reloaded = yaml.load(yaml.dump(config), Loader=yaml.Loader)
    assert cached_scene(reloaded.data, reloaded, reloaded.cache_dir) == first
    assert "is not here; using the scene" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="does not exist"):
        cached_scene(shots, PredictionOptions(video=VideoConfig(every=2)), tmp_path / "cache")


def test_a_relative_path_from_another_folder_says_where_it_looked(tmp_path, predictor, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"clip.mp4 does not exist in {tmp_path}.*go to that folder"):
        cached_scene(Path("clip.mp4"), PredictionOptions(), Path("cache"))


def test_a_scene_folder_is_used_as_it_is(tmp_path, shots, predictor):
    scene = predict(shots, tmp_path / "scene")
    assert cached_scene(scene, PredictionOptions(), tmp_path / "nowhere") == scene
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(ValueError, match="--masks, --masks-prompt, --cameras and --fov-deg cannot change it"):
        cached_scene(scene, PredictionOptions(fov_deg=50.0), tmp_path / "nowhere")


SLOW_RUN = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from fakes import FakePredictor
    from das3r_ns.dataparser import cache
    from das3r_ns.dataparser.options import PredictionOptions
    from das3r_ns.scene import writing

    class Slow(FakePredictor):
        def __call__(self, clip, known):
            print("predicting", flush=True)
            if {during!r} == "prediction":
                time.sleep(60)
            return super().__call__(clip, known)

    def slow_points(*_):
        print("writing", flush=True)
        time.sleep(60)

    if {during!r} == "writing":
        writing._write_points = slow_points
    cache.build_predictor = lambda *_: (Slow(), "a test")
    cache.cached_scene(Path({shots!r}), PredictionOptions(), Path({cache!r}))
"""


@pytest.mark.parametrize("during", ["prediction", "writing"])
def test_a_run_killed_on_the_way_leaves_no_half_scene_and_the_next_works(tmp_path, shots, predictor, during):
    place = tmp_path / "cache"
    script = textwrap.dedent(SLOW_RUN).format(
        tests=str(Path(__file__).parents[1]), during=during, shots=str(shots), cache=str(place)
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.stdout is not None
    for line in run.stdout:
        if line.startswith(during[:5]):
            break
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not any(is_scene_folder(p) for p in place.glob("[!.]*"))
    assert any(place.glob(".*.part")) == (during == "writing")

    folder = cached_scene(shots, PredictionOptions(), place)  # and does not wait for the dead
    assert len(read_scene(folder)) == 6
    assert not any(place.glob(".*.part"))


def test_two_runs_at_once_predict_once(tmp_path, shots, predictor, capsys):
    original = predictor.__class__.__call__
    monkey = threading.Event()

    def slow(self, clip, priors):
        monkey.set()
        time.sleep(0.5)
        return original(self, clip, priors)

    found: list[Path] = []

    def run() -> None:
        found.append(cached_scene(shots, PredictionOptions(), tmp_path / "cache"))

    predictor.__class__.__call__ = slow
    try:
        first = threading.Thread(target=run)
        first.start()
        monkey.wait(10)
        run()
        first.join()
    finally:
        predictor.__class__.__call__ = original
    assert found[0] == found[1]
    assert predictor.calls == 1
    assert "Another run is predicting" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_is_said_before_anything_is_read(tmp_path, shots, predictor, monkeypatch):
    (tmp_path / "file").write_text("in the way")  # root may write anywhere, but not below a file
    monkeypatch.setattr(cache, "read_inputs", lambda *_: pytest.fail("read the frames"))
    with pytest.raises(OSError, match=r"cannot be written .*--cache-dir"):
        cached_scene(shots, PredictionOptions(), tmp_path / "file" / "cache")
    with pytest.raises(OSError, match="cannot be written"):
        predict(shots, tmp_path / "file" / "scene")


def test_a_read_only_cache_still_gives_the_scenes_it_has(tmp_path, shots, predictor, monkeypatch):
    first = cached_scene(shots, PredictionOptions(), tmp_path / "cache")
    monkeypatch.setattr(cache, "check_writable", lambda *_: pytest.fail("wanted to write"))
    monkeypatch.setattr(cache, "only_one_at_a_time", lambda *_: pytest.fail("wanted a lock"))
    assert cached_scene(shots, PredictionOptions(), tmp_path / "cache") == first


def test_a_full_disk_is_said_before_the_prediction(tmp_path, shots, predictor, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OSError, match=r"has 0 MiB left.*--cache-dir.*--video.max-frames"):
        cached_scene(shots, PredictionOptions(), tmp_path / "cache")
    assert predictor.calls == 0
    assert not any((tmp_path / "cache").glob("[!.]*"))


def test_a_hit_hashes_each_file_once_a_process(tmp_path, shots, predictor, monkeypatch):
    cached_scene(shots, PredictionOptions(), tmp_path / "cache")
    before = digests._digest_of_file.cache_info().misses
    cached_scene(shots, PredictionOptions(), tmp_path / "cache")
    assert digests._digest_of_file.cache_info().misses == before


def test_a_hit_imports_no_network(tmp_path, shots, predictor):
    cached_scene(shots, PredictionOptions(predictor="geometric"), tmp_path / "cache")
    script = (
        "import sys; from pathlib import Path\n"
        "from das3r_ns.dataparser.cache import cached_scene\n"
        "from das3r_ns.dataparser.options import PredictionOptions\n"
        f"cached_scene(Path({str(shots)!r}), PredictionOptions(), Path({str(tmp_path / 'cache')!r}))\n"
        "assert not {'pycolmap', 'numba', 'torch._dynamo'} & set(sys.modules)\n"
        "from das3r_ns.dataparser.parser import Das3rDataParserConfig\n"  # nerfstudio brings torch._dynamo
        f"config = Das3rDataParserConfig(data=Path({str(shots)!r}), cache_dir=Path({str(tmp_path / 'cache')!r}))\n"
        "config.setup().get_dataparser_outputs(split='train')\n"
        "ours = {m for m in sys.modules if m.startswith('das3r_ns.predictor.network.')}\n"
        "assert ours <= {'das3r_ns.predictor.network.settings'}, ours\n"
        "assert not {'pycolmap', 'numba'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_predict_writes_where_it_is_told_and_sums_up(tmp_path, shots, predictor, capsys):
    out = tmp_path / "new" / "scene"
    assert predict(shots, out, PredictionOptions(video=VideoConfig(every=2))) == out
    assert len(read_scene(out)) == 3
    said = capsys.readouterr().out.splitlines()[-1]
    # One frame of three is not posed; 64 pixels of focal length over 64 of width.
    assert said.startswith("2 of 3 frames posed, focal length 64 px (53 degrees across), 11% of the images moving")
    assert said.endswith(f"depth for 100%: {out}")
    with pytest.raises(FileExistsError, match="--overwrite"):
        predict(shots, out)
    predict(shots, out, overwrite=True)
    assert len(read_scene(out)) == 6
    with pytest.raises(ValueError, match="is a scene folder already"):
        predict(out, tmp_path / "again")


def test_predict_does_not_repeat_for_nothing_what_another_run_wrote_meanwhile(tmp_path, shots, predictor):
    out, refused = tmp_path / "scene", []

    def run() -> None:
        with pytest.raises(FileExistsError, match="--overwrite"):
            predict(shots, out)
        refused.append(out)

    with cache_folder.only_one_at_a_time(out):
        second = threading.Thread(target=run)
        second.start()
        time.sleep(0.3)  # it waits now
        cache.predict_scene(shots, PredictionOptions(predictor="geometric"), out)
    second.join(10)
    assert refused
    assert predictor.calls == 1


def test_predict_replaces_nothing_that_is_no_scene(tmp_path, shots, predictor):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match="not a scene folder"):
        predict(shots, tmp_path / "thesis", overwrite=True)
    assert predictor.calls == 0


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("clips/dog.mp4", "dog"),
        ("clips/dog/images", "dog"),
        ("clips/dog/JPEGImages", "dog"),
        ("clips/my.holiday.mov", "my.holiday"),
        ("set/transforms.json", "set"),
        ("scenes/kitchen", "kitchen"),
    ],
)
def test_a_clip_is_called_after_its_file_or_folder(tmp_path, path, name):
    if "." not in Path(path).name:
        (tmp_path / path).mkdir(parents=True)
    assert clip_name(tmp_path / path) == name


def test_a_scene_moved_aside_by_a_killed_run_goes_back_to_its_place(tmp_path):
    aside = tmp_path / ".scene.abc.old"
    (aside / "old").mkdir(parents=True)
    (aside / "old" / "corrected").write_text("by hand")
    with cache_folder.only_one_at_a_time(tmp_path / "scene"):
        assert (tmp_path / "scene" / "corrected").read_text() == "by hand"
        assert not aside.exists()


def test_what_was_moved_aside_goes_once_the_new_scene_has_come(tmp_path):
    (tmp_path / "scene").mkdir()
    (tmp_path / ".scene.abc.old" / "old").mkdir(parents=True)
    with cache_folder.only_one_at_a_time(tmp_path / "scene"):
        assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["scene"]


def test_the_scene_says_which_input_it_is_of(tmp_path, shots, predictor):
    said = json.loads((cached_scene(shots, PredictionOptions(), tmp_path) / "predictor.json").read_text())
    assert said["input_digest"] == digest_of_inputs(shots, PredictionOptions())


def test_seconds_of_the_stages_make_up_the_whole(tmp_path, shots, predictor, monkeypatch):
    """From the predictor's import to the last map: what is in no stage cannot be seen to be slow."""
    now = [0.0]
    monkeypatch.setattr(progress, "perf_counter", lambda: now[0])

    def slow(function, seconds):
        def slower(*args):
            now[0] += seconds
            return function(*args)

        return slower

    for name, seconds in (("build_predictor", 3), ("read_inputs", 5), ("choose_shot", 7), ("check_free_space", 1)):
        monkeypatch.setattr(cache, name, slow(getattr(cache, name), seconds))
    monkeypatch.setattr(FakePredictor, "__call__", slow(FakePredictor.__call__, 84))
    folder = cached_scene(shots, PredictionOptions(), tmp_path / "cache")
    stages = read_scene(folder).provenance["seconds"]
    total = stages.pop("total")
    assert total == 100
    assert 95 <= sum(stages.values()) <= 100
    assert stages["Telling shots apart"] == 7
