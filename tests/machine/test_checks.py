"""What a machine lacks is said with the command that helps, in the order in which it can be helped."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from machine.machines import machine, nvcc

from das3r_ns.machine import checks, hardware, kernels, toolchain, toolkit
from das3r_ns.machine.findings import MachineError

__all__ = ["machine"]


@pytest.fixture(autouse=True)
def _no_kernels(monkeypatch, machine):
    monkeypatch.setattr(kernels, "find_kernels", lambda _: None)


def refusal() -> str:
    with pytest.raises(MachineError) as refused:
        checks.prepare_gpu()
    return str(refused.value)


def test_no_cuda_compiler(machine):
    text = refusal()
    assert "needs the CUDA compiler nvcc 13.0, and none was found" in text
    assert 'pip install "cuda-toolkit[nvcc,crt,nvvm,cccl]==13.0.2"' in text
    assert "--pipeline.model.rasterizer cpu" in text
    checks.prepare_gpu("cpu")  # the choice that the text offers is one


def test_a_compiler_of_another_major_version(machine):
    nvcc(machine / "usual", "12.4")
    assert "nvcc 13.0, and only CUDA 12.4" in refusal()


def test_torch_for_cuda_12_has_no_compiler_on_pypi(machine, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(toolkit, "packaged_version", lambda: None)
    assert '"torch>=2.11" torchvision "cuda-toolkit[nvcc,crt,nvvm,cccl]"' in refusal()
    monkeypatch.setattr(hardware, "driver_cuda_version", lambda: (12, 8))  # a newer torch would not run
    assert "conda install -c nvidia cuda-toolkit=12.8" in refusal()


def test_a_driver_that_is_too_old(machine, monkeypatch):
    monkeypatch.setattr(hardware, "driver_cuda_version", lambda: (12, 2))
    text = refusal()
    assert "driver 580.95.05 runs CUDA up to 12.2" in text
    assert "needs 13.0 or newer" in text
    assert "nvidia-driver-580" in text
    assert "--machine.device-type cpu" in text


def test_no_driver(machine, monkeypatch):
    monkeypatch.setattr(hardware, "driver_cuda_version", lambda: None)
    assert "No NVIDIA driver can be loaded" in refusal()


def test_torch_for_the_cpu_alone(machine, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    text = refusal()
    assert "This machine has a GPU (NVIDIA H200)" in text
    assert "pip install --force-reinstall torch torchvision" in text


def test_a_gpu_that_torch_does_not_find(machine, monkeypatch):
    def fails() -> None:
        raise RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", fails)
    assert (
        "finds no CUDA device: CUDA unknown error - this may be due to an incorrectly set up environment." in refusal()
    )


def test_a_gpu_older_than_torch_was_built_for(machine, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (6, 1))
    assert "compute capability 6.1" in refusal()


@pytest.mark.parametrize("capability", [(12, 0), (9, 0)])
def test_a_gpu_newer_than_gsplat_is_told_but_not_refused(machine, monkeypatch, capability):
    nvcc(machine / "usual", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(checks.metadata, "version", lambda _: "1.4.0")
    findings = list(checks.gpu_findings())
    assert all(finding.good for finding in findings)
    assert any("gsplat==1.5.3" in finding.help for finding in findings) == (capability >= (10, 0))


def test_no_cpp_compiler(machine, monkeypatch):
    nvcc(machine / "usual", "13.0")
    (machine / "bin" / "c++").unlink()
    monkeypatch.setenv("PATH", str(machine / "bin"))
    monkeypatch.setattr(toolkit, "_version", lambda _: "13.0")
    text = refusal()
    assert "needs a C++ compiler, and c++ is not on PATH" in text
    assert "sudo apt install g++" in text


def test_no_python_headers(machine, monkeypatch):
    nvcc(machine / "usual", "13.0")
    monkeypatch.setattr(toolchain.sysconfig, "get_path", lambda _: str(machine))
    assert "-dev" in refusal()


def test_no_room(machine, monkeypatch):
    nvcc(machine / "usual", "13.0")
    usage = shutil.disk_usage(machine)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=usage.total, used=0, free=200_000_000))
    text = refusal()
    assert "takes 1 GB of disk, and 0.2 GB are free" in text
    assert "export DAS3R_CACHE=FOLDER" in text


def test_all_there_builds_once_and_loads(machine, monkeypatch):
    nvcc(machine / "usual", "13.0")
    calls = []
    monkeypatch.setattr(kernels, "build_kernels", lambda *given: calls.append(given) or "built")
    monkeypatch.setattr(kernels, "load_kernels", lambda library: library == "built")
    checks.prepare_gpu()
    ((chosen, capability),) = calls
    assert (chosen.root, capability) == (machine / "usual", (9, 0))
