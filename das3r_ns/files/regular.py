"""Open nothing but what is meant: regular files (a FIFO would wait for ever, a device never end), inside a folder."""

import stat
from pathlib import Path


def check_regular(path: Path, error: type[Exception] = ValueError) -> None:
    """
    Raises:
        FileNotFoundError: there is nothing at `path`.
        error: it is a folder, a FIFO, a socket or a device.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist.") from None
    except OSError as cause:  # a loop of links, a name too long
        raise error(f"{path} cannot be opened ({cause.strerror or cause}).") from cause
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        raise error(f"{path} is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a file.")


def inside(folder: Path, name: str, error: type[Exception] = ValueError) -> Path:
    """The file `name` of a folder.

    Raises:
        error: the name leads out of the folder.
    """
    path = folder / name.replace("\\", "/")
    try:
        is_inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as cause:  # a loop of links, a name too long, a zero byte in it
        raise error(f"{name!r} in {folder} is not the name of a file ({cause}).") from cause
    if not is_inside:
        raise error(f"{name!r} leads out of {folder}: only files inside it are read.")
    return path
