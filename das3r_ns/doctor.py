"""`das3r doctor`: what is installed and what this machine can do, on one screen; bug reports start with it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.text import Text

from das3r_ns import __version__
from das3r_ns.machine import checks, hardware
from das3r_ns.machine.findings import Finding
from das3r_ns.runtime.cache_folder import cache_folder

EXTRAS = {
    "salience": ("rembg", "sharper masks"),
    "sam2": ("sam2", "masks refined by SAM 2"),
    "train": ("lightning_fabric", "training of the predictor"),
    "cluster": ("submitit", "training on a cluster"),
}
"""Extra -> (module that it brings, what for)."""


def doctor() -> None:
    """Check this installation and this machine; each line with a tick, or with the command that helps.

    Lines marked `-` are optional. Exit code 1 if something that training needs is missing. Paste the output into bug
    reports.
    """
    console = Console(highlight=False)
    missing = 0
    for section, findings in (
        ("Installation", _installation),
        ("GPU", _gpu),
        ("Optional", _optional),
        ("Files", _files),
    ):
        console.print(Text(section, style="bold"))
        for finding in _guarded(findings):
            required = section != "Optional"
            missing += required and not finding.good
            mark, style = ("✓", "green") if finding.good else ("✗", "red") if required else ("-", "dim")
            line = Text(f"  {mark} ", style=style) + Text(f"{finding.subject:<15} {finding.text}")
            console.print(line, soft_wrap=True)
            for line in filter(None, (finding.help, finding.choice)):
                console.print(Text(f"    {'':<15} {line}", style="yellow" if required else "dim"), soft_wrap=True)
    if missing:
        raise SystemExit(1)


def _guarded(findings: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check that itself fails is a finding too: a broken installation is what this command is for."""
    try:
        yield from findings()
    except Exception as error:
        yield Finding(findings.__name__.strip("_"), False, f"could not be checked: {type(error).__name__}: {error}")


def _installation() -> Iterator[Finding]:
    yield Finding("das3r_ns", True, f"{__version__} in {Path(__file__).parents[1]}")
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(
        "Python",
        sys.version_info[:2] >= (3, 10),
        f"{version} at {sys.executable}, {platform.platform()}",
        "" if sys.version_info >= (3, 10) else "Make an environment with Python 3.10 to 3.12.",
    )
    yield from (_package(name) for name in ("nerfstudio", "gsplat"))
    yield _module("torch", "pip install torch torchvision")
    yield _torchvision()
    yield _package("numpy")
    yield from (_package(name) for name in ("pillow", "pycolmap", "numba"))
    yield _opencv()
    yield _ffmpeg()


def _gpu() -> Iterator[Finding]:
    import torch

    found = hardware.gpus()
    if not found and not torch.cuda.is_available():
        if hardware.gpus_without_driver():
            yield Finding("GPU", True, "on the bus, without a driver of NVIDIA; training runs on the CPU")
        else:
            yield Finding("GPU", True, "none; training runs on the CPU (ns-train das3r-lite takes minutes)")
        return
    yield from checks.gpu_findings()


def _optional() -> Iterator[Finding]:
    for extra, (module, purpose) in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        text = f"installed: {purpose}" if there else f"not installed: {purpose}"
        yield Finding(f"extra {extra}", there, text, "" if there else f"pip install 'das3r-ns[{extra}]'")
    yield from _weights()


def _weights() -> Iterator[Finding]:
    from das3r_ns.predictor.network.settings import DEFAULT_WEIGHTS
    from das3r_ns.predictor.network.weights_source import WEIGHTS_SIZE, weights_available

    there = weights_available(DEFAULT_WEIGHTS)
    text = f"of the network predictor: {'here' if there else f'not here ({WEIGHTS_SIZE})'}"
    yield Finding("weights", there, text, "" if there else "das3r download weights")


def _files() -> Iterator[Finding]:
    for name, folder in (("scenes", Path("outputs") / "das3r_scenes"), ("cache", cache_folder())):
        size = f"{_size(folder) / 1e9:.2f} GB" if folder.is_dir() else "not there yet"
        yield Finding(name, True, f"{folder.absolute()}: {size}")
    free = shutil.disk_usage(Path.cwd()).free
    low = free < 2_000_000_000
    yield Finding(
        "disk",
        not low,
        f"{free / 1e9:.0f} GB free in {Path.cwd()}",
        "A run takes up to 2 GB: make room, or work in another folder." if low else "",
    )


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", f"pip install {name}")


def _module(name: str, cure: str) -> Finding:
    """A package that is imported, because an import that fails is the usual trouble with it."""
    try:
        module = importlib.import_module(name)
    except Exception as error:
        return Finding(name, False, f"cannot be imported: {str(error).splitlines()[0]}", cure)
    return Finding(name, True, str(getattr(module, "__version__", "")))


def _torchvision() -> Finding:
    """Of another build than torch it imports only in part, with "operator torchvision::nms does not exist"."""
    return _module("torchvision", "pip install --force-reinstall --no-deps torchvision (the one that fits torch)")


def _opencv() -> Finding:
    """Two OpenCV packages write into one folder and break each other."""
    packages = [
        name
        for name in (
            "opencv-python-headless",
            "opencv-python",
            "opencv-contrib-python",
            "opencv-contrib-python-headless",
        )
        if _package(name).good
    ]
    if len(packages) > 1:
        return Finding(
            "OpenCV",
            False,
            f"{' and '.join(packages)} are both installed and overwrite each other",
            f"pip uninstall -y {' '.join(packages)} && pip install opencv-python-headless==4.10.0.84",
        )
    return Finding(
        "OpenCV", bool(packages), f"{packages[0]} {metadata.version(packages[0])}" if packages else "not installed"
    )


def _ffmpeg() -> Finding:
    program = shutil.which("ffmpeg")
    if program is not None:
        return Finding("ffmpeg", True, program)
    if importlib.util.find_spec("imageio_ffmpeg") is not None:
        return Finding("ffmpeg", True, "of the package imageio-ffmpeg")
    return Finding("ffmpeg", False, "not found, and ns-render calls it", "pip install imageio-ffmpeg")


def _size(folder: Path) -> int:
    return sum((Path(place) / name).lstat().st_size for place, _, names in os.walk(folder) for name in names)
