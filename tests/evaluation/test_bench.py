"""`das3r bench`: sets and protocol, stages that resume, tables, processes; the prediction itself is replaced."""

import csv
import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from bench_clips import bench_job, scene_of, small_clip

from das3r_ns.datasets import TruthError, read_image, read_truth_folder
from das3r_ns.evaluation.bench import BenchProtocol, bench, worker
from das3r_ns.evaluation.bench import command as bench_command
from das3r_ns.evaluation.bench.command import Machines
from das3r_ns.evaluation.bench.prepared import prepare, resized_image
from das3r_ns.evaluation.bench.published import DAS3R_PSNR, MASKS, POSES, PSNR
from das3r_ns.evaluation.bench.sets import FRAMES, find_sequences
from das3r_ns.evaluation.bench.table import BenchTable, Row, read_row
from das3r_ns.evaluation.bench.training import train
from das3r_ns.evaluation.bench.worker import run_job
from das3r_ns.files.whole import DiskFullError
from das3r_ns.predictor.network.preprocess import framing
from das3r_ns.predictor.registry import PredictorOptions
from das3r_ns.runs.checkpoints import checkpoint_steps
from das3r_ns.scene import read_scene, write_scene

GEOMETRIC = PredictorOptions(predictor="geometric")
ALL_OURS = BenchProtocol(baselines=False)
MASKS_ALONE = BenchProtocol(("masks",))


class Predictions:
    """Stands in for `predict`: writes the truth, counts, and fails for the clips it is told to."""

    def __init__(self) -> None:
        self.of: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.moving = 1.0
        """The true maps are multiplied by this."""

    def __call__(self, data, out, options, overwrite):
        name = data.parents[1].name
        self.of.append(name)
        if name in self.fails:
            raise self.fails[name]
        scene, frames = scene_of(data.parent)
        scene = replace(scene, dynamic_prob=scene.dynamic_prob * self.moving, provenance={"predictor": "stand-in"})
        write_scene(scene, frames, out, overwrite=overwrite)
        return out


@pytest.fixture
def predictions(monkeypatch) -> Predictions:
    stand_in = Predictions()
    monkeypatch.setattr(worker, "predict", stand_in)

    def in_this_process(jobs, at_a_time, done, worker):
        for job in jobs:
            run_job(job)
            done(job)

    monkeypatch.setattr(bench_command, "run_here", in_this_process)
    return stand_in


def test_the_protocol_takes_the_frames_that_the_paper_took():
    assert FRAMES["davis"].of(82) == list(range(50))
    assert FRAMES["davis"].of(40) == list(range(40))
    assert FRAMES["tum-dynamics"].of(800) == list(range(0, 270, 3))
    assert FRAMES["composited"].of(60) == list(range(60))


def test_published_figures_agree_with_the_means_published_beside_them():
    for name, by_sequence in DAS3R_PSNR.items():
        mean = next(line.values["paper_psnr"] for line in PSNR[name] if line.method == "DAS3R")
        assert sum(by_sequence.values()) / len(by_sequence) == pytest.approx(mean, abs=0.006)
    assert len(DAS3R_PSNR["davis"]), len(DAS3R_PSNR["sintel"]) == (8, 14)
    assert all(
        line.source.startswith(("[V]", "[2nd]")) for kind in (MASKS, POSES, PSNR) for s in kind for line in kind[s]
    )


def test_sequences_are_found_in_our_layout_and_in_the_publishers(tmp_path):
    for name in ("b", "a"):
        small_clip(tmp_path / "ours" / name, n=2)
    assert [s.name for s in find_sequences("davis", tmp_path / "ours")] == ["a", "b"]
    assert [s.name for s in find_sequences("davis", tmp_path / "ours", ("b",))] == ["b"]
    for name in ("bear", "dog", "camel"):
        (tmp_path / "DAVIS" / "JPEGImages" / "480p" / name).mkdir(parents=True)
    assert [s.name for s in find_sequences("davis", tmp_path)] == ["camel", "dog"]  # bear is not in the paper
    assert [s.name for s in find_sequences("davis", tmp_path, ("bear",))] == ["bear"]
    with pytest.raises(TruthError, match=r"has no sequence 'cat'\. It has: bear, camel, dog"):
        find_sequences("davis", tmp_path, ("cat",))
    with pytest.raises(TruthError, match="das3r download sintel"):
        find_sequences("sintel", tmp_path / "nowhere")
    with pytest.raises(TruthError, match="holds no sequences of sintel"):
        find_sequences("sintel", tmp_path / "ours" / "a")


def test_prepared_images_are_the_network_s_own_input(data):
    z = np.load(data / "preprocess.npz")
    for case in range(5):
        image = torch.from_numpy(z[f"case{case}/input_rgb_u8"])
        framed = framing((image.shape[0], image.shape[1]), 64)
        ours = resized_image(image, framed).float() / 127.5 - 1
        torch.testing.assert_close(
            ours.permute(2, 0, 1)[None], torch.from_numpy(z[f"case{case}/img"]), atol=1e-6, rtol=0
        )


def test_masks_clean_images_and_intrinsics_are_cropped_like_the_images(tmp_path):
    folder = small_clip(tmp_path / "clip", n=3, height=109, width=256)  # Sintel's shape at a quarter
    np.savetxt(folder / "K.txt", [[200.0, 0, 128], [0, 200.0, 54.5], [0, 0, 1]])
    # Mark one spot in all three; where it ends up must agree.
    for i in range(3):
        for name, value in (("images", (255, 255, 255)), ("clean", (255, 255, 255)), ("dynamic_masks", 255)):
            path = folder / name / f"{i:05d}.png"
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) * 0
            image[60:80, 100:140] = value
            cv2.imwrite(str(path), image)
    clip = prepare(read_truth_folder(folder), [0, 2], 128, tmp_path / "out")
    assert len(clip) == 2
    image, clean = read_image(clip.images[1])[..., 0] > 127, read_image(clip.clean[1])[..., 0] > 127
    assert image.shape == (48, 128)  # 54.5 -> 54 rows, cropped to a multiple of 16
    assert float((image != clip.dynamic_mask(1)).float().mean()) < 0.01
    assert torch.equal(image, clean)
    assert clip.K[0, 0, 0].item() == pytest.approx(100)
    assert clip.K[0, 1, 2].item() == pytest.approx(54.5 * 54 / 109 - 3)


def test_a_frame_without_a_mask_stays_without_one_and_a_prepared_clip_is_not_made_twice(tmp_path):
    clip = read_truth_folder(small_clip(tmp_path / "clip", n=4))
    read_mask = clip.dynamic_mask
    assert read_mask is not None
    clip = replace(clip, dynamic_mask=lambda i: None if i == 3 else read_mask(i))
    prepared = prepare(clip, range(4), None, tmp_path / "out")
    assert prepared.dynamic_mask(2) is not None
    assert prepared.dynamic_mask(3) is None
    stamp = (tmp_path / "out" / "prepared.json").stat().st_mtime_ns
    prepare(clip, range(4), None, tmp_path / "out")
    assert (tmp_path / "out" / "prepared.json").stat().st_mtime_ns == stamp
    assert len(prepare(clip, range(2), None, tmp_path / "out")) == 2


def test_a_benchmark_from_the_command_to_the_tables(tmp_path, predictions, capsys):
    for name in ("one", "two", "three"):
        small_clip(tmp_path / "clips" / name)
    predictions.fails["two"] = RuntimeError("nothing | to\nfollow")
    table = bench(
        str(tmp_path / "clips"), out=tmp_path / "out", protocol=BenchProtocol(("masks", "poses")), predictors=GEOMETRIC
    )
    assert [row.sequence for row in table.rows] == ["one", "three", "two"]
    assert table.rows[0].values("masks")["j_mean"] == pytest.approx(1.0)
    assert table.rows[0].values("poses")["ate"] == pytest.approx(0, abs=1e-6)
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| one | 1.000 | 1.000 | 1.000 |" in text
    assert "| two | predict | RuntimeError: nothing / to follow |" in text
    assert "mean of 2" in text
    with (tmp_path / "out" / "table.csv").open() as file:
        rows = {row["sequence"]: row for row in csv.DictReader(file)}
    assert float(rows["one"]["seconds_predict"]) >= 0
    assert rows["one"]["predictor"] == "stand-in"
    assert rows["two"]["j_mean"] == ""
    assert "nothing" in rows["two"]["error"]
    stored = json.loads((tmp_path / "out" / "table.json").read_text())
    assert stored["notes"]["predictor"] == "geometric"
    assert (tmp_path / "out" / "one" / "figures" / "masks.jpg").is_file()
    assert (tmp_path / "out" / "one" / "figures" / "trajectory.png").is_file()
    assert "two: predict failed: RuntimeError" in capsys.readouterr().out


def test_a_second_run_repeats_only_what_failed_or_changed(tmp_path, predictions):
    for name in ("one", "two"):
        small_clip(tmp_path / "clips" / name)
    predictions.fails["two"] = RuntimeError("out of luck")
    clips, out = str(tmp_path / "clips"), tmp_path / "out"

    def again(stages=("masks",), max_frames=None, repeat=False) -> BenchTable:
        predictions.of.clear()
        protocol = BenchProtocol(stages, max_frames=max_frames)
        return bench(clips, out=out, protocol=protocol, predictors=GEOMETRIC, again=repeat)

    again()
    predictions.fails.clear()
    table = again()
    assert predictions.of == ["two"]
    assert not table.rows[1].errors
    again(stages=("masks", "poses"))
    assert predictions.of == []  # another measure needs no other prediction
    again(max_frames=6)
    assert predictions.of == ["one", "two"]
    assert json.loads((out / "one" / "results" / "masks.json").read_text())["values"]["frames"] == 6
    again(max_frames=6, repeat=True)
    assert predictions.of == ["one", "two"]
    results = out / "one" / "results"
    (results / "predict.json").unlink()
    measured = (results / "masks.json").stat().st_mtime_ns
    again(max_frames=6)
    assert predictions.of == ["one"]
    assert (results / "masks.json").stat().st_mtime_ns > measured  # what was measured on the old scene is void


def test_what_an_interrupted_repetition_has_made_void_is_measured_again(tmp_path, predictions, monkeypatch):
    small_clip(tmp_path / "clips" / "one")
    clips, out = str(tmp_path / "clips"), tmp_path / "out"

    def j_with(**options) -> float:
        table = bench(clips, out=out, protocol=MASKS_ALONE, predictors=GEOMETRIC, **options)
        return table.rows[0].values("masks")["j_mean"]

    def interrupt(*_):
        raise KeyboardInterrupt

    assert j_with() > 0.9
    predictions.moving = 0.0  # another release, whose masks are empty
    with monkeypatch.context() as here:
        here.setattr(worker, "_measure_scene", interrupt)
        with pytest.raises(KeyboardInterrupt):
            j_with(again=True)
    assert j_with() == 0


def test_every_third_frame_of_the_whole_sequence(tmp_path, predictions):
    small_clip(tmp_path / "clips" / "one")
    frames = len(list((tmp_path / "clips" / "one" / "images").iterdir()))
    protocol = BenchProtocol(("masks",), every=3)
    table = bench(str(tmp_path / "clips"), out=tmp_path / "out", protocol=protocol, predictors=GEOMETRIC)
    assert table.rows[0].values("masks")["frames"] == len(range(0, frames, 3)) > 1
    assert table.notes["frames"] == "the first 50 at most of every 3rd one"


def test_training_never_gives_an_earlier_run(tmp_path, monkeypatch):
    trained = []

    def train_loop(local_rank, world_size, config):
        trained.append((config.pipeline.datamanager.data.name, config.max_num_iterations))
        folder = config.get_checkpoint_dir()
        folder.mkdir(parents=True)  # nothing of an earlier run is left
        (folder / f"step-{config.max_num_iterations - 1:09d}.ckpt").touch()

    monkeypatch.setattr("nerfstudio.scripts.train.train_loop", train_loop)
    for scene, steps in (("a", 30), ("a", 20), ("b", 20), ("b", 20)):
        path = train("das3r-lite", tmp_path / scene, tmp_path / "runs", steps)
        assert checkpoint_steps(path.parent / "nerfstudio_models") == [steps - 1]
    assert trained == [("a", 30), ("a", 20), ("b", 20), ("b", 20)]


def test_what_cannot_work_is_said_before_the_long_work(tmp_path, predictions):
    small_clip(tmp_path / "clips" / "one", n=3)
    clips = str(tmp_path / "clips")
    with pytest.raises(ValueError, match=r"neither one of davis, .*, synthetic nor a folder"):
        bench("davos")
    with pytest.raises(ValueError, match=r"no method 'das4r'\. Ours: das3r"):
        bench(clips, protocol=BenchProtocol(methods=("das4r",)))
    with pytest.raises(ValueError, match="--jobs must be 1 or more"):
        bench(clips, machines=Machines(jobs=0))
    with pytest.raises(ValueError, match="leave out --data"):
        bench(clips, data=tmp_path)
    assert predictions.of == []


def test_when_every_sequence_fails_the_tables_are_written_and_the_command_fails(tmp_path, predictions):
    small_clip(tmp_path / "clips" / "one", n=3)
    predictions.fails["one"] = MemoryError("too much")
    with pytest.raises(RuntimeError, match="every sequence failed, the first with: MemoryError: too much"):
        bench(str(tmp_path / "clips"), out=tmp_path / "out", protocol=MASKS_ALONE, predictors=GEOMETRIC)
    assert "MemoryError" in (tmp_path / "out" / "table.md").read_text()


def test_truth_without_poses_is_a_failed_stage_and_masks_still_count(tmp_path, predictions, monkeypatch):
    folder = small_clip(tmp_path / "clips" / "one")
    job = bench_job(tmp_path / "out", find_sequences("x", tmp_path / "clips")[0], stages=("masks", "poses"))
    run_job(job)
    (folder / "T_world_camera.txt").unlink()
    (tmp_path / "out" / "truth" / "T_world_camera.txt").unlink()
    row = read_row(replace(job))
    assert row.values("poses")
    (tmp_path / "out" / "results" / "poses.json").unlink()
    run_job(job)
    row = read_row(job)
    assert row.values("masks")
    assert "no T_world_camera.txt" in row.errors["poses"]


def test_the_composited_clips_have_a_known_focal_length(tmp_path):
    small_clip(tmp_path / "kitchen", n=3)
    clip = find_sequences("composited", tmp_path)[0].read()
    assert clip.K[0, 0, 0] == 525
    assert find_sequences("davis", tmp_path)[0].read().K is None


def _measured(j_by_threshold: list[float], psnr: dict | None = None) -> dict:
    masks = {
        "j_mean": j_by_threshold[4], "j_recall": 1.0, "f_mean": 0.5, "moving_marked": 0.75, "static_marked": 0.0125,
        "j_mean_by_threshold": {f"{0.1 * (k + 1):.1f}": j for k, j in enumerate(j_by_threshold)},
    }  # fmt: skip
    stages = {"prepare": {"values": {"frames": 50}}, "masks": {"values": masks}}
    stages["predict"] = {"values": {"predictor": "geometric"}, "cost": {"seconds": 100.0, "peak_memory_gb": 1.5}}
    if psnr is not None:
        stages["psnr-das3r"] = {"values": {"psnr": psnr, "num_gaussians": 123456, "steps": 4000}}
        stages["train-das3r"] = {"values": {}, "cost": {"seconds": 61.0, "peak_gpu_memory_gb": 3.25}}
    return stages


def test_the_threshold_of_a_sequence_is_chosen_on_the_others():
    flat = [0.0] * 9
    a, b, c = flat.copy(), flat.copy(), flat.copy()
    a[2], a[4] = 0.9, 0.5  # a alone would like 0.3
    b[6], b[4] = 0.9, 0.6
    c[6], c[4] = 0.8, 0.7
    table = BenchTable("x", (), [Row(name, _measured(j)) for name, j in (("a", a), ("b", b), ("c", c))])
    # Without a: 0.7 is best (b, c); without b: 0.5 (0.5 + 0.7) beats 0.3 (0.9) and 0.7 (0.8); without c: 0.5 again.
    assert table.leave_one_out() == {"a": 0.0, "b": 0.6, "c": 0.7}
    assert BenchTable("x", (), table.rows[:2]).leave_one_out() == {}


def test_the_table_sets_published_figures_beside_ours_and_says_what_each_costs():
    def psnr(value: float) -> dict:
        predicted = {"paper_psnr": value, "static_psnr": value - 1, "static_ssim": 0.9, "clean_psnr": None}
        return {"predicted": predicted, "refined": {"paper_psnr": value + 2, "static_psnr": value + 1}}

    rows = [Row("dog", _measured([0.6] * 9, psnr(30.0))), Row("goat", _measured([0.4] * 9, psnr(20.0)))]
    text = BenchTable("davis", ("das3r",), rows, {"predictor": "geometric"}).markdown()
    assert (
        "| dog | das3r | 30.00 / – / 32.00 | 29.00 / – / 31.00 | 0.9000 | – | – | 123,456 | 4000 | 61 | 3.2 | 28.63 |"
        in text
    )
    assert "| **mean of 2** | das3r | 25.00 / – / 27.00 |" in text
    assert "| **mean of the 1 published** | das3r | 30.00 / – / 32.00 |" in text
    assert "| published mean [V] | *DAS3R* | 25.70 |" in text
    assert "| dog | 0.600 | 1.000 | 0.500 | 0.750 | 0.0125 | – | geometric | 50 | 2.00 | 1.5 |" in text
    assert "*DAS3R, DAVIS-16* [2nd], Easi3R table 1 | 0.416 | 0.390 |" in text
    columns = {line.count("|") for line in text.splitlines() if line.startswith("| ") and "das3r |" in line}
    assert columns == {13}


def test_true_masks_replace_those_of_a_scene_that_was_predicted_before(tmp_path, predictions):
    small_clip(tmp_path / "clips" / "wall")
    predictions.moving = 0.0  # the predictor misses what moves

    def j(out: Path, true_masks: bool = False) -> float:
        protocol = BenchProtocol(("masks",), true_masks=true_masks)
        table = bench(str(tmp_path / "clips"), out=out, protocol=protocol, predictors=GEOMETRIC)
        assert not table.rows[0].errors
        return table.rows[0].values("masks")["j_mean"]

    assert j(out=tmp_path / "out") < 0.1
    shutil.copytree(tmp_path / "out", tmp_path / "true")
    assert j(out=tmp_path / "true", true_masks=True) > 0.9
    assert predictions.of == ["wall"]  # once
    assert "true masks" in (tmp_path / "true" / "table.md").read_text()
    assert read_scene(tmp_path / "true" / "wall" / "scene").dynamic_prob.max() == 0  # the predicted scene is kept


@pytest.mark.slow
def test_a_clip_from_frames_to_psnr(tmp_path, predictions):
    small_clip(tmp_path / "clips" / "wall", height=48, width=64)
    protocol = BenchProtocol(("psnr",), methods=("das3r-lite",), baselines=False, steps=30)
    table = bench(str(tmp_path / "clips"), out=tmp_path / "out", protocol=protocol, predictors=GEOMETRIC)
    assert not table.rows[0].errors
    run = table.rows[0].values("psnr-das3r-lite")
    assert run["steps"] == 30
    assert run["num_gaussians"] > 100
    for way in ("predicted", "refined"):
        assert run["psnr"][way]["per_frame"]["frame"] == [5]  # the one held-out frame of twelve
        assert 10 < run["psnr"][way]["static_psnr"] < 60
        assert math.isfinite(run["psnr"][way]["clean_psnr"])
        assert run["psnr"][way]["paper_psnr"] > run["psnr"][way]["static_psnr"]
    figures = {p.name for p in (tmp_path / "out" / "wall" / "figures" / "das3r-lite").iterdir()}
    assert {"psnr.png", "renders_predicted.jpg", "renders_refined.jpg"} <= figures
    trained = tmp_path / "out" / "wall" / "results" / "train-das3r-lite.json"
    stamp = trained.stat().st_mtime_ns
    bench(str(tmp_path / "clips"), out=tmp_path / "out", protocol=protocol, predictors=GEOMETRIC)
    assert trained.stat().st_mtime_ns == stamp


def test_too_little_room_is_told_before_anything_is_predicted(tmp_path, predictions, monkeypatch):
    for name in ("walk", "street"):
        small_clip(tmp_path / "set" / name)
    Usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40, 1 << 40, 300 << 20))
    with pytest.raises(DiskFullError, match=r"300 MiB left, and the scenes and runs of 2 sequences may take \d+ MiB"):
        bench(
            str(tmp_path / "set"), out=tmp_path / "out", predictors=GEOMETRIC, protocol=BenchProtocol(baselines=False)
        )
    assert predictions.of == []
    assert os.listdir(tmp_path / "out") == []
    bench(str(tmp_path / "set"), out=tmp_path / "out", predictors=GEOMETRIC, protocol=MASKS_ALONE)
    assert sorted(predictions.of) == ["street", "walk"]
