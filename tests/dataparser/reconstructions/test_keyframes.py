"""Trajectories of SLAM programs: keyframes only, numbers after a stride, times, no lens."""

from pathlib import Path

import numpy as np
import pytest
import written_reconstructions as written
from written_reconstructions import World, make_world

from das3r_ns.dataparser.inputs import read_inputs
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.predictor.base import UserPriors

N = 16
KEYFRAMES = [0, 5, 10, 15]
FPS = 10


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(N)


@pytest.fixture(scope="module")
def images(world, tmp_path_factory) -> Path:
    return written.write_images(world, tmp_path_factory.mktemp("clip") / "images")


@pytest.fixture(scope="module")
def video(world, tmp_path_factory) -> Path:
    return written.write_mp4(world, tmp_path_factory.mktemp("clip") / "clip.mp4", FPS)


def check(priors: UserPriors, world: World, given: list[int], focal: float = 1e-6) -> None:
    """Given cameras are as they were; those between are within 1 % of the path."""
    T = priors.T_world_camera.double().numpy()
    length = np.linalg.norm(np.ptp(world.T[:, :3, 3], axis=0))
    off = np.linalg.norm(T[:, :3, 3] - world.T[:, :3, 3], axis=1) / length
    assert off[given].max() < 1e-4
    assert off.max() < 0.01
    assert np.abs(T[:, :3, :3] - world.T[:, :3, :3]).max() < 0.01
    assert abs(float(priors.K[0, 0, 0]) / world.K[0, 0] - 1) < focal
    assert priors.pose_known is None or bool(priors.pose_known.all())


def test_every_frame_between_keyframes_is_found(world, images, tmp_path, capsys):
    path = written.droid(world, tmp_path / "out", KEYFRAMES)
    _, priors = read_inputs(images, PredictionOptions(cameras=path))
    check(priors, world, KEYFRAMES)
    depth = priors.depth.depth.numpy()
    assert [bool(d.any()) for d in depth] == [i in KEYFRAMES for i in range(N)]
    assert "those of the 12 frames between were found by what the 4 given ones see." in capsys.readouterr().out


def test_numbers_after_a_stride_are_told_by_the_images(world, images, tmp_path, capsys):
    path = written.droid(world, tmp_path / "out", [0, 3, 6, 9, 12, 15], stride=3)
    _, priors = read_inputs(images, PredictionOptions(cameras=path))
    check(priors, world, [0, 3, 6, 9, 12, 15])
    assert "taken for every 3 frames, counted" in capsys.readouterr().out


def test_tum_with_the_times_of_a_video_and_no_lens(world, video, tmp_path, capsys):
    path = written.tum(world, tmp_path / "traj.txt", [i / FPS for i in KEYFRAMES], KEYFRAMES)
    _, priors = read_inputs(video, PredictionOptions(cameras=path))
    check(priors, world, KEYFRAMES, focal=0.02)
    assert "does not say what the lens is. With" in capsys.readouterr().out


def test_tum_with_a_lens_that_is_given(world, video, tmp_path, capsys):
    path = written.tum(world, tmp_path / "traj.txt", np.arange(N) / FPS)
    fov = float(np.degrees(2 * np.arctan(written.FRAME[1] / 2 / world.K[0, 0])))
    _, priors = read_inputs(video, PredictionOptions(cameras=path, fov_deg=fov))
    check(priors, world, list(range(N)), focal=1e-5)
    assert "does not say" not in capsys.readouterr().out


def test_a_tracker_that_is_faster_than_the_camera_is_interpolated(world, video, tmp_path):
    """Ten poses between two frames, on straight lines."""
    from scipy.spatial.transform import Rotation, Slerp

    times = np.arange(0, N - 1 + 1e-9, 0.1)
    T = np.tile(np.eye(4), (len(times), 1, 1))
    T[:, :3, :3] = Slerp(np.arange(N), Rotation.from_matrix(world.T[:, :3, :3]))(times).as_matrix()
    for axis in range(3):
        T[:, axis, 3] = np.interp(times, np.arange(N), world.T[:, axis, 3])
    path = written.tum(World(T, world.K), tmp_path / "traj.txt", times / FPS + 0.003)
    _, priors = read_inputs(video, PredictionOptions(cameras=path, fov_deg=62.2))
    off = np.linalg.norm(priors.T_world_camera.double().numpy()[1:, :3, 3] - world.T[1:, :3, 3], axis=1)
    assert off.max() < 0.01 * 1.5


def test_times_in_the_names_of_images(world, tmp_path):
    from PIL import Image

    folder = tmp_path / "rgb"
    folder.mkdir()
    stamps = [1305031102.175304 + 0.033 * i for i in range(N)]
    for stamp, frame in zip(stamps, world.frames):
        Image.fromarray(frame).save(folder / f"{stamp:.6f}.png")
    path = written.tum(world, tmp_path / "traj.txt", [stamps[i] + 0.004 for i in KEYFRAMES], KEYFRAMES)
    _, priors = read_inputs(folder, PredictionOptions(cameras=path))
    check(priors, world, KEYFRAMES, focal=0.02)


def test_mast3r_slam_counts_time_without_its_stride(world, video, tmp_path):
    """Every second frame was read; times are those frames' places over the rate."""
    keyframes = [0, 4, 8, 14]
    path = written.tum(world, tmp_path / "clip.txt", [i / 2 / FPS for i in keyframes], keyframes)
    _, priors = read_inputs(video, PredictionOptions(cameras=path))
    check(priors, world, keyframes, focal=0.02)


def test_wildgs_has_depth_of_keyframes(world, images, tmp_path):
    path = written.wildgs(world, tmp_path / "out", KEYFRAMES)
    _, priors = read_inputs(images, PredictionOptions(cameras=path))
    check(priors, world, list(range(N)), focal=0.02)
    depth = priors.depth.depth.numpy()
    assert [bool(d.any()) for d in depth] == [i in KEYFRAMES for i in range(N)]
    K = world.K_at(depth.shape[1:])
    assert np.abs(depth[5] / world.depth(5, K, depth.shape[1:]) - 1).max() < 1e-3


def test_poses_of_another_clip_are_refused(world, images, tmp_path):
    rng = np.random.default_rng(0)
    T = world.T.copy()
    T[:, :3, 3] = rng.normal(size=(N, 3))
    path = written.tum(World(T, world.K), tmp_path / "traj.txt", range(N))
    with pytest.raises(ValueError, match="no focal length makes it agree with the images"):
        read_inputs(images, PredictionOptions(cameras=path))
