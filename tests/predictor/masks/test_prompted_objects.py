"""What becomes of objects that the user names: found by a segmenter that sees colours, followed, and moving or not."""

import numpy as np
import pytest

from das3r_ns.predictor.base import MovingPrompt
from das3r_ns.predictor.flow.clip_flow import FlowBetweenFrames
from das3r_ns.predictor.masks.decide import decide_dynamic_prob
from das3r_ns.predictor.masks.prompts.base import Instance, Words
from das3r_ns.predictor.masks.prompts.objects import PromptedObjects, moves

SIZE = (30, 60)
N = 12
RED, BLUE, GREEN = (220, 30, 30), (30, 30, 220), (30, 220, 30)
COLOURS = {"person": RED, "dog": BLUE}


def image(i: int) -> np.ndarray:
    """Twice as large as the maps. A person (red) walks 2 map pixels a frame for the first 6 frames, then rests; a dog
    (blue) stands still; a leaf (green) moves and is none of them."""
    out = np.full((60, 120, 3), 110, np.uint8)
    left = 2 * (4 + 2 * min(i, 6))
    out[10:30, left : left + 20] = RED
    out[40:56, 80:100] = BLUE
    out[2:8, 100:110] = GREEN
    return out


class SeesColours:
    """Satisfies `Segmenter`; overlooks the person in the frames `blind`."""

    def __init__(self, blind: tuple[int, ...] = (), twice: bool = False) -> None:
        self.blind, self.twice, self.calls = blind, twice, 0

    def __call__(self, image, prompts):
        found, frame = [], self.calls
        self.calls += 1
        for prompt in prompts:
            assert isinstance(prompt, Words)
            mask = (image == COLOURS.get(prompt.text, (1, 2, 3))).all(axis=-1)
            if mask.any() and not (prompt.text == "person" and frame in self.blind):
                found.append(Instance(mask, 0.9, prompt.text))
                if self.twice:
                    found.append(Instance(mask, 0.4, "dog"))
        return found


def flow() -> FlowBetweenFrames:
    def between(a, b):
        """Of the person, from the frames alone."""
        out = np.zeros((*SIZE, 2), np.float32)
        red = (np.abs(a.astype(int) - RED).sum(axis=-1) < 60) if a.shape[:2] == SIZE else None
        assert red is not None
        columns = [np.flatnonzero((np.abs(f.astype(int) - RED).sum(axis=-1) < 60).any(axis=0)) for f in (a, b)]
        if all(len(c) for c in columns):
            out[red, 0] = columns[1][0] - columns[0][0]
        return out

    return FlowBetweenFrames(lambda i: image(i)[::2, ::2], SIZE, between)


def motion() -> np.ndarray:
    """The front half of the person while it walks, and the leaf."""
    out = np.full((N, *SIZE), 0.02, np.float32)
    for i in range(N):
        left = 4 + 2 * min(i, 6)
        out[i, 5:15, left + 4 : left + 10] = 0.9 if i < 6 else 0.1
        out[i, 1:4, 50:55] = 0.8
    return out


def objects_in(mode: str = "add", classes: tuple[str, ...] = ("person", "dog"), **segmenter):
    stage = PromptedObjects(SeesColours(**segmenter), MovingPrompt(classes, mode))
    return stage(motion(), image, flow()), stage


def share_of(found: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Of the map pixels of a colour, in each frame, how many move."""
    masks = [(image(i)[::2, ::2] == colour).all(axis=-1) for i in range(N)]
    return np.array([(found[i][mask] > 0.5).mean() for i, mask in enumerate(masks)])


def test_an_object_that_moves_at_some_time_moves_wholly_and_at_all_times_and_one_that_stands_still_does_not():
    found, stage = objects_in()
    assert share_of(found, RED).min() == 1
    assert share_of(found, BLUE).max() == 0
    assert share_of(found, GREEN).min() == 1  # motion decides, the class helps
    np.testing.assert_array_equal(found[:, 16:19], motion()[:, 16:19])
    assert stage.record == {
        "person": {"frames": N, "objects": 1, "moving": 1},
        "dog": {"frames": N, "objects": 1, "moving": 0},
    }


def test_limit_leaves_what_moves_and_was_not_named_and_always_takes_what_stands_still():
    limited, _ = objects_in("limit")
    assert share_of(limited, RED).min() == 1
    assert share_of(limited, GREEN).max() == 0
    assert share_of(limited, BLUE).max() == 0
    everything, _ = objects_in("always")
    assert min(share_of(everything, colour).min() for colour in (RED, BLUE, GREEN)) == 1


def test_what_moves_of_an_object_that_stands_still_moves_under_limit():
    stage = PromptedObjects(SeesColours(), MovingPrompt(("dog",), "limit"))
    waves = np.zeros((N, *SIZE), np.float32)
    waves[:, 20:23, 40:44] = 0.9  # its tail
    found = stage(waves, image, flow())
    np.testing.assert_array_equal(found, waves)


def test_an_object_that_is_overlooked_for_some_frames_is_carried_there_and_is_the_same_one():
    found, stage = objects_in(blind=(3, 4, 5, 9))
    assert stage.record["person"] == {"frames": N, "objects": 1, "moving": 1}
    assert share_of(found, RED).min() > 0.9
    _, stage = objects_in(blind=(3, 4, 5, 6, 7, 8))  # too long: what comes after is another one, and rests
    assert stage.record["person"] == {"frames": 6, "objects": 2, "moving": 1}


def test_what_two_words_find_is_one_object():
    _, stage = objects_in(twice=True)
    assert [found["objects"] for found in stage.record.values()] == [1, 1]


def test_a_word_that_finds_nothing_is_said(capsys):
    found, _ = objects_in(classes=("cat", "person"))
    said = capsys.readouterr().out
    assert "cat was found in no frame" in said
    assert "--masks-prompt-threshold below 0.3" in said
    assert "person in 12 frames, 1 object, of which 1 move" in said
    assert share_of(found, RED).min() == 1
    found, _ = objects_in("limit", ("cat",))
    assert "nothing counts as moving" in capsys.readouterr().out
    assert found.max() == 0


def test_masks_that_are_decided_twice_ask_once(capsys):
    stage = PromptedObjects(SeesColours(), MovingPrompt(("person",)))
    first = stage(motion(), image, flow())
    capsys.readouterr()
    np.testing.assert_array_equal(stage(motion(), image, flow()), first)
    assert stage.segmenter.calls == N
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([0.1] * 9, False),
        ([0.1] * 4 + [0.9] + [0.1] * 4, False),
        ([0.1] * 6 + [0.7] * 3, True),
        ([0.6], True),
        ([0.2], False),
    ],
)
def test_a_single_frame_of_motion_is_a_false_alarm(frames, expected):
    assert moves(np.array(frames, np.float32)) is expected


def test_the_stage_stands_after_the_refiner_and_before_the_user_masks():
    from test_decide import CONFIG, H, W, inputs
    from test_decide import N as FRAMES

    seen = []

    def refiner(dynamic_prob, *_):
        return np.full_like(dynamic_prob, 0.7)

    class Stage(PromptedObjects):
        def __call__(self, dynamic_prob, image, flow):
            seen.append((float(dynamic_prob.mean()), image(0).shape))
            return np.full_like(dynamic_prob, 0.6)

    static = np.ones((FRAMES, H, W), bool)
    given = inputs(user_static=static, user_given=np.array([True, False, False, False]))
    stage = Stage(SeesColours(), MovingPrompt(("person",)))
    found = decide_dynamic_prob(given, CONFIG, refiner, stage).dynamic_prob
    assert seen == [(pytest.approx(0.7, abs=0.05), (H, W, 3))]
    assert found[0].max() == 0
    assert found[1:].min() == pytest.approx(0.6)
