"""Nerfstudio masks of a scene folder with its edits: made from the masks there, which stay as they are.

They lie in `SCENE/edits/masks`, one for each frame of which an edit speaks, named after what they were made from, so
that none is ever out of date.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2

from das3r_ns.files.regular import inside
from das3r_ns.files.whole import write_bytes_whole
from das3r_ns.scene.edits import EDITS_FOLDER, EditedFrames
from das3r_ns.scene.types import SceneFolderError, frame_name

MASKS_FOLDER = "masks"


def edited_masks(folder: Path, names: Sequence[str], masks: Sequence[Path]) -> list[Path]:
    """For each frame its mask, with the edits where any speaks of it; written where it is not there yet.

    Args:
        names: of the frames in the clip.
        masks: as predicted or corrected by hand; 255 is static.

    Raises:
        SceneFolderError: the edits cannot be read.
        OSError: the folder cannot be written.
    """
    edited, chosen = EditedFrames.of(folder, names), list(masks)
    touched = edited.touched()
    wanted = set()
    for frame in touched:
        path = _path(folder, edited, frame, masks[frame])
        wanted.add(path.name)
        if not path.is_file():
            keep = cv2.imread(str(masks[frame]), cv2.IMREAD_GRAYSCALE)
            if keep is None:
                raise SceneFolderError(f"{masks[frame]} is not an image. Restore it, or predict the scene again.")
            encoded, buffer = cv2.imencode(".png", edited.apply_to_mask(frame, keep))
            if not encoded:
                raise OSError(f"could not encode {path.name}")
            write_bytes_whole(path, buffer.tobytes())
        chosen[frame] = path
    return chosen


def _path(folder: Path, edited: EditedFrames, frame: int, mask: Path) -> Path:
    status = mask.stat()
    says = [str(status.st_mtime_ns), str(status.st_size), *(f"{e.id} {e.moving}" for e in edited.speak_of(frame))]
    digest = hashlib.sha256("\n".join(says).encode()).hexdigest()[:12]
    name = f"{EDITS_FOLDER}/{MASKS_FOLDER}/{frame_name(frame)}-{digest}.png"
    return inside(Path(folder), name, SceneFolderError)
