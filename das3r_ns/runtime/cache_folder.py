"""Where things are kept that are made once per machine and can be made again: compiled kernels, links to a compiler."""

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """`$DAS3R_CACHE`, else `das3r_ns` in the user's cache folder. It need not exist."""
    if os.environ.get("DAS3R_CACHE"):
        return Path(os.environ["DAS3R_CACHE"]).expanduser().absolute()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "das3r_ns"
