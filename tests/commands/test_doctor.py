"""`das3r doctor`: one screen, a mark for every finding, the command that helps, and an exit code for scripts."""

import shutil
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch
from machine.machines import machine, nvcc

from das3r_ns import __version__, doctor
from das3r_ns.machine import hardware, kernels, toolchain
from das3r_ns.machine.findings import Finding

__all__ = ["machine"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder, a cache of its own, and no GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAS3R_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hardware, "gpus", list)
    monkeypatch.setattr(hardware, "gpus_without_driver", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path


def screen(capsys) -> tuple[int, list[str]]:
    """Exit code, and the lines."""
    code = 0
    try:
        doctor.doctor()
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, capsys.readouterr().out.splitlines()


def line_of(lines: list[str], subject: str) -> tuple[str, str]:
    """The mark and the text of a finding, with what follows it until the next."""
    at = next(i for i, line in enumerate(lines) if line[4:].startswith(subject))
    after = [line for line in lines[at + 1 : at + 3] if line.startswith(" " * 10)]
    return lines[at][2], " ".join([lines[at], *after])


def test_a_sound_installation_has_a_tick_on_every_line_and_exit_code_0(folder, capsys):
    code, lines = screen(capsys)
    assert code == 0, lines
    sections = [line for line in lines if not line.startswith(" ")]
    assert sections == ["Installation", "GPU", "Optional", "Files"]
    optional = lines.index("Optional")
    assert all(line[2] in "✓" for line in lines[1:optional] if line.startswith("  ") and line[2] != " "), lines
    for subject, found in {
        "das3r_ns": __version__,
        "Python": sys.executable,
        "nerfstudio": metadata.version("nerfstudio"),
        "gsplat": metadata.version("gsplat"),
        "torch": torch.__version__,
        "GPU": "none; training runs on the CPU",
        "scenes": "not there yet",
        "cache": str(folder / "cache"),
        "disk": "GB free",
    }.items():
        mark, text = line_of(lines, subject)
        assert (mark, found in text) == ("✓", True), text
    assert len(lines) < 40  # one screen


def test_what_is_missing_is_counted_and_comes_with_its_command(folder, capsys, monkeypatch):
    version = metadata.version

    def without_pycolmap(name: str) -> str:
        if name == "pycolmap":
            raise metadata.PackageNotFoundError(name)
        return "4.10.0" if name in ("opencv-python", "opencv-python-headless") else version(name)

    monkeypatch.setattr(metadata, "version", without_pycolmap)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda *_: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000_000))
    code, lines = screen(capsys)
    assert code == 1
    for subject, command in {
        "pycolmap": "pip install pycolmap",
        "OpenCV": "pip uninstall -y opencv-python-headless opencv-python",
        "ffmpeg": "pip install imageio-ffmpeg",
        "disk": "make room, or work in another folder",
    }.items():
        mark, text = line_of(lines, subject)
        assert (mark, command in text) == ("✗", True), text


@pytest.mark.parametrize(
    ("module", "command"), [("torch", "pip install torch torchvision"), ("torchvision", "no-deps")]
)
def test_a_package_that_cannot_be_imported(folder, capsys, monkeypatch, module, command):
    real = doctor.importlib.import_module

    def broken(name: str):
        if name == module:
            raise RuntimeError("operator torchvision::nms does not exist\nand more")
        return real(name)

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    code, lines = screen(capsys)
    mark, text = line_of(lines, module)
    assert (code, mark) == (1, "✗")
    assert "cannot be imported: operator torchvision::nms does not exist" in text
    assert command in text
    assert "and more" not in text


def test_what_is_optional_has_a_dash_and_fails_nothing(folder, capsys, monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda *_: None)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: "/usr/bin/ffmpeg")
    code, lines = screen(capsys)
    assert code == 0
    for extra in doctor.EXTRAS:
        mark, text = line_of(lines, f"extra {extra}")
        assert mark == "-"
        assert f"pip install 'das3r-ns[{extra}]'" in text


def test_extras_are_those_of_the_package():
    declared = set(metadata.metadata("das3r_ns").get_all("Provides-Extra") or [])
    assert set(doctor.EXTRAS) <= declared


def test_a_check_that_breaks_is_a_finding(folder, capsys, monkeypatch):
    monkeypatch.setattr(hardware, "gpus", lambda: 1 // 0)
    code, lines = screen(capsys)
    assert code == 1
    assert any("could not be checked: ZeroDivisionError" in line for line in lines)
    assert line_of(lines, "disk")[0] == "✓"  # the rest is told all the same


def test_a_gpu_on_the_bus_without_a_driver(folder, capsys, monkeypatch):
    monkeypatch.setattr(hardware, "gpus_without_driver", lambda: 1)
    code, lines = screen(capsys)
    assert code == 0
    assert "without a driver of NVIDIA" in line_of(lines, "GPU")[1]


def test_a_gpu_that_lacks_the_compiler(machine, capsys, monkeypatch):
    monkeypatch.chdir(machine)
    monkeypatch.setattr(kernels, "find_kernels", lambda _: None)
    code, lines = screen(capsys)
    assert code == 1
    assert line_of(lines, "driver") == ("✓", line_of(lines, "driver")[1])
    mark, text = line_of(lines, "CUDA compiler")
    assert mark == "✗"
    assert 'pip install "cuda-toolkit[' in text


def test_a_gpu_with_everything(machine, capsys, monkeypatch):
    monkeypatch.chdir(machine)
    monkeypatch.setattr(kernels, "find_kernels", lambda _: None)
    monkeypatch.setattr(toolchain, "headers_of_python", lambda: Finding("Python headers", True, "there"))
    nvcc(machine / "usual", "13.0")
    code, lines = screen(capsys)
    assert code == 0, lines
    assert "H200, 140 GiB, compute capability 9.0" in line_of(lines, "GPU")[1]
    assert "not built yet: the first training builds them" in line_of(lines, "gsplat kernels")[1]
