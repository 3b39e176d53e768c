# ruff: noqa: E402  (the tests of other rooms are put on the path first)
"""Every damaged or hostile input of the tests as one table: what is written, what reads it, and what it must say.

`CASES` names each by its kind and by what is wrong. Those that other test files try one by one are taken from there.
`attempt.py` tries a case in a process of its own.
"""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / room) for room in ("", "runs", "scene", "dataparser", "datasets", "predictor/network")]

import weights_and_archives  # noqa: F401  (adds its cases)
from archives import tgz_of as _tgz
from cases import CASES, Case, Read, add, file_case
from media import _masks, _png
from scenes_and_runs import _dataset, _fill, _scene

__all__ = [
    "CASES",
    "TESTS",
    "Case",
    "Read",
    "_dataset",
    "_fill",
    "_masks",
    "_png",
    "_scene",
    "_tgz",
    "add",
    "file_case",
]
