"""The user's own masks and cameras: matched, resized, undistorted, or refused with both numbers named."""

import json
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
import torch
from fakes import FakePredictor, write_images
from PIL import Image

from das3r_ns import geometry
from das3r_ns.dataparser import cache
from das3r_ns.dataparser.input_kinds import kind_of
from das3r_ns.dataparser.inputs import read_inputs
from das3r_ns.dataparser.known_cameras import read_cameras
from das3r_ns.dataparser.known_masks import match_masks, read_masks
from das3r_ns.dataparser.mask_files import of_files
from das3r_ns.dataparser.matching_result import ClipFrames, MatchError
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.dataparser.pinhole_images import undistort
from das3r_ns.scene import read_scene
from das3r_ns.video import images
from das3r_ns.video.clip import Clip
from das3r_ns.video.config import VideoConfig

N, SIZE = 6, (48, 64)


def write_masks(folder: Path, names: list[str], size=SIZE, white=255) -> Path:
    """Mask number i is white in the columns from 4 i to 4 i + 16."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        mask = np.zeros(size, np.uint8)
        at = slice(4 * i * size[1] // SIZE[1], (4 * i + 16) * size[1] // SIZE[1])
        mask[:, at] = white
        Image.fromarray(mask).save(folder / name)
    return folder


def masks_at(size: tuple[int, int], *paths: Path, white_is_static: bool = False) -> torch.Tensor:
    return read_masks(of_files(paths[0].parent, paths), tuple(range(len(paths))), size, white_is_static).moving


def left_edges(masks: torch.Tensor) -> list[int]:
    return [int(torch.nonzero(mask[10])[0]) for mask in masks > 0.5]


@pytest.mark.parametrize(
    ("names", "size", "white"),
    [
        ([f"{i:05d}.png" for i in range(N)], SIZE, 255),  # by name
        ([f"mask{i}.png" for i in range(N)], SIZE, 255),  # by order
        ([f"{i:05d}.png" for i in range(N)], (96, 128), 255),  # as large as the original
        ([f"{i:05d}.png" for i in range(N)], SIZE, 1),  # values 0 and 1
    ],
)
def test_masks_find_their_frames(tmp_path, names, size, white):
    masks = write_masks(tmp_path / "masks", names, size, white)
    clip, known = read_inputs(write_images(tmp_path / "shots", N), PredictionOptions(masks=masks))
    assert known.dynamic_mask.shape == (N, *SIZE)
    assert left_edges(known.dynamic_mask) == [0, 4, 8, 12, 16, 20]
    assert clip.size == SIZE


def test_masks_of_the_chosen_frames_are_taken_by_name(tmp_path):
    masks = write_masks(tmp_path / "masks", [f"{i:05d}.png" for i in range(N)])
    options = PredictionOptions(masks=masks, video=VideoConfig(every=2))
    _, known = read_inputs(write_images(tmp_path / "shots", N), options)
    assert left_edges(known.dynamic_mask) == [0, 8, 16]


def test_masks_whose_white_is_static(tmp_path):
    masks = write_masks(tmp_path / "masks", [f"{i:05d}.png" for i in range(N)])
    shots = write_images(tmp_path / "shots", N)
    moving = read_inputs(shots, PredictionOptions(masks=masks))[1].dynamic_mask
    static = read_inputs(shots, PredictionOptions(masks=masks, masks_white_is_static=True))[1].dynamic_mask
    torch.testing.assert_close(moving, 1 - static)


def test_labels_of_a_palette_image_all_move(tmp_path):
    labels = np.zeros(SIZE, np.uint8)
    labels[:10], labels[20:30] = 1, 2
    image = Image.fromarray(labels, mode="P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(tmp_path / "a.png")
    mask = masks_at(SIZE, tmp_path / "a.png")[0]
    assert (mask[:10] == 1).all()
    assert (mask[20:30] == 1).all()
    assert mask.sum() == 20 * SIZE[1]


def test_a_number_of_masks_that_fits_nothing(tmp_path):
    masks = of_files(tmp_path, [tmp_path / f"m{name}.png" for name in "pqrs"])
    frames = ClipFrames(tuple(range(6)), 6, tuple(f"a{i}.png" for i in range(6)))
    with pytest.raises(MatchError, match=r"4 masks for 6 frames.*first mask: mp.png, first frame: a0.png"):
        match_masks(masks, frames)


def test_masks_of_other_proportions(tmp_path):
    masks = write_masks(tmp_path / "masks", ["a.png"], (64, 64))
    with pytest.raises(ValueError, match="64x64 pixels and the frames 64x48"):
        masks_at(SIZE, masks / "a.png")


def test_masks_the_wrong_way_round_are_suspected(tmp_path):
    Image.fromarray(np.full(SIZE, 255, np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="--masks-white-is-static"):
        masks_at(SIZE, tmp_path / "a.png")


def test_masks_that_leave_nothing_static_are_not_told_to_be_what_they_are(tmp_path):
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"leave 0% of the images as static.*without --masks-white-is-static"):
        masks_at(SIZE, tmp_path / "a.png", white_is_static=True)


def write_dataset(folder: Path, n: int = N, keys: dict | None = None, per_frame: bool = False) -> Path:
    """A nerfstudio dataset: camera i stands at (i, 0, 0) of a world whose axes are OpenGL's camera axes."""
    write_images(folder / "images", n)
    lens = {"fl_x": 80.0, "fl_y": 82.0, "cx": 33.0, "cy": 25.0, "w": 64, "h": 48, **(keys or {})}
    frames = []
    for i in reversed(range(n)):  # in no order
        T = np.eye(4)
        T[0, 3] = i
        frames.append(
            {"file_path": f"images/{i:05d}.png", "transform_matrix": T.tolist(), **(lens if per_frame else {})}
        )
    content = {"frames": frames} if per_frame else {**lens, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("per_frame", [False, True])
def test_a_dataset_with_cameras_needs_only_its_folder(tmp_path, per_frame):
    data = write_dataset(tmp_path / "set", per_frame=per_frame)
    assert kind_of(data) == kind_of(data / "transforms.json") == "dataset"
    clip, known = read_inputs(data, PredictionOptions())
    assert clip.names == tuple(f"{i:05d}.png" for i in range(N))
    assert known.T_world_camera[:, 0, 3].tolist() == [0, 1, 2, 3, 4, 5]
    # OpenGL's y up and z back became OpenCV's y down and z forward.
    assert known.T_world_camera[0, :3, :3].diagonal().tolist() == [1, -1, -1]
    assert known.K[0].tolist() == [[80, 0, 33], [0, 82, 25], [0, 0, 1]]
    assert known.dynamic_mask is None


@pytest.mark.parametrize("orientation", [3, 6])
def test_images_lie_as_the_cameras_saw_them(tmp_path, orientation):
    data = write_dataset(tmp_path / "set")
    stored = images.read_image(data / "images" / "00000.png")
    for path in (data / "images").iterdir():
        exif = Image.Exif()
        exif[0x0112] = orientation
        with Image.open(path) as image:
            image.save(path, exif=exif)
    for given, options in ((data, PredictionOptions()), (data / "images", PredictionOptions(cameras=data))):
        clip, _ = read_inputs(given, options)
        np.testing.assert_array_equal(clip.frames[0].numpy(), stored)
    clip, _ = read_inputs(data / "images", PredictionOptions())  # without cameras, as a person sees them
    np.testing.assert_array_equal(clip.frames[0].numpy(), np.rot90(stored, 2 if orientation == 3 else -1))


def test_intrinsics_follow_a_reduction(tmp_path):
    options = PredictionOptions(video=VideoConfig(longest_side=48))
    _, known = read_inputs(write_dataset(tmp_path / "set"), options)
    assert known.K[0].tolist() == [[60, 0, 24.75], [0, 61.5, 18.75], [0, 0, 1]]


def test_masks_of_a_dataset_keep_what_is_white(tmp_path):
    data = write_dataset(tmp_path / "set")
    write_masks(data / "masks", [f"{i:05d}.png" for i in range(N)])
    content = json.loads((data / "transforms.json").read_text())
    for frame in content["frames"]:
        frame["mask_path"] = frame["file_path"].replace("images", "masks")
    (data / "transforms.json").write_text(json.dumps(content))
    _, known = read_inputs(data, PredictionOptions())
    assert left_edges(1 - known.dynamic_mask) == [0, 4, 8, 12, 16, 20]


def test_given_cameras_for_a_folder_of_images_are_matched_by_name(tmp_path):
    cameras = write_dataset(tmp_path / "set") / "transforms.json"
    shots = write_images(tmp_path / "shots", N)
    options = PredictionOptions(cameras=cameras, video=VideoConfig(start_s=2 / 30))
    clip, known = read_inputs(shots, options)
    assert known.T_world_camera[:, 0, 3].tolist() == [2, 3, 4, 5]
    assert len(clip) == 4


def test_frames_without_a_camera_are_left_out_and_said(tmp_path, capsys):
    cameras = write_dataset(tmp_path / "set", n=4) / "transforms.json"
    masks = write_masks(tmp_path / "masks", [f"{i:05d}.png" for i in range(N)])
    shots = write_images(tmp_path / "shots", N)
    clip, known = read_inputs(shots, PredictionOptions(cameras=cameras, masks=masks))
    assert clip.names == ("00000.png", "00001.png", "00002.png", "00003.png")
    assert len(clip.frames) == len(known.T_world_camera) == len(known.dynamic_mask) == 4
    assert "2 of 6 frames have no camera" in capsys.readouterr().out


def test_frames_that_are_left_out_slow_the_clip_down(tmp_path):
    cameras = write_dataset(tmp_path / "set") / "transforms.json"
    content = json.loads(cameras.read_text())
    content["frames"] = content["frames"][::2]  # of frames 5, 3 and 1
    cameras.write_text(json.dumps(content))
    clip, _ = read_inputs(write_images(tmp_path / "shots", N), PredictionOptions(cameras=cameras))
    assert clip.names == ("00001.png", "00003.png", "00005.png")
    assert clip.fps == 15.0


def test_cameras_from_a_file_that_an_editor_of_windows_saved(tmp_path):
    cameras = write_dataset(tmp_path / "set") / "transforms.json"
    shots = write_images(tmp_path / "shots", N)
    before = read_inputs(shots, PredictionOptions(cameras=cameras))[1]
    cameras.write_text(cameras.read_text().replace("\n", "\r\n"), encoding="utf-8-sig")
    after = read_inputs(shots, PredictionOptions(cameras=cameras))[1]
    assert before.T_world_camera is not None
    assert after.T_world_camera is not None
    torch.testing.assert_close(after.T_world_camera, before.T_world_camera)


def test_cameras_of_other_images(tmp_path):
    cameras = write_dataset(tmp_path / "set") / "transforms.json"
    (tmp_path / "shots").mkdir()
    for i in range(3):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (*SIZE, 3), np.uint8)).save(
            tmp_path / "shots" / f"other{i}.png"
        )
    with pytest.raises(ValueError, match=r"fewer than 2 of 3 frames.*other0.png.*images/00000.png"):
        read_inputs(tmp_path / "shots", PredictionOptions(cameras=cameras))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"camera_model": "OPENCV_FISHEYE"}, "OPENCV_FISHEYE.*Undistort"),
        ({"k4": 0.1}, "k4"),
        ({"fl_x": None}, "lacks 'fl_x'"),
        ({"h": 64}, "64x64 pixels, the frames have 64x48"),
    ],
)
def test_cameras_that_cannot_be_used(tmp_path, keys, message):
    data = write_dataset(tmp_path / "set", keys=keys)
    with pytest.raises(ValueError, match=message):
        read_inputs(data, PredictionOptions())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "holds a list"),
        ('{"frames": []}', "0 frames|no frames"),
        ('{"frames": [{"transform_matrix": 1}, {}]}', "file_path"),
    ],
)
def test_a_damaged_transforms_json(tmp_path, content, message):
    data = write_dataset(tmp_path / "set")
    (data / "transforms.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_inputs(data, PredictionOptions())


def test_a_mirrored_camera_is_refused(tmp_path):
    data = write_dataset(tmp_path / "set")
    content = json.loads((data / "transforms.json").read_text())
    content["frames"][0]["transform_matrix"][0][0] = -1
    (data / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"images/00000.png: its transform is mirrored|images/00005.png: its transform is mirrored"
    ):
        read_cameras(data)


def test_a_colmap_model_says_the_same_as_it_was_given(tmp_path):
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(
            model="OPENCV", width=64, height=48, params=[80, 82, 33, 25, 0.1, 0.02, 0.003, 0.004], camera_id=1
        )
    )
    truth = []
    for i in range(3):
        R = cv2.Rodrigues(np.array([0.1 * i, 0.2, 0.3]))[0]
        image = pycolmap.Image(name=f"{i:05d}.png", camera_id=1, image_id=i + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(np.hstack([R, [[i], [1], [2]]])))
        T = np.eye(4)
        T[:3] = np.hstack([R, [[i], [1], [2]]])
        truth.append(np.linalg.inv(T))
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    model.write(str(tmp_path / "sparse" / "0"))
    (cameras,) = read_cameras(tmp_path)
    assert cameras.names == ("00000.png", "00001.png", "00002.png")
    np.testing.assert_allclose(cameras.T_world_camera, np.stack(truth), atol=1e-9)
    assert cameras.K[1].tolist() == [[80, 0, 33], [0, 82, 25], [0, 0, 1]]
    assert cameras.distortion[0].tolist() == pytest.approx([0.1, 0.02, 0.003, 0.004, 0])
    assert cameras.sizes[0] == SIZE


def test_undistortion_puts_points_where_a_pinhole_sees_them():
    """White dots drawn where a distorting lens shows known directions must land where K_new projects them."""
    height, width = 240, 320
    K = geometry.intrinsics(260.0, height, width)[None]
    distortion = torch.tensor([[-0.2, 0.05, 0.001, -0.002, 0.0]])
    directions = np.array([[x, y, 1.0] for x in (-0.4, -0.2, 0.1, 0.35) for y in (-0.25, 0.05, 0.3)])
    K_cv = K[0].numpy().astype(np.float64) - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
    seen = cv2.projectPoints(directions, np.zeros(3), np.zeros(3), K_cv, distortion[0].numpy().astype(np.float64))[0][
        :, 0
    ]
    image = np.zeros((height, width, 3), np.float32)
    rows, columns = np.mgrid[:height, :width]
    for u, v in seen:
        image += 255 * np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / 8)[..., None]
    frames = torch.from_numpy(image.clip(0, 255).astype(np.uint8))[None]
    clip, K_new, masks = undistort(Clip(frames, 1.0, ("a",)), K, distortion, frames[..., 0].float() / 255)
    straight = clip.frames[0, :, :, 0].double().numpy()
    for direction in directions:
        u, v = (K_new[0].double().numpy() @ direction)[:2]
        if not (8 < u < width - 8 and 8 < v < height - 8):
            continue
        window = straight[int(v) - 7 : int(v) + 8, int(u) - 7 : int(u) + 8]
        y, x = np.mgrid[int(v) - 7 : int(v) + 8, int(u) - 7 : int(u) + 8] + 0.5
        assert (window * x).sum() / window.sum() == pytest.approx(u, abs=0.15)
        assert (window * y).sum() / window.sum() == pytest.approx(v, abs=0.15)
    torch.testing.assert_close(masks[0] * 255, clip.frames[0, :, :, 0].float(), atol=1.5, rtol=0)
    assert frames.max() > 200  # the input was not changed


def test_the_field_of_view_becomes_a_focal_length(tmp_path):
    _, known = read_inputs(write_images(tmp_path / "shots"), PredictionOptions(fov_deg=90.0))
    assert known.focal_px == pytest.approx(32)


def test_the_field_of_view_is_not_asked_for_twice(tmp_path):
    with pytest.raises(ValueError, match="leave out --fov-deg"):
        read_inputs(write_dataset(tmp_path / "set"), PredictionOptions(fov_deg=90.0))


def test_given_cameras_and_masks_reach_the_scene_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "build_predictor", lambda *_: (FakePredictor(), "a test"))
    data = write_dataset(tmp_path / "set")
    masks = write_masks(tmp_path / "masks", [f"{i:05d}.png" for i in range(N)])
    options = PredictionOptions(masks=masks)
    scene = read_scene(cache.cached_scene(data, options, tmp_path / "cache"))
    assert scene.provenance["cameras_given"]
    assert scene.provenance["masks_given"]
    assert scene.provenance["options"]["masks"] == str(masks)
    assert scene.T_world_camera[:, 0, 3].tolist() == [0, 1, 2, 3, 4, 5]
    assert asdict(options.video) == scene.provenance["options"]["video"]
