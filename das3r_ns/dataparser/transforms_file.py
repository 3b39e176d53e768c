"""nerfstudio's transforms.json and its relatives (instant-ngp, Blender): frames, their files, matrices and lenses.

What programs write differs: paths without endings (Blender), with backslashes (Windows) or absolute ones of another
machine; the focal length as an angle; no size. What can be found out is found out, from the images where they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from das3r_ns.files.json_files import read_json_object
from das3r_ns.video.image_folder import file_order, readable_suffixes

NAMES = ("transforms.json", "transforms_train.json")
"""Files that make a folder a dataset, the first that is there."""

MAX_FRAMES = 1_000_000


@dataclass(frozen=True)
class TransformsFrame:
    """A frame as the file lists it."""

    name: str
    """`file_path` with forward slashes."""
    values: dict[str, Any]
    """Its own values over those of the whole file."""
    image: Path | None
    """Its image, if that exists."""
    mask: Path | None
    """Its mask, whether or not that exists; None where the file names none."""


def transforms_of(data: Path) -> Path | None:
    """The file of a dataset: `data` itself, or the one in that folder; None where there is none."""
    if data.suffix.lower() == ".json":
        return data
    return next((data / name for name in NAMES if (data / name).exists()), None)


def read_transforms(path: Path) -> list[TransformsFrame]:
    """All frames, in the order of the numbers in their names.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not such a file; the message names the frame.
    """
    content = read_json_object(path)
    entries = content.get("frames")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} lists no frames: it is not a transforms.json of nerfstudio.")
    if len(entries) > MAX_FRAMES:
        raise ValueError(f"{path} lists {len(entries)} frames: more than can be meant.")
    common = {key: value for key, value in content.items() if key != "frames"}
    frames = []
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("file_path"), str) or not entry["file_path"].strip():
            raise ValueError(f"{path}: entry {i + 1} of frames has no file_path: it is not a transforms.json.")
        name = _slashes(entry["file_path"])
        mask = entry.get("mask_path")
        if mask is not None and not isinstance(mask, str):
            raise ValueError(f"{path}: the mask_path of {name} is a {type(mask).__name__} and not a path.")
        frames.append(
            TransformsFrame(
                name,
                {**common, **entry},
                find_file(path.parent, name),
                None if not mask else find_file(path.parent, _slashes(mask)) or path.parent / _slashes(mask),
            )
        )
    stems = [str(PurePosixPath(frame.name).with_suffix("")) for frame in frames]
    return [frames[i] for i in file_order(stems, [frame.name for frame in frames])]


def find_file(folder: Path, name: str) -> Path | None:
    """The file that `name` (forward slashes) means: below `folder`, with an ending if it lacks one, or, of an absolute
    path that does not exist here, the longest part of its end that does."""
    path = PurePosixPath(name)
    absolute = path.is_absolute() or (len(path.parts) > 0 and path.parts[0].endswith(":"))
    candidates: list[Path] = [folder / name]
    if absolute:
        candidates = [Path(name), *(folder.joinpath(*path.parts[k:]) for k in range(1, len(path.parts)))]
    for candidate in candidates:
        found = _with_ending(candidate)
        if found is not None:
            return found
    return None


def _with_ending(path: Path) -> Path | None:
    try:
        if path.is_file():
            return path
        if not path.parent.is_dir():
            return None
        if path.suffix.lower() in readable_suffixes():  # a name from a system that does not tell capitals apart
            return next((p for p in path.parent.iterdir() if p.name.casefold() == path.name.casefold()), None)
        for suffix in (".png", ".jpg", ".jpeg", *sorted(readable_suffixes())):
            for ending in (suffix, suffix.upper()):
                candidate = path.with_name(path.name + ending)
                if candidate.is_file():
                    return candidate
    except OSError:  # a name that is too long
        return None
    return None


def _slashes(path: str) -> str:
    path = path.strip().replace("\\", "/")
    return path[2:] if path.startswith("./") else path


__all__: Sequence[str] = [
    "TransformsFrame",
    "find_file",
    "read_transforms",
    "transforms_of",
]
