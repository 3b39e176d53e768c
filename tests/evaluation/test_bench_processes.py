"""`das3r bench`: workers, GPUs, clusters, and how the baselines are trained."""

import copy
import pickle
import sys
import time
import types

import numpy as np
import pytest
import torch
from bench_clips import N, bench_job, scene_of, small_clip

from das3r_ns.datasets import read_truth_folder
from das3r_ns.evaluation.bench import launch, meter
from das3r_ns.evaluation.bench.meter import metered
from das3r_ns.evaluation.bench.prepared import prepare
from das3r_ns.evaluation.bench.sets import SequenceSource, find_sequences
from das3r_ns.evaluation.bench.table import read_row
from das3r_ns.evaluation.bench.training import BASELINES, method_config, shorten
from das3r_ns.evaluation.bench.worker import run_job
from das3r_ns.scene import write_scene

WORKER = "das3r_ns.evaluation.bench.worker"


def test_a_worker_that_dies_is_a_row_that_says_how(tmp_path, monkeypatch):
    small_clip(tmp_path / "clips" / "one", n=3)
    job = bench_job(tmp_path / "out", find_sequences("x", tmp_path / "clips")[0])
    monkeypatch.setattr(sys, "executable", "/bin/false")
    seen = []
    launch.run_here([job], 1, seen.append, WORKER)
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
    jobs = [bench_job(tmp_path / f"out{i}", source) for i in range(4)]
    launch.run_here(jobs, 2, lambda job: None, WORKER)
    used = sorted((job.out / launch.LOG).read_text().strip() for job in jobs)
    assert used == ["4", "4", "7", "7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert launch.visible_gpus() == []


def test_a_job_travels_to_its_process_whole(tmp_path):
    job = bench_job(tmp_path, SequenceSource("davis", "/data", "dog"), methods=("das3r",), steps=7)
    assert pickle.loads(pickle.dumps(job)) == job


def test_a_cluster_runs_the_same_jobs_and_its_failures_are_rows(tmp_path, monkeypatch):
    small_clip(tmp_path / "clips" / "one", n=3)
    jobs = [bench_job(tmp_path / "out" / str(i), find_sequences("x", tmp_path / "clips")[0]) for i in range(2)]
    told: dict = {}

    class Handle:
        def __init__(self, fails: bool) -> None:
            self.fails = fails

        def result(self) -> None:
            if self.fails:
                raise TimeoutError("job was killed after 240 minutes")

    class AutoExecutor:
        def __init__(self, folder, cluster) -> None:
            told["folder"] = folder

        def update_parameters(self, **parameters) -> None:
            told.update(parameters)

        def map_array(self, function, items) -> list[Handle]:
            assert function is run_job
            told.setdefault("groups", []).append(len(items))
            return [Handle(fails=i == 1) for i, _ in enumerate(items)]

    monkeypatch.setitem(sys.modules, "submitit", types.SimpleNamespace(AutoExecutor=AutoExecutor))
    seen = []
    launch.run_on_cluster(jobs, "gpu", 4.0, tmp_path / "slurm", seen.append, run_job)
    assert seen == jobs
    assert told["slurm_partition"] == "gpu"
    assert told["timeout_min"] == 240
    assert told.pop("groups") == [2]
    assert read_row(jobs[1]).errors["crash"] == "TimeoutError: job was killed after 240 minutes"
    assert not read_row(jobs[0]).errors
    # Submitit's local executor has no queue: it begins all that it is given.
    launch.run_on_cluster([*jobs, jobs[0]], "", 4.0, tmp_path / "local", seen.append, run_job, "local", at_a_time=2)
    assert told["groups"] == [2, 1]
    assert seen == [*jobs, *jobs, jobs[0]]
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r"das3r-ns\[cluster\]"):
        launch.run_on_cluster(jobs, "gpu", 4.0, tmp_path / "slurm", seen.append, run_job)


@pytest.mark.parametrize("kernel_tells", [True, False])
def test_memory_and_time_are_those_of_the_block_alone(kernel_tells, monkeypatch):
    if not kernel_tells:  # as in a container that does not let a process forget its peak
        monkeypatch.setattr(meter, "_kernel_peak", lambda: 1 << 50)
    with metered() as big:
        block = np.ones(40_000_000)  # 320 MB
        time.sleep(0.3)
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

    prepare(read_truth_folder(small_clip(tmp_path / "clip")), range(N), None, tmp_path / "truth")
    scene, frames = scene_of(tmp_path / "truth")
    write_scene(scene, frames, tmp_path / "scene")
    parser = UnmaskedDataParserConfig(data=tmp_path / "scene", eval_mode="paper").setup()
    outputs = parser.get_dataparser_outputs("train")
    assert outputs.mask_filenames is None
    assert len(outputs.image_filenames) == N - 1  # frame 5 is held out
    assert len(parser.get_dataparser_outputs("test").image_filenames) == 1


def test_a_shortened_baseline_keeps_the_proportions_of_its_schedules():
    from nerfstudio.configs.method_configs import all_methods

    config = copy.deepcopy(all_methods["splatfacto"])
    assert config.max_num_iterations == 30000
    before = config.pipeline.model.stop_split_at
    shorten(config, 6000)
    assert config.pipeline.model.resolution_schedule == 600
    assert config.pipeline.model.stop_split_at == before // 5
    assert config.optimizers["means"]["scheduler"].max_steps == 6000


def test_baselines_take_steps_of_their_own(tmp_path):
    job = bench_job(tmp_path, SequenceSource("wall", str(tmp_path), "wall"), steps=10, baseline_steps=20)
    assert [job.steps_of(method) for method in ("das3r", *BASELINES)] == [10, 20, 20]
