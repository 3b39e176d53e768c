"""What a clip is called."""

from pathlib import Path

FOLDERS_OF_FRAMES = frozenset({"images", "image", "frames", "rgb", "color", "input", "jpegimages"})
"""Names that say what is inside a folder and nothing about the clip: its parent's name is taken then."""


def clip_name(data: Path) -> str:
    """Name of a clip: `outputs/<name>/...` and the cached scene are called after it."""
    path = Path(data).expanduser().absolute()
    if path.suffix == ".json":
        path = path.parent
    if path.name.casefold() in FOLDERS_OF_FRAMES and path.parent.name:
        path = path.parent
    return (path.name if path.is_dir() else path.stem) or "clip"
