"""Ctrl-C and SIGTERM end a command in order: temporary files are removed, child processes stopped, one line is said.

Python knows only Ctrl-C by itself; at SIGTERM, which `kill`, a batch system or a container sends, a process ends on the
spot. Here both raise in the main thread, so that `with` and `finally` blocks run as at any error.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(SystemExit):
    """SIGTERM was received. The exit code is the one that a shell reports for it."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


INTERRUPTED_CODE = 128 + signal.SIGINT


@contextmanager
def terminated_in_order(program: str) -> Iterator[None]:
    """Let SIGTERM raise `Terminated` inside the block, once, and say so when it leaves the block. Has no effect outside
    the main thread, or where somebody else handles the signal already.

    Args:
        program: stands at the beginning of the line.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except Terminated:
        say_terminated(program)
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def take_back_sigterm() -> None:
    """Call after a library was imported that puts its own handler in the place of Python's, unasked: COLMAP's log does,
    and prints a stack trace of C++ at SIGTERM."""
    if threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(signal.SIGTERM)
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)


def say_terminated(program: str) -> None:
    """The one line of a command that SIGTERM ended."""
    print(f"{program}: stopped by SIGTERM.", file=sys.stderr, flush=True)


def _terminate(number: int, frame: FrameType | None) -> None:
    del number, frame
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process even if the clean-up hangs
    raise Terminated
