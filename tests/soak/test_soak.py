"""Commands that are killed at random moments; see `kills.py`.

Two kills, of a training and of an export, to keep it short: 80 to 90 seconds on two cores that others use as well.
`DAS3R_SOAK_KILLS=100 python -m pytest tests/soak` makes as many as asked for. `DAS3R_SOAK_SEED` chooses the moments.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_commands_leave_nothing_and_go_on_to_the_same_bytes(tmp_path):
    kills = Path(__file__).with_name("kills.py")
    settings = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}  # or it takes itself for a worker
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'kills'}"]
    done = subprocess.run([*command, str(kills)], env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
