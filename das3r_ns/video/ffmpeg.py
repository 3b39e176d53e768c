"""The ffmpeg program for `ns-render`, which calls it by name and ends without an image where there is none."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
from contextlib import ExitStack
from pathlib import Path

from das3r_ns.files.whole import temporary_folder


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
    claim = ExitStack()
    atexit.register(claim.close)
    try:
        folder = claim.enter_context(temporary_folder("das3r-ffmpeg-", 0, "a link to ffmpeg"))
        called = folder / ("ffmpeg.exe" if program.suffix == ".exe" else "ffmpeg")
        try:
            called.symlink_to(program)
        except OSError:  # Windows lets only some users make links
            shutil.copy2(program, called)
    except OSError:  # no room for it: nerfstudio then says how to install ffmpeg, should it be needed
        return
    os.environ["PATH"] = os.pathsep.join((str(folder), os.environ.get("PATH", "")))
