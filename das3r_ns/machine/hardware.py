"""The NVIDIA GPUs of this machine and their driver, asked of the system itself.

torch cannot tell "no GPU" from "a GPU that this torch cannot use" (a build for the CPU, a driver too old): both are
`torch.cuda.is_available() == False`, and training would go on on the CPU, for hours, without a word.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from pathlib import Path

PROC = Path("/proc/driver/nvidia")
DEV = Path("/dev")
PCI = Path("/sys/bus/pci/devices")

_NVIDIA_VENDOR = "0x10de"
_DISPLAY_CLASS = "0x03"  # PCI classes 0x0300 (VGA) and 0x0302 (3D controller)


def gpus() -> list[str]:
    """Names of the NVIDIA GPUs whose driver is loaded, whether or not torch can use them; empty where there is none,
    and where `CUDA_VISIBLE_DEVICES` hides them all."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1", "none", "NoDevFiles"):
        return []
    nodes = [path for path in DEV.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    names = []
    for information in sorted(PROC.glob("gpus/*/information")):
        model = re.search(r"^Model:\s*(.+)$", information.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        names.append(model.group(1).strip() if model else "NVIDIA GPU")
    if nodes:  # a container sees the driver's list of every GPU of its host, and device nodes of its own alone
        return names[: len(nodes)] or ["NVIDIA GPU"] * len(nodes)
    if sys.platform == "win32" and driver_cuda_version() is not None:
        return ["NVIDIA GPU"]
    if (DEV / "dxg").exists() and Path("/usr/lib/wsl/lib/libcuda.so.1").exists():  # Windows' driver, seen from WSL
        return ["NVIDIA GPU"]
    return []


def gpus_without_driver() -> int:
    """NVIDIA display devices on the PCI bus while no driver of NVIDIA is loaded.

    Containers started without a GPU see their host's bus, so this is worth a line and no refusal.
    """
    if gpus() or PROC.exists():
        return 0
    count = 0
    for device in PCI.glob("*"):
        try:
            vendor = (device / "vendor").read_text(encoding="ascii").strip()
            kind = (device / "class").read_text(encoding="ascii").strip()
        except OSError:
            continue
        count += vendor == _NVIDIA_VENDOR and kind.startswith(_DISPLAY_CLASS)
    return count


def driver_version() -> str | None:
    """Version of the loaded NVIDIA driver, such as "580.95.05"; None where the system does not say."""
    try:
        text = (PROC / "version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"(?:Kernel Module|Module for \S+)\s+(\d+(?:\.\d+)+)", text)
    return found.group(1) if found else None


def driver_cuda_version() -> tuple[int, int] | None:
    """The newest CUDA (major, minor) that the installed driver can run; None without a driver."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
        version = ctypes.c_int(0)
        if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return version.value // 1000, version.value % 1000 // 10
