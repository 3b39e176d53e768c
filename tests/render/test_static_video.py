"""The static video steadier, larger, and with depth and masks beside it."""

import copy
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import yaml
from nerfstudio.configs.method_configs import all_methods
from tiny_run import scene_from_truth, tiny_config, train

from das3r_ns.render import static_video
from das3r_ns.render.clip import clip_frames
from das3r_ns.render.companions import DepthRange, mask_image
from das3r_ns.render.run import load_run
from das3r_ns.render.static_video import render_static
from das3r_ns.video.writing import video_writer

FPS = 12.0


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return train(tiny_config("das3r-lite", scene_from_truth(folder / "scene"), folder / "runs"))[0]


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_depth_and_masks_lie_beside_it_at_the_size_asked_for(config, tmp_path):
    video = render_static(config, tmp_path / "s.mp4", height=96, depth=True, masks=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.mp4", "s_depth.mp4", "s_masks.mp4"]
    assert video.companions == (tmp_path / "s_depth.mp4", tmp_path / "s_masks.mp4")
    assert frames_of(video.path).shape == (8, 96, 2 * 128, 3)
    depth, masks = map(frames_of, video.companions)
    assert depth.shape == masks.shape == (8, 96, 128, 3)
    pipeline = load_run(config)
    dataset, i = clip_frames(pipeline)[2]
    moves = 1 - dataset.get_data(i)["mask"][..., 0].float()
    wanted = mask_image(moves, (96, 128))
    assert 0.02 < (wanted > 0).mean() < 0.9
    assert ((masks[2] > 127) == (wanted > 127)).mean() > 0.97


def test_a_steadier_path_is_rendered_from_steadier_cameras_with_each_frames_exposure(config, tmp_path, monkeypatch):
    seen = {}
    whole = static_video.render_outputs

    def recorded(model, camera, lock=None):
        seen.setdefault(name, []).append(camera)
        return whole(model, camera, lock)

    monkeypatch.setattr(static_video, "render_outputs", recorded)
    for name, sigma_s in (("as filmed", 0.0), ("steady", 0.3)):
        render_static(config, tmp_path / f"{name}.mp4", stabilise_s=sigma_s)
    filmed, steady = (torch.cat([c.camera_to_worlds[0, :3, 3][None] for c in seen[k]]) for k in ("as filmed", "steady"))
    wiggle = [path.diff(n=2, dim=0).norm(dim=-1).sum() for path in (filmed, steady)]
    assert wiggle[1] < 0.5 * wiggle[0]
    assert (steady - filmed).norm(dim=-1).max() < 0.5 * (filmed[-1] - filmed[0]).norm()
    for place, camera in enumerate(seen["steady"]):
        assert camera.metadata["exposure_index"].flatten().tolist() == [place]
        assert "frame_index" not in camera.metadata  # or the model would refine it once more


def test_the_colours_of_depth_are_those_of_the_whole_clip():
    def frame(depth: float) -> dict[str, torch.Tensor]:
        return {"depth": torch.full((8, 8, 1), depth), "accumulation": torch.ones(8, 8, 1)}

    ranges = DepthRange.of(frame(d) for d in (1.0, 2.0, 5.0))
    assert (ranges.near, ranges.far) == (1.0, 5.0)
    colours = [ranges.colours(frame(d))[0, 0].tolist() for d in (1.0, 5.0, 9.0)]
    assert colours[0] != colours[1] == colours[2]
    nothing = {"depth": torch.ones(8, 8, 1), "accumulation": torch.zeros(8, 8, 1)}
    assert DepthRange.of([nothing]) == DepthRange(0.0, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 0}, "a video of 0 rows: give between 16 and 4320"),
        ({"height": 99999}, "a video of 99999 rows"),
        ({"stabilise_s": -1.0}, "a positive number of seconds, not -1"),
        ({"fps": 0.0}, "a video of 0.0 frames per second"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_loaded(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        render_static(tmp_path / "there_is_no_config.yml", tmp_path / "a.mp4", **options)


def test_the_static_video_follows_the_input_at_its_rate(config, tmp_path):
    video = render_static(config, tmp_path / "static.mp4")
    assert (video.num_frames, video.fps) == (8, 12.0)
    assert 0 <= video.unseen < 1
    with av.open(str(video.path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (128, 48)
        assert float(stream.average_rate) == 12.0
        assert sum(1 for _ in container.decode(stream)) == 8


def test_an_interrupted_rendering_leaves_the_video_that_was_there(tmp_path):
    path, image = tmp_path / "static.mp4", np.zeros((48, 64, 3), np.uint8)
    with video_writer(path, 10.0) as write:
        write(image)
    whole = path.read_bytes()

    def interrupted() -> None:
        with video_writer(path, 10.0) as write:
            for _ in range(100):  # more than the encoder holds back
                write(image)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_rendering_something_else_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match=r"Give the config\.yml"):
        render_static(tmp_path / "config.yml")
    other = copy.deepcopy(all_methods["splatfacto"])
    other.experiment_name = other.timestamp = "x"
    (tmp_path / "config.yml").write_text(yaml.dump(other))
    with pytest.raises(ValueError, match="is a run of splatfacto; das3r, das3r-paper"):
        render_static(tmp_path / "config.yml")
