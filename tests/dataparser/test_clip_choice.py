"""How many frames are read, and of which shot."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from fakes import write_images

from das3r_ns.dataparser import clip_choice
from das3r_ns.dataparser.clip_choice import choose_shot, frames_needed, with_frame_budget
from das3r_ns.predictor.base import UserPriors
from das3r_ns.predictor.preprocess import shots
from das3r_ns.video.clip import Clip, digest, read_clip
from das3r_ns.video.config import VideoConfig


def test_a_step_of_twice_what_is_followed_needs_twice_the_frames():
    assert frames_needed(np.array([0.0] + 100 * [0.01])) == 21
    assert frames_needed(np.array([0.0] + 100 * [0.05])) == 101
    assert frames_needed(np.array([0.0] + 100 * [0.0])) == 1
    # Never more than there are, also where motion was too fast to be measured.
    assert frames_needed(np.array([0.0] + 100 * [np.nan])) == 101


def of_motion(monkeypatch, frames: int, step: float) -> None:
    look = Clip(torch.zeros(frames, 2, 2, 3, dtype=torch.uint8), 30.0, tuple(map(str, range(frames))))
    monkeypatch.setattr(clip_choice, "read_clip", lambda path, config: look)
    monkeypatch.setattr(shots, "motion_between_frames", lambda image, n: np.array([0.0] + (n - 1) * [step]))


@pytest.mark.parametrize(
    ("frames", "step", "expected"),
    [(100, 0.05, 150), (900, 0.005, 150), (900, 0.02, 361), (900, 0.1, 600)],
    ids=["short", "slow", "fast", "bounded"],
)
def test_frames_are_as_many_as_the_motion_needs(monkeypatch, capsys, frames: int, step: float, expected: int):
    of_motion(monkeypatch, frames, step)
    video = with_frame_budget(Path("clip.mp4"), VideoConfig())
    assert video.max_frames == expected
    said = capsys.readouterr().out
    assert (f"{expected} frames are read instead of 150" in said) == (expected > 150)
    assert ("900 or more" in said) == (expected == 600)


def test_a_number_that_was_asked_for_stays():
    for number in (40, 150, None):
        assert with_frame_budget(Path("nowhere.mp4"), VideoConfig(max_frames=number)).max_frames == number


@pytest.fixture(scope="module")
def two_shots() -> Clip:
    """Twelve frames over one textured plane, eight over another of other colours."""
    rng = np.random.default_rng(0)

    def pan(count: int, tint: tuple[float, float, float]) -> list[np.ndarray]:
        layers = [cv2.resize(rng.integers(0, 255, (144 // s, 400 // s, 3), np.uint8), (400, 144)) for s in (6, 18)]
        wide = (np.mean(layers, axis=0) * np.array(tint)).astype(np.uint8)
        return [wide[:, 4 * k : 4 * k + 256].copy() for k in range(count)]

    frames = pan(12, (1, 0.9, 0.4)) + pan(8, (0.3, 0.6, 1))
    return Clip(
        torch.from_numpy(np.stack(frames)),
        10.0,
        tuple(f"frame_{k + 1:05d}" for k in range(20)),
        times_s=tuple(k / 10 for k in range(20)),
    )


def test_of_two_shots_the_longest_is_taken_and_said(two_shots: Clip, capsys):
    mask = torch.arange(20.0)[:, None, None].expand(20, 144, 256)
    clip, known, which = choose_shot(two_shots, UserPriors(dynamic_mask=mask), VideoConfig(), "sift")
    assert clip.names == two_shots.names[:12]
    assert known.dynamic_mask is not None
    assert known.dynamic_mask[:, 0, 0].tolist() == list(range(12))
    assert which == {"number": 1, "of": 2}
    said = " ".join(capsys.readouterr().out.split())
    assert "2 shots" in said
    assert "1: 0.00 to 1.10 s, 12 frames; 2: 1.20 to 1.90 s, 8 frames" in said
    assert "--video.shot" in said


def test_another_shot_is_taken_when_asked_for(two_shots: Clip):
    clip, _, which = choose_shot(two_shots, UserPriors(), VideoConfig(shot=2), "sift")
    assert clip.names == two_shots.names[12:]
    assert which == {"number": 2, "of": 2}
    assert clip.fps == pytest.approx(10.0)


def test_a_shot_that_is_not_there_is_an_error(two_shots: Clip):
    with pytest.raises(ValueError, match=r"--video.shot 3 is not there: the clip has 2 shots \(1: 0.00 to"):
        choose_shot(two_shots, UserPriors(), VideoConfig(shot=3), "sift")


def test_given_cameras_join_shots(two_shots: Clip):
    T, K = torch.eye(4).expand(20, 4, 4), torch.eye(3).expand(20, 3, 3)
    clip, _, which = choose_shot(two_shots, UserPriors(T_world_camera=T, K=K), VideoConfig(), "sift")
    assert clip is two_shots
    assert which is None


def test_the_shot_is_part_of_what_a_scene_is_found_by(tmp_path: Path):
    for k in range(3):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.full((40, 40, 3), 40 * k, np.uint8))
    config = VideoConfig(max_frames=None)
    assert digest(tmp_path, config) == digest(tmp_path, replace(config, shot=None))
    assert digest(tmp_path, config) != digest(tmp_path, replace(config, shot=2))


def test_a_shot_too_short_to_be_posed_is_an_error_that_names_it(two_shots: Clip, monkeypatch):
    monkeypatch.setattr(clip_choice, "MIN_SHOT_FRAMES", 10)
    with pytest.raises(ValueError, match=r"shot 2 of 2 has 8 frames, and at least 10 are needed \(1: 0.00 to"):
        choose_shot(two_shots, UserPriors(), VideoConfig(shot=2), "sift")


@pytest.mark.parametrize(("count", "looks"), [(4, 0), (5, 1)])
def test_no_image_is_decoded_to_learn_that_there_are_few(tmp_path, monkeypatch, count, looks):
    folder = write_images(tmp_path / "shots", count)
    reads = []
    monkeypatch.setattr(clip_choice, "USUAL_FRAMES", 4)
    monkeypatch.setattr(clip_choice, "read_clip", lambda path, video: reads.append(video) or read_clip(path, video))
    assert with_frame_budget(folder, VideoConfig()).max_frames == 4
    assert len(reads) == looks
    assert with_frame_budget(folder, VideoConfig(every=2)).max_frames == 4
    assert len(reads) == looks  # every second of five is three
