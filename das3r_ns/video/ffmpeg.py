"""The ffmpeg program for `ns-render`, which calls it by name and ends without a picture where there is none."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path


@functools.cache
def provide_ffmpeg() -> None:
    """Put the ffmpeg of the package imageio-ffmpeg on this process's PATH, unless there is one already."""
    if shutil.which("ffmpeg") is not None:
        return
    try:
        import imageio_ffmpeg

        program = Path(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):  # no wheel for this platform: nerfstudio then says how to install ffmpeg
        return
    folder = tempfile.mkdtemp(prefix="das3r-ffmpeg-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    called = Path(folder) / ("ffmpeg.exe" if program.suffix == ".exe" else "ffmpeg")
    try:
        called.symlink_to(program)
    except OSError:  # Windows lets only some users make links
        shutil.copy2(program, called)
    os.environ["PATH"] = os.pathsep.join((folder, os.environ.get("PATH", "")))
