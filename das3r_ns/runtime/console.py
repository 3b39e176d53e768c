"""The console as it is: whatever a path is called, printing it must not end a run."""

import io
import sys


def print_anything() -> None:
    """Let consoles that know no more than ASCII (LANG=C, old terminals, pipes) show other characters as escapes. Else
    the emoji in a clip's name would raise `UnicodeEncodeError`, after hours, when the result is announced."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
