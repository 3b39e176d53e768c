"""`das3r bench`: sets and protocol, stages that resume, tables, processes; the prediction itself is replaced."""

import copy
import csv
import json
import math
import pickle
import sys
import types
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from das3r_ns import geometry
from das3r_ns.datasets import TruthError, read_picture, read_truth_folder
from das3r_ns.evaluation.bench import bench, launch, worker
from das3r_ns.evaluation.bench import command as bench_command
from das3r_ns.evaluation.bench.meter import metered
from das3r_ns.evaluation.bench.prepared import prepare, prepared_clip, resized_picture
from das3r_ns.evaluation.bench.published import DAS3R_PSNR, MASKS, POSES, PSNR
from das3r_ns.evaluation.bench.sets import FRAMES, FrameChoice, SequenceSource, find_sequences
from das3r_ns.evaluation.bench.table import BenchTable, Row, read_row
from das3r_ns.evaluation.bench.training import BASELINES, method_config, shorten
from das3r_ns.evaluation.bench.worker import Job, run_job
from das3r_ns.predictor.geometric import GeometricPredictorConfig
from das3r_ns.predictor.network.preprocess import framing
from das3r_ns.predictor.network_settings import NetworkPredictorConfig
from das3r_ns.scene import PointCloud, Scene, write_scene

N, H, W = 12, 32, 48


def _clip(folder: Path, n: int = N, height: int = H, width: int = W, poses: bool = True) -> Path:
    rng = np.random.default_rng(1)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (height, width + n, 3), np.uint8), (7, 7), 0)
    for name in ("images", "dynamic_masks", "clean"):
        (folder / name).mkdir(parents=True)
    for i in range(n):
        clean = np.ascontiguousarray(texture[:, i : i + width])
        mask = np.zeros((height, width), np.uint8)
        mask[height // 4 : height // 2, width // 4 : width // 2] = 255
        cv2.imwrite(str(folder / "clean" / f"{i:05d}.png"), clean)
        cv2.imwrite(str(folder / "images" / f"{i:05d}.png"), np.where(mask[..., None] > 0, 255, clean))
        cv2.imwrite(str(folder / "dynamic_masks" / f"{i:05d}.png"), mask)
    if poses:
        T = np.tile(np.eye(4), (n, 1, 1))
        T[:, 0, 3], T[:, 1, 3] = np.arange(n) * 0.1, 0.05 * np.sin(np.arange(n))
        np.savetxt(folder / "T_world_camera.txt", T.reshape(n, 16))
    return folder


def _scene_of(truth_folder: Path) -> tuple[Scene, torch.Tensor]:
    """A scene as the truth has it: a wall at depth 3."""
    clip = prepared_clip(truth_folder)
    frames = torch.stack([read_picture(path) for path in clip.images])
    n, h, w = frames.shape[:3]
    masks = torch.stack([clip.dynamic_mask(i) for i in range(n)])
    scene = Scene(
        T_world_camera=clip.T_world_camera.float(),
        K=geometry.intrinsics(40.0, h, w).repeat(n, 1, 1),
        image_size=(h, w),
        depth=torch.full((n, h, w), 3.0),
        confidence=torch.ones(n, h, w),
        dynamic_prob=masks.float() * 0.65,  # moving at thresholds up to 0.6
        points=PointCloud(
            torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.uint8), torch.ones(1), torch.zeros(1, dtype=torch.int32)
        ),
        pose_known=torch.ones(n, dtype=torch.bool),
        names=tuple(f"{i:05d}" for i in range(n)),
    )
    return scene, frames


class Predictions:
    """Stands in for `predict`: writes the truth, counts, and fails for the clips it is told to."""

    def __init__(self) -> None:
        self.of: list[str] = []
        self.fails: dict[str, Exception] = {}

    def __call__(self, data, out, options, overwrite):
        name = data.parents[1].name
        self.of.append(name)
        if name in self.fails:
            raise self.fails[name]
        scene, frames = _scene_of(data.parent)
        write_scene(replace(scene, provenance={"predictor": "stand-in"}), frames, out, overwrite=overwrite)
        return out


@pytest.fixture
def predictions(monkeypatch) -> Predictions:
    stand_in = Predictions()
    monkeypatch.setattr(worker, "predict", stand_in)

    def in_this_process(jobs, at_a_time, done):
        for job in jobs:
            run_job(job)
            done(job)

    monkeypatch.setattr(bench_command, "run_here", in_this_process)
    return stand_in


def _job(out: Path, source: SequenceSource, **changes) -> Job:
    job = Job(
        source=source,
        frames=FrameChoice(50),
        longest_side=None,
        stages=("masks", "poses"),
        predictor="geometric",
        geometric=GeometricPredictorConfig(),
        network=NetworkPredictorConfig(),
        methods=(),
        baseline_steps=None,
        steps=None,
        out=out,
        again=False,
    )
    return replace(job, **changes)


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
        _clip(tmp_path / "ours" / name, n=2)
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


def test_prepared_pictures_are_the_network_s_own_input(data):
    z = np.load(data / "preprocess.npz")
    for case in range(5):
        picture = torch.from_numpy(z[f"case{case}/input_rgb_u8"])
        framed = framing((picture.shape[0], picture.shape[1]), 64)
        ours = resized_picture(picture, framed).float() / 127.5 - 1
        torch.testing.assert_close(
            ours.permute(2, 0, 1)[None], torch.from_numpy(z[f"case{case}/img"]), atol=1e-6, rtol=0
        )


def test_masks_clean_pictures_and_intrinsics_are_cropped_like_the_pictures(tmp_path):
    folder = _clip(tmp_path / "clip", n=3, height=109, width=256)  # Sintel's shape at a quarter
    np.savetxt(folder / "K.txt", [[200.0, 0, 128], [0, 200.0, 54.5], [0, 0, 1]])
    # Mark one spot in all three; where it ends up must agree.
    for i in range(3):
        for name, value in (("images", (255, 255, 255)), ("clean", (255, 255, 255)), ("dynamic_masks", 255)):
            path = folder / name / f"{i:05d}.png"
            picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) * 0
            picture[60:80, 100:140] = value
            cv2.imwrite(str(path), picture)
    clip = prepare(read_truth_folder(folder), [0, 2], 128, tmp_path / "out")
    assert len(clip) == 2
    picture, clean = read_picture(clip.images[1])[..., 0] > 127, read_picture(clip.clean[1])[..., 0] > 127
    assert picture.shape == (48, 128)  # 54.5 -> 54 rows, cropped to a multiple of 16
    assert float((picture != clip.dynamic_mask(1)).float().mean()) < 0.01
    assert torch.equal(picture, clean)
    assert clip.K[0, 0, 0].item() == pytest.approx(100)
    assert clip.K[0, 1, 2].item() == pytest.approx(54.5 * 54 / 109 - 3)


def test_a_frame_without_a_mask_stays_without_one_and_a_prepared_clip_is_not_made_twice(tmp_path):
    clip = read_truth_folder(_clip(tmp_path / "clip", n=4))
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
        _clip(tmp_path / "clips" / name)
    predictions.fails["two"] = RuntimeError("nothing | to\nfollow")
    table = bench(str(tmp_path / "clips"), out=tmp_path / "out", stages=("masks", "poses"), predictor="geometric")
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
        _clip(tmp_path / "clips" / name)
    predictions.fails["two"] = RuntimeError("out of luck")
    clips, out = str(tmp_path / "clips"), tmp_path / "out"

    def again(stages=("masks",), **changes) -> BenchTable:
        predictions.of.clear()
        return bench(clips, out=out, stages=stages, predictor="geometric", **changes)

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
    again(max_frames=6, again=True)
    assert predictions.of == ["one", "two"]
    results = out / "one" / "results"
    (results / "predict.json").unlink()
    measured = (results / "masks.json").stat().st_mtime_ns
    again(max_frames=6)
    assert predictions.of == ["one"]
    assert (results / "masks.json").stat().st_mtime_ns > measured  # what was measured on the old scene is void


def test_what_cannot_work_is_said_before_the_long_work(tmp_path, predictions):
    _clip(tmp_path / "clips" / "one", n=3)
    clips = str(tmp_path / "clips")
    with pytest.raises(ValueError, match="neither one of davis, sintel, tum-dynamics, composited nor a folder"):
        bench("davos")
    with pytest.raises(ValueError, match=r"no method 'das4r'\. Ours: das3r"):
        bench(clips, methods=("das4r",))
    with pytest.raises(ValueError, match="--jobs must be 1 or more"):
        bench(clips, jobs=0)
    with pytest.raises(ValueError, match="leave out --data"):
        bench(clips, data=tmp_path)
    assert predictions.of == []


def test_when_every_sequence_fails_the_tables_are_written_and_the_command_fails(tmp_path, predictions):
    _clip(tmp_path / "clips" / "one", n=3)
    predictions.fails["one"] = MemoryError("too much")
    with pytest.raises(RuntimeError, match="every sequence failed, the first with: MemoryError: too much"):
        bench(str(tmp_path / "clips"), out=tmp_path / "out", stages=("masks",), predictor="geometric")
    assert "MemoryError" in (tmp_path / "out" / "table.md").read_text()


def test_truth_without_poses_is_a_failed_stage_and_masks_still_count(tmp_path, predictions, monkeypatch):
    folder = _clip(tmp_path / "clips" / "one")
    job = _job(tmp_path / "out", find_sequences("x", tmp_path / "clips")[0], stages=("masks", "poses"))
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
    _clip(tmp_path / "kitchen", n=3)
    clip = find_sequences("composited", tmp_path)[0].read()
    assert clip.K[0, 0, 0] == 525
    assert find_sequences("davis", tmp_path)[0].read().K is None


def _measured(j_by_threshold: list[float], psnr: dict | None = None) -> dict:
    masks = {
        "j_mean": j_by_threshold[4], "j_recall": 1.0, "f_mean": 0.5,
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
    assert "| dog | 0.600 | 1.000 | 0.500 | – | geometric | 50 | 2.00 | 1.5 |" in text
    assert "*DAS3R, DAVIS-16* [2nd], Easi3R table 1 | 0.416 | 0.390 |" in text
    columns = {line.count("|") for line in text.splitlines() if line.startswith("| ") and "das3r |" in line}
    assert columns == {13}


def test_a_worker_that_dies_is_a_row_that_says_how(tmp_path, monkeypatch):
    _clip(tmp_path / "clips" / "one", n=3)
    job = _job(tmp_path / "out", find_sequences("x", tmp_path / "clips")[0])
    monkeypatch.setattr(sys, "executable", "/bin/false")
    seen = []
    launch.run_here([job], 1, seen.append)
    assert seen == [job]
    assert "exit code 1; see" in read_row(job).errors["crash"]


def test_jobs_are_dealt_out_over_the_gpus(tmp_path, monkeypatch):
    recorder = tmp_path / "record.sh"
    recorder.write_text('#!/bin/sh\ncat > /dev/null\necho "$CUDA_VISIBLE_DEVICES"\nsleep 0.2\n')
    recorder.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(recorder))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert launch.visible_gpus() == ["4", "7"]
    source = SequenceSource("x", str(tmp_path), "one")
    jobs = [_job(tmp_path / f"out{i}", source) for i in range(4)]
    launch.run_here(jobs, 2, lambda job: None)
    used = sorted((job.out / launch.LOG).read_text().strip() for job in jobs)
    assert used == ["4", "4", "7", "7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert launch.visible_gpus() == []


def test_a_job_travels_to_its_process_whole(tmp_path):
    job = _job(tmp_path, SequenceSource("davis", "/data", "dog"), methods=("das3r",), steps=7)
    assert pickle.loads(pickle.dumps(job)) == job


def test_a_cluster_runs_the_same_jobs_and_its_failures_are_rows(tmp_path, monkeypatch):
    _clip(tmp_path / "clips" / "one", n=3)
    jobs = [_job(tmp_path / "out" / str(i), find_sequences("x", tmp_path / "clips")[0]) for i in range(2)]
    told: dict = {}

    class Handle:
        def __init__(self, fails: bool) -> None:
            self.fails = fails

        def result(self) -> None:
            if self.fails:
                raise TimeoutError("job was killed after 240 minutes")

    class AutoExecutor:
        def __init__(self, folder) -> None:
            told["folder"] = folder

        def update_parameters(self, **parameters) -> None:
            told.update(parameters)

        def map_array(self, function, items) -> list[Handle]:
            assert function is run_job
            return [Handle(fails=i == 1) for i, _ in enumerate(items)]

    monkeypatch.setitem(sys.modules, "submitit", types.SimpleNamespace(AutoExecutor=AutoExecutor))
    seen = []
    launch.run_on_cluster(jobs, "gpu", 4.0, tmp_path / "slurm", seen.append)
    assert seen == jobs
    assert told["slurm_partition"] == "gpu"
    assert told["timeout_min"] == 240
    assert read_row(jobs[1]).errors["crash"] == "TimeoutError: job was killed after 240 minutes"
    assert not read_row(jobs[0]).errors
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r"das3r-ns\[cluster\]"):
        launch.run_on_cluster(jobs, "gpu", 4.0, tmp_path / "slurm", seen.append)


def test_memory_and_time_are_those_of_the_block_alone():
    with metered() as big:
        block = np.ones(40_000_000)  # 320 MB
        del block
    with metered() as small:
        pass
    assert big.peak_memory_gb - small.peak_memory_gb > 0.25
    assert small.seconds < big.seconds


def test_baselines_are_splatfacto_on_the_same_frames_with_and_without_masks(tmp_path, monkeypatch):
    from das3r_ns.evaluation.bench.baselines import SplatfactoBaselineConfig, UnmaskedDataParserConfig

    with pytest.raises(ValueError, match="needs a CUDA device"):
        method_config("splatfacto", tmp_path, tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    plain, masked = (method_config(name, tmp_path / "scene", tmp_path) for name in BASELINES)
    for config in (plain, masked):
        assert isinstance(config.pipeline.model, SplatfactoBaselineConfig)
        assert config.pipeline.datamanager.dataparser.eval_mode == "paper"
        assert config.pipeline.datamanager.dataparser.data == tmp_path / "scene"
        assert config.max_num_iterations == 30000
    assert isinstance(plain.pipeline.datamanager.dataparser, UnmaskedDataParserConfig)
    assert not isinstance(masked.pipeline.datamanager.dataparser, UnmaskedDataParserConfig)
    assert plain.get_base_dir() != masked.get_base_dir()


def test_a_baseline_without_masks_sees_every_pixel(tmp_path):
    from das3r_ns.evaluation.bench.baselines import UnmaskedDataParserConfig

    prepare(read_truth_folder(_clip(tmp_path / "clip")), range(N), None, tmp_path / "truth")
    scene, frames = _scene_of(tmp_path / "truth")
    write_scene(scene, frames, tmp_path / "scene")
    parser = UnmaskedDataParserConfig(data=tmp_path / "scene", eval_mode="paper").setup()
    outputs = parser.get_dataparser_outputs("train")
    assert outputs.mask_filenames is None
    assert len(outputs.image_filenames) == N - 1  # frame 5 is held out
    assert len(parser.get_dataparser_outputs("test").image_filenames) == 1


@pytest.mark.slow
def test_a_clip_from_frames_to_psnr(tmp_path, predictions):
    _clip(tmp_path / "clips" / "wall", height=48, width=64)
    table = bench(
        str(tmp_path / "clips"),
        out=tmp_path / "out",
        stages=("psnr",),
        predictor="geometric",
        methods=("das3r-lite",),
        baselines=False,
        steps=30,
    )
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
    bench(
        str(tmp_path / "clips"), out=tmp_path / "out", stages=("psnr",), predictor="geometric", methods=("das3r-lite",),
        baselines=False, steps=30,
    )  # fmt: skip
    assert trained.stat().st_mtime_ns == stamp


def test_a_shortened_baseline_keeps_the_proportions_of_its_schedules():
    from nerfstudio.configs.method_configs import all_methods

    config = copy.deepcopy(all_methods["splatfacto"])
    assert config.max_num_iterations == 30000
    before = config.pipeline.model.stop_split_at
    shorten(config, 6000)
    assert config.pipeline.model.resolution_schedule == 600
    assert config.pipeline.model.stop_split_at == before // 5
    assert config.optimizers["means"]["scheduler"].max_steps == 6000
