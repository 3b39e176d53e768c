"""Corrections of the dynamic masks, kept beside the prediction: what they are, and how they are read and applied.

`SCENE/edits/edits.json` lists the edits in the order in which they apply; each has a folder of layers beside it, one
image a frame, white where it speaks. Where an edit speaks, `dynamic_prob` becomes 1 (moving) or 0 (static); the last
word counts. Nothing that was predicted is changed, so an edit can be taken back, and goes along into a new prediction
of the clip. Frames are known by their names in the clip, which do not depend on which frames a prediction reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from das3r_ns.files.image_file import open_image
from das3r_ns.files.json_files import read_json_object
from das3r_ns.files.regular import check_regular, inside
from das3r_ns.scene.types import SceneFolderError, frame_name

EDITS_FOLDER = "edits"
EDITS_FILE = "edits.json"
EDITS_VERSION = 1
"""Raised whenever an earlier reader would misread the file."""
MAX_EDITS = 10_000
MAX_LAYER_SIDE_PX = 8192
INSIDE = 0.5
"""Share of a pixel that a layer must cover for the edit to speak of it."""

_ID = re.compile(r"[0-9a-z]{1,32}")


@dataclass(frozen=True)
class Edit:
    """One stroke: where something moves, or stands still, in one frame or many."""

    id: str
    """Name of its folder of layers; digits and small letters."""
    tool: str
    """How it was made: `region`, `brush`, `lasso`."""
    moving: bool
    """What it says of the pixels in its layers: moving, or static."""
    frames: tuple[int, ...]
    """Places in the list of frames that have a layer, ascending."""
    whole_clip: bool = False
    """Whether it was carried along from the frame it was made in."""
    frame: int = 0
    """Place of the frame it was made in."""
    at: tuple[float, float] | None = None
    """(x, y) of the click, or of the first point of the stroke, as shares of width and height."""
    made_at: str = ""
    """Date and time, ISO 8601."""


@dataclass(frozen=True)
class Edits:
    """All edits of a scene folder. `Edit.frames` counts in `names`."""

    names: tuple[str, ...] = ()
    """Names of the frames in the clip, as in `predictor.json` of the scene that the edits were made in."""
    times_s: tuple[float, ...] | None = None
    """When each frame is shown; None where only names are known."""
    done: tuple[Edit, ...] = ()
    """In the order in which they apply."""
    undone: tuple[Edit, ...] = ()
    """Taken back, the last one first to come again."""

    def places(self, names: Sequence[str]) -> dict[int, int]:
        """For each frame of a scene with those names that is among these frames: its place here."""
        here = {name: i for i, name in enumerate(self.names)}
        return {i: here[name] for i, name in enumerate(names) if name in here}

    def to_json(self) -> dict[str, Any]:
        """What `edits.json` holds."""
        return {"format_version": EDITS_VERSION, **asdict(self)}


class EditStamp(NamedTuple):
    """Tells one state of `edits.json` from another without reading it."""

    mtime_ns: int
    size: int


@dataclass(frozen=True)
class EditedFrames:
    """The edits of a scene folder, ready to be applied to its frames."""

    folder: Path
    edits: Edits
    _places: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, names: Sequence[str]) -> EditedFrames:
        """The edits in a scene folder whose frames have those names; none if it has none.

        Raises:
            SceneFolderError: they cannot be read.
        """
        edits = read_edits(folder)
        return cls(Path(folder), edits, edits.places(names))

    def speak_of(self, frame: int) -> list[Edit]:
        """Edits that say something of a frame of the scene, in order."""
        place = self._places.get(frame)
        return [] if place is None else [edit for edit in self.edits.done if place in edit.frames]

    def touched(self) -> list[int]:
        """Frames of the scene of which any edit speaks, ascending."""
        spoken = {place for edit in self.edits.done for place in edit.frames}
        return [i for i, place in sorted(self._places.items()) if place in spoken]

    def layers(self, frame: int, size: tuple[int, int]) -> list[tuple[Edit, Bool[np.ndarray, "h w"]]]:
        """What each edit speaks of in a frame of the scene, at a size (height, width)."""
        place = self._places.get(frame)
        if place is None:
            return []
        return [(edit, read_layer(self.folder, edit, place, size)) for edit in self.speak_of(frame)]

    def layer(self, frame: int, edit: Edit, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
        """What an edit that speaks of a frame of the scene says of it, at a size (height, width)."""
        return read_layer(self.folder, edit, self._places[frame], size)

    def apply(self, frame: int, dynamic_prob: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
        """`dynamic_prob` of a frame with the edits; the same array where none speaks."""
        return self._applied(frame, dynamic_prob, np.float32(1), np.float32(0))

    def apply_to_mask(self, frame: int, keep: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
        """A nerfstudio mask (255 static, 0 moving) of a frame with the edits."""
        return self._applied(frame, keep, np.uint8(0), np.uint8(255))

    def _applied(self, frame: int, values: np.ndarray, moving: np.generic, static: np.generic) -> np.ndarray:
        layers = self.layers(frame, (values.shape[0], values.shape[1]))
        if layers:
            values = values.copy()
        for edit, layer in layers:
            values[layer] = moving if edit.moving else static
        return values


def stamp_of_edits(folder: Path) -> EditStamp | None:
    """Which state the edits of a scene folder are in; None where it has none. A microsecond: it is asked for in every
    few steps of a training."""
    try:
        status = (Path(folder) / EDITS_FOLDER / EDITS_FILE).stat()
    except OSError:
        return None
    return EditStamp(status.st_mtime_ns, status.st_size)


def read_edits(folder: Path) -> Edits:
    """The edits of a scene folder, none where it has none.

    Raises:
        SceneFolderError: the file is damaged or from a newer release.
    """
    path = Path(folder) / EDITS_FOLDER / EDITS_FILE
    try:
        stored = read_json_object(path, SceneFolderError)
    except FileNotFoundError:
        return Edits()
    version = stored.get("format_version")
    if version != EDITS_VERSION:
        raise SceneFolderError(f"{path} has format {version}, this release reads {EDITS_VERSION}. Update das3r-ns.")
    names, times = stored.get("names"), stored.get("times_s")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SceneFolderError(f"{path} is damaged: names is not a list of names.")
    if times is not None and not (
        isinstance(times, list)
        and len(times) == len(names)
        and all(isinstance(t, (int, float)) and abs(t) < 1e12 for t in times)
        and all(a <= b for a, b in pairwise(times))
    ):
        raise SceneFolderError(f"{path} is damaged: times_s is not {len(names)} ascending times.")
    done, undone = (
        tuple(_edit(path, entry, len(names)) for entry in _list(path, stored, key)) for key in ("done", "undone")
    )
    if len({edit.id for edit in (*done, *undone)}) < len(done) + len(undone):
        raise SceneFolderError(f"{path} is damaged: two edits have one id.")
    return Edits(tuple(names), None if times is None else tuple(map(float, times)), done, undone)


def layer_path(folder: Path, edit: Edit, place: int) -> Path:
    """Where the layer of an edit lies.

    Raises:
        SceneFolderError: a link leads out of the scene folder.
    """
    return inside(Path(folder), f"{EDITS_FOLDER}/{edit.id}/{frame_name(place)}.png", SceneFolderError)


def read_layer(folder: Path, edit: Edit, place: int, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Of which pixels an edit speaks, at a size (height, width).

    Args:
        place: of the frame in `Edits.names`.

    Raises:
        SceneFolderError: the layer is missing or not an image.
    """
    path = layer_path(folder, edit, place)
    remedy = f"Restore it, or remove the edit {edit.id} in `das3r edit {folder}`."
    try:
        check_regular(path, SceneFolderError)
    except FileNotFoundError:
        raise SceneFolderError(f"{path} is missing, and the edits name it. {remedy}") from None
    try:
        with open_image(path) as image:
            stored = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if max(image.size) <= MAX_LAYER_SIDE_PX else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        stored = None
    if stored is None:
        raise SceneFolderError(f"{path} is not an image of a layer. {remedy}")
    return resized_layer(stored > 127, size)


def resized_layer(layer: Bool[np.ndarray, "h w"], size: tuple[int, int]) -> Bool[np.ndarray, "_ _"]:
    """A layer at another size (height, width): what is covered by half or more."""
    if layer.shape == size:
        return layer
    shrinks = size[0] < layer.shape[0]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    # In 8 bits, which OpenCV resizes several times as fast as floats.
    return cv2.resize(layer.astype(np.uint8) * 255, size[::-1], interpolation=interpolation) > 255 * INSIDE


def describe_edits(edits: Sequence[Edit]) -> str:
    """How many edits say moving, and how many static: `2 mark as moving, 1 as static`."""
    moving = sum(edit.moving for edit in edits)
    static = len(edits) - moving
    parts = [f"{moving} mark as moving"] if moving else []
    parts += [f"{static} {'as' if moving else 'mark as'} static"] if static else []
    return ", ".join(parts) or "none"


def renumbered(edit: Edit, place_of: Callable[[int], int | None]) -> Edit | None:
    """The edit with frames counted in another list; None if none of its frames is there."""
    frames = sorted({new for old in edit.frames if (new := place_of(old)) is not None})
    if not frames:
        return None
    made_in = place_of(edit.frame)
    return replace(edit, frames=tuple(frames), frame=frames[0] if made_in is None else made_in)


def _list(path: Path, stored: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = stored.get(key, [])
    if not isinstance(entries, list) or len(entries) > MAX_EDITS or not all(isinstance(e, dict) for e in entries):
        raise SceneFolderError(f"{path} is damaged: {key} is not a list of edits.")
    return entries


def _edit(path: Path, entry: dict[str, Any], num_frames: int) -> Edit:
    def wrong(what: str) -> SceneFolderError:
        return SceneFolderError(f"{path} is damaged: {what} of the edit {entry.get('id')!r} cannot be.")

    name, frames, at = entry.get("id"), entry.get("frames"), entry.get("at")
    if not isinstance(name, str) or not _ID.fullmatch(name):  # it becomes the name of a folder
        raise wrong("id")
    if not isinstance(frames, list) or not frames or not all(_is_place(i, num_frames) for i in frames):
        raise wrong("frames")
    if not isinstance(entry.get("moving"), bool) or not isinstance(entry.get("whole_clip", False), bool):
        raise wrong("moving or whole_clip")
    if not _is_place(entry.get("frame", 0), num_frames):
        raise wrong("frame")
    if at is not None and not (isinstance(at, list) and len(at) == 2 and all(_is_share(v) for v in at)):
        raise wrong("at")
    return Edit(
        id=name,
        tool=str(entry.get("tool", ""))[:32],
        moving=entry["moving"],
        frames=tuple(sorted(set(frames))),
        whole_clip=entry.get("whole_clip", False),
        frame=entry.get("frame", 0),
        at=None if at is None else (float(at[0]), float(at[1])),
        made_at=str(entry.get("made_at", ""))[:64],
    )


def _is_place(value: Any, count: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1 <= value <= 2
