"""Loaders against files written here from each format's definition."""

import math
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from das3r_ns.datasets import (
    TruthError,
    associate,
    read_davis,
    read_dynamic_mask,
    read_poses,
    read_sintel,
    read_truth_folder,
    read_tum_dynamics,
    read_tum_trajectory,
)
from das3r_ns.datasets.davis import VAL_2016, davis_root, davis_sequences
from das3r_ns.datasets.sintel import read_cam, read_dpt, read_flo, sintel_root
from das3r_ns.datasets.truth_files import read_intrinsics
from das3r_ns.video.clip import read_clip

RED_GREEN_PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0]


def _image(path: Path, size: tuple[int, int] = (12, 16), value: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))


def _palette_png(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(RED_GREEN_PALETTE)
    image.save(path)


def _write_sintel(root: Path, frames: int = 3, height: int = 20, width: int = 30) -> None:
    """A wall at depth 4; the camera steps right by 0.2 a frame; focal 100 px, so static flow is (-5, 0)."""
    for i in range(frames):
        name = f"frame_{i + 1:04d}"
        _image(root / "training" / "final" / "alley_9" / f"{name}.png", (height, width))
        folders = [root / "training" / kind / "alley_9" for kind in ("camdata_left", "depth", "flow")]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        K = [100.0, 0, width / 2 - 0.5, 0, 100.0, height / 2 - 0.5, 0, 0, 1]
        T_camera_world = [1.0, 0, 0, -0.2 * i, 0, 1, 0, 0, 0, 0, 1, 0]
        (folders[0] / f"{name}.cam").write_bytes(struct.pack("<f21d", 202021.25, *K, *T_camera_world))
        depth = np.full((height, width), 4.0, "<f4")
        (folders[1] / f"{name}.dpt").write_bytes(struct.pack("<fii", 202021.25, width, height) + depth.tobytes())
        if i + 1 < frames:
            flow = np.zeros((height, width, 2), "<f4")
            flow[..., 0] = -5
            flow[5:9, 10:14] += (0.3, 0)  # something moves by itself
            flow[0, 0, 1] = 0.05  # below the threshold of 0.1 px
            (folders[2] / f"{name}.flo").write_bytes(struct.pack("<fii", 202021.25, width, height) + flow.tobytes())


def test_davis_masks_are_the_union_of_all_objects(tmp_path):
    labels = np.zeros((12, 16), int)
    labels[2:4, 2:5] = 1
    labels[8:10, 9:11] = 2
    for i in range(2):
        _image(tmp_path / "DAVIS" / "JPEGImages" / "480p" / "swan" / f"{i:05d}.jpg")
        _palette_png(tmp_path / "DAVIS" / "Annotations" / "480p" / "swan" / f"{i:05d}.png", labels)
    root = davis_root(tmp_path)
    assert davis_sequences(root) == ["swan"]
    clip = read_davis(root, "swan")
    assert len(clip) == 2
    np.testing.assert_array_equal(clip.dynamic_mask(1), labels > 0)


def test_davis_without_annotations_says_which_file_is_missing(tmp_path):
    _image(tmp_path / "JPEGImages" / "480p" / "swan" / "00000.jpg")
    with pytest.raises(TruthError, match=r"swan.00000\.png is missing .*use trainval"):
        read_davis(tmp_path, "swan")


def test_the_validation_list_of_davis_2016_has_twenty_sequences():
    assert len(set(VAL_2016)) == 20


@pytest.mark.parametrize(
    ("values", "moving"),
    [([0, 255], [False, True]), ([0, 127], [False, False]), ([0, 128], [False, True]), ([0, 1], [False, True])],
)
def test_grey_masks_move_above_half_and_small_numbers_are_object_numbers(tmp_path, values, moving):
    Image.fromarray(np.array([values], np.uint8)).save(tmp_path / "mask.png")
    assert read_dynamic_mask(tmp_path / "mask.png").tolist() == [moving]


def test_a_colour_image_is_no_mask(tmp_path):
    _image(tmp_path / "mask.png")
    with pytest.raises(TruthError, match="colour image"):
        read_dynamic_mask(tmp_path / "mask.png")
    (tmp_path / "mask.png").write_bytes(b"not an image")
    with pytest.raises(TruthError, match=r"mask\.png is missing or not an image"):
        read_dynamic_mask(tmp_path / "mask.png")


def test_sintel_cameras_are_turned_to_camera_to_world_and_to_our_pixel_convention(tmp_path):
    _write_sintel(tmp_path)
    K, T_world_camera = read_cam(tmp_path / "training" / "camdata_left" / "alley_9" / "frame_0003.cam")
    assert K.tolist() == [[100, 0, 15], [0, 100, 10], [0, 0, 1]]
    assert T_world_camera[:3, 3].tolist() == pytest.approx([0.4, 0, 0])


def test_sintel_s_rotation_is_inverted_too(tmp_path):
    quarter_turn = [0.0, -1, 0, 1, 1, 0, 0, 2, 0, 0, 1, 3]  # world to camera: x_camera = R x + (1, 2, 3)
    (tmp_path / "a.cam").write_bytes(struct.pack("<f21d", 202021.25, *np.eye(3).ravel(), *quarter_turn))
    _, T_world_camera = read_cam(tmp_path / "a.cam")
    # The centre c solves R c + t = 0: R c = (-c_y, c_x, c_z) = (-1, -2, -3), so c = (-2, 1, -3).
    assert T_world_camera[:3, 3].tolist() == pytest.approx([-2, 1, -3])
    assert T_world_camera[:3, 0].tolist() == pytest.approx([0, -1, 0])


def test_sintel_masks_are_what_the_camera_does_not_explain(tmp_path):
    _write_sintel(tmp_path)
    root = sintel_root(tmp_path)
    assert root == tmp_path
    clip = read_sintel(root, "alley_9")
    mask = clip.dynamic_mask(0)
    expected = np.zeros((20, 30), bool)
    expected[5:9, 10:14] = True
    np.testing.assert_array_equal(mask, expected)
    assert clip.dynamic_mask(2) is None  # no flow from the last frame
    second = clip.only([1, 2])
    np.testing.assert_array_equal(second.dynamic_mask(0), clip.dynamic_mask(1))
    assert second.T_world_camera[0, 0, 3] == pytest.approx(0.2)


def test_sintel_values_keep_rows_and_columns_apart(tmp_path):
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    (tmp_path / "a.dpt").write_bytes(struct.pack("<fii", 202021.25, 3, 2) + values.tobytes())
    assert read_dpt(tmp_path / "a.dpt").tolist() == values.tolist()
    (tmp_path / "a.flo").write_bytes(struct.pack("<fii", 202021.25, 3, 1) + values.tobytes())
    assert read_flo(tmp_path / "a.flo").tolist() == values.reshape(1, 3, 2).tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no Sintel file"),
        (struct.pack("<fii", 1.0, 3, 2) + bytes(24), "no Sintel file"),
        (struct.pack("<fii", 202021.25, 3, 2) + bytes(20), "has 20 bytes of values where 24 are due"),
        (struct.pack("<fii", 202021.25, -3, 2), "cut off"),
        (struct.pack("<fi", 202021.25, 3), "cut off"),
    ],
)
def test_damaged_sintel_files_are_named(tmp_path, content, message):
    (tmp_path / "a.dpt").write_bytes(content)
    with pytest.raises(TruthError, match=message):
        read_dpt(tmp_path / "a.dpt")


def test_a_missing_sintel_camera_says_how_to_get_it(tmp_path):
    _image(tmp_path / "training" / "final" / "alley_9" / "frame_0001.png")
    with pytest.raises(TruthError, match="das3r download sintel"):
        read_sintel(tmp_path, "alley_9")


def test_tum_quaternions_end_with_w(tmp_path):
    # A quarter turn about z: x_world = R e_x = e_y. Order qx qy qz qw.
    half = math.sqrt(0.5)
    (tmp_path / "a.txt").write_text(
        f"# timestamp tx ty tz qx qy qz qw\n2.5 1 2 3 0 0 {half} {half}\n1.5 0 0 0 0 0 0 1\n"
    )
    times, T = read_tum_trajectory(tmp_path / "a.txt")
    assert times.tolist() == [1.5, 2.5]
    torch.testing.assert_close(T[1, :3, 0], torch.tensor([0.0, 1, 0], dtype=torch.float64))
    assert T[1, :3, 3].tolist() == [1, 2, 3]
    torch.testing.assert_close(read_poses(tmp_path / "a.txt"), T)


def test_tum_agrees_with_evo(tmp_path):
    from evo.tools.file_interface import read_tum_trajectory_file

    rng = np.random.default_rng(0)
    q = rng.standard_normal((5, 4))
    rows = np.hstack((np.arange(5)[:, None], rng.standard_normal((5, 3)), q / np.linalg.norm(q, axis=1, keepdims=True)))
    np.savetxt(tmp_path / "a.txt", rows)
    theirs = np.stack(read_tum_trajectory_file(str(tmp_path / "a.txt")).poses_se3)
    np.testing.assert_allclose(read_tum_trajectory(tmp_path / "a.txt")[1].numpy(), theirs, atol=1e-9)


def test_images_and_poses_are_matched_by_time_and_lonely_images_left_out():
    times = torch.tensor([0.00, 0.033, 0.066, 0.5, 1.0], dtype=torch.float64)
    poses = torch.tensor([0.001, 0.010, 0.031, 0.07, 0.99], dtype=torch.float64)
    assert associate(times, poses).tolist() == [[0, 0], [1, 2], [2, 3], [4, 4]]
    assert associate(times[:1], poses[:1]).tolist() == [[0, 0]]


def test_a_tum_sequence(tmp_path):
    folder = tmp_path / "rgbd_dataset_freiburg3_walking_xyz"
    lines, poses = ["# color images", "# timestamp filename"], ["# ground truth trajectory"]
    for i in range(5):
        _image(folder / "rgb" / f"{i}.png")
        lines.append(f"{100 + i / 30:.6f} rgb/{i}.png")
        poses += [f"{100 + i / 30 + 0.004:.4f} {i} 0 0 0 0 0 1", f"{100 + i / 30 + 0.012:.4f} 9 9 9 0 0 0 1"]
    (folder / "rgb.txt").write_text("\n".join(lines))
    (folder / "groundtruth.txt").write_text("\n".join(poses))
    clip = read_tum_dynamics(tmp_path, folder.name)
    assert clip.T_world_camera[:, 0, 3].tolist() == [0, 1, 2, 3, 4]
    assert clip.K[0, 0, 2].item() == pytest.approx(320.6)
    assert clip.dynamic_mask is None
    (folder / "rgb" / "3.png").unlink()
    with pytest.raises(TruthError, match=r"3\.png is named in rgb\.txt and missing"):
        read_tum_dynamics(tmp_path, folder.name)


def test_our_own_layout(tmp_path):
    for i in range(3):
        _image(tmp_path / "images" / f"{i:05d}.jpg")
        _image(tmp_path / "clean" / f"{i:05d}.png", value=i)
        mask = np.zeros((12, 16), np.uint8)
        mask[i] = 255
        (tmp_path / "dynamic_masks").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "dynamic_masks" / f"{i:05d}.png"), mask)
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[:, 0, 3] = torch.arange(3)
    np.savetxt(tmp_path / "T_world_camera.txt", poses.reshape(3, 16))
    np.savetxt(tmp_path / "K.txt", [[100, 0, 8], [0, 100, 6], [0, 0, 1]])
    clip = read_truth_folder(tmp_path)
    assert clip.T_world_camera[2, 0, 3] == 2
    assert clip.K.shape == (3, 3, 3)
    assert clip.dynamic_mask(2).sum(dim=1).tolist() == [0, 0, 16] + [0] * 9
    assert clip.clean[1].name == "00001.png"


def test_a_layout_that_does_not_fit_together_is_refused_with_the_file(tmp_path):
    with pytest.raises(TruthError, match="images is missing"):
        read_truth_folder(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(TruthError, match="images holds no images"):
        read_truth_folder(tmp_path)
    for i in range(3):
        _image(tmp_path / "images" / f"{i:05d}.jpg")
    (tmp_path / "T_world_camera.txt").write_text("1 0 0 0  0 1 0 0  0 0 1 0  0 0 0 1\n" * 2)
    with pytest.raises(TruthError, match=r"T_world_camera\.txt has 2 poses and .*images 3 images"):
        read_truth_folder(tmp_path)
    (tmp_path / "T_world_camera.txt").unlink()
    _image(tmp_path / "dynamic_masks" / "00000.png")
    with pytest.raises(TruthError, match=r"no image named 00001 \(2 of 3 frames"):
        read_truth_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no numbers"),
        ("1 2 3\n", "3 numbers a row; expected 16"),
        ("1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0\n", "line 2: 3 numbers, the lines before have 12"),
        ("nan 0 0 0 0 1 0 0 0 0 1 0\n", "line 1: a value is not finite"),
        ("1 0 x 0 0 1 0 0 0 0 1 0\n", "line 1: could not convert"),
        ("0 1 2 3 0 0 0 2\n", "has length 2.000, not 1"),
    ],
)
def test_damaged_pose_files_name_the_line(tmp_path, text, message):
    (tmp_path / "poses.txt").write_text(text)
    with pytest.raises(TruthError, match=message):
        read_poses(tmp_path / "poses.txt")


def test_intrinsics_are_one_matrix_or_one_row_a_frame(tmp_path):
    (tmp_path / "K.txt").write_text("100 0 8\n0 101 6\n0 0 1\n")
    assert read_intrinsics(tmp_path / "K.txt", 4)[3, 1, 1] == 101
    (tmp_path / "K.txt").write_text("100 0 8 0 100 6 0 0 1\n200 0 8 0 100 6 0 0 1\n")
    assert read_intrinsics(tmp_path / "K.txt", 2)[:, 0, 0].tolist() == [100, 200]
    with pytest.raises(TruthError, match="expected one 3x3 matrix, or 5 rows of 9"):
        read_intrinsics(tmp_path / "K.txt", 5)
    (tmp_path / "K.txt").write_text("0 0 8\n0 101 6\n0 0 1\n")
    with pytest.raises(TruthError, match="not positive"):
        read_intrinsics(tmp_path / "K.txt", 1)


def test_the_real_clips_read_as_our_layout(clips):
    clip = read_truth_folder(clips / "composited" / "kitchen-dog")
    assert len(clip) == 60
    mask = clip.dynamic_mask(30)
    assert 0.02 < float(mask.double().mean()) < 0.9


def test_the_frames_of_a_truth_are_in_the_order_of_the_clip_s(tmp_path):
    for name in ("images", "dynamic_masks"):
        (tmp_path / name).mkdir()
        for i in range(1, 13):  # shot1 to shot12: by letters, shot10 comes second
            image = 10 * i + 99 * np.eye(40, dtype=np.uint8)
            cv2.imwrite(str(tmp_path / name / f"shot{i}.png"), image)
    truth = read_truth_folder(tmp_path)
    clip = read_clip(tmp_path / "images")
    assert tuple(path.name for path in truth.images) == clip.names == tuple(f"shot{i}.png" for i in range(1, 13))


def test_a_table_that_an_editor_of_windows_saved(tmp_path):
    (tmp_path / "poses.txt").write_bytes(b"\xef\xbb\xbf" + b"1 0 0 0  0 1 0 0  0 0 1 0  0 0 0 1\r\n")
    torch.testing.assert_close(read_poses(tmp_path / "poses.txt"), torch.eye(4, dtype=torch.float64)[None])
