"""The synthetic clip: its truth is consistent with itself, so tests may lean on it."""

from dataclasses import replace

import av
import numpy as np
import pytest
import torch

from das3r_ns import geometry
from das3r_ns.datasets import read_truth_folder
from das3r_ns.synthetic import SyntheticConfig, make_clip, write_clip

TINY = SyntheticConfig(num_frames=5, height=72, width=128)


@pytest.fixture(scope="module")
def clip():
    return make_clip(TINY)


def test_the_same_seed_gives_the_same_clip_and_another_seed_another(clip):
    again = make_clip(TINY)
    assert torch.equal(again.frames, clip.frames)
    torch.testing.assert_close(again.T_world_camera, clip.T_world_camera)
    assert not torch.equal(make_clip(replace(TINY, seed=1)).frames, clip.frames)


def test_the_moving_objects_cover_15_to_30_percent_of_the_image(clip):
    share = clip.dynamic_mask.float().mean(dim=(1, 2))
    assert share.min() > 0.15
    assert share.max() < 0.30


def test_clean_and_seen_images_differ_only_where_the_mask_says(clip):
    difference = (clip.frames.float() - clip.clean.float()).abs().amax(dim=-1)
    inside = torch.nn.functional.max_pool2d(clip.dynamic_mask.float(), 3, 1, 1) > 0
    assert difference[~inside].max() <= 16  # noise alone
    assert difference[clip.dynamic_mask].mean() > 20


def test_depth_and_cameras_explain_the_clean_images(clip):
    """Warp the last clean image onto the first by the true depth and cameras: they agree where both see."""
    T = geometry.invert(clip.T_world_camera[2]) @ clip.T_world_camera[0]
    flow, valid = geometry.rigid_flow(clip.clean_depth[0], clip.K, clip.K, T)
    assert flow.norm(dim=-1).mean() > 2  # there is something to explain
    target = geometry.pixel_grid(*flow.shape[:2]) + flow
    size = torch.tensor([flow.shape[1], flow.shape[0]])
    grid = target / size * 2 - 1
    image = clip.clean[2].permute(2, 0, 1)[None].float()
    warped = torch.nn.functional.grid_sample(image, grid[None], align_corners=False)[0].permute(1, 2, 0)
    seen = valid & (grid.abs() < 0.98).all(dim=-1)
    error = (warped - clip.clean[0].float()).abs().mean(dim=-1)[seen]
    unwarped = (clip.clean[2].float() - clip.clean[0].float()).abs().mean(dim=-1)[seen]
    assert error.median() < 5
    assert error.mean() < 0.5 * unwarped.mean()


def test_moving_objects_are_nearer_than_what_they_hide(clip):
    assert (clip.depth[clip.dynamic_mask] < clip.clean_depth[clip.dynamic_mask] + 1e-3).float().mean() > 0.98
    assert clip.depth.isfinite().all()


def test_each_camera_path_moves_as_it_says():
    small = replace(TINY, height=16, width=16, movers=0)
    for camera in ("rotation", "tripod"):
        still = make_clip(replace(small, camera=camera))
        torch.testing.assert_close(still.T_world_camera[:, :3, 3], still.T_world_camera[:1, :3, 3].expand(5, 3))
        assert (camera == "tripod") == torch.equal(still.T_world_camera[0], still.T_world_camera[-1])
    ahead = make_clip(replace(small, camera="forward")).T_world_camera
    step = ahead[-1, :3, 3] - ahead[0, :3, 3]
    assert step[2] > 10 * step[:2].abs().max()
    assert not make_clip(small).dynamic_mask.any()


def test_no_contrast_leaves_flat_surfaces_and_exposure_drifts():
    flat = make_clip(replace(TINY, contrast=0.0, movers=0, noise=0.0))
    assert flat.frames.float().std() < 0.6 * make_clip(replace(TINY, movers=0, noise=0.0)).frames.float().std()
    drift = make_clip(replace(TINY, camera="tripod", movers=0, exposure_drift=-1.0, noise=0.0)).frames.float()
    assert drift[-1].mean() / drift[0].mean() == pytest.approx(0.5, abs=0.02)


def test_an_open_shutter_blurs_along_the_motion_and_moves_nothing():
    config = replace(TINY, camera="rotation", movers=0, noise=0.0, num_frames=8)
    sharp, filmed = make_clip(config), make_clip(replace(config, shutter=0.8))
    torch.testing.assert_close(filmed.T_world_camera, sharp.T_world_camera)
    torch.testing.assert_close(filmed.clean_depth, sharp.clean_depth)
    across, down = (
        [clip.frames[2:6].float().diff(dim=side).square().mean() for clip in (filmed, sharp)] for side in (2, 1)
    )
    assert across[0] / across[1] < 0.15  # the camera turns sideways four times as fast as it nods
    assert down[0] / down[1] > 0.3
    assert filmed.frames[3].float().mean() == pytest.approx(float(sharp.frames[3].float().mean()), abs=1)


def test_written_files_hold_the_clip(clip, tmp_path):
    folder = write_clip(clip, tmp_path / "clip")
    cameras = np.loadtxt(folder / "T_world_camera.txt").reshape(-1, 4, 4)
    np.testing.assert_allclose(cameras, clip.T_world_camera.numpy(), atol=1e-6)
    assert len(list((folder / "images").iterdir())) == len(list((folder / "dynamic_masks").iterdir())) == 5
    with av.open(str(folder / "video.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 5
    assert np.abs(frames[3].astype(float) - clip.frames[3].numpy()).mean() < 6


def test_a_clip_that_cannot_be_made_is_refused():
    with pytest.raises(ValueError, match="at least 1 frame of 16x16"):
        make_clip(replace(TINY, height=8))


def test_a_shorter_clip_in_the_place_of_a_longer_one_is_whole(tmp_path):
    for num_frames in (4, 3):
        write_clip(make_clip(SyntheticConfig(num_frames=num_frames, height=32, width=40)), tmp_path, video=False)
    assert len(read_truth_folder(tmp_path)) == 3
    assert len(list((tmp_path / "depth").iterdir())) == 3


def test_half_of_the_path_is_what_the_first_half_of_the_frames_saw(clip):
    slow = make_clip(replace(TINY, num_frames=3, path_share=0.5))  # times 0, 1/4 and 1/2 of five frames
    torch.testing.assert_close(slow.T_world_camera, clip.T_world_camera[:3])
    torch.testing.assert_close(slow.depth, clip.depth[:3])


def test_objects_that_wait_stand_still_till_then():
    waiting = make_clip(replace(TINY, camera="tripod", movers_wait=0.5)).depth
    torch.testing.assert_close(waiting[0], waiting[2])
    assert not torch.equal(waiting[2], waiting[4])
    with pytest.raises(ValueError, match="movers_wait is a share of the time from 0 to below 1, got 1"):
        make_clip(replace(TINY, movers_wait=1.0))
