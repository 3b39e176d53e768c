"""Machines that are not there: a GPU, a driver and compilers as the checks see them."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from das3r_ns.machine import hardware, toolkit


def program(path: Path, says: str = "", to_stderr: str = "") -> Path:
    """A program that prints."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\ncat <<'X'\n{says}\nX\ncat >&2 <<'X'\n{to_stderr}\nX\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def nvcc(root: Path, version: str, headers: bool = True) -> Path:
    """A CUDA compiler of a version at `root/bin/nvcc`."""
    path = program(root / "bin" / "nvcc", f"Cuda compilation tools, release {version}, V{version}.88", f"#$ TOP={root}")
    if headers:
        (root / "include").mkdir(exist_ok=True)
        (root / "include" / "cuda_runtime.h").touch()
    return path


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with an H200, a driver for CUDA 13, torch for CUDA 13.0 and a C++ compiler, without a CUDA compiler."""
    monkeypatch.setenv("DAS3R_CACHE", str(tmp_path / "cache"))
    for variable in ("CUDA_HOME", "CUDA_PATH", "CXX", "CC", "CUDA_VISIBLE_DEVICES", "TORCH_EXTENSIONS_DIR"):
        monkeypatch.delenv(variable, raising=False)
    for name in ("c++", "g++"):
        program(tmp_path / "bin" / name)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(toolkit, "USUAL_PLACE", tmp_path / "usual")
    monkeypatch.setattr(toolkit, "packaged_roots", list)
    monkeypatch.setattr(toolkit, "packaged_version", lambda: "13.0.2")
    monkeypatch.setattr(hardware, "gpus", lambda: ["NVIDIA H200"])
    monkeypatch.setattr(hardware, "driver_version", lambda: "580.95.05")
    monkeypatch.setattr(hardware, "driver_cuda_version", lambda: (13, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90", "sm_120", "compute_120"])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: SimpleNamespace(total_memory=140 * 2**30))
    return tmp_path
