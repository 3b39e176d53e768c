"""gsplat's CUDA kernels: found, or built once with a progress bar, and kept for the next run.

gsplat ships its kernels as source. Its own way builds them at the first render, after the whole prediction, behind a
spinner, into a folder that belongs to no version: an upgrade of torch or gsplat then loads the kernels of the old one.
We let gsplat build them, in a process of its own and before the long work, into a folder named after everything that
they depend on; afterwards they are loaded from there, which needs no compiler any more.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil

from das3r_ns.files.locks import only_holder
from das3r_ns.machine.toolkit import Toolkit, build_environment, cuda_home
from das3r_ns.runtime.cache_folder import cache_folder
from das3r_ns.runtime.progress import CONSOLE, stage
from das3r_ns.runtime.shared_cores import available_cores

ROOM_BYTES = 1_000_000_000
"""What a build may need on disk: objects, the library (60 MB) and what the compiler writes meanwhile."""
JOB_BYTES = 2_000_000_000
"""Memory of one compiler process at its peak."""
BUILD_CPU_S = 1500
"""Processor time of a whole build of gsplat 1.4, estimated; for the sentence that says how long it takes."""
LONGEST_FILE_S = 170
"""What the slowest source file takes on its own. gsplat 1.4 took 170 s on 16 idle cores and 204 s on 16 of 32 busy
ones, gsplat 1.5 took 102 s (2026-11-30)."""

_NAME = "gsplat_cuda"
_LIBRARY = f"{_NAME}{'.pyd' if sys.platform == 'win32' else '.so'}"
_BUILD = (
    "from gsplat.cuda import _backend; import sys; sys.exit(0 if _backend._C is not None else 'gsplat found no nvcc')"
)


class KernelBuildError(RuntimeError):
    """gsplat's kernels could not be built; the message says why, and where the compiler's output is."""


@dataclass(frozen=True)
class Kernels:
    """Kernels that are there."""

    library: Path
    origin: Literal["installed with gsplat", "built before", "built by gsplat itself"]


def find_kernels(capability: tuple[int, int]) -> Kernels | None:
    """The kernels for a GPU of this compute capability, if they are anywhere; without importing gsplat."""
    package = _gsplat_folder()
    for path in sorted(package.glob("csrc.*")):
        return Kernels(path, "installed with gsplat")
    own = _folder(capability) / _LIBRARY
    if own.exists():
        return Kernels(own, "built before")
    theirs = _gsplats_own_build(package)
    return Kernels(theirs, "built by gsplat itself") if theirs is not None else None


def load_kernels(kernels: Kernels) -> bool:
    """Hand the kernels to gsplat, which takes a module `gsplat.csrc` before it looks for a compiler.

    Returns:
        False when the library does not fit the installed torch; it is then not used.
    """
    if kernels.origin == "installed with gsplat" or "gsplat.csrc" in sys.modules:
        return True
    loader = importlib.machinery.ExtensionFileLoader(_NAME, str(kernels.library))
    spec = importlib.util.spec_from_file_location(_NAME, kernels.library, loader=loader)
    assert spec is not None
    try:
        import torch  # noqa: F401  (the library refers to torch's symbols)

        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    except ImportError:
        return False
    sys.modules["gsplat.csrc"] = module
    backend = sys.modules.get("gsplat.cuda._backend")
    if backend is not None and getattr(backend, "_C", None) is None:  # rendered before, in vain
        backend._C = module  # type: ignore[attr-defined]
    return True


def build_kernels(toolkit: Toolkit, capability: tuple[int, int]) -> Kernels:
    """Build the kernels for a GPU of this compute capability, unless another process just did.

    Raises:
        KernelBuildError: the compiler failed.
    """
    folder = _folder(capability)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with only_holder(Path(f"{folder}.lock")):
        if not (folder / _LIBRARY).exists():
            staging = folder.with_name(f"{folder.name}.building")
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
            started = time.perf_counter()
            built = _run_build(toolkit, capability, staging)
            folder.mkdir(exist_ok=True)
            os.replace(built, folder / _LIBRARY)
            _note(folder, toolkit, time.perf_counter() - started)
            shutil.rmtree(staging, ignore_errors=True)
    return Kernels(folder / _LIBRARY, "built before")


def build_jobs() -> int:
    """Compiler processes at once: one a core, as far as memory goes."""
    return max(1, min(available_cores(), psutil.virtual_memory().available // JOB_BYTES))


def expected_build_s(jobs: int) -> float:
    """How long a build takes with so many processes at once."""
    return max(LONGEST_FILE_S, BUILD_CPU_S / jobs)


def _run_build(toolkit: Toolkit, capability: tuple[int, int], staging: Path) -> Path:
    environment = build_environment(cuda_home(toolkit, cache_folder() / "toolkit"))
    jobs = int(environment.setdefault("MAX_JOBS", str(build_jobs())))
    environment["TORCH_EXTENSIONS_DIR"] = str(staging)
    environment["TORCH_CUDA_ARCH_LIST"] = ".".join(map(str, capability))
    minutes = max(1, round(expected_build_s(jobs) / 60))
    CONSOLE.print(
        f"gsplat's CUDA kernels are built for this GPU, once: about {minutes} min with {jobs} processes "
        f"(CUDA {toolkit.version} from {toolkit.source})."
    )
    log = staging.with_name(f"{staging.name}.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _BUILD],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that the compilers can be stopped with it
        )
        try:
            _watch(process, staging / _NAME)
        finally:
            if process.poll() is None:
                _stop(process)
    library = staging / _NAME / _LIBRARY
    if process.returncode != 0 or not library.exists():
        raise KernelBuildError(
            f"gsplat's CUDA kernels could not be built: {_reason(log)} The compiler's whole output is in {log}."
        )
    return library


def _watch(process: subprocess.Popen[bytes], folder: Path) -> None:
    """A bar that counts compiled files until the process ends."""
    rules = folder / "build.ninja"
    with stage("Starting the CUDA compiler", None):
        while process.poll() is None and not rules.exists():
            time.sleep(0.2)
    if process.poll() is not None:
        return
    time.sleep(0.2)  # until the file is whole
    total = len(re.findall(r"^build \S+\.o:", rules.read_text(encoding="utf-8"), re.MULTILINE))
    with stage("Building gsplat's CUDA kernels", total, "files") as bar:
        done = 0
        while process.poll() is None:
            now = len(list(folder.glob("*.o")))
            if now > done:
                bar.advance(now - done)
                done = now
            time.sleep(0.5)
        bar.advance(total - done)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.terminate()
    process.wait()


def _reason(log: Path) -> str:
    """The line of the compiler's output that names the cause."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for pattern in (r"\berror\b\s*:", r"fatal error|No space left|Killed|^\w*Error\b"):
        for line in lines:
            if re.search(pattern, line) and "RuntimeError: Error building extension" not in line:
                return line.strip().rstrip(".") + "."
    return (lines[-1].strip() if lines else "it ended without a word").rstrip(".") + "."


def _note(folder: Path, toolkit: Toolkit, seconds: float) -> None:
    facts = {"seconds": round(seconds, 1), "cuda": toolkit.version, "compiler": toolkit.source, **_versions()}
    (folder / "build.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")


def _versions() -> dict[str, str]:
    import torch

    return {"gsplat": metadata.version("gsplat"), "torch": torch.__version__, "python": sysconfig.get_platform()}


def _folder(capability: tuple[int, int]) -> Path:
    """Named after everything that the compiled library depends on."""
    versions = _versions()
    python = sysconfig.get_config_var("SOABI") or f"{sys.implementation.cache_tag}-{sys.platform}"
    name = f"gsplat-{versions['gsplat']}_torch-{versions['torch']}_sm{capability[0]}{capability[1]}_{python}"
    return cache_folder() / "kernels" / name


def _gsplat_folder() -> Path:
    spec = importlib.util.find_spec("gsplat")
    if spec is None or spec.origin is None:
        raise ImportError("gsplat is not installed, and nerfstudio needs it: pip install gsplat==1.4.0")
    return Path(spec.origin).parent


def _gsplats_own_build(package: Path) -> Path | None:
    """What gsplat built by itself, for splatfacto say, if it is of the installed gsplat and torch."""
    import torch

    root = os.environ.get("TORCH_EXTENSIONS_DIR")
    if root is None:
        build = f"py{sys.version_info[0]}{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"
        build += f"_cu{(torch.version.cuda or '').replace('.', '')}"
        root = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch_extensions" / build)
    library = Path(root) / _NAME / _LIBRARY
    rules = library.with_name("build.ninja")
    if not (library.exists() and rules.exists()) or str(package) not in rules.read_text(encoding="utf-8"):
        return None
    installed = max(
        Path(torch.__file__).with_name("version.py").stat().st_mtime, (package / "version.py").stat().st_mtime
    )
    return library if library.stat().st_mtime > installed else None
