"""Kinds of cuts, and what is taken for one: edits of two rendered clips, whose frames are known to belong together."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch

from das3r_ns.predictor.base import PredictionError
from das3r_ns.predictor.flow.matches import ClipMatcher
from das3r_ns.predictor.preprocess.shots import SLOW_SHARE, Shots, _at_rest, check_one_shot, find_shots
from das3r_ns.synthetic import SyntheticConfig, make_clip
from das3r_ns.video.clip import Clip

N = 20
FPS = 15.0

Frames = list[np.ndarray]


@pytest.fixture(scope="module")
def first() -> Frames:
    clip = make_clip(SyntheticConfig(num_frames=N, height=144, width=256, seed=3))
    return [frame.numpy() for frame in clip.frames]


@pytest.fixture(scope="module")
def second() -> Frames:
    clip = make_clip(SyntheticConfig(num_frames=N, height=144, width=256, camera="orbit", seed=11))
    # Rendered rooms are of much the same colours; two shots of a film seldom are.
    return [np.clip(frame.numpy() * np.array([0.45, 0.8, 1.2]), 0, 255).astype(np.uint8) for frame in clip.frames]


def shots_of(frames: Frames) -> Shots:
    matcher = ClipMatcher(lambda i: frames[i], "sift")
    return find_shots(lambda i: frames[i], len(frames), matcher, FPS)


def mix(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    return np.round((1 - share) * a + share * b).astype(np.uint8)


def hard_cut(a: Frames, b: Frames) -> Frames:
    return a[:12] + b[:12]


def cross_fade(a: Frames, b: Frames, length: int = 8) -> Frames:
    fade = [mix(a[10 + k], b[k], (k + 1) / (length + 1)) for k in range(length)]
    return a[:10] + fade + b[length:]


def through(level: int) -> Callable[[Frames, Frames], Frames]:
    def edit(a: Frames, b: Frames) -> Frames:
        plain = np.full_like(a[0], level)
        out = [mix(a[8 + k], plain, (k + 1) / 4) for k in range(4)]
        back = [mix(plain, b[k], k / 4) for k in range(4)]
        return a[:8] + out + [plain] + back + b[4:16]

    return edit


def wipe(a: Frames, b: Frames, length: int = 8) -> Frames:
    rows = []
    for k in range(length):
        edge = round((k + 1) / (length + 1) * a[0].shape[1])
        rows.append(np.concatenate((b[k][:, :edge], a[10 + k][:, edge:]), axis=1))
    return a[:10] + rows + b[length:]


def cut_to_a_still(a: Frames, b: Frames) -> Frames:
    return a[:12] + [b[5]] * 8


@pytest.mark.parametrize(
    ("edit", "before", "after"),
    [
        (hard_cut, 12, 12),
        (cross_fade, 18, 10),
        (through(0), 12, 13),
        (through(255), 12, 13),
        (wipe, 18, 10),
        (cut_to_a_still, 12, 12),
    ],
    ids=["hard cut", "cross-fade", "through black", "through white", "wipe", "cut to a still"],
)
def test_cuts_are_found_where_they_are(first: Frames, second: Frames, edit, before: int, after: int):
    """The first shot ends before frame `before`, the second begins at `after` or later, and little is given away."""
    found = shots_of(edit(first, second))
    assert len(found.shots) == 2
    assert found.shots[0][-1] < before
    assert found.shots[1][0] >= after
    assert len(found.shots[0]) >= 7
    assert len(found.shots[1]) >= 7


def test_a_cut_away_and_back_makes_three(first: Frames, second: Frames):
    found = shots_of(first[:8] + second[:14] + first[8:14])
    assert [(shot[0], shot[-1]) for shot in found.shots] == [(0, 7), (8, 21), (22, 27)]
    assert found.longest == 1


def flash(a: Frames) -> Frames:
    white = np.full_like(a[9], 255)
    return [*a[:9], mix(a[9], white, 0.9), white, *a[11:]]


def exposure_jump(a: Frames) -> Frames:
    return a[:9] + [np.clip(frame * 1.8, 0, 255).astype(np.uint8) for frame in a[9:]]


def graded(a: Frames) -> Frames:
    return a[:9] + [cv2.cvtColor(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) for f in a[9:]]


def blurred(a: Frames) -> Frames:
    return a[:8] + [cv2.blur(frame, (41, 1)) for frame in a[8:12]] + a[12:]


def dropped_second(a: Frames) -> Frames:
    return a[:6] + a[13:]


def frozen(a: Frames) -> Frames:
    return a[:8] + [a[8]] * 7 + a[9:]


def black_frames(a: Frames) -> Frames:
    return a[:9] + [np.zeros_like(a[0])] * 3 + a[12:]


def passer_by(a: Frames) -> Frames:
    rng = np.random.default_rng(0)
    coat = cv2.resize(rng.integers(0, 255, (20, 30, 3), np.uint8), (230, 144), interpolation=cv2.INTER_CUBIC)
    frames = [frame.copy() for frame in a]
    for k, left in enumerate((-150, 10, 180)):
        x0, x1 = max(left, 0), min(left + 230, 256)
        frames[9 + k][:, x0:x1] = coat[:, x0 - left : x1 - left]
    return frames


def whip_pan(a: Frames) -> Frames:
    """From one end of a wide still to the other within five blurred frames."""
    wide = np.concatenate([cv2.resize(a[0], (512, 288)), cv2.flip(cv2.resize(a[-1], (512, 288)), -1)], axis=1)
    position = [0, 4, 8, 12, 16, 20, 24, 28, 150, 290, 430, 570, 700, 704, 708, 712, 716, 720, 724, 728]
    frames = []
    for k, left in enumerate(position):
        view = wide[72:216, left : left + 256]
        fast = k > 0 and position[k] - position[k - 1] > 50
        frames.append(cv2.blur(view, (101, 1)) if fast else view.copy())
    return frames


NOT_CUTS = {
    "flash": flash,
    "jump in exposure": exposure_jump,
    "grey from here on": graded,
    "blur": blurred,
    "dropped second": dropped_second,
    "frozen": frozen,
    "black frames": black_frames,
    "passer-by": passer_by,
    "whip pan": whip_pan,
    "every sixth frame": lambda a: a[::6],
}


@pytest.mark.parametrize("name", NOT_CUTS)
def test_what_is_no_cut_is_taken_for_none(first: Frames, name: str):
    frames = NOT_CUTS[name](first)
    assert shots_of(frames).shots == (tuple(range(len(frames))),)


def test_frames_that_share_nothing_are_too_far_apart_not_cut(first: Frames, second: Frames):
    """Of ever new places, one frame each: nobody can tell a cut from a fast ride."""
    rng = np.random.default_rng(1)
    frames = [cv2.resize(rng.integers(0, 255, (12, 20, 3), np.uint8), (256, 144)) for _ in range(8)]
    found = shots_of(frames)
    assert len(found.shots) == 1
    assert len(found.gaps) == 7
    assert not found.gaps[0].blurred


@pytest.mark.parametrize("after", [4, 5])
def test_a_camera_rests_at_a_cut_if_it_moves_in_no_step_beside_it(after: int):
    def at_rest(*moving: int) -> bool:
        moved = np.full(10, SLOW_SHARE / 2)
        moved[[after, *moving]] = 1.0  # the step across the cut says nothing
        return _at_rest(moved, after - 1, after)

    assert at_rest()
    assert at_rest(after - 3, after + 3)
    for beside in (after - 2, after - 1, after + 1, after + 2):
        assert not at_rest(beside)


def test_steps_before_the_first_frame_are_none():
    assert _at_rest(np.array([9.0, 9.0, 0.0, 0.0]), 0, 1)
    assert not _at_rest(np.array([9.0, 9.0]), 0, 1)  # no step is left to judge by


def test_several_shots_are_an_error_that_names_them(first: Frames, second: Frames):
    frames = hard_cut(first, second)
    clip = Clip(torch.from_numpy(np.stack(frames)), FPS, tuple(map(str, range(len(frames)))))
    with pytest.raises(PredictionError, match=r"2 shots.*0.00 to 0.73 s \(12 frames\).*--video.start-s"):
        check_one_shot(clip, ClipMatcher(lambda i: frames[i], "sift"))


def test_fast_motion_needs_more_frames_to_be_two_shots():
    """Runs of a few frames that only matches join, and a step that even they cannot follow, in other colours."""
    from das3r_ns.predictor.preprocess.shots import _judged

    colours = [np.array([1.0, 0.0])] * 5 + [np.array([0.0, 1.0])] * 5
    small = [np.zeros((8, 8, 3), np.uint8)] * 10
    parts, moved = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], np.full(10, 0.02)
    followed, lost = np.full(10, 0.9), np.full(10, 0.1)
    assert _judged(parts, small, colours, followed, moved)[0] == [1]
    cuts, gaps = _judged(parts, small, colours, lost, moved)
    assert cuts == []
    assert gaps[0].frame == 5
