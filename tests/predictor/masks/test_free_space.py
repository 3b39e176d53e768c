"""Objects that rest and go: what other frames see through, on a wall and a card whose depths are known."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from das3r_ns.predictor.depth.posed_flow import PosedFlow
from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.masks.free_space import add_free_space_violations, frames_to_ask

NUM_FRAMES, LEAVES = 20, 10
HEIGHT, WIDTH, FOCAL = 60, 80, 100.0
STEP = 0.05
"""The camera goes to the right, so that the wall moves by 1.25 pixels a frame and the card by 2.5."""
WALL, CARD = 4.0, 2.0


@dataclass
class Stage:
    """A card stands in front of a wall, and from frame LEAVES on it is gone."""

    leaves: int = LEAVES
    card_colour: tuple[int, int, int] = (220, 40, 40)
    depth: np.ndarray = field(init=False)
    confidence: np.ndarray = field(init=False)
    dynamic: np.ndarray = field(init=False)
    images: np.ndarray = field(init=False)
    card: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        texture = np.random.default_rng(0).integers(60, 200, (30, 60, 3)).astype(np.uint8)
        v, u = np.mgrid[:HEIGHT, :WIDTH] + 0.5
        self.card = np.zeros((NUM_FRAMES, HEIGHT, WIDTH), bool)
        self.images = np.empty((NUM_FRAMES, HEIGHT, WIDTH, 3), np.uint8)
        for i in range(NUM_FRAMES):
            x, y = ((side - length / 2) / FOCAL for side, length in ((u, WIDTH), (v, HEIGHT)))
            at_card = np.abs(x * CARD + STEP * i - 0.2) < 0.3, np.abs(y * CARD) < 0.35
            self.card[i] = at_card[0] & at_card[1] & (i < self.leaves)
            row = np.floor(10 * y * WALL + 15).astype(int)
            column = np.floor(10 * (x * WALL + STEP * i) + 20).astype(int)
            self.images[i] = np.where(self.card[i, ..., None], np.uint8(self.card_colour), texture[row, column])
        self.depth = np.where(self.card, CARD, WALL).astype(np.float32)
        self.confidence = np.full_like(self.depth, 50.0)
        self.dynamic = np.full_like(self.depth, 0.01)

    def posed(self) -> PosedFlow:
        numbers = [np.full((HEIGHT, WIDTH, 3), i, np.uint8) for i in range(NUM_FRAMES)]

        def flow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            i, j = int(a[0, 0, 0]), int(b[0, 0, 0])
            along = -FOCAL * STEP * (j - i) / self.depth[i]
            if j >= self.leaves:
                along[self.card[i]] = WIDTH  # leads out of the image
            return np.stack((along, np.zeros_like(along)), axis=-1)

        T = np.tile(np.eye(4), (NUM_FRAMES, 1, 1))
        T[:, 0, 3] = STEP * np.arange(NUM_FRAMES)
        K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
        between = FlowBetweenFrames(lambda i: numbers[i], (HEIGHT, WIDTH), flow)
        return PosedFlow(between, T, np.tile(K, (NUM_FRAMES, 1, 1)), np.ones(NUM_FRAMES, bool))

    def found(self, posed: PosedFlow | None = None, **options: float) -> np.ndarray:
        dynamic = self.dynamic.copy()
        config = MaskConfig(**options)  # pyright: ignore[reportArgumentType]
        add_free_space_violations(
            dynamic, posed or self.posed(), self.depth, self.confidence, lambda i: self.images[i], config
        )
        return dynamic


def test_a_card_that_goes_is_found_where_it_stood():
    stage = Stage()
    found = stage.found() > 0.5
    for i in range(LEAVES):
        both = np.count_nonzero(found[i] & stage.card[i]) / np.count_nonzero(found[i] | stage.card[i])
        assert both > 0.9
    assert found[LEAVES + 1 :].mean() < 0.01


def test_one_that_comes_is_found_like_one_that_goes():
    stage = Stage()
    backwards = Stage()
    for name in ("depth", "card", "images"):
        setattr(backwards, name, getattr(stage, name)[::-1].copy())
    posed = backwards.posed()
    posed.T_world_camera[:] = posed.T_world_camera[::-1].copy()
    found = backwards.found(PosedFlow(Back(stage), posed.T_world_camera, posed.K, posed.pose_known))
    np.testing.assert_allclose(found[::-1], stage.found(), atol=0.02)


class Back(FlowBetweenFrames):
    """Flow of the clip shown backwards."""

    def __init__(self, stage: Stage) -> None:
        self._forwards = stage.posed().flow
        self.map_size = self._forwards.map_size

    def __call__(self, source: int, target: int) -> np.ndarray:
        return self._forwards(NUM_FRAMES - 1 - source, NUM_FRAMES - 1 - target)


def test_what_never_moves_is_left_alone():
    stage = Stage(leaves=NUM_FRAMES)
    np.testing.assert_array_equal(stage.found(), stage.dynamic)


def test_what_looks_the_same_may_be_the_same_at_a_depth_that_is_wrong():
    stage = Stage()
    stage.images[:] = 128
    np.testing.assert_array_equal(stage.found(), stage.dynamic)


def test_what_is_near_in_depth_is_not_seen_through():
    stage = Stage()
    stage.depth[stage.card] = WALL * 0.95
    np.testing.assert_array_equal(stage.found(), stage.dynamic)


@pytest.mark.parametrize("frames", [slice(None, LEAVES), slice(LEAVES, None)])
def test_a_depth_that_is_not_believed_says_nothing(frames):
    stage = Stage()
    stage.confidence[frames] = 2.0
    np.testing.assert_array_equal(stage.found(), stage.dynamic)


def test_only_depths_that_are_believed_count_against_it():
    stage = Stage()
    stage.confidence[4:LEAVES] = 2.0  # of what frame 0 is compared with only those after LEAVES are left
    assert (stage.found(seen_through=0.9, memory=0.0)[0] > 0.5)[stage.card[0]].mean() > 0.9


def test_where_an_object_has_no_depth_it_is_filled():
    stage = Stage()
    hidden = stage.card & (np.arange(WIDTH) % 4 > 0)
    stage.confidence[hidden] = 2.0
    assert (stage.found()[:LEAVES] > 0.5)[hidden[:LEAVES]].mean() > 0.9


def test_what_moves_in_the_other_frames_has_no_depth_to_see_through_with():
    stage = Stage()
    stage.dynamic[LEAVES:] = 0.9
    np.testing.assert_array_equal(stage.found(), stage.dynamic)


def test_frames_that_disagree_about_most_of_the_image_have_a_wrong_pose_and_say_nothing_of_the_scene():
    stage = Stage(leaves=NUM_FRAMES)
    posed = stage.posed()
    posed.T_world_camera[LEAVES:, 2, 3] += 0.8  # all that they see lies 0.8 farther than it did
    np.testing.assert_array_equal(stage.found(posed), stage.dynamic)


def test_frames_without_a_pose_say_nothing_and_are_told_nothing():
    stage = Stage()
    posed = stage.posed()
    posed.pose_known[LEAVES:] = False
    np.testing.assert_array_equal(stage.found(posed), stage.dynamic)
    posed = stage.posed()
    posed.pose_known[3] = False
    found = stage.found(posed, memory=0.0)  # nor do its neighbours lend it anything
    assert found[3].max() < 0.5
    assert (found[4] > 0.5).any()


def test_a_share_that_must_see_through_can_be_asked_for():
    stage = Stage(leaves=16)  # four of twenty frames see the wall
    assert (stage.found(seen_through=0.15)[:16] > 0.5).any()
    np.testing.assert_array_equal(stage.found(seen_through=0.5), stage.dynamic)


def test_frames_near_and_far_are_asked():
    assert frames_to_ask(0, 8) == [4, 5, 6, 7]
    assert frames_to_ask(3, 5) == []
    asked = frames_to_ask(500, 1000)
    assert {496, 504, 492, 508, 484, 516, 0, 999} <= set(asked)
    assert len(asked) < 50
    assert min(abs(j - 500) for j in asked) == 4
