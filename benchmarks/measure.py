"""What the benchmark scripts share: a clock that waits for the device, peak memory, a result file."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

GIB = 2**30


@dataclass
class Measurement:
    """Filled when the block of `measured` ends."""

    seconds: float = float("nan")
    peak_gib: float = float("nan")
    """Peak of the allocator on a GPU; not a number on a CPU."""


@contextmanager
def measured(device: torch.device, within: bool = False) -> Iterator[Measurement]:
    """Time and peak memory of a block, from when the device is idle to when it is idle again.

    Args:
        within: the block lies in another measured one, whose peak must survive.
    """
    result = Measurement()
    gpu = device.type == "cuda"
    if gpu:
        torch.cuda.synchronize(device)
        if not within:
            torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    yield result
    if gpu:
        torch.cuda.synchronize(device)
        result.peak_gib = torch.cuda.max_memory_allocated(device) / GIB
    result.seconds = time.perf_counter() - start


def pick_device(name: str) -> torch.device:
    """`auto` takes a GPU when there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def report(title: str, rows: dict[str, Any], device: torch.device, out: Path | None) -> None:
    """Print rows of a table, and add them to a JSON file of results if one is asked for."""
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    print(f"\n{title} ({machine}, torch {torch.__version__})")
    for name, value in rows.items():
        text = f"{value:.6g}" if isinstance(value, float) else value
        print(f"  {name:<52} {text}")
    if out is not None:
        stored = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else []
        stored.append({"title": title, "device": machine, "torch": torch.__version__, **rows})
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
