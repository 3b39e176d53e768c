"""The scene folder: what is written is read back; what is damaged is named; nothing is left half written."""

import json
import time

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData

from das3r_ns import geometry, scene
from das3r_ns.scene import writing


def make_scene(n: int = 3) -> tuple[scene.Scene, torch.Tensor]:
    T = torch.eye(4).repeat(n, 1, 1)
    T[:, 0, 3] = torch.arange(n).float()
    dynamic = torch.zeros(n, 12, 16)
    dynamic[:, 2:8, 3:9] = 0.9
    made = scene.Scene(
        T_world_camera=T,
        K=geometry.intrinsics(30.0, 24, 32).repeat(n, 1, 1),
        image_size=(24, 32),
        depth=torch.rand(n, 12, 16) + 1,
        confidence=torch.ones(n, 12, 16) * 2,
        dynamic_prob=dynamic,
        points=scene.PointCloud(
            torch.rand(5, 3),
            torch.randint(0, 255, (5, 3), dtype=torch.uint8),
            torch.ones(5),
            (torch.arange(5) % 3).int(),
        ),
        pose_known=torch.tensor([True] * (n - 1) + [False]),
        names=tuple(f"{i}.jpg" for i in range(n)),
        fps=12.0,
        provenance={"predictor": "test"},
    )
    return made, torch.randint(0, 255, (n, 24, 32, 3), dtype=torch.uint8)


def test_what_is_written_is_read_back(tmp_path):
    made, frames = make_scene()
    back = scene.read_scene(scene.write_scene(made, frames, tmp_path / "s"))
    for name in ("T_world_camera", "K", "depth", "confidence", "pose_known"):
        torch.testing.assert_close(getattr(back, name), getattr(made, name))
    torch.testing.assert_close(back.dynamic_prob, made.dynamic_prob, atol=1e-4, rtol=0)
    for name in ("xyz", "rgb", "staticness", "frame"):
        torch.testing.assert_close(getattr(back.points, name), getattr(made.points, name))
    assert (back.names, back.fps, back.image_size) == (made.names, 12.0, (24, 32))
    assert back.provenance["predictor"] == "test"
    assert torch.equal(scene.read_frames_of_scene(tmp_path / "s"), frames)
    torch.testing.assert_close(back.K_maps[0], geometry.intrinsics(15.0, 12, 16))


def test_the_folder_is_a_nerfstudio_dataset(tmp_path):
    made, frames = make_scene()
    folder = scene.write_scene(made, frames, tmp_path / "s")
    transforms = json.loads((folder / "transforms.json").read_text())
    first = transforms["frames"][0]
    assert np.allclose(np.array(first["transform_matrix"])[:3, :3], np.diag([1, -1, -1]))  # OpenGL axes
    mask = cv2.imread(str(folder / first["mask_path"]), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (24, 32)
    assert mask[10, 12] == 0  # moving: black
    assert mask[22, 30] == 255  # static: keep
    assert len(PlyData.read(str(folder / transforms["ply_file_path"]))["vertex"]) == 5


def test_a_lens_that_all_frames_share_may_stand_once(tmp_path):
    """As most programs of nerfstudio's formats write it."""
    made, frames = make_scene()
    folder = scene.write_scene(made, frames, tmp_path / "s")
    transforms = json.loads((folder / "transforms.json").read_text())
    for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
        shared = {frame.pop(key, transforms.get(key)) for frame in transforms["frames"]}
        (transforms[key],) = shared
    (folder / "transforms.json").write_text(json.dumps(transforms))
    torch.testing.assert_close(scene.read_scene(folder).K, made.K)


def test_a_mask_corrected_by_hand_wins_over_the_soft_map(tmp_path):
    made, frames = make_scene()
    folder = scene.write_scene(made, frames, tmp_path / "s")
    mask = np.full((24, 32), 255, np.uint8)
    mask[16:, :16] = 0
    cv2.imwrite(str(folder / "masks" / "frame_00001.png"), mask)
    back = scene.read_scene(folder)
    assert (back.dynamic_prob[0, 8:, :8] == 1).all()
    assert back.dynamic_prob[0, :8].sum() == 0
    torch.testing.assert_close(back.dynamic_prob[1], made.dynamic_prob[1], atol=1e-4, rtol=0)


def test_nothing_is_overwritten_unless_allowed(tmp_path):
    made, frames = make_scene()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match="not a scene folder"):
        scene.write_scene(made, frames, tmp_path / "mine", overwrite=True)
    scene.write_scene(made, frames, tmp_path / "s")
    with pytest.raises(FileExistsError, match="allow overwriting"):
        scene.write_scene(made, frames, tmp_path / "s")
    scene.write_scene(made, frames, tmp_path / "s", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "s"]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    made, frames = make_scene()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "_write_points", full_disk)
    with pytest.raises(OSError, match=r"no room for the scene s: .* Make room there"):
        scene.write_scene(made, frames, tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_a_scene_that_would_not_train_is_refused(tmp_path):
    made, frames = make_scene()
    made.depth[1, 2, 3] = float("nan")
    with pytest.raises(ValueError, match="depth has values that are not finite"):
        scene.write_scene(made, frames, tmp_path / "s")
    with pytest.raises(ValueError, match="do not fit"):
        scene.write_scene(make_scene()[0], frames[:, :5], tmp_path / "s")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "transforms.json").unlink(), "missing"),
        (lambda f: (f / "transforms.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "transforms.json").write_text('{"frames": [{}]}'), "damaged"),
        (lambda f: (f / "depth" / "frame_00002.npy").write_bytes(b"x"), "frame_00002"),
        (lambda f: (f / "dynamic_prob" / "frame_00003.png").unlink(), "frame_00003"),
        (lambda f: np.save(f / "depth" / "frame_00001.npy", np.ones((3, 3), np.float32)), "differ in size"),
        (lambda f: (f / "sparse_pc.ply").write_text("ply"), "point cloud"),
    ],
)
def test_a_damaged_folder_is_named(tmp_path, damage, message):
    made, frames = make_scene()
    folder = scene.write_scene(made, frames, tmp_path / "s")
    damage(folder)
    with pytest.raises(scene.SceneFolderError, match=message):
        scene.read_scene(folder)


def test_frames_of_several_sizes_are_refused(tmp_path):
    made, frames = make_scene(4)
    folder = scene.write_scene(made, frames, tmp_path / "s")
    transforms = json.loads((folder / "transforms.json").read_text())
    for k, entry in enumerate(transforms["frames"]):
        entry.update(h=24 + k, w=32)
        Image.new("RGB", (32, 24 + k)).save(folder / entry["file_path"])
    (folder / "transforms.json").write_text(json.dumps(transforms))
    three = r"\[\(24, 32\), \(25, 32\), \(26, 32\)\]\."
    with pytest.raises(scene.SceneFolderError, match=rf"transforms\.json: frames differ in size: {three}"):
        scene.read_scene(folder)


def test_a_folder_of_another_format_says_so(tmp_path):
    made, frames = make_scene()
    folder = scene.write_scene(made, frames, tmp_path / "s")
    info = json.loads((folder / "predictor.json").read_text())
    info["format_version"] = 99
    (folder / "predictor.json").write_text(json.dumps(info))
    with pytest.raises(scene.SceneFolderError, match="99"):
        scene.read_scene(folder)


def test_no_two_arrays_are_parsed_at_once(tmp_path, monkeypatch):
    written, frames = make_scene(8)
    scene.write_scene(written, frames, tmp_path / "clip")
    load, inside, most = np.load, [], []

    def slow_load(path, **options):
        inside.append(path)
        most.append(len(inside))
        time.sleep(0.01)
        inside.remove(path)
        return load(path, **options)

    monkeypatch.setattr(np, "load", slow_load)
    scene.read_scene(tmp_path / "clip")
    assert len(most) == 16
    assert max(most) == 1
