"""Edits of one prediction in another one of the same clip.

Frames are found again by their names in the clip, whatever frames the new prediction reads; that it is the same clip is
seen by its images, for names alone say little. A frame of the new prediction that lies between two frames of an edit
through the whole clip gets its layer from both, along the flow.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from das3r_ns.editing.carry import between
from das3r_ns.editing.clip import EditedClip
from das3r_ns.files.whole import no_room
from das3r_ns.scene.edit_store import EditStore
from das3r_ns.scene.edits import EDITS_FILE, EDITS_FOLDER, Edit, Edits, describe_edits, read_edits, read_layer
from das3r_ns.scene.reading import SceneFiles, is_scene_folder
from das3r_ns.scene.types import SceneFolderError

COMPARED_FRAMES = 6
THUMBNAIL = (32, 18)
SAME_CLIP = 0.05
"""Mean absolute difference of two thumbnails, colours in 0..1, up to which they show the same, though a distorted lens
may have been taken out of one of them."""
MAX_FOLDERS = 500
NOT_TAKEN_OVER = "edits_not_taken_over"
"""Folder in a scene: edits of the one that it replaced."""


@dataclass(frozen=True)
class EditSource:
    """Edits of a scene folder."""

    scene: Path
    """Where they were made, and lie."""
    edits: Edits
    thumbnails: dict[str, Float32[np.ndarray, "18 32 3"]]
    """Of some frames, by name."""

    @classmethod
    def of(cls, scene: Path) -> EditSource | None:
        """The edits of a scene folder; None if it has none, or cannot be read."""
        try:
            edits = read_edits(scene)
            if not edits.done:
                return None
            files = SceneFiles.open(scene)
            place = {name: i for i, name in enumerate(files.names)}
            known = [name for name in edits.names if name in place]
            return cls(scene, edits, {n: thumbnail(files.image(place[n])) for n in _some(known)})
        except (SceneFolderError, OSError):
            return None

    def same_clip(self, files: SceneFiles) -> bool:
        """Whether a scene shows the clip that the edits were made in."""
        place = {name: i for i, name in enumerate(files.names)}
        shared = [name for name in self.edits.names if name in place]
        compared = [name for name in self.thumbnails if name in place]
        if not shared or not compared:
            return False
        differences = [np.abs(self.thumbnails[n] - thumbnail(files.image(place[n]))).mean() for n in compared]
        return float(np.median(differences)) < SAME_CLIP


def sources_beside(scene: Path) -> list[EditSource]:
    """Edits of the other scene folders in the same folder, the latest first."""
    found = []
    for path in sorted(scene.absolute().parent.glob(f"*/{EDITS_FOLDER}/{EDITS_FILE}"))[:MAX_FOLDERS]:
        folder = path.parent.parent
        if folder != scene.absolute() and not folder.name.startswith(".") and is_scene_folder(folder):
            found.append((path.stat().st_mtime_ns, folder))
    return [source for _, folder in sorted(found, reverse=True) if (source := EditSource.of(folder)) is not None]


def edits_for(scene: Path) -> list[EditSource]:
    """Edits that a new prediction at `scene` may take over: of the scene that it replaces, else of those beside it."""
    own = EditSource.of(scene) if is_scene_folder(scene) else None
    return sources_beside(scene) if own is None else [own]


def take_over_edits(scene: Path, sources: Sequence[EditSource], replaced: Path | None = None) -> str | None:
    """Apply the edits of the first source that is of the same clip to a scene that has none.

    Args:
        replaced: the scene folder, still there, whose place this one is about to take. What cannot be taken over of its
            edits is copied to `NOT_TAKEN_OVER` in the new one: it is nowhere else.

    Returns:
        What was done, as one line, or why it was not: a prediction took long and is not to be lost. None where there is
        nothing to take over.

    Raises:
        OSError: there is no room for the edits of the scene that is replaced.
    """
    own = None if replaced is None else next((s for s in sources if s.scene.absolute() == replaced.absolute()), None)
    try:
        line, left = _take_over(scene, sources, replaced)
    except (SceneFolderError, OSError, RuntimeError) as error:
        if own is not None and no_room(error):
            raise
        line, left = f"The edits of the earlier prediction could not be taken over: {error}", True
    if own is None or not left:
        return line
    shutil.copytree(own.scene / EDITS_FOLDER, scene / NOT_TAKEN_OVER, symlinks=True)
    why = line or "The edits of the earlier prediction, which is of another clip, were not taken over."
    return f"{why} All of them are kept in {(replaced or scene) / NOT_TAKEN_OVER}."


def _take_over(scene: Path, sources: Sequence[EditSource], replaced: Path | None) -> tuple[str | None, bool]:
    """What was done, and whether edits were left."""
    if not sources or read_edits(scene).done:
        return None, False
    files = SceneFiles.open(scene)
    source = next((s for s in sources if s.same_clip(files)), None)
    if source is None:
        return None, True
    clip, taken = EditedClip(scene), []
    store = EditStore(scene, files.names, files.times_s)
    try:
        for edit in source.edits.done:
            layers = _layers_here(source, edit, clip)
            if layers:
                here = source.edits.places(files.names)
                frame = next((i for i, old in here.items() if old == edit.frame), min(layers))
                taken.append(store.add(replace(edit, frame=frame), layers))
    finally:
        store.close()
    left = len(source.edits.done) - len(taken)
    rest = f"; {left} that speak of no frame here stay behind" if left else ""
    of_replaced = replaced is not None and source.scene.absolute() == replaced.absolute()
    where = "the earlier prediction" if of_replaced else source.scene
    return f"Edits of the masks taken over from {where}: {describe_edits(taken)}{rest}.", left > 0


def _layers_here(source: EditSource, edit: Edit, clip: EditedClip) -> dict[int, Bool[np.ndarray, "h w"]]:
    """Layers of an edit by frame of another scene."""
    spoken, names = set(edit.frames), clip.files.names
    places, size = source.edits.places(names), clip.layer_size
    layers = {i: read_layer(source.scene, edit, old, size) for i, old in places.items() if old in spoken}
    if edit.whole_clip and layers:
        small = {i: read_layer(source.scene, edit, places[i], clip.map_size) for i in layers}
        for frame in range(len(names)):
            if frame not in places and (layer := between(small, frame, clip.flow)) is not None and layer.any():
                layers[frame] = cv2.resize(layer.astype(np.float32), size[::-1]) > 0.5
    return layers


def thumbnail(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "18 32 3"]:
    """What an image shows, roughly."""
    return cv2.resize(image, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _some(names: Sequence[str]) -> list[str]:
    chosen = np.unique(np.linspace(0, len(names) - 1, COMPARED_FRAMES).round().astype(int)).tolist()
    return [str(names[int(i)]) for i in chosen]
