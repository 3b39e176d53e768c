"""`ns-train` says what the machine lacks before nerfstudio's models are imported, and only where that is asked for."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from machine.machines import machine, nvcc

from das3r_ns.machine import at_start, hardware, kernels, toolchain, toolkit
from das3r_ns.machine.findings import Finding, MachineError

__all__ = ["machine"]

TRAINING = ["/usr/bin/ns-train", "das3r", "--data", "v.mp4"]


@pytest.fixture(autouse=True)
def _as_found(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # the check sets it
    monkeypatch.setattr(kernels, "find_kernels", lambda _: None)
    monkeypatch.delenv("DAS3R_RASTERIZER", raising=False)


def with_nvcc(machine: Path, patch: pytest.MonkeyPatch) -> None:
    nvcc(machine / "usual", "13.0")
    patch.setattr(toolkit, "_version", lambda _: "13.0")


def without_gpp(machine: Path, patch: pytest.MonkeyPatch) -> None:
    with_nvcc(machine, patch)
    patch.setenv("PATH", str(machine / "empty"))


def without_room(machine: Path, patch: pytest.MonkeyPatch) -> None:
    with_nvcc(machine, patch)
    patch.setattr(toolchain, "headers_of_python", lambda: Finding("Python headers", True, ""))
    patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50_000_000))


def with_torch_for_the_cpu(_: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.version, "cuda", None)
    patch.setattr(torch.cuda, "is_available", lambda: False)


LACKS = {
    "nvcc": (lambda *_: None, "CUDA compiler nvcc 13.0, and none was found"),
    "a driver that is new enough": (
        lambda _, patch: patch.setattr(hardware, "driver_cuda_version", lambda: (12, 2)),
        "needs 13.0 or newer",
    ),
    "a driver": (lambda _, patch: patch.setattr(hardware, "driver_cuda_version", lambda: None), "No NVIDIA driver"),
    "torch for GPUs": (with_torch_for_the_cpu, "is a build for the CPU alone"),
    "g++": (without_gpp, r"needs a C\+\+ compiler"),
    "room": (without_room, r"takes 1 GB of disk, and 0\.1 GB are free"),
}


@pytest.mark.parametrize("lack", LACKS)
def test_what_is_missing_is_said(machine, monkeypatch, lack):
    take_away, text = LACKS[lack]
    take_away(machine, monkeypatch)
    with pytest.raises(MachineError, match=text):
        at_start.check_at_start(TRAINING)


@pytest.mark.parametrize(
    "command",
    [
        ["ns-eval", *TRAINING[1:]],
        ["ns-train"],
        ["ns-train", "--help"],
        ["ns-train", "splatfacto", "--data", "v.mp4"],
        [*TRAINING, "--help"],
        [*TRAINING, "--load-config", "config.yml"],
        [*TRAINING, "--load-config=config.yml"],
        [*TRAINING, "--machine.device-type", "cpu"],
        [*TRAINING, "--machine.device_type=cpu", "das3r-data", "--video.every", "2"],
        [*TRAINING, "--machine.device-type", "cuda", "--machine.device-type", "cpu"],
        [*TRAINING, "--machine.device-type"],  # is told by nerfstudio's parser
        [*TRAINING, "--pipeline.model.rasterizer", "cpu"],
        [*TRAINING, "--pipeline.model.rasterizer=cpu"],
    ],
    ids=" ".join,
)
def test_what_needs_no_kernels_is_not_stopped(machine, command):
    at_start.check_at_start(command)


def test_the_cpus_rasterizer_by_environment(machine, monkeypatch):
    monkeypatch.setenv("DAS3R_RASTERIZER", "cpu")
    at_start.check_at_start(TRAINING)


def test_a_machine_without_a_gpu_trains_on_the_cpu(machine, monkeypatch):
    monkeypatch.setattr(hardware, "gpus", list)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    at_start.check_at_start(TRAINING)
    with pytest.raises(MachineError):
        at_start.check_at_start([*TRAINING, "--machine.device-type", "cuda"])


def test_the_methods_are_those_that_are_registered():
    from das3r_ns import config

    registered = {config.das3r.config.method_name, config.das3r_lite.config.method_name}
    assert set(at_start.METHODS) == registered | {config.das3r_paper.config.method_name}


def test_ns_train_ends_before_nerfstudio_imports_its_trainer(tmp_path):
    command = [sys.executable, "-X", "importtime", str(Path(sys.executable).with_name("ns-train")), "das3r-lite"]
    done = subprocess.run(
        [*command, "--data", "v.mp4", "--machine.device-type", "cuda"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert re.search("^ns-train das3r-lite: .*--machine.device-type cpu", done.stderr, re.MULTILINE)
    assert "nerfstudio.cameras.camera_optimizers" in done.stderr
    assert "nerfstudio.engine.trainer" not in done.stderr
    assert not list(tmp_path.iterdir())
