"""Checks of what builds gsplat's kernels: the compilers, Python's headers, and room for the result."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from das3r_ns.machine import hardware
from das3r_ns.machine import kernels as gsplat_kernels
from das3r_ns.machine import toolkit as cuda
from das3r_ns.machine.findings import WITHOUT_KERNELS, Finding
from das3r_ns.runtime.cache_folder import cache_folder

MIN_CAPABILITY_CUDA_13 = (7, 5)
"""CUDA 13's compiler builds for Turing (GTX 16, RTX 20) and newer."""


def kernel_findings() -> Iterator[Finding]:
    """gsplat's kernels; where they are not there, what building them needs."""
    import torch

    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else (0, 0)
    found = gsplat_kernels.find_kernels(capability)
    if found is not None:
        yield Finding("gsplat kernels", True, f"{found.origin}: {found.library}")
        return
    for finding in (compiler_of_cuda(capability), compiler_of_cpp(), headers_of_python(), room()):
        yield finding
        if not finding.good:
            return
    jobs = gsplat_kernels.build_jobs()
    minutes = max(1, round(gsplat_kernels.expected_build_s(jobs) / 60))
    yield Finding("gsplat kernels", True, f"not built yet: the first training builds them, in about {minutes} min")


def compiler_of_cuda(capability: tuple[int, int]) -> Finding:
    """nvcc, of the major version that torch was built with, for this GPU."""
    import torch

    wanted = torch.version.cuda or ""
    toolkits = cuda.find_toolkits()
    toolkit = cuda.fitting(toolkits, wanted)
    if toolkit is None:
        others = ", ".join(f"{t.version} ({t.source})" for t in toolkits)
        found = (
            f"only CUDA {others} was found"
            if toolkits
            else "none was found: not on PATH, not in $CUDA_HOME, no package"
        )
        return Finding(
            "CUDA compiler",
            False,
            f"gsplat's CUDA kernels are not built yet, which needs the CUDA compiler nvcc {wanted}, and {found}.",
            f"Install it: {_install_nvcc(wanted)}",
            WITHOUT_KERNELS,
        )
    if toolkit.major >= 13 and (0, 0) < capability < MIN_CAPABILITY_CUDA_13:
        return Finding(
            "CUDA compiler",
            False,
            f"This GPU has compute capability {capability[0]}.{capability[1]}, and CUDA {toolkit.version} builds for "
            "7.5 and newer.",
            "Install a torch for CUDA 12 and its compiler: pip install 'torch<2.11' torchvision && conda install -c "
            "nvidia cuda-toolkit=12.8",
            WITHOUT_KERNELS,
        )
    return Finding("CUDA compiler", True, f"nvcc {toolkit.version} from {toolkit.source} ({toolkit.root})")


def compiler_of_cpp() -> Finding:
    """The C++ compiler that nvcc calls."""
    if sys.platform == "win32":
        wanted, help_ = "cl", "Install it: winget install Microsoft.VisualStudio.2022.BuildTools"
    else:
        wanted = os.environ.get("CXX", "c++")
        help_ = "Install it: sudo apt install g++ (or conda install -c conda-forge gxx)."
    # torch calls $CXX or c++; nvcc calls $CC where torch hands it on, else g++.
    for program in (wanted, "g++") if sys.platform.startswith("linux") and "CC" not in os.environ else (wanted,):
        if shutil.which(program) is None:
            return Finding(
                "C++ compiler",
                False,
                f"gsplat's CUDA kernels are not built yet, which needs a C++ compiler, and {program} is not on PATH.",
                help_,
                WITHOUT_KERNELS,
            )
    return Finding("C++ compiler", True, str(shutil.which(wanted)))


def headers_of_python() -> Finding:
    """Python.h, which Debian and Ubuntu package apart from their Python."""
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if header.exists():
        return Finding("Python headers", True, str(header.parent))
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return Finding(
        "Python headers",
        False,
        f"gsplat's CUDA kernels are not built yet, which needs Python's headers, and {header} does not exist.",
        f"Install them: sudo apt install python{version}-dev",
        WITHOUT_KERNELS,
    )


def room() -> Finding:
    """Disk for the build, in the cache folder, which must be writable too."""
    folder = cache_folder()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    move = f"Name another folder: export DAS3R_CACHE=FOLDER (now {folder})."
    if not os.access(there, os.W_OK):
        return Finding(
            "room",
            False,
            f"gsplat's CUDA kernels are kept in {folder}, and {there} is not writable.",
            move,
            WITHOUT_KERNELS,
        )
    free = shutil.disk_usage(there).free
    if free < gsplat_kernels.ROOM_BYTES:
        return Finding(
            "room",
            False,
            f"Building gsplat's CUDA kernels takes {gsplat_kernels.ROOM_BYTES / 1e9:.0f} GB of disk, and "
            f"{free / 1e9:.1f} GB are free in {there}.",
            move,
            WITHOUT_KERNELS,
        )
    return Finding("room", True, f"{free / 1e9:.0f} GB free in {there}")


def _install_nvcc(wanted: str) -> str:
    """The command that brings the compiler for this torch."""
    version = cuda.packaged_version()
    if version is not None:
        return f'pip install "{cuda.PACKAGES}=={version}".'
    runs = hardware.driver_cuda_version()
    if runs is not None and runs[0] >= 13 and sys.platform != "win32":
        # PyPI has no compiler for CUDA 12, which this torch was built with.
        return f'pip install --upgrade "torch>={cuda.FIRST_TORCH_WITH_PACKAGES}" torchvision "{cuda.PACKAGES}".'
    return f"conda install -c nvidia cuda-toolkit={wanted}."


def capability_of(arch: str) -> tuple[int, int] | None:
    """(9, 0) of "sm_90" or "sm_90a"; None of "compute_90", which is not machine code."""
    digits = "".join(c for c in arch if c.isdigit())
    return (int(digits[:-1]), int(digits[-1])) if arch.startswith("sm_") and len(digits) > 1 else None


def numbers_of_version(version: str) -> tuple[int, ...]:
    """ "1.5.3" as (1, 5, 3)."""
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())
