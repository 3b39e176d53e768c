"""How a command ends that cannot go on: one sentence as the last line on the screen, and the exit code scripts expect.

nerfstudio's commands end with Python's traceback of whatever was raised, and with exit code 0 after Ctrl-C. What a user
can put right is said in the error's message; the traceback helps nobody then and buries it. `DAS3R_TRACEBACK=1` shows
it all the same. An error that nobody foresaw keeps its traceback in a file, for the bug report.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from das3r_ns.runtime.cache_folder import cache_folder

TRACEBACK_SWITCH = "DAS3R_TRACEBACK"
"""Environment variable that asks for Python's traceback."""
MAX_KEPT_TRACEBACKS = 20
EXIT_INTERRUPTED = 130
"""128 + SIGINT, what a shell sees of a program that Ctrl-C ended."""

EXIT_NO_READER = 141
"""128 + SIGPIPE: whoever read the output has left, as `head` does."""

FORESEEN = (ValueError, OSError, ImportError, RuntimeError)
"""Kinds of errors that this package raises with a sentence for the user."""


def end_in_a_sentence(program: str) -> None:
    """From now on an uncaught error of this process is shown as one sentence that begins with `program`."""

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if os.environ.get(TRACEBACK_SWITCH):
            sys.__excepthook__(kind, error, trace)
            return
        _flush()
        print(f"{program}: {sentence_of(error)}", file=sys.stderr, flush=True)

    sys.excepthook = show


def sentence_of(error: BaseException) -> str:
    """What an error means to the user. The traceback of an unforeseen one is written to a file, which is named."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C."
    known = _known_sentence(error)
    if known is not None:
        return known
    return (
        f"{type(error).__name__}: {_one_line(error)} This is not an error that was foreseen: please report it with "
        f"{_keep_traceback(error)} and the output of `das3r doctor`."
    )


def reader_left() -> bool:
    """Whether nobody reads the standard output any more. If so, what was still to be written is dropped, so that
    Python does not complain of it at the end."""
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # it is not a file: a test's, a notebook's
        return False
    if hasattr(select, "poll"):  # not on Windows, where a closed pipe is an error of another kind
        poll = select.poll()
        poll.register(output, select.POLLOUT)
        if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
            return False
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), output)
    return True


def is_foreseen(error: BaseException) -> bool:
    """Whether the message is for the user: raised by this package on purpose, or the system's word on a file."""
    return _known_sentence(error) is not None


@contextmanager
def ended_by_ctrl_c(program: str) -> Iterator[None]:
    """Ctrl-C within the block ends the program in one line with exit code 130. For code whose caller would print a
    traceback and report success."""
    try:
        yield
    except KeyboardInterrupt:
        if os.environ.get(TRACEBACK_SWITCH):
            traceback.print_exc()
        _flush()
        print(f"{program}: stopped by Ctrl-C.", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_INTERRUPTED) from None


def _known_sentence(error: BaseException) -> str | None:
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for this
        return (
            f"The GPU's memory is full ({_one_line(error)}). Take fewer Gaussians (--pipeline.model.max-gaussians "
            "200000), smaller images (das3r-data --video.longest-side 480) or `ns-train das3r-lite`."
        )
    if isinstance(error, MemoryError):
        return (
            "The memory of this machine is full. Take fewer frames (das3r-data --video.max-frames 60) or smaller "
            "images (das3r-data --video.longest-side 480)."
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full{_of_file(error)}: make room, or name another place with --output-dir."
    if isinstance(error, FORESEEN) and _raised_here(error):
        return str(error).strip()
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename} does not exist."
    if isinstance(error, PermissionError) and error.filename:
        return f"{error.filename} cannot be read or written: permission denied."
    if isinstance(error, (IsADirectoryError, NotADirectoryError, FileExistsError)) and error.filename:
        return f"{error.filename}: {(error.strerror or '').lower()}."
    return None


def _raised_here(error: BaseException) -> bool:
    """Whether the error was raised in this package's own code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0] == "das3r_ns"


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "without a message."


def _of_file(error: OSError) -> str:
    return f" ({error.filename})" if error.filename else ""


def _keep_traceback(error: BaseException) -> str:
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    path = cache_folder() / "tracebacks" / f"{time.strftime('%Y-%m-%d_%H%M%S')}_{os.getpid()}.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        for old in sorted(path.parent.glob("*.txt"))[:-MAX_KEPT_TRACEBACKS]:
            old.unlink(missing_ok=True)
    except OSError:  # nowhere to keep it: then it is shown
        print(text, file=sys.stderr)
        return "the traceback above"
    return str(path)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def program_name() -> str:
    """The command as typed, with the method: "ns-train das3r"."""
    program = Path(sys.argv[0]).stem
    method = next((word for word in sys.argv[1:2] if not word.startswith("-")), "")
    return f"{program} {method}".strip()
