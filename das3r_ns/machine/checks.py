"""What training on a GPU needs of a machine, asked for before the long work: one finding per requirement.

Each finding says what was found, what is needed and the one command that helps, so that `ns-train` can stop with it
and `das3r doctor` can list it.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from das3r_ns.machine import hardware
from das3r_ns.machine import kernels as gsplat_kernels
from das3r_ns.machine import toolkit as cuda
from das3r_ns.runtime.cache_folder import cache_folder

MIN_CAPABILITY_CUDA_13 = (7, 5)
"""CUDA 13's compiler builds for Turing (GTX 16, RTX 20) and newer."""
BLACKWELL = (10, 0)
"""Compute capability from which gsplat 1.4 is too old: RTX 50 and B200."""

WITHOUT_KERNELS = "Or go on without a compiler: --pipeline.model.rasterizer cpu (slower)."
WITHOUT_GPU = "Or train on the CPU: --machine.device-type cpu (ns-train das3r-lite makes a preview in minutes)."


class MachineError(RuntimeError):
    """The machine lacks what training on its GPU needs; the message says what, and the command that helps."""


@dataclass(frozen=True)
class Finding:
    """One requirement and what was found of it."""

    subject: str
    good: bool
    text: str
    """What was found; where that is not good, a sentence that also says what is needed."""
    help: str = ""
    """The command that helps, as a sentence."""
    choice: str = ""
    """What can be done instead."""

    def sentence(self) -> str:
        """Everything in one paragraph."""
        return " ".join(part for part in (self.text, self.help, self.choice) if part)


def gpu_findings(rasterizer: str = "auto") -> Iterator[Finding]:
    """Everything that training on a GPU needs, in the order in which it can be helped.

    Args:
        rasterizer: "cpu" asks for no kernels.
    """
    for check in (torch_for_gpu, driver, device):
        finding = check()
        yield finding
        if not finding.good:
            return
    if rasterizer != "cpu":
        yield from kernel_findings()


def draws_on_cpu(rasterizer: str) -> bool:
    """Whether the CPU draws whatever device the Gaussians are on, which needs no kernels: asked for by argument or by
    environment."""
    return rasterizer == "cpu" or os.environ.get("DAS3R_RASTERIZER") == "cpu"


def prepare_gpu(rasterizer: str = "auto") -> None:
    """See that the GPU can be trained on, and that gsplat's kernels are there: build them if need be.

    Raises:
        MachineError: something is missing.
    """
    for finding in gpu_findings(rasterizer):
        if not finding.good:
            raise MachineError(finding.sentence())
    if rasterizer != "cpu":
        prepare_kernels()


def prepare_kernels() -> None:
    """Load gsplat's kernels, after building them if need be.

    Raises:
        MachineError: they are not there and cannot be built.
    """
    import torch

    capability = torch.cuda.get_device_capability()
    found = gsplat_kernels.find_kernels(capability)
    if found is not None and gsplat_kernels.load_kernels(found):
        return
    for finding in kernel_findings():
        if not finding.good:
            raise MachineError(finding.sentence())
    toolkit = cuda.fitting(cuda.find_toolkits(), torch.version.cuda or "")
    assert toolkit is not None
    try:
        built = gsplat_kernels.build_kernels(toolkit, capability)
    except gsplat_kernels.KernelBuildError as error:
        raise MachineError(f"{error} {WITHOUT_KERNELS}") from error
    if not gsplat_kernels.load_kernels(built):
        raise MachineError(
            f"gsplat's CUDA kernels were built and do not load with torch {torch.__version__}: delete "
            f"{built.library.parent} and start again. {WITHOUT_KERNELS}"
        )


def torch_for_gpu() -> Finding:
    """Whether this torch was built for GPUs."""
    import torch

    if torch.version.cuda is not None:
        return Finding("torch", True, f"{torch.__version__}, built for CUDA {torch.version.cuda}")
    return Finding(
        "torch",
        False,
        f"This machine has a GPU ({_names()}), and torch {torch.__version__} is a build for the CPU alone.",
        "Install the build for GPUs: pip install --force-reinstall torch torchvision"
        + (" (Windows: with the --index-url that pytorch.org gives for CUDA)." if sys.platform == "win32" else "."),
        WITHOUT_GPU,
    )


def driver() -> Finding:
    """Whether the driver runs what torch was built for. CUDA's minor versions are compatible, its major ones not."""
    import torch

    needed = tuple(int(part) for part in (torch.version.cuda or "0.0").split(".")[:2])
    found = hardware.driver_cuda_version()
    name = f"driver {hardware.driver_version()}" if hardware.driver_version() else "driver"
    if found is None:
        return Finding(
            "driver",
            False,
            "No NVIDIA driver can be loaded (libcuda.so.1), and training on a GPU needs it.",
            "Install it: sudo apt install nvidia-driver-580 (in a container: docker run --gpus all).",
            WITHOUT_GPU,
        )
    if found[0] < needed[0]:
        return Finding(
            "driver",
            False,
            f"The NVIDIA {name} runs CUDA up to {found[0]}.{found[1]}, and torch {torch.__version__} needs "
            f"{needed[0]}.0 or newer.",
            f"Upgrade the driver: sudo apt install nvidia-driver-{_driver_for(needed[0])}.",
            WITHOUT_GPU,
        )
    return Finding("driver", True, f"{hardware.driver_version() or 'loaded'}, runs CUDA up to {found[0]}.{found[1]}")


def device() -> Finding:
    """Whether torch finds a GPU and was built for its kind."""
    import torch

    if not torch.cuda.is_available():
        try:
            torch.cuda.init()
            reason = "it does not say why"
        except (RuntimeError, AssertionError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
        return Finding(
            "GPU",
            False,
            f"torch {torch.__version__} finds no CUDA device: {reason}.",
            "`nvidia-smi` shows what the driver sees, `das3r doctor` what else is needed.",
            WITHOUT_GPU,
        )
    name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    oldest = min(filter(None, map(_capability, torch.cuda.get_arch_list())), default=(0, 0))
    if (major, minor) < oldest:
        return Finding(
            "GPU",
            False,
            f"{name} has compute capability {major}.{minor}, and torch {torch.__version__} was built for "
            f"{oldest[0]}.{oldest[1]} and newer.",
            "Install an older torch: pip install 'torch<2.8' torchvision",
            WITHOUT_GPU,
        )
    gsplat = metadata.version("gsplat")
    if (major, minor) >= BLACKWELL and _numbers(gsplat) < (1, 5):
        return Finding(
            "GPU",
            True,
            f"{name}, compute capability {major}.{minor}; gsplat {gsplat} is older than this GPU",
            "If training fails: pip install --no-deps gsplat==1.5.3",
        )
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return Finding("GPU", True, f"{name}, {memory:.0f} GiB, compute capability {major}.{minor}")


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


def _names() -> str:
    return ", ".join(sorted(set(hardware.gpus()))) or "NVIDIA"


def _driver_for(major: int) -> int:
    return {12: 525, 13: 580}.get(major, 580)


def _capability(arch: str) -> tuple[int, int] | None:
    """(9, 0) of "sm_90" or "sm_90a"; None of "compute_90", which is no machine code."""
    digits = "".join(c for c in arch if c.isdigit())
    return (int(digits[:-1]), int(digits[-1])) if arch.startswith("sm_") and len(digits) > 1 else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())
