"""Each program's files, written by their definition (`written`), come back as cameras, depth and masks of the clip."""

from pathlib import Path

import numpy as np
import pytest
import torch
import written_reconstructions as written
from written_reconstructions import FRAME, N, World, make_world

from das3r_ns.dataparser.input_digest import digest_of_inputs
from das3r_ns.dataparser.input_kinds import kind_of
from das3r_ns.dataparser.inputs import read_inputs
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.dataparser.reconstructions.table import READERS, find_reader
from das3r_ns.predictor.base import UserPriors
from das3r_ns.video.config import VideoConfig

WITH_DEPTH = {
    "megasam": "MegaSaM",
    "megasam_folder": "MegaSaM",
    "droid": "DROID-SLAM",
    "monst3r": "MonST3R",
    "das3r": "DAS3R",
    "cut3r": "CUT3R",
    "vipe": "ViPE",
    "depth_anything": "Depth Anything 3",
    "depth_anything_mini": "Depth Anything 3",
    "depth_anything_streaming": "Depth Anything 3 (streaming)",
    "vggt_omega": "VGGT",
    "record3d": "Record3D",
    "stray_scanner": "Stray Scanner",
    "polycam": "Polycam",
}
WITH_MASKS = ("megasam_folder", "monst3r", "das3r", "vipe")


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def images(world, tmp_path_factory) -> Path:
    return written.write_images(world, tmp_path_factory.mktemp("clip") / "images")


def check_cameras(priors: UserPriors, world: World, frames=slice(None), size=FRAME, tolerance=1e-4) -> None:
    """Same path and lens, in the world of the file."""
    T = priors.T_world_camera.double().numpy()
    T[:, :3, 3] += np.linalg.inv(priors.applied_transform.numpy())[:3, 3]
    truth = world.T[frames]
    length = np.linalg.norm(np.ptp(truth[:, :3, 3], axis=0))
    assert np.abs(T[:, :3, 3] - truth[:, :3, 3]).max() < tolerance * length
    assert np.abs(T[:, :3, :3] - truth[:, :3, :3]).max() < tolerance
    K = world.K.copy()
    K[0] *= size[1] / FRAME[1]
    K[1] *= size[0] / FRAME[0]
    assert np.abs(priors.K.double().numpy() - K).max() < 1e-3 * K[0, 0]


def check_depth(priors: UserPriors, world: World, least: float = 0.9) -> None:
    """The plane's depth at every pixel, by the camera of the frame."""
    assert priors.depth is not None
    depth = priors.depth.depth.numpy()
    size = depth.shape[1:]
    K = world.K_at(size)
    assert (depth > 0).mean() > least
    for i in range(len(depth)):
        truth = world.depth(i, K, size)
        there = depth[i] > 0
        assert np.abs(depth[i] / truth - 1)[there].max() < 1e-3
    confidence = priors.depth.confidence.numpy()
    assert ((confidence > 0) == (depth > 0)).all()
    assert confidence.max() <= 1


@pytest.mark.parametrize("name", WITH_DEPTH)
def test_cameras_and_depth_come_back_with_the_frames_of_the_clip(name, world, images, tmp_path, capsys):
    path = getattr(written, name)(world, tmp_path / "out")
    data = images
    if name == "polycam":  # its images are keyframes, with names of their own
        data = path / "keyframes" / "corrected_images"
    clip, priors = read_inputs(data, PredictionOptions(cameras=path))
    assert len(clip) == N
    check_cameras(priors, world)
    check_depth(priors, world)
    assert priors.dynamic_mask is None
    assert priors.pose_known is None
    assert f"was written by {WITH_DEPTH[name]}: cameras of {N} of {N} frames and depth" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in WITH_DEPTH if name != "depth_anything_mini"])
def test_the_files_alone_are_data(name, world, tmp_path):
    path = getattr(written, name)(world, tmp_path / "out")
    assert kind_of(path) == "reconstruction"
    clip, priors = read_inputs(path, PredictionOptions())
    assert len(clip) == N
    assert priors.depth is not None
    points_agree(clip, priors, world)
    assert digest_of_inputs(path, PredictionOptions()) == digest_of_inputs(path, PredictionOptions())


def points_agree(clip, priors: UserPriors, world: World) -> None:
    """The middle of each image, lifted by its depth, lies on the plane."""
    T = priors.T_world_camera.double().numpy()
    assert np.abs(T[:, :3, 3] - world.T[:, :3, 3]).max() < 1e-3
    depth = priors.depth.depth.double().numpy()
    for i in range(len(clip)):
        K = priors.K[i].double().numpy()
        K[0] *= depth.shape[2] / clip.size[1]
        K[1] *= depth.shape[1] / clip.size[0]
        v, u = depth.shape[1] // 2, depth.shape[2] // 3
        ray = np.array([(u + 0.5 - K[0, 2]) / K[0, 0], (v + 0.5 - K[1, 2]) / K[1, 1], 1]) * depth[i, v, u]
        assert abs(written.PLANE @ (T[i, :3, :3] @ ray + T[i, :3, 3]) - 1) < 2e-3


@pytest.mark.parametrize("name", ["colmap_without_zero", "mapanything"])
def test_colmap_projects_are_data(name, world, tmp_path):
    path = getattr(written, name)(world, tmp_path / "out")
    assert kind_of(path) == "reconstruction"
    clip, priors = read_inputs(path, PredictionOptions())
    check_cameras(priors, world, size=clip.size)
    digest_of_inputs(path, PredictionOptions())


@pytest.mark.parametrize("name", WITH_MASKS)
def test_masks_come_back_with_the_right_polarity(name, world, images, tmp_path):
    path = getattr(written, name)(world, tmp_path / "out")
    _, priors = read_inputs(images, PredictionOptions(masks=path))
    found = priors.dynamic_mask.numpy() > 0.5
    truth = world.moving(FRAME)
    for mask in found:
        assert (mask & truth).sum() / (mask | truth).sum() > (0.8 if name == "megasam_folder" else 0.97)
    digest_of_inputs(images, PredictionOptions(masks=path))


def test_smaller_frames_have_their_own_lens(world, images, tmp_path):
    path = written.monst3r(world, tmp_path / "out")
    clip, priors = read_inputs(images, PredictionOptions(cameras=path, video=VideoConfig(longest_side=181)))
    assert clip.size == (101, 181)
    check_cameras(priors, world, size=clip.size)
    check_depth(priors, world)


def test_selected_frames_have_their_own_cameras_and_depth(world, images, tmp_path):
    path = written.depth_anything(world, tmp_path / "out")
    clip, priors = read_inputs(images, PredictionOptions(cameras=path, video=VideoConfig(every=2)))
    check_cameras(priors, world, slice(0, None, 2))
    K = world.K_at(written.da3_size())
    truth = np.stack([world.depth(i, K, written.da3_size()) for i in range(0, N, 2)])
    assert np.abs(priors.depth.depth.numpy() / truth - 1).max() < 1e-3
    assert len(clip) == 3


def test_vipe_counts_frames_by_its_own_indices(world, tmp_path, capsys):
    path = written.vipe(world, tmp_path / "out", [1, 2, 4, 5])
    clip, priors = read_inputs(path / "rgb" / "clip.mp4", PredictionOptions(cameras=path))
    assert clip.names == tuple(f"frame_{i + 1:05d}" for i in (1, 2, 4, 5))
    check_cameras(priors, world, [1, 2, 4, 5])
    assert "2 of 6 frames have no camera there and are left out" in capsys.readouterr().out


def test_every_reader_knows_only_its_own_files(world, images, tmp_path):
    for name, tool in WITH_DEPTH.items():
        path = getattr(written, name)(world, tmp_path / name)
        fitting = [reader.tool for reader in READERS if reader.recognizes(path)]
        assert len(fitting) == 1, name
        assert fitting[0] in tool or tool in fitting[0]
    assert find_reader(images) is None
    assert find_reader(tmp_path / "nothing") is None


def test_clips_of_another_shape_are_refused(world, tmp_path):
    other = World(world.T, world.K, world.frames[:, :120, :120])
    data = written.write_images(other, tmp_path / "square")
    for name in ("megasam", "monst3r", "depth_anything"):
        path = getattr(written, name)(world, tmp_path / name)
        with pytest.raises(ValueError, match="does not make of frames of 120x120"):
            read_inputs(data, PredictionOptions(cameras=path))


def test_frames_that_are_not_those_of_the_files_are_refused(world, tmp_path):
    path = written.cut3r(world, tmp_path / "out")
    short = World(world.T[:4], world.K, world.frames[:4])
    data = written.write_images(short, tmp_path / "short")
    with pytest.raises(ValueError, match="fewer than 2 of the 4 frames"):
        read_inputs(data, PredictionOptions(cameras=path))


def test_axes_that_the_images_contradict_are_refused(world, images, tmp_path):
    """A c2w where the format says w2c."""
    wrong = World(np.linalg.inv(world.T), world.K, world.frames)
    path = written.depth_anything(wrong, tmp_path / "out")
    with pytest.raises(ValueError, match="--cameras-convention opencv"):
        read_inputs(images, PredictionOptions(cameras=path))
    _, priors = read_inputs(images, PredictionOptions(cameras=path, cameras_convention="opencv"))
    check_cameras(priors, world)


def test_a_trajectory_without_images_asks_for_them(world, tmp_path):
    path = written.tum(world, tmp_path / "traj.txt", np.arange(N) / 30)
    with pytest.raises(ValueError, match="holds no images"):
        read_inputs(path, PredictionOptions())


def test_nothing_is_left_of_torch_tensors_shared_with_files(world, tmp_path):
    path = written.droid(world, tmp_path / "out")
    _, priors = read_inputs(path, PredictionOptions())
    assert isinstance(priors.depth.depth, torch.Tensor)
