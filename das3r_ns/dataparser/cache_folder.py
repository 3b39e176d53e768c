"""The folder of the cache: room and right to write there, one run at a time, and what killed runs leave behind."""

import glob as globbing
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from das3r_ns.files.locks import LockedError, only_holder
from das3r_ns.scene import working_name
from das3r_ns.video.clip import Clip

DEFAULT_CACHE = Path("outputs") / "das3r_scenes"
"""Beside nerfstudio's own outputs."""


def check_writable(folder: Path) -> None:
    """
    Raises:
        OSError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written ({error.strerror or error}), and predicted scenes are kept there. "
            "Choose another place with --cache-dir, or --out of das3r predict."
        ) from error


def check_free_space(folder: Path, clip: Clip) -> None:
    """
    Raises:
        OSError: less room is left than the scene of `clip` may take.
    """
    pixels = clip.frames.shape[0] * clip.frames.shape[1] * clip.frames.shape[2]
    needed = pixels * (3 + 1 + 8)  # image and mask as PNG at worst; depth, confidence, dynamic map: 4 + 2 + 2 bytes
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{folder} has {free / 2**20:.0f} MiB left, and the scene of {len(clip)} frames of {clip.size[1]}x"
            f"{clip.size[0]} may take {needed / 2**20:.0f} MiB. Make room, choose another place with --cache-dir (or "
            "--out), or read less with --video.max-frames or --video.longest-side."
        )


@contextmanager
def only_one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the lock of a scene folder that is about to be written, and clear away what killed runs left beside it."""
    folder = folder.absolute()
    lock = _lock_of(folder.parent, working_name(folder))
    with ExitStack() as held:
        try:
            held.enter_context(only_holder(lock, wait=False))
        except LockedError:
            print(f"Another run is predicting {folder}; waiting for it.")
            held.enter_context(only_holder(lock))
        _clear_after_killed_runs(folder)
        yield


def _lock_of(parent: Path, name: str) -> Path:
    return parent / f".{name}.lock"


def _clear_after_killed_runs(folder: Path) -> None:
    """Remove temporary folders (`scene.written_whole` makes them) whose writer is gone: its lock is free. What had been
    moved aside for a scene that never came goes back to its place."""
    own = working_name(folder)
    for retired in folder.parent.glob(f".{globbing.escape(own)}.*.old"):
        if not folder.exists() and (retired / "old").exists():
            os.replace(retired / "old", folder)
        shutil.rmtree(retired, ignore_errors=True)
    for stale in folder.parent.glob(".*.part"):
        name = stale.name[1:].rsplit(".", 2)[0]
        if name == own:  # this run holds the lock and has not begun to write
            shutil.rmtree(stale, ignore_errors=True)
        elif _lock_of(folder.parent, name).exists():
            with suppress(LockedError), only_holder(_lock_of(folder.parent, name), wait=False):
                shutil.rmtree(stale, ignore_errors=True)
