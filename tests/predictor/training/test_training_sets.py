"""Clip folders and Sintel as sets of pairs."""

import shutil
import struct
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from das3r_ns.predictor.training.data.clips import ClipFolders
from das3r_ns.predictor.training.data.prepare import prepare
from das3r_ns.predictor.training.data.sintel import Sintel
from das3r_ns.predictor.training.data.sources import BadDataError, NothingLeftError, Pair
from das3r_ns.predictor.training.data.synthetic_set import SyntheticSet, make_training_clip
from das3r_ns.predictor.training.loop.validation import validation_plan

HEIGHT, WIDTH = 20, 30
PIEH = 202021.25


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> SyntheticSet:
    task = SyntheticSet(
        tmp_path_factory.mktemp("rendered"), clips=1, val_clips=1, frames=4, height=48, width=64, jobs=1
    )
    prepare(task)
    return task


def test_a_training_clip_has_no_video_and_needs_no_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    task = SyntheticSet(tmp_path, clips=1, val_clips=0, frames=1, height=16, width=16)
    folder = make_training_clip(task, "train", 0)
    assert len(list((folder / "images").iterdir())) == 1
    assert not (folder / "video.mp4").exists()


def write_sintel(root: Path, frames: int = 4) -> Path:
    """The camera steps 0.1 to the right a frame before a wall 5 away (focal 100: 2 px); a block of 4 x 4 stays put."""
    for kind in ("final", "flow", "depth", "camdata_left"):
        (root / "training" / kind / "alley_9").mkdir(parents=True)
    size = struct.pack("<fii", PIEH, WIDTH, HEIGHT)
    for frame in range(frames):
        name = f"frame_{frame + 1:04d}"
        image = np.full((HEIGHT, WIDTH, 3), (10, 20, 30), np.uint8)  # OpenCV's order: blue first
        cv2.imwrite(str(root / "training" / "final" / "alley_9" / f"{name}.png"), image)
        depth = np.full((HEIGHT, WIDTH), 5, "<f4")
        (root / "training" / "depth" / "alley_9" / f"{name}.dpt").write_bytes(size + depth.tobytes())
        T_camera_world = np.eye(4)[:3]
        T_camera_world[0, 3] = -0.1 * frame
        K = [100, 0, WIDTH / 2 - 0.5, 0, 100, HEIGHT / 2 - 0.5, 0, 0, 1]  # Sintel counts from the first pixel's centre
        camera = struct.pack("<f21d", PIEH, *K, *T_camera_world.ravel())
        (root / "training" / "camdata_left" / "alley_9" / f"{name}.cam").write_bytes(camera)
        if frame + 1 < frames:
            flow = np.zeros((HEIGHT, WIDTH, 2), "<f4")
            flow[..., 0] = -2
            flow[4:8, 6:10, 0] = 0
            (root / "training" / "flow" / "alley_9" / f"{name}.flo").write_bytes(size + flow.tobytes())
    return root


def test_a_rendered_set_is_read_as_it_was_made(rendered):
    source = ClipFolders(rendered.out / "train", max_stride=3, seed=0)
    assert not source.problems
    assert {pair.stride for pair in source.pairs} <= {1, 2, 3}
    folder = rendered.out / "train" / "clip_00000"
    first, second = source.read(Pair(0, 0, 3))
    assert first.rgb.shape == (48, 64, 3)
    assert first.depth.min() > 0.5
    # Seen from both cameras, the static scene lies in the same place: the room's floor is at y = 1.2.
    for frame in (first, second):
        v, u = np.mgrid[:48, :64] + 0.5
        directions = np.stack([(u - frame.K[0, 2]) / frame.K[0, 0], (v - frame.K[1, 2]) / frame.K[1, 1], 0 * u + 1], -1)
        world = (frame.depth[..., None] * directions) @ frame.T_world_camera[:3, :3].T + frame.T_world_camera[:3, 3]
        floor = world[-1][frame.dynamic[-1] == 0]
        assert np.median(floor[:, 1]) == pytest.approx(1.2, abs=0.02)
    mask = cv2.imread(str(folder / "dynamic_masks" / "00003.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(second.dynamic, mask > 127)


def test_training_and_validation_clips_differ_and_what_is_there_is_kept(rendered):
    train, val = (rendered.out / split / "clip_00000" for split in ("train", "val"))
    assert (train / "images" / "00000.png").read_bytes() != (val / "images" / "00000.png").read_bytes()
    before = (train / "K.txt").stat().st_mtime_ns
    make_training_clip(rendered, "train", 0)
    assert (train / "K.txt").stat().st_mtime_ns == before


def test_a_damaged_clip_is_left_out_with_its_reason(rendered, tmp_path):
    root = Path(shutil.copytree(rendered.out / "train", tmp_path / "set" / "train"))
    clip = root / "clip_00000"
    shutil.copytree(clip, root / "clip_00001")
    (root / "clip_00001" / "K.txt").write_text("nan 0 0\n0 1 0\n0 0 1\n")
    shutil.copytree(clip, root / "clip_00002")
    rows = (root / "clip_00002" / "T_world_camera.txt").read_text().splitlines()
    (root / "clip_00002" / "T_world_camera.txt").write_text("\n".join(rows[:-1]) + "\n")
    source = ClipFolders(root, 3, seed=0)
    assert [problem.reason for problem in source.problems] == [
        "holds values that are not finite",
        "3 rows for 4 images",
    ]
    assert {pair.sequence for pair in source.pairs} == {0}
    (clip / "depth" / "00001.npy").write_bytes(b"cut")
    with pytest.raises(BadDataError, match=r"00001\.npy: cannot be read"):
        source.read(Pair(0, 0, 1))
    np.save(clip / "depth" / "00001.npy", np.ones((2, 2), np.float32))
    with pytest.raises(BadDataError, match="differ in size"):
        source.read(Pair(0, 0, 1))


def test_a_missing_split_says_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match="das3r prepare synthetic"):
        ClipFolders(tmp_path / "train", 3, seed=0)


def test_sintel_labels_what_the_camera_does_not_explain_and_leaves_out_the_last_frame(tmp_path):
    source = Sintel(write_sintel(tmp_path), max_stride=9, seed=0)
    assert max(pair.second for pair in source.pairs) == 2  # the fourth frame has no flow, and so no mask
    first, second = source.read(Pair(0, 0, 2))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[4:8, 6:10] = 1
    np.testing.assert_array_equal(first.dynamic, expected)
    assert first.rgb[0, 0].tolist() == [30, 20, 10]
    np.testing.assert_allclose(first.depth, 5)
    np.testing.assert_allclose(second.T_world_camera[:3, 3], [0.2, 0, 0], atol=1e-6)
    np.testing.assert_allclose(first.K[:2, 2], [WIDTH / 2, HEIGHT / 2])


def test_sintel_without_flow_is_left_out_and_without_anything_is_an_error(tmp_path):
    root = write_sintel(tmp_path / "sintel")
    shutil.rmtree(root / "training" / "flow")
    with pytest.raises(NothingLeftError, match="no flow or no depth"):
        Sintel(root, 9, seed=0)
    with pytest.raises(FileNotFoundError, match="das3r download sintel"):
        Sintel(tmp_path / "elsewhere", 9, seed=0)


def test_validation_pairs_are_spread_evenly_in_the_shape_of_inference(tmp_path):
    source = Sintel(write_sintel(tmp_path, frames=14), max_stride=2, seed=0)
    batches, problems = validation_plan(source, count=5, long_side=96, batch_size=2)
    assert not problems
    assert [len(batch) for batch in batches] == [2, 2, 1]
    pairs = [draw.pair for batch in batches for draw in batch]
    assert (pairs[0], pairs[-1]) == (0, len(source.pairs) - 1)
    assert {draw.size for batch in batches for draw in batch} == {(64, 96)}
