"""Several rigid motions in one clip: told apart, the one behind found by what hides it, cameras relative to it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from das3r_ns import geometry
from das3r_ns.evaluation.metrics.poses import pose_errors
from das3r_ns.predictor.cameras.sfm import FocalKnowledge, Tracks, background, background_cameras, follow_grid
from das3r_ns.predictor.cameras.sfm import motion_segmentation as motions_module
from das3r_ns.predictor.cameras.sfm.background import _untangled
from das3r_ns.predictor.cameras.sfm.bundle_adjustment import FocalPrior
from das3r_ns.predictor.cameras.sfm.focal import focal_prior
from das3r_ns.predictor.cameras.sfm.motion_segmentation import RigidMotion, motion_of, regrow, rigid_motions, same
from das3r_ns.predictor.cameras.sfm.normal_equations import State, invert
from das3r_ns.predictor.cameras.sfm.occlusion_order import count_occlusions, front_frames, labels, rearmost_motion
from das3r_ns.predictor.flow.flow_maps import round_trip_error
from das3r_ns.synthetic import SyntheticClip, SyntheticConfig, make_clip

ROWS, COLUMNS, DOWN, ACROSS = 6, 12, 8.0, 10.0
"""A grid of points in an image of 48 x 120 pixels."""


class TwoRooms:
    """Exact flow of one room in the left three fifths of the image, of another with cameras of its own beside it."""

    def __init__(self, left: SyntheticClip, right: SyntheticClip) -> None:
        self.clips, self.kept = (left, right), {}
        self.border = 3 * left.clean_depth.shape[2] // 5

    def one(self, i: int, j: int) -> np.ndarray:
        if (i, j) not in self.kept:
            flows = []
            for clip in self.clips:
                T, K = clip.T_world_camera.double(), clip.K.double()
                T_j_i = geometry.invert(T[j]) @ T[i]
                flows.append(geometry.rigid_flow(clip.clean_depth[i].double(), K, K, T_j_i)[0].numpy())
            flows[0][:, self.border :] = flows[1][:, self.border :]
            self.kept[i, j] = flows[0].astype(np.float32)
        return self.kept[i, j]

    def __call__(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        return self.one(i, j), round_trip_error(self.one(i, j), self.one(j, i))


@pytest.fixture(scope="module")
def rooms() -> tuple[SyntheticClip, SyntheticClip]:
    config = SyntheticConfig(num_frames=16, height=90, width=160, movers=0, seed=2)
    return make_clip(config), make_clip(replace(config, camera="orbit", seed=3))


@pytest.fixture(scope="module")
def tracks(rooms) -> Tracks:
    return follow_grid(TwoRooms(*rooms), len(rooms[0]), points=600)


@pytest.fixture(scope="module")
def prior(tracks) -> FocalPrior:
    return focal_prior(tracks, (90, 160), FocalKnowledge())


@pytest.fixture(scope="module")
def motions(tracks, prior) -> list[RigidMotion]:
    return rigid_motions(tracks, prior)


def on_the_left(tracks: Tracks) -> np.ndarray:
    return tracks.pixel[..., 0] < 3 * tracks.size[1] / 5


def assert_follows(motion: RigidMotion, tracks: Tracks, left: bool, truth: SyntheticClip) -> None:
    """Nearly all frames have a camera, that of the room, to which the points on its side belong, and no others."""
    assert motion.registered.sum() >= 15
    side = on_the_left(tracks) == left
    seen = tracks.weight.sum(axis=1) > 2
    assert motion.points[side & seen].mean() > 0.9
    assert motion.points[~side & seen].mean() < 0.1
    assert ate_percent(motion, truth) < 1


def ate_percent(motion: RigidMotion, truth: SyntheticClip) -> float:
    T, registered = torch.from_numpy(invert(motion.state.T_camera_world)), torch.from_numpy(motion.registered)
    return pose_errors(T[registered], truth.T_world_camera.double()[registered]).ate_percent


def test_two_rooms_in_one_image_are_two_motions_each_with_its_cameras(motions, tracks, rooms):
    assert len(motions) == 2
    assert_follows(motions[0], tracks, True, rooms[0])
    assert_follows(motions[1], tracks, False, rooms[1])
    np.testing.assert_array_equal(labels(motions)[motions[0].points & ~motions[1].points], 0)


def test_where_one_motion_explains_all_none_is_behind_it(rooms):
    assert background_cameras(follow_grid(TwoRooms(rooms[0], rooms[0]), 8, points=300), (90, 160)) is None


def without_growth(monkeypatch, module) -> list[np.ndarray]:
    """What growth would have started from: the frames known then, one entry a motion."""
    began = []

    def grow(tracks, start, registered, prior):
        began.append(registered)
        return motion_of(tracks, start.T_camera_world, start.focal, registered)

    monkeypatch.setattr(module, "grow_trusted", grow)
    return began


def test_a_motion_is_grown_again_from_frames_whose_own_points_follow_it(motions, tracks, prior, rooms, monkeypatch):
    # From frame 12 on no point of the left room follows its motion.
    lost = replace(motions[0], share=np.where(np.arange(16)[:, None] < 12, motions[0].share, 0))
    began = without_growth(monkeypatch, motions_module)
    regrow(tracks, [lost, motions[1]], 0, prior)
    np.testing.assert_array_equal(began[0], motions[0].registered & (np.arange(16) < 12))
    monkeypatch.undo()
    assert_follows(regrow(tracks, [lost, motions[1]], 0, prior), tracks, True, rooms[0])


def test_motions_are_followed_anew_through_frames_in_which_they_may_have_changed_places(
    motions, tracks, prior, rooms, monkeypatch
):
    tangled = np.arange(tracks.num_frames) >= 12
    began = without_growth(monkeypatch, background)
    _untangled(tracks, motions, tangled, prior)
    np.testing.assert_array_equal(began, [motion.registered & ~tangled for motion in motions])
    monkeypatch.undo()
    left, right = _untangled(tracks, motions, tangled, prior)
    assert_follows(left, tracks, True, rooms[0])
    assert_follows(right, tracks, False, rooms[1])


def test_motions_that_share_points_are_one(motions):
    part = replace(motions[0], share=np.where(np.arange(16)[:, None] < 4, motions[0].share, 0))
    assert same(motions[0], part)
    assert not same(*motions)


def passing_by() -> tuple[Tracks, list[RigidMotion]]:
    """A wall that shifts by -1 pixel from frame 0 to frame 1, and an object before it, four columns of points wide,
    that shifts by two columns: from columns 3-6 to columns 5-8."""
    u, v = np.meshgrid((np.arange(COLUMNS) + 0.5) * ACROSS, (np.arange(ROWS) + 0.5) * DOWN)
    pixel = np.stack((u, v), axis=-1).reshape(1, -1, 2).repeat(2, axis=0).astype(np.float32)
    column = np.tile(np.arange(COLUMNS), ROWS)
    mover = np.stack(((column >= 3) & (column <= 6), (column >= 5) & (column <= 8)))
    shift = np.where(mover, 2 * ACROSS, -1.0) * np.array([[1], [-1]])  # to the other frame
    observed = pixel[:, None] + np.stack((shift, np.zeros_like(shift)), axis=-1)[:, None]
    reached = np.round((observed[:, 0, :, 0] / ACROSS) - 0.5).astype(int)
    other = [(c >= low) & (c <= low + 3) for c, low in zip(reached, (5, 3))]  # under the object in the other frame
    seen = (mover | ~np.stack(other))[:, None].astype(np.float32)
    tracks = Tracks(
        np.arange(2), np.array([[1], [0]]), np.ones(1), pixel, observed.astype(np.float32), seen, seen, 2, (48, 120)
    )
    motions = []
    for own, step in ((~mover, -1.0), (mover, 2 * ACROSS)):
        T = np.tile(np.eye(4), (2, 1, 1))
        T[1, 0, 3] = step / 100  # pixels over focal length, at depth 1
        motions.append(RigidMotion(State(T, 100.0, np.ones((2, len(column)))), np.ones(2, bool), own.astype(float)))
    return tracks, motions


def test_what_an_object_passes_before_is_hidden_by_it():
    # In frame 1 the object newly covers columns 7 and 8, in frame 0 columns 3 and 4. Of the outer column, the points of
    # the first and of the last row have one neighbour that is wall, and do not count: 6 + 4 points each way.
    tracks, motions = passing_by()
    np.testing.assert_array_equal(count_occlusions(tracks, motions), [[[0, 10], [0, 0]], [[0, 10], [0, 0]]])


def test_nothing_is_said_between_frames_that_do_not_find_a_motion_where_it_should_be():
    tracks, motions = passing_by()
    lost = replace(tracks, observed=tracks.observed + np.float32(5.0))
    assert count_occlusions(lost, motions).sum() == 0


def test_the_motion_that_is_hidden_and_hides_little_is_the_rearmost():
    # Rows are hidden, columns hide. Motion 1 is hidden 300 times by the others and hides them 20 times.
    count = np.zeros((4, 3, 3), dtype=np.int64)
    count[0], count[2] = [[500, 15, 40], [200, 90, 50], [0, 5, 0]], [[0, 0, 0], [50, 0, 0], [0, 0, 0]]
    assert rearmost_motion(count) == 1
    count[3, 0, 1] = 100  # now 120 times of 420
    assert rearmost_motion(count) is None
    assert rearmost_motion(np.array([[[0, 49], [0, 0]]])) is None  # too few to say anything


def test_a_motion_is_in_front_around_frames_in_which_it_hides_more_than_it_is_hidden():
    count = np.zeros((12, 2, 2), dtype=np.int64)
    count[:6, 0, 1] = 20
    count[8, 1, 0] = 30
    # Three frames each way: frame 8 speaks for 5 to 11, but of frames 5 and earlier 20 a frame say otherwise.
    np.testing.assert_array_equal(np.flatnonzero(front_frames(count, 0)), [8, 9, 10, 11])
