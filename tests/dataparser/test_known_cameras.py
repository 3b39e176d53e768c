"""Cameras as other programs write them: found, matched, read in double precision, checked against the images."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from clip_with_cameras import N, lens, made_clip, matrices_of, same_path, write_images, write_model

from das3r_ns.dataparser import camera_check
from das3r_ns.dataparser.input_digest import digest_of_inputs
from das3r_ns.dataparser.input_kinds import kind_of
from das3r_ns.dataparser.inputs import read_inputs
from das3r_ns.dataparser.known_cameras import FLIP
from das3r_ns.dataparser.matching_result import AmbiguousNumbers
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.video.config import VideoConfig

made = pytest.fixture(scope="module")(made_clip)
UTM = np.array([500000.25, 4649776.5, 213.0])


def write_set(made, folder: Path, matrices=None, names=None, common=None, paths=None) -> Path:
    """A dataset: images and transforms.json."""
    names = [f"images/{i:05d}.png" for i in range(N)] if names is None else names
    write_images(made, folder, names)
    matrices = matrices_of(made) if matrices is None else matrices
    frames = [
        {"file_path": path, "transform_matrix": T.tolist()}
        for path, T in zip(names if paths is None else paths, matrices)
    ]
    content = {**(lens(made) if common is None else common), "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def write_video(made, path: Path) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10, options={"crf": "12"})
        stream.height, stream.width, stream.pix_fmt = 144, 256, "yuv420p"
        for frame in made.frames.numpy():
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    return path


VARIANTS = {
    "no endings": {"paths": [f"images/{i:05d}" for i in range(N)]},
    "dot slash": {"paths": [f"./images/{i:05d}" for i in range(N)]},
    "backslashes": {"paths": [f"images\\{i:05d}.png" for i in range(N)]},
    "absolute paths of another machine": {"paths": [f"/home/eve/set/images/{i:05d}.png" for i in range(N)]},
    "absolute paths of Windows": {"paths": [f"C:\\Users\\eve\\set\\images\\{i:05d}.png" for i in range(N)]},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_paths_as_programs_write_them(tmp_path, made, variant):
    _, known = read_inputs(write_set(made, tmp_path / "set", **VARIANTS[variant]), PredictionOptions())
    same_path(known, made)


def test_capitals_of_another_system(tmp_path, made):
    data = write_set(made, tmp_path / "set", paths=[f"images/{i:05d}.PNG" for i in range(N)])
    same_path(read_inputs(data, PredictionOptions())[1], made)


def test_fisheye_by_any_name(tmp_path, made):
    for k, keys in enumerate(({"is_fisheye": True}, {"camera_model": "opencv_fisheye"})):
        data = write_set(made, tmp_path / str(k), common={**lens(made), **keys})
        with pytest.raises(ValueError, match=r"OPENCV_FISHEYE.*Undistort"):
            read_inputs(data, PredictionOptions())


def test_a_file_of_a_model_in_the_place_of_its_folder(tmp_path, made):
    write_model(made, tmp_path, range(3))
    options = PredictionOptions(cameras=tmp_path / "cameras.bin")
    shots = write_images(made, tmp_path / "shots")
    assert len(read_inputs(shots, options)[0]) == 3
    before = digest_of_inputs(shots, options)
    write_model(made, tmp_path, range(4))
    assert before != digest_of_inputs(shots, options)


def test_absolute_paths_that_exist(tmp_path, made):
    write_images(made, tmp_path / "elsewhere")
    data = write_set(made, tmp_path / "set", paths=[str(tmp_path / "elsewhere" / f"{i:05d}.png") for i in range(N)])
    same_path(read_inputs(data, PredictionOptions())[1], made)


def test_a_lens_by_its_angle_and_sizes_from_the_images(tmp_path, made):
    angle = 2 * np.arctan(128 / lens(made)["fl_x"])
    data = write_set(made, tmp_path / "a", common={"camera_angle_x": angle})
    same_path(read_inputs(data, PredictionOptions())[1], made)
    without_size = {key: value for key, value in lens(made).items() if key not in "wh"}
    data = write_set(made, tmp_path / "b", common=without_size)
    same_path(read_inputs(data, PredictionOptions(video=VideoConfig(max_frames=5)))[1], made, [0, 4, 8, 11, 15])
    options = PredictionOptions(cameras=data)  # beside a video, whose frames say it
    (data / "images").rename(data / "away")
    _, known = read_inputs(write_images(made, tmp_path / "shots"), options)
    same_path(known, made)


def test_blenders_files(tmp_path, made):
    data = write_set(made, tmp_path / "lego", names=[f"train/r_{i}.png" for i in range(N)],
                     paths=[f"./train/r_{i}" for i in range(N)],
                     common={"camera_angle_x": 2 * np.arctan(128 / lens(made)["fl_x"])})  # fmt: skip
    (data / "transforms.json").rename(data / "transforms_train.json")
    assert kind_of(data) == "dataset"
    clip, known = read_inputs(data, PredictionOptions())
    assert clip.names == tuple(f"r_{i}.png" for i in range(N))  # r_2 before r_10
    same_path(known, made)


def test_entries_without_images_are_left_out_and_said(tmp_path, made, capsys):
    data = write_set(made, tmp_path / "set")
    (data / "images" / "00003.png").unlink()
    clip, known = read_inputs(data, PredictionOptions())
    assert len(clip) == len(known.T_world_camera) == N - 1
    same_path(known, made, [i for i in range(N) if i != 3])
    assert f"1 of {N} images do not exist and are left out: images/00003.png" in capsys.readouterr().out


def test_images_of_one_name_in_two_folders(tmp_path, made):
    names = [f"{'left' if i < N // 2 else 'right'}/{i % (N // 2):05d}.png" for i in range(N)]
    data = write_set(made, tmp_path / "set", names=names)
    clip, known = read_inputs(data, PredictionOptions())
    assert len(set(clip.names)) == N
    same_path(known, made)
    clip, known = read_inputs(data / "right", PredictionOptions(cameras=data / "transforms.json"))
    same_path(known, made, range(N // 2, N))
    write_images(made, tmp_path / "other")
    with pytest.raises(ValueError, match=r"one name in several folders \(left/00000.png and right/00000.png\)"):
        read_inputs(tmp_path / "other", PredictionOptions(cameras=data))


def test_map_coordinates_keep_their_path_and_are_given_back(tmp_path, made, capsys):
    matrices = matrices_of(made)
    matrices[:, :3, 3] += UTM
    _, known = read_inputs(write_set(made, tmp_path / "set", matrices), PredictionOptions())
    same_path(known, made)
    original = torch.linalg.inv(known.applied_transform) @ known.T_world_camera.double()
    np.testing.assert_allclose(original[:, :3, 3], matrices[:, :3, 3], atol=1e-6)
    assert "exports are shifted back" in capsys.readouterr().out


def test_cameras_near_the_origin_keep_their_world(tmp_path, made):
    _, known = read_inputs(write_set(made, tmp_path / "set"), PredictionOptions())
    torch.testing.assert_close(known.T_world_camera, made.T_world_camera.float())
    assert torch.equal(known.applied_transform, torch.eye(4, dtype=torch.float64))


CONVENTIONS = {
    "opencv": lambda M: M @ FLIP,
    "opengl-inverse": lambda M: np.linalg.inv(M),
    "opencv-inverse": lambda M: np.linalg.inv(M @ FLIP),
}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_matrices_in_another_convention_are_noticed_by_the_images(tmp_path, made, convention):
    data = write_set(made, tmp_path / "set", CONVENTIONS[convention](matrices_of(made)))
    with pytest.raises(ValueError, match=f"the images contradict .* say --cameras-convention {convention};"):
        read_inputs(data, PredictionOptions())
    _, known = read_inputs(data, PredictionOptions(cameras_convention=convention))
    same_path(known, made)


def test_cameras_that_fit_in_no_convention_are_doubted(tmp_path, made, capsys):
    shuffled = matrices_of(made)[np.random.default_rng(0).permutation(N)]
    read_inputs(write_set(made, tmp_path / "set", shuffled), PredictionOptions())
    assert "Are they of these frames" in capsys.readouterr().out


def test_right_cameras_are_not_doubted(tmp_path, made, capsys):
    read_inputs(write_set(made, tmp_path / "set"), PredictionOptions())
    assert "Cameras:" not in capsys.readouterr().out


def test_images_that_tell_nothing_doubt_nothing(made):
    grey = np.full((144, 256, 3), 128, np.uint8)
    matcher = camera_check.FrameMatcher(lambda _: grey, made.K.double().numpy()[None].repeat(N, 0))
    assert camera_check.fits_by_convention(camera_check.pairs_of(matcher, range(N)), matrices_of(made)) is None
    still = made.frames[0].numpy()
    matcher = camera_check.FrameMatcher(lambda _: still, made.K.double().numpy()[None].repeat(N, 0))
    assert camera_check.pairs_of(matcher, range(N)) == []


@pytest.mark.parametrize("first", [0, 1])
def test_cameras_of_every_second_frame_of_a_video(tmp_path, made, capsys, first):
    """Named 1 ... n without gaps, as ns-process-data and frame extractors number them."""
    video = write_video(made, tmp_path / "video.mp4")
    names = [f"images/frame_{k + first:05d}.png" for k in range(N // 2)]
    content = {**lens(made), "frames": [
        {"file_path": name, "transform_matrix": T.tolist()} for name, T in zip(names, matrices_of(made)[::2])
    ]}  # fmt: skip
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    clip, known = read_inputs(video, PredictionOptions(cameras=tmp_path))
    assert clip.names == tuple(f"frame_{i + 1:05d}" for i in range(0, N, 2))
    same_path(known, made, slice(None, None, 2))
    assert "every 2nd frame" in capsys.readouterr().out


def test_cameras_of_the_first_frames_of_a_video(tmp_path, made):
    video = write_video(made, tmp_path / "video.mp4")
    content = {**lens(made), "frames": [
        {"file_path": f"{k}.png", "transform_matrix": T.tolist()} for k, T in enumerate(matrices_of(made)[: N // 2])
    ]}  # fmt: skip
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    clip, known = read_inputs(video, PredictionOptions(cameras=tmp_path))
    assert clip.names == tuple(f"frame_{i + 1:05d}" for i in range(N // 2))
    same_path(known, made, slice(N // 2))


def test_cameras_of_unknown_frames_of_a_video_are_refused(tmp_path, made):
    video = write_video(made, tmp_path / "video.mp4")
    chosen = np.random.default_rng(1).permutation(N)[: N // 2]
    content = {**lens(made), "frames": [
        {"file_path": f"{k}.png", "transform_matrix": T.tolist()} for k, T in enumerate(matrices_of(made)[chosen])
    ]}  # fmt: skip
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="The images agree with no reading") as refused:
        read_inputs(video, PredictionOptions(cameras=tmp_path))
    assert isinstance(refused.value, (AmbiguousNumbers, ValueError))


BAD = {
    "nan": (lambda f: f["transform_matrix"][0].__setitem__(3, float("nan")), "holds nan, which is not finite"),
    "inf": (lambda f: f["transform_matrix"][1].__setitem__(1, float("inf")), "holds inf, which is not finite"),
    "1e300": (lambda f: f["transform_matrix"][2].__setitem__(3, 1e300), "coordinate 1e\\+300"),
    "zeros": (lambda f: f.update(transform_matrix=np.zeros((3, 4)).tolist()), "not a rotation"),
    "scaled": (lambda f: f.update(transform_matrix=np.diag([2.0, 2, 2, 1]).tolist()), "lengths 2, 2, 2"),
    "3 rows of 3": (lambda f: f.update(transform_matrix=np.eye(3).tolist()), r"shape \(3, 3\)"),
    "text": (lambda f: f.update(transform_matrix="eye"), "does not hold 4x4 numbers|shape"),
    "last row": (lambda f: f["transform_matrix"][3].__setitem__(0, 1.0), "last row"),
    "focal 0": (lambda f: f.update(fl_x=0.0), "focal length is 0 x"),
    "focal nan": (lambda f: f.update(fl_x=float("nan")), "fl_x is nan"),
    "focal negative": (lambda f: f.update(fl_y=-5.0), "must be above 0"),
    "size": (lambda f: f.update(w=-256), "not the size of an image"),
    "centre": (lambda f: f.update(cx=1e9), "principal point"),
    "distortion": (lambda f: f.update(k1=float("inf")), "k1 is inf"),
    "boolean": (lambda f: f.update(fl_x=True), "not a number"),
    "long number": (lambda f: f.update(fl_x="9" * 400), "not finite|not a number"),
}


@pytest.mark.parametrize("bad", BAD)
def test_values_that_cannot_be_are_named_with_file_and_frame(tmp_path, made, bad):
    data = write_set(made, tmp_path / "set")
    content = json.loads((data / "transforms.json").read_text())
    change, message = BAD[bad]
    change(content["frames"][4])
    (data / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"transforms.json: .*images/00004.png.*{message}"):
        read_inputs(data, PredictionOptions())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "nested too deep|not valid JSON"),
        ('{"frames": [' + "[" * 50_000 + "]" * 50_000 + "]}", "nested too deep"),
        ('{"frames": {"a": 1}}', "lists no frames"),
        ('{"frames": ["a"]}', "no file_path"),
        ('{"frames": [{"file_path": 5}]}', "no file_path"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
    ],
)
def test_hostile_json(tmp_path, content, message):
    (tmp_path / "transforms.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_inputs(tmp_path, PredictionOptions())


def test_the_digest_follows_cameras_and_their_reading(tmp_path, made):
    data = write_set(made, tmp_path / "set")
    before = digest_of_inputs(data, PredictionOptions())
    assert before == digest_of_inputs(data, PredictionOptions())
    assert before != digest_of_inputs(data, PredictionOptions(cameras_convention="opencv"))
    content = json.loads((data / "transforms.json").read_text())
    content["fl_x"] += 1
    (data / "transforms.json").write_text(json.dumps(content))
    assert before != digest_of_inputs(data, PredictionOptions())
