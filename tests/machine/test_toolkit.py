"""The CUDA compiler is found wherever it is, and laid out as torch and gsplat look for it."""

import os
import subprocess

import pytest
from machine.machines import machine, nvcc, program

from das3r_ns.machine import toolkit

__all__ = ["machine"]


@pytest.fixture
def packages(machine, monkeypatch):
    """The compiler's packages in one site-packages, torch's headers and libraries in another."""
    root, torchs = machine / "user" / "nvidia" / "cu13", machine / "site" / "nvidia" / "cu13"
    nvcc(root, "13.0", headers=False)
    (root / "nvvm" / "bin").mkdir(parents=True)
    for folder, name in (("include", "cuda_runtime.h"), ("lib", "libcudart.so.13"), ("lib", "libcudadevrt.a")):
        (torchs / folder).mkdir(parents=True, exist_ok=True)
        (torchs / folder / name).touch()
    monkeypatch.setattr(toolkit, "packaged_roots", lambda: [torchs, root])
    return root


def test_without_any_none_is_found(machine):
    assert toolkit.find_toolkits() == []
    assert toolkit.fitting([], "13.0") is None


def test_packages_are_laid_out_as_a_toolkit(packages, machine):
    found = toolkit.fitting(toolkit.find_toolkits(), "13.0")
    assert found is not None
    assert (found.version, found.source, found.root) == ("13.0", "Python packages", packages)
    home = toolkit.cuda_home(found, machine / "cache")
    assert (home / "include" / "cuda_runtime.h").exists()
    assert (home / "lib64" / "libcudart.so").resolve().name == "libcudart.so.13"  # what `-lcudart` asks for
    assert (home / "nvvm" / "bin").is_dir()
    assert toolkit.cuda_home(found, machine / "cache") == home  # made again, not in the way

    environment = toolkit.build_environment(home)
    told = subprocess.run(["nvcc", "--version"], env=environment, capture_output=True, text=True, check=True)
    assert "release 13.0" in told.stdout
    assert environment["CUDA_HOME"] == str(home)
    assert str(home / "lib64") in environment["LIBRARY_PATH"].split(os.pathsep)


def test_the_version_of_torch_is_preferred_to_the_place(packages, machine, monkeypatch):
    nvcc(machine / "usual", "13.2")
    nvcc(machine / "twelve", "12.8")
    monkeypatch.setenv("CUDA_HOME", str(machine / "twelve"))
    found = toolkit.find_toolkits()
    assert [t.version for t in found] == ["12.8", "13.0", "13.2"]
    assert [toolkit.fitting(found, wanted).version for wanted in ("13.0", "13.2", "13.1", "12.4")] == [
        *("13.0", "13.2", "13.0", "12.8")
    ]
    assert toolkit.fitting(found, "11.8") is None


def test_a_script_on_the_path_that_calls_a_compiler_elsewhere(machine):
    real = nvcc(machine / "opt" / "cuda-13.0", "13.0")
    script = machine / "bin" / "nvcc"
    script.write_text(f'#!/bin/sh\nexec {real} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    (found,) = toolkit.find_toolkits() or [None]
    assert found is None or found.root == machine / "opt" / "cuda-13.0"
    assert found is not None


def test_a_compiler_without_headers_or_that_does_not_run_is_passed_over(machine, monkeypatch):
    nvcc(machine / "bare", "13.0", headers=False)
    broken = program(machine / "usual" / "bin" / "nvcc", "Segmentation fault")
    (machine / "usual" / "include").mkdir()
    (machine / "usual" / "include" / "cuda_runtime.h").touch()
    monkeypatch.setenv("CUDA_HOME", str(machine / "bare"))
    assert broken.exists()
    assert toolkit.find_toolkits() == []


def test_conda_keeps_headers_one_level_down(machine, monkeypatch):
    root = machine / "conda"
    nvcc(root, "12.8", headers=False)
    inner = root / "targets" / "x86_64-linux" / "include"
    inner.mkdir(parents=True)
    (inner / "cuda_runtime.h").touch()
    monkeypatch.setenv("CUDA_HOME", str(root))
    (found,) = toolkit.find_toolkits()
    environment = toolkit.build_environment(toolkit.cuda_home(found, machine / "cache"))
    assert str(inner) in environment["CPLUS_INCLUDE_PATH"]
    assert str(inner.parent / "lib") in environment["LIBRARY_PATH"]
