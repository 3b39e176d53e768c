"""SIGTERM ends a command in order: one line, the exit code of a shell, temporary folders removed, children stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from das3r_ns.runtime.children import run_child
from das3r_ns.runtime.signals import Terminated, terminated_in_order

COMMAND = """
import os, signal, sys, time
from pathlib import Path
from das3r_ns.files.whole import claimed_folder
from das3r_ns.runtime.signals import terminated_in_order
with terminated_in_order("das3r predict"), claimed_folder(Path(sys.argv[1]), "das3r-map-"):
    from das3r_ns.predictor.cameras import colmap_features  # COLMAP's log puts a handler of its own in place
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""


def test_sigterm_ends_in_one_line_and_leaves_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", COMMAND, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr.strip() == "das3r predict: stopped by SIGTERM."
    assert list(tmp_path.iterdir()) == []


def test_a_child_is_stopped_with_its_parent(tmp_path):
    alive = tmp_path / "pid"
    script = (
        f"import os, time; open({str(alive)!r}, 'w').write(str(os.getpid())); os.kill(os.getppid(), 15); time.sleep(60)"
    )
    with pytest.raises(Terminated), terminated_in_order("x"):
        run_child([sys.executable, "-c", script])
    for _ in range(100):
        if not Path(f"/proc/{alive.read_text()}").exists():
            return
        time.sleep(0.05)
    pytest.fail("the child is still there")


def test_handlers_are_as_before_and_others_are_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    with terminated_in_order("x"):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with terminated_in_order("x"):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
