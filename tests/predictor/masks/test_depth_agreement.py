"""Motion from depth that comes from outside, on a wall and a card that slides before it along the epipolar lines."""

import cv2
import numpy as np
import pytest

from das3r_ns.predictor.depth.posed_flow import PosedFlow
from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.masks.config import MaskConfig
from das3r_ns.predictor.masks.decide import MaskInputs, decide_dynamic_prob
from das3r_ns.predictor.masks.depth_agreement import MIN_SHARE, MIN_VIEWS, _votes, depth_agreement
from das3r_ns.predictor.masks.evidence import Evidence
from das3r_ns.predictor.masks.free_space import frames_to_ask
from das3r_ns.predictor.masks.outside_depth import MAX_STD, MIN_STD, OutsideDepth, clean_outside_depth

NUM_FRAMES, HEIGHT, WIDTH, FOCAL = 16, 60, 80, 100.0
STEP, SPEED = 0.05, 0.04
"""Metres that the camera and the card go to the right between frames."""
WALL, CARD = 4.0, 2.5


class World:
    """The camera slides past a wall; before it a card slides the same way, so that its flow is that of a point at rest
    at another depth."""

    def __init__(self, speed: float = SPEED) -> None:
        rng = np.random.default_rng(0)
        textures = cv2.resize(rng.integers(60, 200, (80, 120, 3)).astype(np.uint8), (480, 320)).reshape(2, 160, 480, 3)
        v, u = np.mgrid[:HEIGHT, :WIDTH] + 0.5
        x, y = (u - WIDTH / 2) / FOCAL, (v - HEIGHT / 2) / FOCAL
        i = np.arange(NUM_FRAMES)[:, None, None]
        at_card = x * CARD + STEP * i - speed * i
        self.card = (np.abs(at_card) < 0.22) & (np.abs(y * CARD) < 0.35)
        self.depth = np.where(self.card, CARD, WALL).astype(np.float32)
        across = np.where(self.card, at_card, x * WALL + STEP * i)
        down = np.where(self.card, y * CARD, y * WALL)
        self.images = textures[
            self.card.astype(int), np.floor(40 * down + 80).astype(int), np.floor(40 * across + 160).astype(int)
        ]
        shift = -FOCAL * STEP / self.depth + FOCAL * speed / CARD * self.card

        def flow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            first, second = int(a[0, 0, 0]), int(b[0, 0, 0])
            along = (second - first) * shift[first]
            return np.stack((along, 0 * along), axis=-1).astype(np.float32)

        T = np.tile(np.eye(4), (NUM_FRAMES, 1, 1))
        T[:, 0, 3] = STEP * np.arange(NUM_FRAMES)
        K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
        numbers = [np.full((HEIGHT, WIDTH, 3), k, np.uint8) for k in range(NUM_FRAMES)]
        between = FlowBetweenFrames(lambda k: numbers[k], (HEIGHT, WIDTH), flow)
        self.posed = PosedFlow(between, T, np.tile(K, (NUM_FRAMES, 1, 1)), np.ones(NUM_FRAMES, bool))

    def overlap(self, found: np.ndarray) -> float:
        return float((found & self.card).sum() / (found | self.card).sum())

    def gone(self, depth: np.ndarray, confidence: np.ndarray | None = None) -> np.ndarray:
        outside = clean_outside_depth(self.posed, depth, confidence)
        return depth_agreement(self.posed, outside, lambda k: self.images[k], MaskConfig()).gone > 0.5

    def noisy(self, noise: float, outliers: float) -> np.ndarray:
        rng = np.random.default_rng(1)
        depth = self.depth * np.exp(noise * rng.normal(size=self.depth.shape))
        wrong = rng.random(depth.shape) < outliers
        depth[wrong] = rng.uniform(1.5, 8, wrong.sum())
        return depth.astype(np.float32)


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.mark.parametrize(("noise", "outliers", "least"), [(0.0, 0.0, 0.95), (0.05, 0.1, 0.9)])
def test_motion_along_epipolar_lines_is_found_with_its_outline(world, noise, outliers, least):
    assert world.overlap(world.gone(world.noisy(noise, outliers))) > least


def test_what_stands_still_is_left_alone():
    still = World(speed=0.0)
    assert still.gone(still.noisy(0.05, 0.1)).mean() < 0.002


def test_how_exact_depth_is_is_read_off_how_frames_agree_by_level_of_confidence(world):
    rng = np.random.default_rng(2)
    sure = np.broadcast_to(np.arange(HEIGHT)[:, None] < HEIGHT // 2, world.depth.shape)
    bend = np.where(sure, 0.03, 0.1)[:, ::10, ::10] * rng.normal(size=(NUM_FRAMES, HEIGHT // 10, WIDTH // 10))
    depth = world.depth * np.exp(bend.repeat(10, axis=1).repeat(10, axis=2))
    std = clean_outside_depth(world.posed, depth.astype(np.float32), np.where(sure, 9.0, 2.0).astype(np.float32)).std
    assert std[sure].mean() == pytest.approx(0.03, rel=0.35)
    assert std[~sure].mean() == pytest.approx(0.1, rel=0.35)
    assert clean_outside_depth(world.posed, world.depth).std.max() < 2 * MIN_STD


def test_a_depth_that_frames_do_not_agree_about_says_nothing(world):
    rng = np.random.default_rng(3)
    scales = np.exp(0.5 * rng.normal(size=(NUM_FRAMES, 1, 1)))
    outside = clean_outside_depth(world.posed, (world.depth * scales).astype(np.float32))
    assert outside.std.min() > MAX_STD
    assert not outside.tells
    found = depth_agreement(world.posed, outside, lambda k: world.images[k], MaskConfig())
    assert found.certain.max() == 0


def test_depth_from_outside_has_the_last_word_over_flow_and_refiner(world):
    evidence = Evidence.empty(NUM_FRAMES, (HEIGHT, WIDTH))  # flow has seen nothing move
    evidence.weight[:] = 1.0
    ones = np.ones_like(world.depth)
    inputs = MaskInputs(
        world.posed, world.depth, ones, lambda k: world.images[k], lambda k: world.images[k], evidence,
        prior_depth=world.noisy(0.02, 0.05),
    )  # fmt: skip

    def all_moves(dynamic_prob, image, flow, doubt):
        return ones.copy()

    found = decide_dynamic_prob(inputs, MaskConfig(refiner="none", colour_contrast=0.0, depth_contrast=0.0), all_moves)
    inner = found.dynamic_prob[2:-2, 3:-3, 10:-10] > 0.5
    assert (inner & world.card[2:-2, 3:-3, 10:-10]).sum() / (inner | world.card[2:-2, 3:-3, 10:-10]).sum() > 0.8


def test_the_share_of_the_frames_that_tell_decides_not_their_number_alone():
    n, h, w, middle = 120, 8, 12, 60
    asked = frames_to_ask(middle, n)
    few = int(np.ceil(MIN_SHARE * len(asked))) - 1
    assert few >= MIN_VIEWS  # else the number alone would decide
    K = np.array([[10.0, 0, w / 2], [0, 10.0, h / 2], [0, 0, 1]])
    tripod = PosedFlow(World().posed.flow, np.tile(np.eye(4), (n, 1, 1)), np.tile(K, (n, 1, 1)), np.ones(n, bool))
    inverse = np.full((n, h, w), 0.5, np.float32)
    inverse[asked[:few], :, : w // 2] = 0.1
    inverse[asked[: few + 1], :, w // 2 :] = 0.1
    outside = OutsideDepth(inverse, np.full_like(inverse, MIN_STD))
    gone, there = np.moveaxis(_votes(tripod, outside, np.zeros((n, h, w, 3), np.uint8), middle), -1, 0)
    assert (gone[4, 2], there[4, 2]) == (0, 1)
    assert (gone[4, -3], there[4, -3]) == (1, 0)
