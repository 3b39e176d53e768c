"""What a clip is called."""

from pathlib import Path

from das3r_ns.files.names import short_name

FOLDERS_OF_FRAMES = frozenset({"images", "image", "frames", "rgb", "color", "input", "jpegimages"})
"""Names that say what is inside a folder and nothing about the clip: its parent's name is taken then."""

MAX_CLIP_NAME_BYTES = 100
"""Folders are called after the clip with digests behind its name, and files in work with more; encrypted home folders
take 143 bytes in all."""


def clip_name(data: Path) -> str:
    """Name of a clip: `outputs/<name>/...` and the cached scene are called after it. Long names are cut, and end
    in a digest then."""
    path = Path(data).expanduser().absolute()
    if path.suffix == ".json":
        path = path.parent
    if path.name.casefold() in FOLDERS_OF_FRAMES and path.parent.name:
        path = path.parent
    return short_name((path.name if path.is_dir() else path.stem) or "clip", MAX_CLIP_NAME_BYTES)
