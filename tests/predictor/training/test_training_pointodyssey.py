"""Labels from 3-D tracks, on a small set in PointOdyssey's published layout whose truth is known by construction.

The scene: a wall 4 m away and, in front of it at 2 m, a square that moves 4 cm to the right with each frame while the
camera moves up. Tracks sit on a grid on both.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from das3r_ns.predictor.training.data import labelling
from das3r_ns.predictor.training.data.labelling import LabelSettings, frame_numbers, label_sequence
from das3r_ns.predictor.training.data.pointodyssey import PointOdyssey, depth_path, label_path, rgb_path
from das3r_ns.predictor.training.data.prepare import PointOdysseyLabels, prepare
from das3r_ns.predictor.training.data.sources import UNKNOWN, NothingLeftError, Pair
from das3r_ns.predictor.training.data.tracks import Tracks, label_pixels, moved, pack, strides_of, unpack

HEIGHT, WIDTH, FOCAL, FRAMES = 54, 96, 100.0, 12
STEP_M = 0.04
SETTINGS = LabelSettings(max_stride=9, motion_threshold=0.005)


def square_left(frame: int) -> float:
    """Left edge of the square (0.5 m wide) in metres."""
    return -0.4 + STEP_M * frame


def in_square(frame: int) -> np.ndarray:
    """Pixels that see the square: u = 100 x / 2 + 48."""
    u = np.arange(WIDTH) + 0.5
    v = np.arange(HEIGHT) + 0.5
    x, y = (u - WIDTH / 2) / FOCAL * 2, (v - HEIGHT / 2) / FOCAL * 2 - 0.01 * frame
    inside_x = (x > square_left(frame)) & (x < square_left(frame) + 0.5)
    return ((y > -0.25) & (y < 0.25))[:, None] & inside_x


def write_sequence(folder: Path, jitter: float = 0.0) -> Path:
    """Twelve frames of the scene."""
    rng = np.random.default_rng(0)
    for kind in ("rgbs", "depths"):
        (folder / kind).mkdir(parents=True)
    wall = np.stack(np.meshgrid(np.linspace(-2.4, 2.4, 49), np.linspace(-1.6, 1.6, 33), [4.0]), -1).reshape(-1, 3)
    local = np.stack(np.meshgrid(np.linspace(0.01, 0.49, 13), np.linspace(-0.24, 0.24, 13), [2.0]), -1).reshape(-1, 3)
    K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    world, pixels, extrinsics = [], [], []
    for frame in range(FRAMES):
        T_camera_world = np.eye(4)
        T_camera_world[1, 3] = 0.01 * frame  # the camera moves up: y points down, so points move down
        points = np.concatenate([wall, local + np.array([square_left(frame), 0, 0])])
        points = points + jitter * rng.uniform(-1.0, 1.0, points.shape)
        camera = points @ T_camera_world[:3, :3].T + T_camera_world[:3, 3]
        projected = camera @ K.T
        world.append(points)
        pixels.append(projected[:, :2] / projected[:, 2:])
        extrinsics.append(T_camera_world)
        square = in_square(frame)
        depth = np.where(square, 2.0, 4.0)
        depth[:2] = 0  # the sky
        cv2.imwrite(str(depth_path(folder, frame)), np.round(depth / 1000 * 65535).astype(np.uint16))
        rgb = np.where(square[..., None], [40, 80, 200], rng.integers(0, 256, (HEIGHT, WIDTH, 3))).astype(np.uint8)
        cv2.imwrite(str(rgb_path(folder, frame)), rgb)
    everywhere = np.ones((FRAMES, len(world[0])), bool)
    save_annotations(
        folder,
        trajs_3d=np.stack(world).astype(np.float32),
        trajs_2d=np.stack(pixels).astype(np.float16),
        valids=everywhere,
        visibs=everywhere,
        intrinsics=np.tile(K, (FRAMES, 1, 1)).astype(np.float16),
        extrinsics=np.stack(extrinsics).astype(np.float32),
    )
    return folder


def save_annotations(folder: Path, **arrays: np.ndarray) -> None:
    np.savez_compressed(folder / "anno.npz", **arrays)


def change_annotations(folder: Path, **arrays: np.ndarray) -> None:
    with np.load(folder / "anno.npz") as stored:
        save_annotations(folder, **{**stored, **arrays})


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return write_sequence(tmp_path_factory.mktemp("pointodyssey") / "train" / "square")


@pytest.fixture
def sequence(original, tmp_path) -> Path:
    """A sequence of one's own to damage."""
    return Path(shutil.copytree(original, tmp_path / "set" / "train" / "square"))


def label(folder: Path, settings: LabelSettings = SETTINGS):
    return label_sequence(folder, settings, lambda: None)


def test_strides_have_their_bits_forwards_first():
    assert strides_of(3) == [1, 2, 3, -1, -2, -3]
    bits = np.zeros((1, 1), np.uint32) + (1 << 1) + (1 << 17)  # 2 later, and (of 9) 9 earlier
    image = pack(bits.astype(np.uint32))
    found = {stride for stride in strides_of(9) if unpack(image, stride, 9)[0, 0]}
    assert found == {2, -9}


def test_a_track_moves_when_its_displacement_exceeds_the_threshold():
    world = np.zeros((4, 3, 3), np.float32)
    world[1:, 1, 0] = 0.004  # a rounding step
    world[:, 2, 2] = [0.0, 0.01, 0.02, 0.03]
    tracks = Tracks(world, np.ones((4, 3), bool))
    chosen, labels = moved(tracks, 0, 3, threshold=0.005)
    assert chosen.tolist() == [0, 1, 2]
    assert labels.tolist() == [[False, False, True]] * 3 + [[False] * 3] * 3  # nothing earlier than the first frame
    assert moved(tracks, 0, 3, threshold=0.0)[1][0].tolist() == [False, True, True]  # the published rule
    assert moved(tracks, 3, 3, threshold=0.025)[1][3:].tolist() == [[False] * 3, [False] * 3, [False, False, True]]


def test_a_track_that_ends_nearby_labels_nothing():
    usable = np.ones((6, 2), bool)
    usable[3, 0] = False
    tracks = Tracks(np.zeros((6, 2, 3), np.float32), usable)
    assert moved(tracks, 1, 2, 0.1)[0].tolist() == [1]
    assert moved(tracks, 0, 2, 0.1)[0].tolist() == [0, 1]


def test_pixels_take_the_bits_of_the_nearest_track_as_a_plain_search_finds_them():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(6, 8, 3)).astype(np.float32)
    tracks, labels = rng.normal(size=(20, 3)).astype(np.float32), rng.random((4, 20)) < 0.5
    known = rng.random((6, 8)) < 0.8
    packed = label_pixels(points, known, tracks, labels)
    for row, column in np.ndindex(6, 8):
        nearest = np.argmin(np.linalg.norm(tracks - points[row, column], axis=1))
        expected = sum(int(labels[bit, nearest]) << bit for bit in range(4)) if known[row, column] else 0
        assert packed[row, column] == expected


def test_labels_of_a_sequence_are_the_moving_square(sequence):
    report = label(sequence)
    assert (report.frames, report.problems) == (FRAMES, [])
    source = PointOdyssey(sequence.parent, max_stride=9, seed=0)
    for pair in (Pair(0, 0, 1), Pair(0, 2, 11), Pair(0, 6, 10)):
        for frame, number in zip(source.read(pair), (pair.first, pair.second)):
            known = frame.dynamic != UNKNOWN
            assert not known[:2].any()  # the sky
            assert known[2:].all()
            # The nearest track decides at the square's edge: half the spacing of the wall's tracks is 1 px or so.
            differs = (frame.dynamic == 1) != in_square(number)
            assert differs[known].mean() < 0.02
            assert (frame.dynamic == 1).sum() > 500
    first, second = source.read(Pair(0, 0, 4))
    np.testing.assert_allclose(first.depth[30, [5, 40]], [4.0, 2.0], atol=0.016)
    np.testing.assert_allclose(second.T_world_camera[:3, 3], [0, -0.04, 0], atol=1e-6)
    assert first.rgb[30, 40].tolist() == pytest.approx([200, 80, 40], abs=30)  # RGB, not OpenCV's BGR


def test_the_published_rule_takes_jitter_for_motion_and_the_threshold_does_not(tmp_path):
    shaky = write_sequence(tmp_path / "train" / "shaky", jitter=0.001)
    shares = {}
    for threshold in (0.0, 0.005):
        label(shaky, LabelSettings(9, threshold))
        frame, _ = PointOdyssey(shaky.parent, 9, seed=0).read(Pair(0, 4, 6))
        shares[threshold] = float((frame.dynamic == 1)[2:].mean())
    assert shares[0.0] == 1.0
    assert shares[0.005] == pytest.approx(in_square(4)[2:].mean(), abs=0.02)


def test_labelling_goes_on_where_it_was_interrupted_and_does_nothing_twice(sequence, monkeypatch):
    calls = []
    monkeypatch.setattr(labelling, "label_pixels", lambda *given: calls.append(1) or label_pixels(*given))

    def interrupted() -> None:
        if len(calls) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label_sequence(sequence, SETTINGS, interrupted)
    assert not (sequence / "dynamic_masks").exists()
    assert label(sequence).frames == FRAMES
    assert len(calls) == FRAMES
    assert label(sequence).frames == FRAMES
    assert len(calls) == FRAMES
    label(sequence, replace(SETTINGS, motion_threshold=0.01))
    assert len(calls) == 2 * FRAMES
    assert json.loads((sequence / "dynamic_masks" / "labels.json").read_text())["motion_threshold"] == 0.01
    assert not list(sequence.glob(".dynamic_masks*"))


def test_a_missing_depth_map_costs_its_frame_alone(sequence):
    depth_path(sequence, 3).unlink()
    depth_path(sequence, 5).write_bytes(b"cut short")
    report = label(sequence)
    assert report.frames == FRAMES - 2
    assert [str(problem).split("/")[-1] for problem in report.problems] == [
        "depth_00003.png: missing",
        "depth_00005.png: cannot be read as an image",
    ]
    source = PointOdyssey(sequence.parent, 9, seed=0)
    assert len(source.problems) == 2
    assert not {3, 5} & {number for pair in source.pairs for number in (pair.first, pair.second)}
    rgb_path(sequence, 4).unlink()  # lost after the labels were made
    source = PointOdyssey(sequence.parent, 9, seed=0)
    assert str(source.problems[-1]).endswith("rgb_00004.jpg: missing")
    assert 4 not in {pair.first for pair in source.pairs}


def test_tracks_that_are_not_finite_are_told_and_unused(sequence):
    with np.load(sequence / "anno.npz") as stored:
        world = stored["trajs_3d"].copy()
    world[4, :100] = np.nan
    change_annotations(sequence, trajs_3d=world)
    report = label(sequence)
    assert report.frames == FRAMES
    assert "100 of" in report.problems[0].reason
    assert report.problems[0].path.endswith("anno.npz")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: {"trajs_3d": s["trajs_3d"][:, :15]}, "at least 16 tracks"),
        (lambda s: {"valids": np.zeros_like(s["valids"])}, "0 usable tracks"),
        (lambda s: {"trajs_2d": s["trajs_2d"] + 10}, "14.1 px beside"),
        (lambda s: {"extrinsics": s["extrinsics"][:, :3]}, "extrinsics"),
        (lambda s: {"intrinsics": -s["intrinsics"], "trajs_2d": s["trajs_2d"]}, "focal length not positive"),
    ],
    ids=["few", "invalid", "convention", "shape", "focal"],
)
def test_a_sequence_that_cannot_be_labelled_is_left_out_with_its_reason(sequence, change, reason):
    with np.load(sequence / "anno.npz") as stored:
        changed = change(stored)
    change_annotations(sequence, **changed)
    report = label(sequence)
    assert report.frames == 0
    assert reason in report.problems[-1].reason
    with pytest.raises(NothingLeftError, match=r"no sequence that can be used:\n.*anno.npz: "):
        PointOdyssey(sequence.parent, 9, seed=0)


def test_a_set_that_was_not_prepared_says_so(sequence):
    with pytest.raises(NothingLeftError, match="das3r prepare pointodyssey"):
        PointOdyssey(sequence.parent, 9, seed=0)
    label(sequence, replace(SETTINGS, max_stride=4))
    with pytest.raises(NothingLeftError, match=r"strides up to 4, not 9.*--data\.max-stride"):
        PointOdyssey(sequence.parent, 9, seed=0)


def test_the_command_labels_all_splits_in_processes_and_tells_what_it_left_out(sequence, capsys):
    test = sequence.parents[1] / "test" / "other"
    shutil.copytree(sequence, test)
    (test / "anno.npz").unlink()
    prepare(PointOdysseyLabels(sequence.parents[1], jobs=1))
    assert label_path(sequence, 0).is_file()
    assert frame_numbers(sequence) == list(range(FRAMES))
    printed = "".join(capsys.readouterr().out.split())  # the console breaks lines where it likes
    assert f"{FRAMES}of{2 * FRAMES}frameslabelled;1itemsleftout" in printed
    assert "anno.npz:missing" in printed
    with pytest.raises(FileNotFoundError, match="SPLIT/SEQUENCE"):
        prepare(PointOdysseyLabels(sequence / "rgbs"))
