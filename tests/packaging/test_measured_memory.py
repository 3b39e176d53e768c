"""The benchmark of memory: what it says of a command is the command's."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

MIB = 2**20


def test_a_large_process_that_measures_does_not_count(tmp_path):
    spec = importlib.util.spec_from_file_location("memory_benchmark", Path("benchmarks/memory.py").resolve())
    assert spec is not None
    assert spec.loader is not None
    memory = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = memory
    spec.loader.exec_module(memory)
    large = bytearray(400 * MIB)
    large[::4096] = b"x" * len(large[::4096])
    takes = "taken = bytearray(100 * 2**20); taken[::4096] = b'x' * len(taken[::4096])"
    code, peak = memory.run([sys.executable, "-S", "-c", takes], 1, tmp_path / "log")
    assert code == 0
    assert 100 * MIB < peak < 200 * MIB
    assert memory.run(["/bin/false"], 1, tmp_path / "log")[0] == 1
