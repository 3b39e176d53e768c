"""Kinds of camera motion, told from the flow of clips whose camera is known."""

import numpy as np
import pytest
import torch

from das3r_ns.predictor.cameras.motion_model import cameras_from_tracks, rotation_cameras, select_motion_model
from das3r_ns.predictor.cameras.sfm import FocalKnowledge, Tracks, follow_grid
from das3r_ns.predictor.flow.dis import DisFlow
from das3r_ns.predictor.flow.flow_maps import round_trip_error
from das3r_ns.synthetic import SyntheticClip, SyntheticConfig, make_clip

FRAMES = 12
SIZE = (108, 192)


def make(camera: str, **settings) -> SyntheticClip:
    return make_clip(SyntheticConfig(num_frames=FRAMES, height=SIZE[0], width=SIZE[1], camera=camera, **settings))  # pyright: ignore[reportArgumentType]


def follow(frames: torch.Tensor) -> Tracks:
    images = [frame.numpy() for frame in frames]
    dis, kept = DisFlow(), {}

    def one(i: int, j: int) -> np.ndarray:
        if (i, j) not in kept:
            kept[i, j] = dis(images[i], images[j])
        return kept[i, j]

    def checked(i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        return one(i, j), round_trip_error(one(i, j), one(j, i))

    return follow_grid(checked, len(images), lambda i: images[i], points=400)


@pytest.fixture(scope="module")
def pan() -> tuple[SyntheticClip, Tracks]:
    clip = make("rotation")
    return clip, follow(clip.frames)


@pytest.fixture(scope="module")
def handheld() -> tuple[SyntheticClip, Tracks]:
    clip = make("handheld")
    return clip, follow(clip.frames)


@pytest.mark.parametrize(("camera", "kind"), [("forward", "general"), ("orbit", "general")])
def test_kind_of_motion(camera: str, kind: str):
    evidence = select_motion_model(follow(make(camera).frames), SIZE)
    assert evidence.kind == kind


def test_a_pan_on_the_spot_gives_rotations_and_focal_length(pan):
    clip, tracks = pan
    evidence, cameras = cameras_from_tracks(tracks, SIZE)
    assert evidence.kind == "rotation"
    assert "rotation camera" in str(evidence)
    assert cameras.pose_known.all()
    assert cameras.focal_px == pytest.approx(float(clip.K[0, 0]), rel=0.02)
    truth = clip.T_world_camera[:, :3, :3].double()
    difference = cameras.T_world_camera[:, :3, :3].mT @ truth[0].T @ truth
    angle = torch.rad2deg(torch.arccos(((difference.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1)))
    assert angle.max() < 0.15
    assert (cameras.T_world_camera[:, :3, 3] == 0).all()


def test_a_known_focal_length_of_a_pan_is_kept(pan):
    tracks = pan[1]
    cameras = rotation_cameras(tracks, SIZE, FocalKnowledge(known=300.0))
    assert cameras.focal_px == pytest.approx(300.0)


def test_a_hand_held_sweep_has_parallax(handheld):
    evidence = select_motion_model(handheld[1], SIZE)
    assert evidence.kind == "general"
    assert evidence.share_epipolar > evidence.share_rotation + 0.1


def test_a_tripod_gets_one_camera_of_the_usual_focal_length():
    evidence, cameras = cameras_from_tracks(follow(make("tripod").frames), SIZE)
    assert evidence.share_static > 0.6
    assert (cameras.T_world_camera == torch.eye(4, dtype=torch.float64)).all()
    assert cameras.focal_px == pytest.approx(96 / np.tan(np.radians(30)))
    assert cameras.focal_std > 0.2  # nothing was learned about it


def test_a_tripod_behind_an_object_that_fills_half_the_image_is_still_one():
    clip = make("tripod", mover_size=1.8, seed=4)
    assert clip.dynamic_mask.float().mean() > 0.5
    assert select_motion_model(follow(clip.frames), SIZE).kind == "static"


def test_too_little_to_follow_is_called_general_without_an_error():
    lost = follow_grid(lambda i, j: (np.zeros((90, 160, 2), np.float32), np.full((90, 160), np.inf, np.float32)), 5)
    evidence = select_motion_model(lost, (90, 160))
    assert (evidence.kind, evidence.share_static) == ("general", 0.0)
