"""What nerfstudio and the model receive from a scene folder: cameras, splits, masks, seed points, names."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from fakes import STEP, WALL, FakePredictor, texture, wall_scene, write_images
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import Image

from das3r_ns import geometry
from das3r_ns.dataparser import cache, seed_points
from das3r_ns.dataparser.outputs import outputs_of_scene, split_frames
from das3r_ns.dataparser.parser import Das3rDataParserConfig
from das3r_ns.dataparser.seed_points import training_seed_points as make_start
from das3r_ns.predictor.geometric import config as geometric
from das3r_ns.scene import image_paths, read_scene, write_scene

N, SIZE = 6, (48, 64)


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_scene(wall_scene(N, SIZE), torch.from_numpy(texture(N, SIZE)), tmp_path / "wall")


def parse(data: Path, split: str = "train", **options):
    return Das3rDataParserConfig(data=data, **options).setup().get_dataparser_outputs(split=split)


def test_the_metadata_is_what_the_model_expects(folder):
    outputs = parse(folder, max_points=500)
    m, h, w = outputs.metadata, SIZE[0] // 2, SIZE[1] // 2
    count = len(m["points3D_xyz"])
    assert 0 < count <= 500
    assert m["points3D_xyz"].shape == (count, 3)
    assert (m["points3D_rgb"].dtype, m["points3D_rgb"].shape) == (torch.uint8, (count, 3))
    assert m["points3D_scale"].shape == m["points3D_staticness"].shape == (count,)
    assert m["points3D_pixel"].shape == (count, 3)
    for name in ("dynamic_prob", "depth", "confidence"):
        assert m[name].shape == (N, h, w)
    assert m["frame_weight"].tolist() == [1, 1, 1, pytest.approx(0.2), 1, 1]
    assert m["frame_index"].tolist() == list(range(N))
    assert m["scene_folder"] == str(folder)
    assert outputs.dataparser_scale == 1
    assert torch.equal(outputs.dataparser_transform, torch.eye(4)[:3])
    evaluated = parse(folder, split="val")
    assert set(evaluated.metadata) == {"scene_folder", "frame_index"}
    assert evaluated.cameras.metadata["frame_index"].tolist() == [[i] for i in range(N)]
    assert outputs.cameras[2:3].metadata["frame_index"].tolist() == [[2]]
    motion = geometry.camera_motion(read_scene(folder).T_world_camera)
    assert motion.abs().max() > 0
    held_out = parse(folder, split="val", eval_mode="interval", eval_interval=3)
    torch.testing.assert_close(held_out.cameras.metadata["camera_motion"], motion[[0, 3]])  # of the whole clip's path


def test_every_start_point_is_the_world_point_of_its_pixel(folder):
    m = parse(folder, max_points=200).metadata
    scene = read_scene(folder)
    for xyz, rgb, (frame, row, column) in zip(m["points3D_xyz"], m["points3D_rgb"], m["points3D_pixel"].tolist()):
        in_camera = geometry.transform(geometry.invert(scene.T_world_camera[frame]), xyz)
        pixel, z = geometry.project(in_camera, scene.K_maps[frame])
        assert pixel.tolist() == pytest.approx([column + 0.5, row + 0.5], abs=1e-3)
        assert z == pytest.approx(WALL)
        # The image's red and green count columns and rows, at twice the size of the maps.
        assert rgb.tolist() == pytest.approx([2 * column + 0.5, 2 * row + 0.5, frame], abs=1)


def test_every_pixel_of_the_training_frames_when_no_budget_is_given(folder):
    for nothing in (None, 0):
        m = parse(folder, max_points=nothing).metadata
        assert len(m["points3D_xyz"]) == N * 24 * 32
        assert m["points3D_scale"].unique().tolist() == pytest.approx([1 / 32, 2 / 32])  # depth over focal length
        assert m["points3D_staticness"].mean() == pytest.approx(1 - 8 * 11 / (24 * 32))
    held_out = parse(folder, max_points=0, eval_mode="paper").metadata
    assert len(held_out["points3D_xyz"]) == (N - 1) * 24 * 32
    assert held_out["points3D_pixel"][:, 0].max() == N - 2


def test_pixels_without_depth_or_confidence_start_nothing(tmp_path):
    scene = wall_scene(2, SIZE)
    scene.depth[0, :5] = 0
    scene.confidence[1, :, :7] = 0
    folder = write_scene(scene, torch.from_numpy(texture(2, SIZE)), tmp_path / "s")
    m = parse(folder, max_points=0).metadata
    assert len(m["points3D_xyz"]) == 24 * 32 - 5 * 32 + 24 * 32 - 24 * 7


def test_one_surface_seen_by_all_frames_is_taken_once(folder):
    m = parse(folder, max_points=100_000).metadata
    # The wall as all six frames see it: the camera moves 0.1 a frame at depth 2 and focal length 32, 1.6 pixels.
    seen_once = 24 * (32 + 5 * 1.6)
    assert 0.75 * seen_once < len(m["points3D_xyz"]) < 1.15 * seen_once
    assert (m["points3D_staticness"] == 1).all()
    x = m["points3D_xyz"][:, 0]
    # The wall ends where the first frame's left border and the last frame's right border see it.
    assert x.min() < -0.95
    assert x.max() > 0.95 + 5 * STEP


def test_the_budget_thins_evenly_and_grows_the_points(folder):
    full = parse(folder, max_points=100_000).metadata
    m = parse(folder, max_points=150).metadata
    assert len(m["points3D_xyz"]) == 150
    factor = (len(full["points3D_xyz"]) / 150) ** 0.5
    assert m["points3D_scale"].tolist() == pytest.approx([2 / 32 * factor] * 150)
    # No part of the wall is left without: the farthest full point is a few of its new sizes away from a kept one.
    distance = torch.cdist(full["points3D_xyz"], m["points3D_xyz"]).amin(dim=1)
    assert distance.max() < 3 * float(m["points3D_scale"][0])


def test_of_neighbours_the_surest_pixel_stays(tmp_path):
    scene = wall_scene(2, SIZE)
    scene.dynamic_prob[:] = 0
    scene.depth[:] = WALL
    scene.confidence[:] = 0.1
    scene.confidence[:, ::2, ::2] = 5.0
    folder = write_scene(scene, torch.from_numpy(texture(2, SIZE)), tmp_path / "s")
    pixel = parse(folder, max_points=24 * 32 // 8).metadata["points3D_pixel"]
    assert ((pixel[:, 1] % 2 == 0) & (pixel[:, 2] % 2 == 0)).float().mean() > 0.9


def test_something_behind_something_is_not_taken_for_it():
    """Two cameras see two walls through one another: neither covers the other."""
    scene = wall_scene(2, SIZE)
    scene.T_world_camera[1] = scene.T_world_camera[0]
    scene.dynamic_prob[:] = 0
    scene.depth[0], scene.depth[1] = 2.0, 3.0
    usable = torch.ones(2, 24, 32, dtype=torch.bool)
    assert seed_points._distinct(scene, [0, 1], usable).all()
    scene.depth[1] = 2.05
    assert seed_points._distinct(scene, [0, 1], usable).sum() == 24 * 32


def test_the_order_of_visits_spans_the_clip_from_the_beginning():
    assert seed_points._spread_order(7) == [3, 1, 5, 0, 2, 4, 6]
    assert sorted(seed_points._spread_order(50)) == list(range(50))
    assert seed_points._spread_order(1) == [0]


def test_morton_codes_interleave_bits():
    assert seed_points._spread_bits(torch.tensor([0b1011])).item() == 0b1000101
    assert seed_points._spread_bits(torch.tensor([0xFFFF])).item() == 0x55555555


def test_a_scene_without_depth_starts_from_its_points(folder):
    scene = read_scene(folder)
    scene.depth[:] = 0
    start = make_start(scene, image_paths(folder), list(range(N)), 1000)
    assert len(start.xyz) == 2
    assert (start.pixel == -1).all()
    columns = {name: getattr(scene.points, name)[:0] for name in ("xyz", "rgb", "staticness", "frame")}
    empty = replace(scene, points=replace(scene.points, **columns))
    with pytest.raises(ValueError, match="neither depth nor points"):
        make_start(empty, image_paths(folder), [0, 1], 1000)


def test_a_point_in_front_of_the_camera_lands_on_its_pixel_in_nerfstudio(folder):
    """Through nerfstudio's own rays: OpenGL axes and the half-pixel convention are right only together."""
    cameras = parse(folder).cameras
    at = torch.tensor([[10.5, 20.5]])  # row, column
    rays = cameras.generate_rays(camera_indices=3, coords=at)
    scene = read_scene(folder)
    ray = geometry.transform(geometry.invert(scene.T_world_camera[3]), rays.origins + rays.directions)[0]
    pixel, z = geometry.project(ray, scene.K[3])
    assert z > 0
    assert pixel.tolist() == pytest.approx([20.5, 10.5], abs=1e-4)
    # In the levelled world the wall is ahead (y) and up in the image is up (z).
    assert rays.directions[0, 1] > 0.9
    assert rays.directions[0, 2] > 0


def test_nerfstudios_own_dataparser_reads_the_folder_and_agrees(folder):
    theirs = (
        NerfstudioDataParserConfig(
            data=folder, orientation_method="none", center_method="none", auto_scale_poses=False, eval_mode="all",
            load_3D_points=True,
        )
        .setup()
        .get_dataparser_outputs(split="train")
    )  # fmt: skip
    ours = parse(folder)
    assert theirs.image_filenames == ours.image_filenames
    assert theirs.mask_filenames == ours.mask_filenames
    torch.testing.assert_close(theirs.cameras.camera_to_worlds, ours.cameras.camera_to_worlds)
    for name in ("fx", "fy", "cx", "cy", "width", "height", "camera_type"):
        torch.testing.assert_close(getattr(theirs.cameras, name), getattr(ours.cameras, name), check_dtype=False)
    assert not theirs.cameras.distortion_params.any()
    assert ours.cameras.distortion_params is None
    assert theirs.metadata["points3D_xyz"].shape == (2, 3)


def test_nerfstudios_dataset_reads_images_and_keep_masks(folder):
    dataset = InputDataset(parse(folder))
    item = dataset[4]
    assert item["image"].shape == (*SIZE, 3)
    assert item["image"][3, 9, 0] == pytest.approx(9 / 255)
    assert item["mask"].shape == (*SIZE, 1)
    assert not item["mask"][SIZE[0] // 2, SIZE[1] // 2]  # something moves there
    assert item["mask"][2, 2]


@pytest.mark.parametrize(
    ("mode", "train", "evaluated"),
    [
        ("all", list(range(12)), list(range(12))),
        ("paper", [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11], [5]),
        ("interval", [1, 2, 3, 4, 5, 6, 7, 9, 10, 11], [0, 8]),
    ],
)
def test_splits(mode, train, evaluated):
    assert split_frames(12, "train", mode, 8) == train
    assert split_frames(12, "val", mode, 8) == split_frames(12, "test", mode, 8) == evaluated


def test_a_split_without_frames_is_refused():
    with pytest.raises(ValueError, match="eval-mode paper leaves no frame for val in a clip of 5"):
        split_frames(5, "val", "paper", 8)


def test_the_papers_split_holds_out_every_tenth_from_the_sixth():
    assert split_frames(50, "val", "paper", 8) == [5, 15, 25, 35, 45]


def test_masks_edited_by_hand_reach_the_model(folder):
    mask = np.full(SIZE, 255, np.uint8)
    mask[:, 32:] = 0
    cv2.imwrite(str(folder / "masks" / "frame_00002.png"), mask)
    dynamic = parse(folder).metadata["dynamic_prob"]
    assert (dynamic[1, :, 16:] == 1).all()
    assert (dynamic[1, :, :16] == 0).all()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Image.new("RGB", (64, 48)), "3 channels"),
        (Image.new("L", (32, 24)), "32x24"),
        (None, "missing"),
    ],
)
def test_a_mask_that_nerfstudio_could_not_use_is_named(folder, broken, message):
    path = folder / "masks" / "frame_00002.png"
    if broken is not None:
        broken.save(path)
        with pytest.raises(ValueError, match=message):
            outputs_of_scene(folder, "train")
    else:
        path.unlink()
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            outputs_of_scene(folder, "val")


def test_masks_may_be_taken_out(folder):
    transforms = json.loads((folder / "transforms.json").read_text())
    for frame in transforms["frames"]:
        del frame["mask_path"]
    (folder / "transforms.json").write_text(json.dumps(transforms))
    assert parse(folder).mask_filenames is None


def test_given_cameras_are_levelled_and_lead_back_to_the_users_world(tmp_path):
    """The user's world: units 100 times smaller, turned about. Exports must find it again."""
    scene = wall_scene(N, SIZE)
    turned = geometry.invert(geometry.level_world(scene.T_world_camera, 1.0))
    turned[:3] *= 100
    T, scale = geometry.apply_similarity(turned, scene.T_world_camera)
    given = replace(
        scene,
        T_world_camera=T,
        depth=scene.depth * scale,
        points=replace(scene.points, xyz=geometry.transform(turned, scene.points.xyz)),
        provenance={"cameras_given": True},
    )
    folder = write_scene(given, torch.from_numpy(texture(N, SIZE)), tmp_path / "given")
    outputs = parse(folder)
    assert outputs.dataparser_scale == pytest.approx(1 / (100 * WALL))
    back = outputs.transform_poses_to_original_space(outputs.cameras.camera_to_worlds)
    torch.testing.assert_close(back, T[:, :3].double(), atol=1e-3, rtol=1e-5)
    # What training sees is level and of unit depth: the wall at 1.
    m = outputs.metadata
    assert m["depth"][:, 0, 0].tolist() == pytest.approx([1.0] * N)
    assert m["points3D_xyz"][:, 1].tolist() == pytest.approx([1.0] * len(m["points3D_xyz"]), abs=1e-3)
    z_of_cameras = outputs.cameras.camera_to_worlds[:, 2, 3]
    assert z_of_cameras.abs().max() < 1e-4


def test_map_coordinates_come_back_from_what_training_sees(tmp_path):
    """A scene that was shifted, because single precision has no room for seven digits before the point and a path after
    it. Exports use the transform of the outputs."""
    scene = wall_scene(N, SIZE)
    shift = torch.eye(4, dtype=torch.float64)
    shift[:3, 3] = -torch.tensor([500000.25, 4649776.5, 213.0], dtype=torch.float64)
    given = replace(scene, provenance={"cameras_given": True}, applied_transform=shift)
    folder = write_scene(given, torch.from_numpy(texture(N, SIZE)), tmp_path / "given")
    outputs = parse(folder)
    back = outputs.transform_poses_to_original_space(outputs.cameras.camera_to_worlds)
    right = torch.linalg.inv(shift) @ scene.T_world_camera.double()
    torch.testing.assert_close(back, right[:, :3], atol=1e-4, rtol=0)
    outputs.save_dataparser_transform(tmp_path / "transforms.json")
    saved = json.loads((tmp_path / "transforms.json").read_text())
    matrix = torch.tensor([*saved["transform"], [0, 0, 0, 1]], dtype=torch.float64)
    again = torch.linalg.inv(matrix) @ torch.cat(
        (outputs.cameras.camera_to_worlds[0, :, 3].double() / saved["scale"], torch.ones(1, dtype=torch.float64))
    )
    torch.testing.assert_close(again[:3], right[0, :3, 3], atol=1e-4, rtol=0)


def test_the_config_survives_yaml_and_pickle(tmp_path):
    config = Das3rDataParserConfig(data=tmp_path / "clip.mp4", masks=tmp_path, max_points=None)
    config.video.fps = 5.0
    assert yaml.load(yaml.dump(config), Loader=yaml.Loader) == config
    assert pickle.loads(pickle.dumps(config)) == config


def test_a_folder_of_images_goes_all_the_way(tmp_path, monkeypatch):
    predictor = FakePredictor()
    monkeypatch.setattr(cache, "build_predictor", lambda *_: (predictor, "a test"))
    outputs = parse(write_images(tmp_path / "shots"), cache_dir=tmp_path / "cache")
    assert len(outputs.image_filenames) == N
    assert all(path.is_file() for path in outputs.image_filenames)
    scene = read_scene(Path(outputs.metadata["scene_folder"]))
    assert scene.names == tuple(f"{i:05d}.png" for i in range(N))
    assert scene.provenance["options"]["video"]["every"] == 1


def test_a_scene_is_found_by_what_refined_its_masks(tmp_path, monkeypatch):
    predictor = FakePredictor()
    monkeypatch.setattr(cache, "build_predictor", lambda *_: (predictor, "a test"))
    shots = write_images(tmp_path / "shots")
    folders = []
    for meaning in ("none", "salience", "none"):
        monkeypatch.setattr(geometric, "resolve_auto", lambda name, meaning=meaning: meaning)
        outputs = parse(shots, cache_dir=tmp_path / "cache", predictor="geometric")
        folders.append(outputs.metadata["scene_folder"])
    assert folders[0] == folders[2] != folders[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"eval_interval": 1}, "eval-interval"), ({"max_points": -1}, "max-points")],
)
def test_options_that_make_no_sense(folder, options, message):
    with pytest.raises(ValueError, match=message):
        parse(folder, **options)
