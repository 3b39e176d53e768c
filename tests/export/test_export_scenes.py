"""Scenes written for other programs, read back by what reads them there."""

import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image

from das3r_ns.cli import COMMANDS
from das3r_ns.export.command import export
from das3r_ns.export.scenes import MARK
from das3r_ns.scene import PointCloud, Scene, read_scene, write_scene

N, SIZE = 4, (48, 64)


@pytest.fixture(scope="module")
def scene_folder(tmp_path_factory) -> Path:
    """Four frames whose upper left quarter moves, with points and a lens that is not in the middle."""
    generator = torch.Generator().manual_seed(1)
    T = torch.eye(4).repeat(N, 1, 1)
    T[:, 0, 3] = torch.linspace(0, 1, N)
    T[:, 1, 3] = 0.5
    angle = torch.linspace(0, 0.4, N)
    T[:, 0, 0], T[:, 0, 2], T[:, 2, 0], T[:, 2, 2] = angle.cos(), angle.sin(), -angle.sin(), angle.cos()
    K = torch.tensor([[60.0, 0, 30], [0, 61, 25], [0, 0, 1]]).repeat(N, 1, 1)
    dynamic = torch.zeros(N, *SIZE)
    dynamic[:, :24, :32] = 1
    scene = Scene(
        T_world_camera=T,
        K=K,
        image_size=SIZE,
        depth=torch.full((N, *SIZE), 2.0),
        confidence=torch.ones(N, *SIZE),
        dynamic_prob=dynamic,
        points=PointCloud(
            torch.rand(50, 3, generator=generator) + torch.tensor([0, 0, 2.0]),
            torch.randint(0, 255, (50, 3), generator=generator).to(torch.uint8),
            torch.ones(50),
            torch.zeros(50, dtype=torch.long),
        ),
        pose_known=torch.ones(N, dtype=torch.bool),
        names=tuple(f"{i}.png" for i in range(N)),
        fps=10.0,
    )
    frames = torch.randint(0, 255, (N, *SIZE, 3), generator=generator).to(torch.uint8)
    return write_scene(scene, frames, tmp_path_factory.mktemp("scenes") / "scene")


def check_masks(folder: Path, names: list[str], inverted: bool = False) -> None:
    """Black where something moves."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    for name in names:
        mask = np.asarray(Image.open(folder / name))
        assert mask.shape == SIZE
        moving = mask > 128 if inverted else mask < 128
        assert moving[:24, :32].all()
        assert not moving[24:].any()


@pytest.mark.parametrize("target", ["colmap", "brush", "lichtfeld", "postshot"])
def test_colmap_layouts_are_read_back_by_pycolmap(target, scene_folder, tmp_path, capsys):
    out = export(data=scene_folder, target=target, out=tmp_path / "out")
    scene = read_scene(scene_folder)
    model = pycolmap.Reconstruction(str(out / "sparse" / "0"))
    assert model.num_images() == model.num_reg_images() == N
    assert model.num_cameras() == 1
    for i, image in enumerate(sorted(model.images.values(), key=lambda image: image.name)):
        T_camera_world = np.vstack((image.cam_from_world().matrix(), [0, 0, 0, 1]))
        assert np.abs(np.linalg.inv(T_camera_world) - scene.T_world_camera[i].numpy()).max() < 1e-6
        assert np.abs(image.camera.calibration_matrix() - scene.K[i].numpy()).max() < 1e-4
        assert (image.camera.height, image.camera.width) == SIZE
        original = scene_folder / "images" / image.name
        assert (out / "images" / image.name).read_bytes() == original.read_bytes()
    points = np.array([point.xyz for point in model.points3D.values()])
    assert np.abs(np.sort(points, axis=0) - np.sort(scene.points.xyz.numpy(), axis=0)).max() < 1e-5
    ending = ".png.png" if target == "colmap" else ".png"
    check_masks(out / "masks", [f"frame_{i + 1:05d}{ending}" for i in range(N)])
    assert f"for {target}" in capsys.readouterr().out


def test_masks_are_inverted_when_asked(scene_folder, tmp_path):
    out = export(data=scene_folder, target="postshot", out=tmp_path / "out", invert_masks=True)
    check_masks(out / "masks", [f"frame_{i + 1:05d}.png" for i in range(N)], inverted=True)
    check_masks(scene_folder / "masks", [f"frame_{i + 1:05d}.png" for i in range(N)])


@pytest.mark.parametrize("target", ["nerfstudio", "colmap", "brush"])
def test_nerfstudio_reads_them(target, scene_folder, tmp_path):
    """By its own dataparsers: cameras, seed points and masks as splatfacto trains on them."""
    from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    out = export(data=scene_folder, target=target, out=tmp_path / "out")
    fixed = {
        "orientation_method": "none", "center_method": "none", "auto_scale_poses": False, "eval_mode": "all",
        "load_3D_points": True,
    }  # fmt: skip
    if target == "nerfstudio":
        config = NerfstudioDataParserConfig(data=out, downscale_factor=1, **fixed)
    else:
        # nerfstudio names a mask like its image, as Brush does.
        masks = Path("masks") if target == "brush" else None
        config = ColmapDataParserConfig(
            data=out,
            colmap_path=Path("sparse/0"),
            downscale_factor=1,
            masks_path=masks,
            assume_colmap_world_coordinate_convention=False,
            **fixed,
        )
    outputs = config.setup().get_dataparser_outputs("train")
    assert len(outputs.image_filenames) == N
    scene = read_scene(scene_folder)
    c2w = outputs.cameras.camera_to_worlds
    assert (c2w[:, :, 3] - scene.T_world_camera[:, :3, 3]).abs().max() < 1e-5
    assert outputs.metadata["points3D_xyz"].shape == (50, 3)
    if target != "colmap":
        assert outputs.mask_filenames is not None
        assert (np.asarray(Image.open(outputs.mask_filenames[0]))[:24, :32] == 0).all()


def test_tum_is_read_back_with_times(scene_folder, tmp_path):
    out = export(data=scene_folder, target="tum", out=tmp_path / "out")
    scene = read_scene(scene_folder)
    rows = np.loadtxt(out / "trajectory.txt")
    assert np.allclose(rows[:, 0], np.arange(N) / 10)
    assert np.abs(rows[:, 1:4] - scene.T_world_camera[:, :3, 3].numpy()).max() < 1e-6
    listed = (out / "rgb.txt").read_text().splitlines()[1:]
    assert all((out / line.split()[1]).is_file() for line in listed)
    assert np.allclose(np.loadtxt(out / "calibration.txt"), [60, 61, 30, 25])
    from evo.tools import file_interface

    assert file_interface.read_tum_trajectory_file(str(out / "trajectory.txt")).num_poses == N


def test_what_is_there_is_not_replaced_unasked(scene_folder, tmp_path):
    out = tmp_path / "out"
    export(data=scene_folder, target="tum", out=out)
    with pytest.raises(FileExistsError, match="--overwrite"):
        export(data=scene_folder, target="brush", out=out)
    export(data=scene_folder, target="brush", out=out, overwrite=True)
    assert (out / "sparse").is_dir()
    assert not (out / "trajectory.txt").exists()
    (out / MARK).unlink()
    with pytest.raises(FileExistsError, match="not exported by das3r"):
        export(data=scene_folder, target="brush", out=out, overwrite=True)


def test_scenes_without_masks_are_exported_without(scene_folder, tmp_path):
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(scene_folder, bare)
    content = json.loads((bare / "transforms.json").read_text())
    for frame in content["frames"]:
        del frame["mask_path"]
    (bare / "transforms.json").write_text(json.dumps(content))
    shutil.rmtree(bare / "masks")
    for target in ("brush", "nerfstudio"):
        out = export(data=bare, target=target, out=tmp_path / target)
        assert not (out / "masks").exists()


def test_mistakes_are_named(scene_folder, tmp_path):
    with pytest.raises(ValueError, match="either a run"):
        export()
    with pytest.raises(ValueError, match="has no splat"):
        export(data=scene_folder)
    with pytest.raises(ValueError, match="not a scene folder"):
        export(data=tmp_path, target="brush")
    with pytest.raises(ValueError, match=r"must end in \.ply"):
        export(load_config=tmp_path / "config.yml", out=tmp_path / "splat.obj")
    with pytest.raises(ValueError, match="--keep-dynamic"):
        export(data=scene_folder, target="brush", keep_dynamic=True)
    assert COMMANDS["export"][0] == "das3r_ns.export.command:export"
