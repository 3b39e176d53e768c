"""The CUDA compiler that builds gsplat's kernels, wherever it is, laid out as torch and gsplat look for it.

gsplat 1.4 asks PATH alone; torch asks `CUDA_HOME`, then PATH, then `/usr/local/cuda`. Most users have none of them, but
PyPI has NVIDIA's compiler (`pip install 'das3r-ns[cuda]'`): packages that put `nvcc`, headers and libraries under
`site-packages/nvidia/cu13`, where nobody looks, without the names that a linker asks for (`libcudart.so`). We make a
folder of links with the layout of an installed toolkit, and point torch and gsplat at it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGES = "cuda-toolkit[nvcc,crt,nvvm,cccl]"
"""Requirement that brings the compiler. nvvm and crt are named, so that they come at the compiler's own version: nvcc's
package asks for any, pip then takes the newest, and their outputs do not fit together."""

FIRST_TORCH_WITH_PACKAGES = "2.11"
"""torch's first release on PyPI for CUDA 13. Compilers for CUDA 12 are not on PyPI."""

USUAL_PLACE = Path("/usr/local/cuda")
"""Where NVIDIA's own installers put it."""

_NVCC = "nvcc.exe" if sys.platform == "win32" else "nvcc"


@dataclass(frozen=True)
class Toolkit:
    """A CUDA compiler with its headers."""

    root: Path
    """Folder with `bin/nvcc`."""
    version: str
    """Of CUDA, such as "13.0"."""
    source: str
    """Where it was found, for messages."""
    packaged: bool
    """Whether it came as Python packages, which lack the layout of an installed toolkit."""

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])


def find_toolkits() -> list[Toolkit]:
    """Every CUDA compiler found: of `CUDA_HOME`, of Python packages, on PATH, at the usual place."""
    found: dict[Path, Toolkit] = {}
    for root, source, packaged in _places():
        nvcc = root / "bin" / _NVCC
        if not nvcc.is_file() or nvcc.resolve() in found or not (packaged or _headers(root)):
            continue
        version = _version(nvcc)
        if version is not None:
            found[nvcc.resolve()] = Toolkit(root, version, source, packaged)
    return list(found.values())


def fitting(toolkits: list[Toolkit], cuda: str) -> Toolkit | None:
    """The compiler to take for a torch built with `cuda` ("13.0"): of the same version, else of the same major version,
    which torch accepts; None when there is no such."""
    for toolkit in toolkits:
        if toolkit.version == cuda:
            return toolkit
    return next((toolkit for toolkit in toolkits if toolkit.major == int(cuda.split(".")[0])), None)


def packaged_version() -> str | None:
    """Version of the package `cuda-toolkit` that the installed torch brought; None with a torch for CUDA 12."""
    try:
        return metadata.version("cuda-toolkit")
    except metadata.PackageNotFoundError:
        return None


def cuda_home(toolkit: Toolkit, cache: Path) -> Path:
    """Folder in the layout of an installed toolkit: `bin`, `include`, `lib64`, `nvvm`.

    For a toolkit of Python packages it is made of links, under `cache`; else it is the toolkit's own.

    Raises:
        OSError: the folder cannot be made.
    """
    if not toolkit.packaged:
        return toolkit.root
    # Packages may lie in several site-packages: torch's in the system's, the compiler's in the user's.
    roots = [toolkit.root, *(root for root in packaged_roots() if root != toolkit.root)]
    roots = [root for root in roots if root.name == toolkit.root.name]
    key = hashlib.sha256("\n".join(str(root) for root in roots).encode()).hexdigest()[:8]
    home = cache / f"cuda-{toolkit.version}-{key}"
    if home.exists():
        shutil.rmtree(home)  # links only: cheap to make again, and never stale
    home.mkdir(parents=True)
    for name in ("bin", "include", "lib64"):
        (home / name).mkdir()
    for program in toolkit.root.glob("bin/*"):  # linked one by one: nvcc takes what lies beside the folder it is in
        _link(home / "bin" / program.name, program)
    _link(home / "nvvm", toolkit.root / "nvvm")
    for root in roots:
        for header in sorted(root.glob("include/*")):
            _link(home / "include" / header.name, header)
        for library in sorted(root.glob("lib/*")):
            _link(home / "lib64" / library.name, library)
            shared = re.fullmatch(r"(lib\w+\.so)\.\d+", library.name)  # what `-lcudart` asks for has no number
            if shared:
                _link(home / "lib64" / shared.group(1), library)
    _link(home / "lib", home / "lib64")
    return home


def build_environment(home: Path) -> dict[str, str]:
    """This process's environment with the compiler at the front, for the process that builds."""
    environment = dict(os.environ)
    # `ninja` lies beside Python, which need not be on PATH: programs of an environment run without activating it.
    folders = [str(home / "bin"), sysconfig.get_path("scripts"), str(Path(sys.executable).parent)]
    environment["PATH"] = os.pathsep.join([*folders, environment.get("PATH", "")])
    environment["CUDA_HOME"] = environment["CUDA_PATH"] = str(home)
    headers = [folder for folder in _headers(home) if folder != home / "include"]
    for variable, folders in (
        ("LIBRARY_PATH", [home / "lib64", *(folder.parent / "lib" for folder in headers)]),
        ("CPLUS_INCLUDE_PATH", headers),
    ):
        if folders:
            environment[variable] = os.pathsep.join([*map(str, folders), environment.get(variable, "")]).rstrip(
                os.pathsep
            )
    return environment


def _places() -> Iterator[tuple[Path, str, bool]]:
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield Path(os.environ[variable]), f"${variable}", False
    for root in packaged_roots():
        yield root, "Python packages", True
    on_path = shutil.which(_NVCC)
    if on_path is not None:
        # Not resolved first: distributions link the compiler alone, and headers stand beside the link's folder. A
        # script that calls the compiler from elsewhere has no headers beside it: the compiler then says where it is.
        for root in (Path(on_path).parent.parent, Path(on_path).resolve().parent.parent, _told_root(Path(on_path))):
            if root is not None and _headers(root):
                yield root, "PATH", False
                break
    yield USUAL_PLACE, str(USUAL_PLACE), False


def packaged_roots() -> list[Path]:
    """Folders `nvidia/cu*` of the installed packages."""
    try:
        spec = importlib.util.find_spec("nvidia")
    except (ImportError, ValueError):
        return []
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    return [root for place in places for root in sorted(Path(place).glob("cu[0-9]*"), reverse=True)]


def _headers(root: Path) -> list[Path]:
    """Folders with CUDA's headers; conda has them one level further down."""
    folders = (root / "include", *root.glob("targets/*-linux/include"))
    return [folder for folder in folders if (folder / "cuda_runtime.h").exists()]


def _told_root(nvcc: Path) -> Path | None:
    """Where a compiler says that it lies."""
    try:
        told = subprocess.run([str(nvcc), "-dryrun", "-E", os.devnull], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    top = re.search(r"^#\$ TOP=(.+)$", told.stderr, re.MULTILINE)
    return Path(os.path.normpath(top.group(1).strip())) if top else None


def _version(nvcc: Path) -> str | None:
    """ "13.0", or None when the program does not run."""
    try:
        told = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    release = re.search(r"release (\d+\.\d+)", told.stdout)
    return release.group(1) if release and told.returncode == 0 else None


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() or link.exists() or not target.exists():
        return
    try:
        link.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:  # Windows lets only some users make links
        if target.is_dir():
            shutil.copytree(target, link)
        else:
            shutil.copy2(target, link)
