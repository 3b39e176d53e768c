"""All that can be done to the masks of a scene: what the page in the browser calls, and what a script may.

A session holds the scene's edits for itself. Every action is stored before it returns, so that a killed process loses
nothing. Places are (x, y), shares of the image's width and height.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool

from das3r_ns.editing.actions import Action, Answer, Cancelled, Progress, edit_in_words, followed_in_words
from das3r_ns.editing.carry import Carried, carry_false_region, carry_object, refined
from das3r_ns.editing.clip import EditedClip, Kept, Masks
from das3r_ns.editing.cues import FrameCues, frame_cues, region_cues
from das3r_ns.editing.regions import RegionCues, marked_region, part_of_region, pixel_at, region_at
from das3r_ns.predictor.masks.prompts.base import Click, Pointed, Segmenter
from das3r_ns.predictor.masks.refiners.base import Refiner
from das3r_ns.scene.edit_store import EditStore
from das3r_ns.scene.edits import Edit, resized_layer

Place = tuple[float, float]

JOINED_SHARE = 0.15
"""Of an image: one piece of the mask that is larger is taken for several objects that touch."""

MAX_POINTS = 20_000
"""Of one stroke."""

MAX_SHARE = 0.2
"""Of the image's width, for the radius of the brush."""


class EditSession:
    """The masks of a scene folder while somebody corrects them. Use as a context manager, or call `close`.

    Args:
        refiner: draws the outlines of objects that are carried through the clip; None leaves them as flow and colour
            have them.
        segmenter: answers clicks on what was forgotten; None, and other levels, take what belongs together in motion,
            colour and depth.

    Raises:
        SceneFolderError: the scene is damaged.
        RuntimeError: another session has it open.
    """

    def __init__(self, scene: Path, refiner: Refiner | None = None, segmenter: Segmenter | None = None) -> None:
        self.clip = EditedClip(Path(scene))
        names = self.clip.files.names
        self.store = EditStore(Path(scene), names, self.clip.files.times_s)
        self.masks = Masks(self.clip, self.store)
        self.progress = Progress()
        self._refiner, self._segmenter = refiner, segmenter
        self._acting = threading.Lock()
        self._cancel = threading.Event()
        self._cues: Kept[FrameCues] = Kept(64 << 20, lambda cues: sum(v.nbytes for v in cues.values.values()))
        self._region_cues: Kept[RegionCues] = Kept(64 << 20, lambda cues: 8 * cues.image.nbytes)

    def __enter__(self) -> EditSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another session open the scene."""
        self.store.close()

    # --- What is there ------------------------------------------------------------------------------------------------

    def cues(self, frame: int) -> FrameCues:
        """What spoke for motion in a frame."""
        return self._cues.get(frame, lambda: frame_cues(self.clip, frame))

    def state(self) -> dict[str, Any]:
        """Edits and timeline, as they are now."""
        done = self.store.edits.done
        return {
            "shares": [round(share, 5) for share in self.masks.shares()],
            "edits": [self._described(edit) for edit in done],
            "can_undo": bool(done),
            "can_redo": bool(self.store.edits.undone),
        }

    def _described(self, edit: Edit) -> dict[str, Any]:
        here = {place: i for i, place in self.store.edits.places(self.clip.files.names).items()}
        frames = [here[place] for place in edit.frames if place in here]
        return {
            "id": edit.id,
            "tool": edit.tool,
            "moving": edit.moving,
            "whole_clip": edit.whole_clip,
            "frame": here.get(edit.frame, frames[0] if frames else 0),
            "frames": frames,
            "at": edit.at,
            "made_at": edit.made_at,
        }

    # --- Actions ------------------------------------------------------------------------------------------------------

    def click(
        self,
        frame: int,
        at: Place,
        moving: bool,
        whole_clip: bool = False,
        level: int = 0,
        replaces: str | None = None,
    ) -> Answer:
        """Mark the region around a place as moving, or give back what is wrongly marked there.

        Args:
            level: 0 is the region that is meant most likely, above it are the larger ones, below it the smaller ones.
            replaces: id of the edit that is taken back first: the same click, of another level.

        Raises:
            ValueError: there is nothing at the place to be given back; the message says it.
        """
        with self._action():
            if replaces is not None and any(edit.id == replaces for edit in self.store.edits.done):
                self.store.remove(replaces)
                self.masks.update()
            region = self._region(frame, at, moving, level)
            return self._store("region", frame, at, region, moving, whole_clip)

    def brush(
        self, frame: int, points: Sequence[Place], radius: float, moving: bool, whole_clip: bool = False
    ) -> Answer:
        """Mark all pixels near a line through the given places.

        Args:
            radius: as a share of the image's width.
        """
        with self._action():
            layer, places = self._canvas(), self._pixels(points)
            thickness = max(1, round(2 * min(radius, MAX_SHARE) * layer.shape[1]))
            cv2.polylines(layer, [places], False, (1,), thickness)
            for place in (places[0], places[-1]):
                cv2.circle(layer, tuple(map(int, place)), max(1, thickness // 2), (1,), -1)
            return self._store("brush", frame, points[0], layer > 0, moving, whole_clip)

    def lasso(self, frame: int, points: Sequence[Place], moving: bool, whole_clip: bool = False) -> Answer:
        """Mark all pixels inside a closed line through the given places."""
        with self._action():
            layer = self._canvas()
            cv2.fillPoly(layer, [self._pixels(points)], (1,))
            return self._store("lasso", frame, points[0], layer > 0, moving, whole_clip)

    def undo(self) -> Answer:
        """Take the last edit back."""
        return self._changed(self.store.undo, "Undone: {}.", "There is nothing to undo.")

    def redo(self) -> Answer:
        """Bring the last one back that was undone or removed."""
        return self._changed(self.store.redo, "Redone: {}.", "There is nothing to redo.")

    def remove(self, name: str) -> Answer:
        """Remove one edit, whenever it was made."""
        return self._changed(lambda: self.store.remove(name), "Removed: {}.", "That edit is not there any more.")

    def cancel(self) -> None:
        """Stop what is under way; nothing of it is stored."""
        self._cancel.set()

    # --- How ----------------------------------------------------------------------------------------------------------

    def _action(self) -> Action:
        return Action(self._acting, self._cancel, self.progress)

    def _changed(self, change: Callable[[], Edit | None], done: str, nothing: str) -> Answer:
        with self._action():
            edit = change()
            self.masks.update()
            return Answer(nothing) if edit is None else Answer(done.format(edit_in_words(edit)), edit)

    def _region(self, frame: int, at: Place, moving: bool, level: int) -> Bool[np.ndarray, "h w"]:
        marked = self.masks.moving(frame)
        row, column = pixel_at(at, marked.shape)
        if not moving or marked[row, column]:
            region = marked_region(marked, at)
            if region is None:
                raise ValueError("nothing is marked as moving there, so there is nothing to give back.")
            # So much in one piece is seldom one object: a part of it is meant, and the next level is all of it.
            part = -level + int(region.mean() > JOINED_SHARE and not moving)
            return region if part <= 0 else part_of_region(self._cues_of_region(frame), region, at, part)
        if self._segmenter is not None and level == 0:
            (found,) = self._segmenter(self.clip.image(frame), [Pointed(clicks=(Click(*at),))])
            region = resized_layer(found.mask, (marked.shape[0], marked.shape[1]))
            if region.any():
                return region
        return region_at(self._cues_of_region(frame), at, level, marked)

    def _cues_of_region(self, frame: int) -> RegionCues:
        near = tuple(self.masks.edits_of(i) for i in range(max(frame - 3, 0), min(frame + 4, len(self.clip))))
        return self._region_cues.get((frame, near), lambda: region_cues(self.clip, frame, self.masks.moving))

    def _store(
        self,
        tool: str,
        frame: int,
        at: Place,
        region: Bool[np.ndarray, "h w"],
        moving: bool,
        whole_clip: bool,
    ) -> Answer:
        if not region.any():
            raise ValueError("the stroke covers no pixel of the image.")
        layers, text = {frame: region}, ""
        if whole_clip:
            carried = self._carried(frame, resized_layer(region, self.clip.map_size), moving)
            layers = carried.layers | layers
            text = followed_in_words(carried, len(self.clip))
        edit = Edit("", tool, moving, (), whole_clip, 0, at)
        stored = self._add(edit, frame, layers)
        share = float(region.mean())
        word = "moving" if moving else "static"
        return Answer(f"Marked {share:.1%} of frame {frame + 1} as {word}{text}.", stored)

    def _add(self, edit: Edit, frame: int, layers: Mapping[int, Bool[np.ndarray, "h w"]]) -> Edit:
        places = self.store.edits.places(self.clip.files.names)
        size = self.clip.layer_size
        in_list = {places[i]: resized_layer(layer, size) for i, layer in layers.items() if i in places}
        stored = self.store.add(replace(edit, frame=places.get(frame, 0)), in_list)
        self.masks.update()
        return stored

    def _carried(self, frame: int, region: Bool[np.ndarray, "h w"], moving: bool) -> Carried:
        if not region.any():
            raise ValueError("the stroke is too small to be followed through the clip. Mark more of the object.")
        n = len(self.clip)
        self.progress.text, self.progress.done, self.progress.total = "Following through the clip", 1, n

        def on_frame() -> None:
            self.progress.done += 1
            if self._cancel.is_set():
                raise Cancelled("Stopped; nothing was marked.")

        clip, masks = self.clip, self.masks
        if not moving:
            return carry_false_region(clip.flow, n, frame, region, masks.moving, on_frame, clip.speed)
        carried = carry_object(clip.map_image, clip.flow, n, frame, region, masks.moving, on_frame, clip.speed)
        if self._refiner is not None:
            self.progress.text = "Refining outlines"
            carried = refined(carried, self._refiner, clip.image, clip.flow)
            carried.layers[frame] = region
        return carried

    def _canvas(self) -> np.ndarray:
        return np.zeros(self.clip.layer_size, np.uint8)

    def _pixels(self, points: Sequence[Place]) -> np.ndarray:
        """Places as pixels of a layer.

        Raises:
            ValueError: there is none, or more than anybody draws.
        """
        if not 0 < len(points) <= MAX_POINTS:
            raise ValueError(f"a stroke has between 1 and {MAX_POINTS} points, got {len(points)}.")
        height, width = self.clip.layer_size
        places = np.asarray(points, np.float64).clip(-1, 2) * (width, height) - 0.5
        return np.round(places).astype(np.int32)
