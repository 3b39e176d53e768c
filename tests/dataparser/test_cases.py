"""Files as people really have them, from outside of the repository: each comes out as its README says."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from das3r_ns.dataparser.inputs import read_inputs
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.video import VideoConfig, read_clip

STEPS = (0.1259, 0.1290, 0.0745, 0.0677, 0.0720)
"""Distances between the first cameras of `cameras/transforms_plain.json`."""


@pytest.fixture(scope="module")
def cases() -> Path:
    folder = Path(os.environ.get("DAS3R_CASES", Path(__file__).parents[3] / "shared" / "cases"))
    if not folder.is_dir():
        pytest.skip(f"no cases at {folder}; set DAS3R_CASES")
    return folder


@pytest.mark.parametrize("name", ["ok", "alpha_black", "alpha_white", "labels", "colours", "colmapname"])
@pytest.mark.parametrize("every", [1, 2])
def test_masks(cases, name, every):
    options = PredictionOptions(masks=cases / "masks" / f"m_{name}", video=VideoConfig(every=every))
    _, known = read_inputs(cases / "masks" / "images", options)
    assert known.dynamic_mask is not None
    right = PredictionOptions(masks=cases / "masks" / "m_ok")
    _, all_right = read_inputs(cases / "masks" / "images", right)
    assert all_right.dynamic_mask is not None
    assert float(all_right.dynamic_mask.mean()) == pytest.approx(0.247, abs=1e-3)
    torch.testing.assert_close(known.dynamic_mask, all_right.dynamic_mask[::every])


def test_inverted_masks(cases, capsys):
    read_inputs(cases / "masks" / "images", PredictionOptions(masks=cases / "masks" / "m_inverted"))
    assert "--masks-white-is-static" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["plain", "noext", "backslash", "angle", "nowh", "utm", "somemasks"])
def test_cameras(cases, name):
    _, known = read_inputs(cases / "cameras" / f"transforms_{name}.json", PredictionOptions())
    assert known.T_world_camera is not None
    assert known.K is not None
    steps = known.T_world_camera[1:6, :3, 3] - known.T_world_camera[:5, :3, 3]
    np.testing.assert_allclose(steps.norm(dim=1), STEPS, atol=1e-4)
    assert float(known.K[0, 0, 0]) == pytest.approx(221.7, abs=0.01)
    if name == "somemasks":
        assert known.mask_given is not None
        assert known.mask_given.nonzero()[:, 0].tolist() == [0, 3, 6, 9, 12, 15, 18]


@pytest.mark.parametrize(("name", "convention"), [("opencv", "opencv"), ("w2c", "opengl-inverse")])
def test_cameras_in_other_conventions(cases, name, convention):
    data = cases / "cameras" / f"transforms_{name}.json"
    with pytest.raises(ValueError, match=f"the images contradict .* say --cameras-convention {convention};"):
        read_inputs(data, PredictionOptions())
    read_inputs(data, PredictionOptions(cameras_convention=convention))


def test_a_colmap_model_directly_in_sparse(cases):
    for place in ("", "sparse"):
        options = PredictionOptions(cameras=cases / "cameras" / "colmap_directly_in_sparse" / place)
        clip, _ = read_inputs(cases / "masks" / "images", options)
        assert len(clip) == 20


def test_cameras_of_every_second_frame(cases, capsys):
    folder = cases / "cameras_of_every_second_frame"
    clip, _ = read_inputs(folder / "video.mp4", PredictionOptions(cameras=folder))
    assert clip.names == tuple(f"frame_{i:05d}" for i in range(1, 20, 2))
    assert "every 2nd frame" in capsys.readouterr().out


def test_images_of_12_bits_use_the_full_range(cases):
    clip, _ = read_inputs(cases / "folders_of_pictures" / "grey_12_bits", PredictionOptions())
    assert clip.frames.max() > 200
    assert len(clip.frames.unique()) > 100


VIDEOS = {
    # name: (frames, (height, width), what is said)
    "asf_b_frames/clip.wmv": (20, None, ""),
    "avi_dropped_frames/gap.avi": (15, None, ""),
    "latin1_metadata/clip.mp4": (20, (144, 256), ""),
    "mjpeg_with_exif/camera.avi": (16, (144, 256), ""),
    "raw_h264/drone.h264": (20, None, "stores no times"),
    "starts_between_key_frames/cut.ts": (20, None, "starts between keyframes"),
    "variable_rate/vfr.mp4": (20, None, ""),
    "interlaced/interlaced.mp4": (20, None, "is interlaced (top field first)"),
    "interlaced/progressive.mp4": (20, None, ""),
    "hdr/hlg.mov": (None, None, "HDR (HLG), BT.2020"),
    "hdr/pq.mov": (None, None, "HDR (PQ), BT.2020"),
    "hdr/sdr.mp4": (None, None, ""),
}


@pytest.mark.parametrize("name", VIDEOS)
def test_videos(cases, capsys, name):
    clip = read_clip(cases / name)
    count, size, said = VIDEOS[name]
    assert count is None or len(clip) == count
    assert size is None or clip.size == size
    lines = [line for line in capsys.readouterr().out.splitlines() if "Reading" not in line and line.strip()]
    assert (said in " ".join(lines)) if said else not lines
    assert len({frame.numpy().tobytes() for frame in clip.frames}) == len(clip)  # no copies


def test_times_of_frames_that_were_dropped_and_of_a_pause(cases):
    dropped = read_clip(cases / "avi_dropped_frames" / "gap.avi").times_s
    np.testing.assert_allclose(dropped, [i / 15 for i in range(20) if not 5 <= i < 10], atol=1e-3)
    steps = np.diff(read_clip(cases / "variable_rate" / "vfr.mp4").times_s)
    assert steps[9] == pytest.approx(1.5, abs=0.01)
    np.testing.assert_allclose(np.delete(steps, 9), 1 / 15, atol=2e-3)


@pytest.mark.parametrize("name", ["hlg.mov", "pq.mov"])
def test_hdr_is_near_the_sdr_row(cases, name):
    right = read_clip(cases / "hdr" / "sdr.mp4").frames.double()
    error = (read_clip(cases / "hdr" / name).frames.double() - right).square().mean()
    assert 10 * np.log10(255**2 / float(error)) > 32.5
