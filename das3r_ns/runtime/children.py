"""Child processes that do not outlive their parent's interest in them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

GRACE_SECONDS = 10.0
"""Time that a child has to end in order before it is killed."""


def run_child(command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> int:
    """Run a command to its end, its output shown as it comes; stop it when this process is interrupted.

    Returns:
        Its exit code; negative, the number of the signal that ended it.
    """
    with subprocess.Popen(list(command), env=None if env is None else dict(env), cwd=cwd) as child:
        try:
            return child.wait()
        except BaseException:
            stop_child(child)
            raise


def stop_child(child: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Ask a child process to end, and kill it if it does not."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
