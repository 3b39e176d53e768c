"""Commands that are killed at random moments; see `kills.py`, which makes as many kills as asked for."""

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
