"""Failures put into good cameras of rendered clips, and whether they are noticed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from exact_tracks import small_problem

from das3r_ns.predictor.cameras import quality as quality_module
from das3r_ns.predictor.cameras.focal_starts import best_of_other_starts, finely_explained
from das3r_ns.predictor.cameras.quality import assess_cameras, without_runaways
from das3r_ns.predictor.cameras.sfm import (
    CameraEstimate,
    FocalKnowledge,
    Tracks,
    estimate_cameras,
    follow_grid,
    refine_cameras,
)
from das3r_ns.predictor.cameras.sfm.initialization import InitializationError
from das3r_ns.predictor.flow.dis import DisFlow
from das3r_ns.predictor.flow.flow_maps import round_trip_error
from das3r_ns.synthetic import SyntheticConfig, make_clip

SIZE = (108, 192)


def follow(frames: torch.Tensor) -> Tracks:
    images, flow = [frame.numpy() for frame in frames], DisFlow()

    def checked(i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        forward = flow(images[i], images[j])
        return forward, round_trip_error(forward, flow(images[j], images[i]))

    return follow_grid(checked, len(images), lambda i: images[i], points=300)


@pytest.fixture(scope="module", params=[("handheld", 0), ("orbit", 2)], ids=lambda p: p[0])
def found(request) -> tuple[Tracks, CameraEstimate]:
    camera, seed = request.param
    clip = make_clip(SyntheticConfig(num_frames=14, height=SIZE[0], width=SIZE[1], camera=camera, seed=seed, movers=1))
    tracks = follow(clip.frames)
    return tracks, estimate_cameras(tracks, SIZE)


def test_good_cameras_raise_no_doubt(found):
    tracks, cameras = found
    quality = assess_cameras(tracks, SIZE, cameras)
    assert quality.doubts == ()
    assert quality.sound
    assert quality.explained_share == pytest.approx(cameras.inlier_share, abs=0.03)
    assert (quality.frame_trust > 0.5).all()
    assert quality.record()["distrusted_frames"] == []


@pytest.mark.parametrize("seed", range(4))
def test_random_cameras_are_noticed(found, seed: int):
    tracks, cameras = found
    rng = np.random.default_rng(seed)
    T = cameras.T_world_camera.clone()
    T[:, :3, 3] += torch.from_numpy(rng.normal(0, 0.1, (len(T), 3)))
    quality = assess_cameras(tracks, SIZE, replace(cameras, T_world_camera=T))
    assert quality.doubts


@pytest.mark.parametrize("factor", [0.7, 0.8, 1.2, 1.5])
def test_a_wrong_focal_length_is_noticed(found, factor: float):
    tracks, cameras = found
    assert assess_cameras(tracks, SIZE, replace(cameras, focal_px=factor * cameras.focal_px)).doubts


@pytest.mark.parametrize("seed", range(4))
def test_tracks_half_of_which_are_wrong_are_noticed(found, seed: int):
    tracks, cameras = found
    rng = np.random.default_rng(seed)
    wrong = rng.random(tracks.pixel.shape[:2]) < 0.5
    lost = tracks.observed + rng.normal(0, 6, tracks.observed.shape).astype(np.float32)
    observed = np.where(wrong[:, None, :, None], lost, tracks.observed)
    assert assess_cameras(replace(tracks, observed=observed), SIZE, cameras).doubts


def test_one_frame_astray_is_the_one_that_is_distrusted(found):
    tracks, cameras = found
    T = cameras.T_world_camera.clone()
    T[6, :3, 3] += torch.tensor([0.1, 0.05, 0.0])
    quality = assess_cameras(tracks, SIZE, replace(cameras, T_world_camera=T), second_estimate=False)
    assert quality.record()["distrusted_frames"] == [6]
    assert quality.frame_trust[6] < 0.4 < quality.frame_trust[3]


def test_cameras_that_cannot_be_are_not_sound(found):
    tracks, cameras = found
    T = cameras.T_world_camera.clone()
    T[5:, 0, 3] += 4.6e10
    assert not assess_cameras(tracks, SIZE, replace(cameras, T_world_camera=T)).sound
    T[3, 0, 3] = torch.nan
    quality = assess_cameras(tracks, SIZE, replace(cameras, T_world_camera=T))
    assert not quality.sound
    assert "not finite" in quality.doubts[0]


def test_a_single_runaway_loses_its_pose_and_stands_between_its_neighbours(found):
    _, cameras = found
    T = cameras.T_world_camera.clone()
    T[7, 0, 3] += 1e6
    mended = without_runaways(replace(cameras, T_world_camera=T))
    assert mended.pose_known.tolist() == [i != 7 for i in range(14)]
    assert (mended.T_world_camera[7, :3, 3] - T[6, :3, 3]).norm() < 1
    assert without_runaways(cameras) is cameras


def test_cameras_that_settled_on_a_wrong_focal_length_are_led_back(found):
    tracks, cameras = found
    wrong = 1.35 * cameras.focal_px
    held = refine_cameras(tracks, SIZE, cameras.T_world_camera, wrong, focal=FocalKnowledge(known=wrong))
    better = best_of_other_starts(tracks, SIZE, held, FocalKnowledge())
    assert better.focal_px == pytest.approx(cameras.focal_px, rel=0.03)
    assert finely_explained(tracks, SIZE, better) > 1.05 * finely_explained(tracks, SIZE, held)
    assert best_of_other_starts(tracks, SIZE, held, FocalKnowledge(known=wrong)) is held  # the user knows it


def test_cameras_at_their_minimum_stay(found):
    tracks, cameras = found
    assert best_of_other_starts(tracks, SIZE, cameras, FocalKnowledge()) is cameras


@pytest.mark.parametrize(("rival_share", "taken"), [(1.0, True), (0.5, False), (None, False)])
def test_cameras_found_from_nothing_are_rivals_if_they_explain_as_much(rival_share, taken: bool, monkeypatch):
    tracks, _, _ = small_problem()
    T = torch.eye(4, dtype=torch.float64).repeat(4, 1, 1)
    T[:, :3, 3] = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])
    crossed = T.clone()
    crossed[:, :3, 3] = T[[0, 2, 1, 3], :3, 3]

    def of(path: torch.Tensor, focal: float) -> CameraEstimate:
        known, none = torch.ones(4, dtype=torch.bool), torch.zeros(0, dtype=torch.long)
        return CameraEstimate(path, focal, 0.02, known, torch.zeros(4), 1.0, torch.zeros(0, 3), none, torch.zeros(0, 2))

    cameras, again, rival = of(T, 100.0), of(T, 110.0), of(crossed, 150.0)
    shares = {id(cameras): 0.4, id(again): 0.5, id(rival): 0.5 * (rival_share or 0)}

    def from_nothing(*_) -> CameraEstimate:
        if rival_share is None:
            raise InitializationError("no pair of frames to begin with")
        return rival

    monkeypatch.setattr(quality_module, "refine_cameras", lambda *_: again)
    monkeypatch.setattr(quality_module, "estimate_cameras", from_nothing)
    monkeypatch.setattr(quality_module, "finely_explained", lambda part, size, found: shares[id(found)])
    opinion = quality_module._second_opinion(tracks, SIZE, cameras, from_nothing=True)
    assert opinion.gain == pytest.approx(0.25)
    assert opinion.focal_difference == pytest.approx(0.5 if taken else 0.1)
    assert opinion.path_difference is not None
    assert (opinion.path_difference > 0.5) == taken
    alone = quality_module._second_opinion(tracks, SIZE, cameras, from_nothing=False)
    assert alone.focal_difference == pytest.approx(0.1)
