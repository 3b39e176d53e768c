"""Every damaged or hostile input is refused in words, quickly, and does nothing; see `corpus.py` and `attempt.py`."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

if not hasattr(os, "fork"):
    pytest.skip("needs fork", allow_module_level=True)
sys.path.insert(0, str(Path(__file__).parent))
from attempt import MAX_BYTES, MAX_SECONDS
from corpus import CASES


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict:
    path = tmp_path_factory.mktemp("hostile") / "results.json"
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("attempt.py")), str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_corpus_is_large_and_of_every_kind():
    kinds = Counter(name.split(":")[0] for name in CASES)
    assert len(CASES) >= 380
    assert (
        min(kinds[kind] for kind in ("scene", "dataset", "COLMAP", "config", "checkpoint", "weights", "archive")) >= 10
    )
    assert min(kinds[kind] for kind in ("reconstruction", "mask", "edits")) >= 10
    assert min(kinds[kind] for kind in ("video", "image", "Sintel", "poses")) >= 5


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_input_is_refused_and_does_nothing(results, name):
    found = results[name]
    assert found["status"] == 0, f"ended by {found['status']}: {found.get('log')}"
    assert found["said"], "was accepted"
    assert re.search(CASES[name].message, found["said"], re.DOTALL), found["said"]
    assert found["foreseen"], f"ends in a traceback: {found['said']}"
    assert found["seconds"] < MAX_SECONDS
    assert found["bytes"] < MAX_BYTES
    assert found["executed"] == []
    assert found["outside"] == []
