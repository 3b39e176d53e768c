"""The set of `das3r bench` that needs no data."""

from dataclasses import replace

import cv2
import pytest
import torch

from das3r_ns.datasets import TruthError
from das3r_ns.evaluation.bench import BenchProtocol, bench, synthetic_set
from das3r_ns.evaluation.bench import command as bench_command
from das3r_ns.evaluation.bench.sets import find_sequences
from das3r_ns.evaluation.bench.synthetic_set import CLIPS, draw_missing
from das3r_ns.synthetic import SyntheticConfig, make_clip

SMALL = SyntheticConfig(num_frames=3, height=32, width=64)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(synthetic_set, "CLIPS", clips := {"handheld": SMALL, "still": replace(SMALL, movers=0, seed=3)})
    monkeypatch.setattr(bench_command, "CLIPS", clips)


def test_clips_are_drawn_once_with_everything_known(tmp_path, small):
    draw_missing(tmp_path, ("handheld", "still"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["handheld", "still"]
    assert [source.name for source in find_sequences("synthetic", tmp_path)] == ["handheld", "still"]
    truth = make_clip(SMALL)
    clip = find_sequences("synthetic", tmp_path, ("handheld",))[0].read()
    assert clip.T_world_camera is not None
    torch.testing.assert_close(clip.T_world_camera.float(), truth.T_world_camera.float(), atol=1e-5, rtol=0)
    assert clip.K is not None
    torch.testing.assert_close(clip.K[0].float(), truth.K.float())
    clean = cv2.imread(str(tmp_path / "handheld" / "clean" / "00001.png"))[..., ::-1]
    assert (torch.from_numpy(clean.copy()) == truth.clean[1]).all()
    marker = tmp_path / "handheld" / "images" / "00000.png"
    marker.write_bytes(b"the user's")
    draw_missing(tmp_path, ("handheld", "still"))
    assert marker.read_bytes() == b"the user's"


def test_a_clip_that_cannot_be_written_leaves_nothing(tmp_path, small, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic_set, "write_clip", full)
    with pytest.raises(OSError, match="there is no room for the folder"):
        draw_missing(tmp_path, ("handheld",))
    assert list(tmp_path.iterdir()) == []


def test_the_command_draws_what_is_asked_for_and_nothing_into_a_folder_of_the_user(tmp_path, small):
    with pytest.raises(TruthError, match=r"no sequence 'nowhere'\. It has: still"):
        bench("synthetic", data=tmp_path / "data", sequences=("still", "nowhere"), protocol=BenchProtocol(("masks",)))
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["still"]
    (tmp_path / "synthetic" / "mine" / "images").mkdir(parents=True)
    with pytest.raises(TruthError, match=r"no sequence 'still'\. It has: mine"):
        bench(str(tmp_path / "synthetic"), sequences=("still",), protocol=BenchProtocol(("masks",)))


def test_the_set_has_a_scene_at_rest_and_one_that_is_mostly_hidden():
    def shares(name):
        clip = make_clip(replace(CLIPS[name], num_frames=5, height=72, width=128))
        return clip.dynamic_mask.float().mean(dim=(1, 2))

    assert shares("still").max() == 0
    assert shares("crowded").max() > 0.5
    assert 0.05 < shares("handheld").mean() < 0.5
