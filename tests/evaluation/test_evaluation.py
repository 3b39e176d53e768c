"""`das3r eval` on scene folders whose errors are put in by hand, and everything it must refuse."""

import copy
import json
import math
import pickle
import shutil
import types
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras

from das3r_ns import geometry
from das3r_ns.datasets import TruthError, read_truth_folder
from das3r_ns.evaluation.comparison import compare_images, compare_masks, mean_of_known
from das3r_ns.evaluation.evaluate import evaluate
from das3r_ns.evaluation.runs import TrainedRun
from das3r_ns.evaluation.truth_options import TruthFiles
from das3r_ns.files.whole import DiskFullError
from das3r_ns.runs.checkpoints import read_checkpoint
from das3r_ns.scene import PointCloud, Scene, write_scene

N, H, W = 6, 48, 64
FOCAL = 60.0


def _true_path() -> torch.Tensor:
    T = torch.eye(4, dtype=torch.float64).repeat(N, 1, 1)
    T[:, 0, 3] = torch.arange(N) * 0.2
    T[:, 1, 3] = torch.tensor([0.0, 0.1, 0.0, -0.1, 0.0, 0.1])
    return T


def _true_masks() -> torch.Tensor:
    masks = torch.zeros(N, H, W, dtype=torch.bool)
    for i in range(N):
        masks[i, 10:30, 4 * i : 4 * i + 20] = True  # 20 x 20
    return masks


@pytest.fixture
def truth(tmp_path) -> Path:
    folder = tmp_path / "truth"
    rng = np.random.default_rng(0)
    for name in ("images", "dynamic_masks", "clean"):
        (folder / name).mkdir(parents=True)
    for i, mask in enumerate(_true_masks().numpy()):
        clean = cv2.GaussianBlur(rng.integers(0, 255, (H, W, 3), np.uint8), (5, 5), 0)
        seen = np.where(mask[..., None], 200, clean).astype(np.uint8)
        cv2.imwrite(str(folder / "clean" / f"{i:05d}.png"), clean)
        cv2.imwrite(str(folder / "images" / f"{i:05d}.png"), seen)
        cv2.imwrite(str(folder / "dynamic_masks" / f"{i:05d}.png"), mask.astype(np.uint8) * 255)
    np.savetxt(folder / "T_world_camera.txt", _true_path().reshape(N, 16))
    np.savetxt(folder / "K.txt", geometry.intrinsics(FOCAL, H, W))
    return folder


def _scene(dynamic_prob: torch.Tensor, T: torch.Tensor, focal: float = FOCAL, maps: tuple[int, int] = (H, W)) -> Scene:
    n = len(T)
    return Scene(
        T_world_camera=T.float(),
        K=geometry.intrinsics(focal, H, W).repeat(n, 1, 1),
        image_size=(H, W),
        depth=torch.ones(n, *maps),
        confidence=torch.ones(n, *maps),
        dynamic_prob=dynamic_prob,
        points=PointCloud(
            torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.uint8), torch.ones(1), torch.zeros(1, dtype=torch.int32)
        ),
        pose_known=torch.ones(n, dtype=torch.bool),
        names=tuple(f"{i:05d}" for i in range(n)),
    )


def _written(scene: Scene, folder: Path) -> Path:
    frames = torch.zeros(len(scene), *scene.image_size, 3, dtype=torch.uint8)
    return write_scene(scene, frames, folder)


def test_a_perfect_scene_in_another_world_scores_perfectly(tmp_path, truth):
    similarity = torch.eye(4, dtype=torch.float64)
    similarity[:3, :3] *= 3
    similarity[:3, 3] = torch.tensor([1.0, 2, 3])
    T, _ = geometry.apply_similarity(similarity, _true_path())
    scene = _written(_scene(_true_masks().float(), T), tmp_path / "scene")
    metrics = evaluate(scene=scene, truth=TruthFiles(truth))
    poses, masks = metrics["poses"]["predicted"], metrics["masks"]["predicted"]
    assert poses["ate"] == pytest.approx(0, abs=1e-6)
    assert poses["focal_error_percent"] == pytest.approx(0, abs=1e-5)
    assert masks["j_mean"] == masks["j_recall"] == masks["f_mean"] == 1
    assert metrics["left_out"].keys() == {"psnr"}


def test_known_errors_come_out_as_they_were_put_in(tmp_path, truth, capsys):
    T = _true_path()
    T[0, 2, 3] += 0.05  # one centre off by 5 cm
    shifted = torch.roll(_true_masks(), 5, dims=2).float()  # 20 wide, moved by 5: J = 15 / 25
    scene = _written(_scene(0.8 * shifted, T, focal=FOCAL * 1.1), tmp_path / "scene")
    metrics = evaluate(scene=scene, truth=TruthFiles(truth), out=tmp_path / "out")
    poses, masks = metrics["poses"]["predicted"], metrics["masks"]["predicted"]
    assert 0.005 < poses["ate"] < 0.05 / math.sqrt(N)  # less than unaligned: alignment takes up a part
    assert poses["focal_error_percent"] == pytest.approx(10, abs=1e-4)
    assert masks["j_mean"] == pytest.approx(0.6)
    assert masks["j_recall"] == 1
    assert masks["j_mean_by_threshold"]["0.9"] == 0  # the map never rises above 0.8
    assert masks["j_mean_by_threshold"]["0.7"] == pytest.approx(0.6, abs=1e-3)
    stored = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert stored["masks"]["predicted"]["per_frame"]["frame"] == list(range(N))
    printed = capsys.readouterr().out
    assert "J mean" in printed
    assert "0.600" in printed
    assert "ATE" in printed
    assert "psnr left out: a scene folder shows no images" in printed


def test_the_images_show_what_they_should(tmp_path, truth):
    predicted = torch.roll(_true_masks(), 10, dims=2).float()
    scene = _written(_scene(predicted, _true_path()), tmp_path / "scene")
    metrics = evaluate(scene=scene, truth=TruthFiles(truth), out=tmp_path / "out")
    assert set(metrics["figures"]) == {"trajectory.png", "masks.jpg"}
    sheet = cv2.imread(str(tmp_path / "out" / "masks.jpg"))
    assert sheet.shape == (N * (240 + 22), 4 * 320, 3)
    # Frame 0, error panel (scale 5): columns 0-10 missed, 10-20 found, 20-30 false; rows 10-30.
    at = [sheet[22 + 20 * 5, 3 * 320 + 5 * x].astype(int) for x in (5, 15, 25)]
    missed, found, false = ((c[2], c[0]) for c in at)
    assert missed[0] > 180 > 100 > missed[1]  # red
    assert min(found) > 200  # white
    assert false[1] > 180 > 100 > false[0]  # blue
    evaluate(scene=scene, truth=TruthFiles(truth), out=tmp_path / "bare", draw=False)
    assert [p.name for p in (tmp_path / "bare").iterdir()] == ["metrics.json"]


def test_maps_smaller_than_the_images_are_enlarged_before_they_count(tmp_path, truth):
    small = torch.nn.functional.avg_pool2d(_true_masks().float()[:, None], 2)[:, 0]
    scene = _scene(small, _true_path(), maps=(H // 2, W // 2))
    comparison = compare_masks(scene.dynamic_prob, read_truth_folder(truth))
    assert comparison.scores.j_mean == pytest.approx(1.0, abs=0.02)


def test_parts_can_be_chosen_and_what_is_chosen_must_be_possible(tmp_path, truth):
    scene = _written(_scene(_true_masks().float(), _true_path()), tmp_path / "scene")
    assert "poses" not in evaluate(scene=scene, truth=TruthFiles(truth), parts=("masks",), draw=False)
    (truth / "T_world_camera.txt").unlink()
    with pytest.raises(TruthError, match=r"poses cannot be measured: .*no T_world_camera\.txt \(or --truth-poses\)"):
        evaluate(scene=scene, truth=TruthFiles(truth), parts=("poses",))
    with pytest.raises(TruthError, match=r"psnr cannot be measured: .*--load-config"):
        evaluate(scene=scene, truth=TruthFiles(truth), parts=("psnr",))


def test_truth_can_be_given_piece_by_piece(tmp_path, truth):
    scene = _written(_scene(_true_masks().float(), _true_path(), focal=66.0), tmp_path / "scene")
    metrics = evaluate(
        scene=scene,
        truth=TruthFiles(masks=truth / "dynamic_masks", poses=truth / "T_world_camera.txt", focal_px=FOCAL),
        draw=False,
    )
    assert metrics["masks"]["predicted"]["j_mean"] == 1
    assert metrics["poses"]["predicted"]["focal_error_percent"] == pytest.approx(10, abs=1e-4)


def test_a_truth_of_another_length_is_refused_and_named(tmp_path, truth):
    scene = replace(_scene(_true_masks()[:5].float(), _true_path()[:5]), names=tuple("abcde"))
    scene = _written(scene, tmp_path / "scene")
    with pytest.raises(TruthError, match=r"has 5 frames and the ground truth .*truth has 6.*--video\.max-frames"):
        evaluate(scene=scene, truth=TruthFiles(truth))


@pytest.mark.parametrize("name", ["{:05d}.jpg", "frame_{:05d}"])
def test_frames_left_out_of_a_prediction_are_left_out_of_the_truth_by_name(tmp_path, truth, name):
    taken = [0, 2, 3, 5]
    first = 0 if name.endswith("jpg") else 1  # frames of a video are counted from 1
    names = tuple(name.format(i + first) for i in taken)
    scene = replace(_scene(_true_masks()[taken].float(), _true_path()[taken]), names=names)
    metrics = evaluate(scene=_written(scene, tmp_path / "scene"), truth=TruthFiles(truth), draw=False)
    assert metrics["masks"]["predicted"]["j_mean"] == 1
    assert metrics["poses"]["predicted"]["ate"] == pytest.approx(0, abs=1e-6)


def test_truths_that_differ_in_length_among_themselves_are_refused(tmp_path, truth):
    poses = tmp_path / "poses.txt"
    np.savetxt(poses, _true_path()[:4].reshape(4, 16))
    with pytest.raises(TruthError, match=r"--truth .* has 6, --truth-poses has 4"):
        TruthFiles(truth, poses=poses).read()
    with pytest.raises(TruthError, match="no ground truth to compare with"):
        TruthFiles().read()
    with pytest.raises(TruthError, match="holds none of images/"):
        TruthFiles(tmp_path).read()
    with pytest.raises(TruthError, match="is not a folder"):
        TruthFiles(tmp_path / "nowhere").read()


def test_a_truth_cropped_otherwise_is_refused_with_both_sizes(tmp_path, truth):
    for path in (truth / "dynamic_masks").iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)[:, :48])
    scene = _written(_scene(_true_masks().float(), _true_path()), tmp_path / "scene")
    with pytest.raises(TruthError, match=r"mask of frame 0 .* is 48x48 and the result 64x48: another shape"):
        evaluate(scene=scene, truth=TruthFiles(truth))


def test_poses_that_are_not_finite_or_scaled_are_refused_with_their_file(tmp_path, truth):
    scene = _written(_scene(_true_masks().float(), _true_path()), tmp_path / "scene")
    text = (truth / "T_world_camera.txt").read_text().replace("1.000000000000000000e+00", "nan", 1)
    (truth / "T_world_camera.txt").write_text(text)
    with pytest.raises(TruthError, match=r"T_world_camera\.txt, line 1: a value is not finite"):
        evaluate(scene=scene, truth=TruthFiles(truth))
    np.savetxt(truth / "T_world_camera.txt", (2 * _true_path()).reshape(N, 16))
    with pytest.raises(TruthError, match=r"T_world_camera\.txt: the last row of pose 0 is"):
        evaluate(scene=scene, truth=TruthFiles(truth))
    scaled = _true_path()
    scaled[:, :3] *= 2
    np.savetxt(truth / "T_world_camera.txt", scaled.reshape(N, 16))
    with pytest.raises(TruthError, match=r"T_world_camera\.txt: pose 0: .*not a rotation .*scaled"):
        evaluate(scene=scene, truth=TruthFiles(truth))


def test_what_is_given_must_be_a_scene_folder_or_a_run(tmp_path, truth):
    with pytest.raises(ValueError, match=r"either --scene .* or --load-config"):
        evaluate(truth=TruthFiles(truth))
    with pytest.raises(ValueError, match="is not a scene folder"):
        evaluate(scene=tmp_path, truth=TruthFiles(truth))
    with pytest.raises(ValueError, match=r"config\.yml is not a file"):
        evaluate(load_config=tmp_path / "config.yml", truth=TruthFiles(truth))


def test_a_run_that_never_finished_is_named_with_what_to_do(tmp_path, truth):
    from nerfstudio.engine.trainer import TrainerConfig

    config = TrainerConfig(
        method_name="das3r", output_dir=tmp_path, experiment_name="clip", timestamp="now", max_num_iterations=4000
    )
    config.save_config()
    path = config.get_base_dir() / "config.yml"
    with pytest.raises(ValueError, match=r"nerfstudio_models holds no checkpoint .* never came to its first"):
        evaluate(load_config=path, truth=TruthFiles(truth))
    config.get_checkpoint_dir().mkdir()
    torch.save({"step": 1199, "pipeline": {}}, config.get_checkpoint_dir() / "step-000001199.ckpt")
    with pytest.raises(ValueError, match=r"stopped at step 1200 of 4000 .*Resume it .*--allow-unfinished"):
        evaluate(load_config=path, truth=TruthFiles(truth))
    path.write_text("a: [1, 2")
    with pytest.raises(ValueError, match=r"is not the config\.yml of a nerfstudio run"):
        evaluate(load_config=path, truth=TruthFiles(truth))


def test_checkpoints_of_other_methods_with_numpy_numbers_in_them_load(tmp_path):
    # As splatfacto's schedulers leave them; torch.load as it is refuses them.
    path = tmp_path / "step-000000001.ckpt"
    numbers = {"lr": np.float64(1e-3), "weight": np.float32(0.5)}
    torch.save({"step": 1, "pipeline": {"x": torch.ones(2)}, "schedulers": numbers}, path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    loaded = read_checkpoint(path)["schedulers"]
    assert loaded["lr"] == 1e-3
    assert loaded["weight"] == 0.5


def test_frames_without_a_true_mask_are_left_out_of_both_measures(truth):
    clip = read_truth_folder(truth)
    masks = _true_masks()
    clip = replace(clip, dynamic_mask=lambda i: None if i == 5 else masks[i])
    assert compare_masks(masks.float(), clip).frames == (0, 1, 2, 3, 4)
    black = compare_images([4, 5], lambda i: torch.zeros(H, W, 3), clip)
    assert black.frames == (4,)
    with pytest.raises(TruthError, match="none of the rendered frames has a true mask"):
        compare_images([5], lambda i: torch.zeros(H, W, 3), clip)
    with pytest.raises(TruthError, match=r"shows frame 6, and .* only 6 frames"):
        compare_images([6], lambda i: torch.zeros(H, W, 3), clip)


def test_a_render_of_the_clean_scene_is_right_everywhere_but_in_the_moving_pixels(truth):
    clip = read_truth_folder(truth)
    assert clip.clean is not None

    def clean(i: int) -> torch.Tensor:
        return torch.from_numpy(cv2.imread(str(clip.clean[i]))[..., ::-1].copy()).float() / 255

    result = compare_images(range(N), lambda i: clean(i) * 0.98, clip)
    summary = result.summary()
    assert summary["static_psnr"] > 35
    assert summary["clean_psnr"] > 35
    share = 1 - float(_true_masks().double().mean())
    assert summary["paper_psnr"] - summary["static_psnr"] == pytest.approx(-10 * math.log10(share), abs=0.3)


def test_means_leave_out_what_is_not_a_number():
    assert mean_of_known([1.0, math.nan, 3.0, None]) == 2.0
    assert mean_of_known([None, math.nan]) is None


def test_cameras_of_a_run_that_loads_smaller_images_are_as_small_as_these():
    given = Cameras(torch.eye(4)[None, :3], 100.0, 100.0, 40.0, 30.0, width=80, height=60)
    scaled = copy.deepcopy(given)
    scaled.rescale_output_resolution(0.5)
    dataset = types.SimpleNamespace(
        _dataparser_outputs=types.SimpleNamespace(cameras=given),
        cameras=scaled,
        scale_factor=0.5,
        image_filenames=["frame_00001.png"],
    )
    pipeline = types.SimpleNamespace(datamanager=types.SimpleNamespace(eval_dataset=dataset))
    run = TrainedRun(Path("config.yml"), "das3r", 0, pipeline, None, {})
    camera = run.camera_as_predicted(0)
    assert (int(camera.width), int(camera.height), float(camera.fx), float(camera.cx)) == (40, 30, 50.0, 20.0)
    assert int(given.width[0]) == 80
    assert not run.moves_test_cameras
    dataset.cameras.camera_to_worlds[0, 0, 3] = 0.1
    assert run.moves_test_cameras


def test_too_little_room_is_told_before_anything_is_measured(tmp_path, truth, monkeypatch):
    scene = _written(_scene(_true_masks().float(), _true_path()), tmp_path / "scene")
    (scene / "evaluation").mkdir()
    (scene / "evaluation" / "metrics.json").write_text("old", encoding="utf-8")
    Usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40, 1 << 40, 1 << 20))
    with pytest.raises(DiskFullError, match=r"1 MiB left, and what is measured may take 32 MiB\. Make room"):
        evaluate(scene=scene, truth=TruthFiles(tmp_path / "not looked for"))
    assert (scene / "evaluation" / "metrics.json").read_text(encoding="utf-8") == "old"
