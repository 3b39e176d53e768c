"""Commands that are killed at random moments, or find no room on the disk; see `kills.py` and `full_disk.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_commands_leave_nothing_and_go_on_to_the_same_bytes():
    kills = Path(__file__).with_name("kills.py")
    done = subprocess.run([sys.executable, str(kills), "--kills", "10"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert "10 kills, 10 good continuations" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs fork, and /proc to tell what is flushed")
def test_a_full_disk_at_each_kind_of_write_loses_nothing_and_is_told():
    """Of the commands that take no training; all of them with `python tests/soak/full_disk.py`."""
    script = Path(__file__).with_name("full_disk.py")
    commands = ("edit:add", "edit:undo", "bench:table", "report:scene", "export:tum", "export:colmap")
    done = subprocess.run([sys.executable, str(script), "--commands", *commands], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert "times nothing lost" in done.stdout
