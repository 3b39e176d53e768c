"""What training on a GPU needs of a machine, asked for before the long work: one finding per requirement.

Each finding says what was found, what is needed and the one command that helps, so that `ns-train` can stop with it
and `das3r doctor` can list it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import metadata

from das3r_ns.machine import hardware
from das3r_ns.machine import kernels as gsplat_kernels
from das3r_ns.machine import toolkit as cuda
from das3r_ns.machine.findings import WITHOUT_GPU, WITHOUT_KERNELS, Finding, MachineError
from das3r_ns.machine.toolchain import capability_of, kernel_findings, numbers_of_version

BLACKWELL = (10, 0)
"""Compute capability from which gsplat 1.4 is too old: RTX 50 and B200."""


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
    oldest = min(filter(None, map(capability_of, torch.cuda.get_arch_list())), default=(0, 0))
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
    if (major, minor) >= BLACKWELL and numbers_of_version(gsplat) < (1, 5):
        return Finding(
            "GPU",
            True,
            f"{name}, compute capability {major}.{minor}; gsplat {gsplat} is older than this GPU",
            "If training fails: pip install --no-deps gsplat==1.5.3",
        )
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return Finding("GPU", True, f"{name}, {memory:.0f} GiB, compute capability {major}.{minor}")


def _names() -> str:
    return ", ".join(sorted(set(hardware.gpus()))) or "NVIDIA"


def _driver_for(major: int) -> int:
    return {12: 525, 13: 580}.get(major, 580)
