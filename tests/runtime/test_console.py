"""Consoles that know few characters."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("tolerant", [False, True])
def test_an_emoji_on_an_ascii_console(tolerant):
    code = "from das3r_ns.runtime.console import print_anything\n"
    code += "print_anything()\n" * tolerant + "print('\\U0001f389.mp4')"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
        capture_output=True,
        text=True,
    )
    assert (run.returncode == 0) is tolerant
    assert run.stdout == (r"\U0001f389.mp4" + "\n" if tolerant else "")
