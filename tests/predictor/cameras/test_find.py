"""Cameras of clips whose truth is known, and of clips that cameras are hard or impossible to find from."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

import das3r_ns.synthetic.clip
from das3r_ns import geometry
from das3r_ns.evaluation.metrics.poses import pose_errors
from das3r_ns.predictor.base import PredictionError, UserPriors
from das3r_ns.predictor.cameras import find as cameras
from das3r_ns.predictor.cameras import second_opinions
from das3r_ns.predictor.cameras.colmap import CameraPath
from das3r_ns.predictor.cameras.colmap_features import Features, extract_features
from das3r_ns.predictor.cameras.config import FeatureConfig
from das3r_ns.predictor.cameras.find import best_of, find_cameras
from das3r_ns.predictor.cameras.focal_choice import undecided_focal, usual_lens_first
from das3r_ns.predictor.cameras.keyframes import select_keyframes
from das3r_ns.predictor.cameras.sfm import CameraEstimate, FocalKnowledge, Tracks
from das3r_ns.predictor.flow.checked import CheckedFlow
from das3r_ns.predictor.flow.dis import DisFlow
from das3r_ns.predictor.geometric.clip_flow import flow_between
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.geometric.predictor import GeometricPredictor
from das3r_ns.synthetic import SyntheticClip, SyntheticConfig, make_clip
from das3r_ns.synthetic.world import camera_path, rotation
from das3r_ns.video.clip import Clip

CONFIG = SyntheticConfig(num_frames=16, height=168, width=224)


def as_clip(frames: torch.Tensor, **fields) -> Clip:
    return Clip(frames, 10.0, tuple(f"{i:05d}" for i in range(len(frames))), **fields)


def find(clip: Clip, known: UserPriors = UserPriors()) -> CameraPath:  # noqa: B008  (frozen)
    return GeometricPredictor().cameras(clip, known)


def checked_flow(clip: Clip) -> CheckedFlow:
    return flow_between(clip, DisFlow(), GeometricPredictorConfig()).checked


def errors(path: CameraPath, truth: SyntheticClip, frames: list[int] | None = None) -> tuple[float, float]:
    """ATE in percent of the path, focal length in percent."""
    T_true = truth.T_world_camera if frames is None else truth.T_world_camera[frames]
    assert path.registered.all()
    ate = pose_errors(torch.from_numpy(path.T_world_camera), T_true.double()).ate_percent
    return ate, 100 * abs(path.focal_px / float(truth.K[0, 0]) - 1)


def no_features(mapper: str, frames: Sequence[int]) -> CameraPath:
    raise PredictionError(f"{mapper} mapping gave up.")


def no_mapping(mapper: str, frames: Sequence[int]) -> CameraPath:
    raise AssertionError(f"{mapper} mapping was asked for")


def no_places(frame: int) -> Features:
    raise AssertionError(f"features of frame {frame} were asked for")


@pytest.fixture(scope="module")
def handheld() -> SyntheticClip:
    return make_clip(CONFIG)


@pytest.fixture(scope="module")
def handheld_path(handheld) -> CameraPath:
    return find(as_clip(handheld.frames))


def test_cameras_of_a_sideways_sweep_are_those_that_took_it(handheld, handheld_path):
    ate, focal = errors(handheld_path, handheld)
    assert ate < 0.5
    assert focal < 2


def test_cameras_of_an_arc_are_those_that_took_it():
    truth = make_clip(replace(CONFIG, camera="orbit", seed=1))
    ate, focal = errors(find(as_clip(truth.frames)), truth)
    assert ate < 0.5
    assert focal < 2


def test_straight_ahead_the_usual_focal_length_is_taken_and_the_user_told(capsys):
    truth = make_clip(replace(CONFIG, camera="forward", seed=1))
    ate, focal = errors(find(as_clip(truth.frames)), truth)
    assert ate < 0.5
    assert focal < 2  # the clip has the usual one
    assert "does not tell the focal length" in " ".join(capsys.readouterr().out.split())


def test_where_flow_leaves_no_doubt_nobody_asks_for_features(handheld):
    video = as_clip(handheld.frames)

    path = find_cameras(video, checked_flow(video), no_mapping, no_places)
    assert errors(path, handheld)[0] < 0.5


def test_in_a_long_clip_places_seen_again_are_looked_for_but_nothing_is_mapped_without_doubt(handheld, monkeypatch):
    monkeypatch.setattr(cameras, "MIN_LOOP_FRAMES", 8)
    video, asked = as_clip(handheld.frames), set()

    def features(i: int) -> Features:
        asked.add(i)
        return extract_features(video.frames[i].numpy(), FeatureConfig())

    path = find_cameras(video, checked_flow(video), no_mapping, features)
    assert asked == set(range(16))  # so few frames that each is a keyframe
    assert errors(path, handheld)[0] < 0.5


def test_a_path_bent_beyond_what_was_followed_is_refused(handheld, monkeypatch):
    monkeypatch.setattr(cameras, "MIN_LOOP_FRAMES", 8)

    def bent(estimate: CameraEstimate, *args, **kwargs) -> CameraEstimate:
        T = estimate.T_world_camera.clone()
        T[:, :3, 3] += 0.3 * torch.sin(torch.arange(len(T)))[:, None]
        return replace(estimate, T_world_camera=T)

    monkeypatch.setattr(cameras, "close_loops", bent)
    video = as_clip(handheld.frames)
    path = find_cameras(video, checked_flow(video), no_mapping, no_places)
    assert errors(path, handheld)[0] < 0.5


def test_of_many_keyframes_those_in_the_middle_are_mapped_and_flow_finds_the_others(handheld, monkeypatch):
    monkeypatch.setattr(cameras, "CONVINCING_INLIER_SHARE", 1.0)
    monkeypatch.setattr(second_opinions, "MAX_KEYFRAMES", 6)
    monkeypatch.setattr(cameras, "best_of", lambda candidates: candidates[-1])  # those that started from the mapper
    video, asked = as_clip(handheld.frames), []

    def from_features(mapper: str, frames: Sequence[int]) -> CameraPath:
        asked.append(list(frames))
        none = np.zeros((0, 3))
        T = handheld.T_world_camera[list(frames)].double().numpy()
        known = np.ones(len(T), bool)
        path = CameraPath(T, known, float(handheld.K[0, 0]), none, none.astype(np.uint8), 1.0)
        return path.spread(frames, len(video))

    path = find_cameras(video, checked_flow(video), from_features, no_places)
    assert asked == [[5, 6, 7, 8, 9, 10]]  # of 16
    assert errors(path, handheld)[0] < 0.5


def test_in_doubt_features_are_asked_and_theirs_are_left_when_they_ran_away(handheld, monkeypatch):
    monkeypatch.setattr(cameras, "CONVINCING_INLIER_SHARE", 1.0)
    video, asked = as_clip(handheld.frames), []
    T = torch.eye(4, dtype=torch.float64).repeat(len(video), 1, 1).numpy()
    T[:, 0, 3] = np.linspace(0, 1, len(T))  # a straight line without a turn, seen by a telephoto lens
    none = np.zeros((0, 3))
    wrong = CameraPath(T, np.ones(len(T), bool), 20_000.0, none, none.astype(np.uint8), 1.0)

    def from_features(mapper: str, frames: Sequence[int]) -> CameraPath:
        asked.append(mapper)
        return wrong

    path = find_cameras(video, checked_flow(video), from_features, no_places)
    assert asked == ["global"]
    ate, focal = errors(path, handheld)
    assert ate < 1.0
    assert focal < 2


def test_where_nothing_can_be_followed_the_error_says_what_both_ways_found(handheld):
    video = as_clip(handheld.frames)
    lost = (np.zeros((84, 112, 2), np.float32), np.full((84, 112), np.inf, np.float32))
    with pytest.raises(PredictionError, match=r"incremental mapping gave up.*Optical flow gives no cameras either"):
        find_cameras(video, lambda i, j: lost, no_features, no_places)


def seen_for(num_frames: int, share: dict[int, float]) -> Tracks:
    """Tracks whose points a frame `distance` away sees with the given share."""
    offsets = np.array([sign * distance for distance in share for sign in (1, -1)])
    target = np.arange(num_frames)[:, None] + offsets
    target[(target < 0) | (target >= num_frames)] = -1
    seen = np.zeros((num_frames, len(offsets), 100), np.float32)
    for slot, offset in enumerate(offsets):
        seen[:, slot, : round(100 * share[abs(int(offset))])] = 1
    seen *= (target >= 0)[..., None]
    pixel, observed = np.zeros((num_frames, 100, 2), np.float32), np.zeros((*seen.shape, 2), np.float32)
    return Tracks(
        np.arange(num_frames), target, np.ones(len(offsets)), pixel, observed, seen, seen, num_frames, (90, 160)
    )


def test_keyframes_are_as_far_apart_as_the_next_but_one_still_sees_half():
    # Half is still seen at a distance of 4, so they are 2 apart; the last frame is always one.
    assert select_keyframes(seen_for(52, {1: 0.9, 2: 0.8, 4: 0.6, 8: 0.4})) == [*range(0, 52, 2), 51]


def test_keyframes_are_no_fewer_than_sixteen():
    slow = {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0, 16: 0.9}
    assert select_keyframes(seen_for(48, slow)) == [*range(0, 48, 3), 47]  # 8 apart would be 6 frames
    assert select_keyframes(seen_for(10, slow)) == list(range(10))


def test_where_little_is_seen_again_every_frame_is_a_key_frame():
    assert select_keyframes(seen_for(40, {1: 0.6, 2: 0.3})) == list(range(40))
    assert select_keyframes(seen_for(40, {1: 0.0})) == list(range(40))


def estimate(inlier_share: float, reprojection_error_px: float) -> CameraEstimate:
    none, long = torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, dtype=torch.long)
    T = torch.eye(4, dtype=torch.float64).repeat(4, 1, 1)
    noise = torch.full((4,), reprojection_error_px, dtype=torch.float64)
    return CameraEstimate(T, 100.0, 0.01, torch.ones(4, dtype=torch.bool), noise, inlier_share, none, long, none[:, :2])


def test_the_cameras_that_explain_more_win_and_of_equals_the_quieter():
    much, as_much_but_quiet, little = estimate(0.8, 0.3), estimate(0.79, 0.2), estimate(0.6, 0.01)
    assert best_of([little, much]) is much
    assert best_of([much, as_much_but_quiet, little]) is as_much_but_quiet


def test_same_clip_same_cameras(handheld, handheld_path):
    again = find(as_clip(handheld.frames.clone()))
    np.testing.assert_array_equal(again.T_world_camera, handheld_path.T_world_camera)
    assert again.focal_px == handheld_path.focal_px


def test_a_known_focal_length_is_kept_and_a_hint_is_corrected(handheld):
    true, few = float(handheld.K[0, 0]), handheld.frames[:10]
    assert find(as_clip(few), UserPriors(focal_px=1.1 * true)).focal_px == pytest.approx(1.1 * true)
    assert find(as_clip(few, focal_px=1.1 * true)).focal_px == pytest.approx(true, rel=0.05)


# Clips that are hard. Each gives a usable result, or says why it cannot and what to try.


@pytest.mark.parametrize(("camera", "says"), [("rotation", "only turns on the spot"), ("tripod", "does not move")])
def test_a_camera_in_one_place_gives_a_sphere_around_it_and_a_warning(camera, says, capsys):
    truth = make_clip(replace(CONFIG, camera=camera, num_frames=12, height=108, width=192))
    scene = GeometricPredictor()(as_clip(truth.frames))
    assert says in " ".join(capsys.readouterr().out.split())
    centres = scene.T_world_camera[:, :3, 3]
    torch.testing.assert_close(centres, torch.zeros_like(centres), atol=1e-6, rtol=0)
    dense = scene.points.xyz[scene.points.frame >= 0]
    assert len(dense) > 10_000
    # Lifted to the sphere: every point lies at the same distance.
    torch.testing.assert_close(dense.norm(dim=1), dense.norm(dim=1).median().expand(len(dense)), rtol=2e-3, atol=0)
    turned = scene.T_world_camera[0, :3, :3].T @ scene.T_world_camera[-1, :3, :3]
    true = truth.T_world_camera[0, :3, :3].T @ truth.T_world_camera[-1, :3, :3]
    torch.testing.assert_close(turned, true, atol=4e-3, rtol=0)


def test_almost_no_texture_gives_rough_cameras():
    truth = make_clip(replace(CONFIG, num_frames=8, contrast=0.0, movers=0))
    ate, focal = errors(find(as_clip(truth.frames)), truth)
    assert ate < 5
    assert focal < 10


def test_cameras_do_not_follow_an_object_that_covers_more_than_half_of_the_image(capsys):
    truth = make_clip(replace(CONFIG, num_frames=20, movers=1, mover_size=2.2, seed=4))
    assert 0.55 < float(truth.dynamic_mask.float().mean()) < 0.8
    path = find(as_clip(truth.frames))
    ate, focal = errors(path, truth)
    assert ate < 0.5
    assert focal < 2
    assert path.background_verified
    assert "of what was followed; the rest moves by itself" in " ".join(capsys.readouterr().out.split())


def test_where_no_motion_is_surely_behind_the_others_the_user_is_warned(monkeypatch, capsys):
    monkeypatch.setattr(cameras, "background_cameras", lambda *given: None)
    truth = make_clip(replace(CONFIG, num_frames=12, movers=1, mover_size=2.2, seed=4))
    path = find(as_clip(truth.frames))
    assert np.isfinite(path.T_world_camera).all()
    assert not path.background_verified
    assert "of what was followed and may be wrong" in " ".join(capsys.readouterr().out.split())


def test_a_cut_in_the_middle_is_named_with_its_time(handheld):
    frames = torch.cat((handheld.frames[:10], make_clip(replace(CONFIG, num_frames=10, seed=9)).frames))
    with pytest.raises(PredictionError, match=r"2 shots .*0.00 to 0.90 s \(10 frames\), 1.00 to .*--video.s"):
        find(as_clip(frames))


def test_a_duplicated_frame_stands_where_its_twin_stands(handheld):
    frames = [*range(9), *range(8, 16)]
    path = find(as_clip(handheld.frames[frames]))
    assert errors(path, handheld, frames)[0] < 0.5
    step = np.linalg.norm(np.diff(path.T_world_camera[:, :3, 3], axis=0), axis=1)
    assert step[8] == 0


def test_a_cut_is_named_by_the_frame_of_the_clip_also_behind_a_repeated_one(handheld):
    other = make_clip(replace(CONFIG, num_frames=10, seed=9)).frames
    frames = torch.cat((handheld.frames[:5], handheld.frames[4:10], other))
    with pytest.raises(PredictionError, match=r"2 shots .*1.10 to "):
        find(as_clip(frames))


def test_frames_that_show_nothing_have_no_camera_and_spoil_no_other(handheld):
    frames = handheld.frames.clone()
    frames[0], frames[7] = 0, 255
    path = find(as_clip(frames))
    assert path.registered.tolist() == [k not in (0, 7) for k in range(16)]
    T = torch.from_numpy(path.T_world_camera[path.registered])
    assert pose_errors(T, handheld.T_world_camera[torch.from_numpy(path.registered)].double()).ate_percent < 0.5


def test_dropped_frames_leave_a_longer_step(handheld):
    frames = [*range(7), *range(9, 16)]
    assert errors(find(as_clip(handheld.frames[frames])), handheld, frames)[0] < 0.5


def test_exposure_may_rise_by_two_stops():
    truth = make_clip(replace(CONFIG, exposure_drift=2.0))
    ate, focal = errors(find(as_clip(truth.frames)), truth)
    assert ate < 1.2  # 1.02 (0.2.0)
    assert focal < 4


def test_the_camera_may_roll_by_a_quarter_turn(monkeypatch):
    def rolling(rng, config, times):
        T = camera_path(rng, config, times)
        for k in range(len(T)):
            T[k, :3, :3] = T[k, :3, :3] @ rotation([0.0, 0.0, np.pi / 2 * k / (len(T) - 1)])
        return T

    monkeypatch.setattr(das3r_ns.synthetic.clip, "camera_path", rolling)
    truth = make_clip(replace(CONFIG, num_frames=24))
    path = find(as_clip(truth.frames))
    ate, focal = errors(path, truth)
    assert ate < 2
    assert focal < 4
    T = torch.from_numpy(path.T_world_camera)
    up = (geometry.invert(T[0]) @ T[-1])[:3, 1]
    assert float(up @ torch.tensor([-1.0, 0.0, 0.0], dtype=torch.float64)) > 0.9


@pytest.mark.parametrize("n", [12, pytest.param(300, marks=pytest.mark.slow)])
def test_short_and_long_clips(n):
    truth = make_clip(SyntheticConfig(num_frames=n, height=120, width=160, seed=3))
    assert errors(find(as_clip(truth.frames)), truth)[0] < 1


@pytest.mark.parametrize(
    ("focal_px", "inlier_share", "posed", "known", "beyond"),
    [
        (500, 0.9, True, None, True),  # 65 degrees across
        (60, 0.9, True, None, False),  # 159 degrees
        (3000, 0.9, True, None, False),  # 12 degrees
        (3000, 0.9, True, 3000.0, True),  # which the user knows
        (500, 0.3, True, None, False),
        (500, 0.9, False, None, False),
    ],
)
def test_features_are_saved_where_nearly_all_is_explained_by_a_usual_lens(focal_px, inlier_share, posed, known, beyond):
    flow = replace(estimate(inlier_share, 0.2), focal_px=float(focal_px), pose_known=torch.tensor([True] * 3 + [posed]))
    assert cameras._beyond_doubt(flow, (480, 640), FocalKnowledge(known=known)) is beyond


def test_another_focal_length_that_explains_nearly_as_much_is_a_doubt():
    taken, usual = replace(estimate(0.77, 0.1), focal_px=990.0), replace(estimate(0.72, 0.1), focal_px=560.0)
    doubt = undecided_focal(taken, [usual, taken])
    assert doubt is not None
    assert "560 instead of 990 px" in doubt
    assert "72 and 77 %" in doubt
    assert undecided_focal(taken, [replace(usual, focal_px=900.0), taken]) is None  # about the same lens
    assert undecided_focal(taken, [replace(usual, inlier_share=0.5), taken]) is None  # explains much less


def test_of_two_lenses_that_explain_about_alike_the_usual_one_is_taken():
    size, free = (288, 512), FocalKnowledge()
    narrow, usual = replace(estimate(0.77, 0.1), focal_px=993.0), replace(estimate(0.73, 0.1), focal_px=297.0)
    wider = replace(estimate(0.72, 0.1), focal_px=400.0)
    assert usual_lens_first(narrow, [wider, usual, narrow], size, free) is usual  # explains most of the usual ones
    assert usual_lens_first(narrow, [narrow], size, free) is narrow
    assert usual_lens_first(narrow, [narrow, usual], size, FocalKnowledge(known=993.0)) is narrow
    assert usual_lens_first(narrow, [narrow, replace(usual, inlier_share=0.6)], size, free) is narrow  # explains less
    assert usual_lens_first(wider, [replace(usual, focal_px=300.0, inlier_share=0.72), wider], size, free) is wider
    barely = replace(narrow, focal_px=720.0)  # 39 degrees, against 43
    assert usual_lens_first(barely, [replace(usual, focal_px=650.0), barely], size, free) is barely  # one lens
