"""Write edits into a scene folder: each whole or not at all, nothing outside `SCENE/edits`.

Layers are written first, into a folder of their own that is then moved into place; `edits.json` follows, whole. A
process that is killed in between leaves layers that no edit names, which the next one sweeps away.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool

from das3r_ns.files.json_files import write_json
from das3r_ns.files.locks import LockedError, only_holder
from das3r_ns.files.regular import inside
from das3r_ns.files.whole import WRITING, telling_of_full_disk
from das3r_ns.scene.edits import EDITS_FILE, EDITS_FOLDER, Edit, Edits, read_edits
from das3r_ns.scene.types import SceneFolderError, frame_name

LOCK = ".lock"
ID_BYTES = 6

_OWN_ID = re.compile(rf"[0-9a-f]{{{2 * ID_BYTES}}}")


class EditStore:
    """The edits of one scene folder, for the one process that changes them.

    Args:
        names: of the frames of the scene, in the clip.

    Raises:
        SceneFolderError: the edits there cannot be read, or lead out of the folder.
        OSError: the folder cannot be written.
        RuntimeError: another process is changing them.
    """

    def __init__(self, scene: Path, names: Sequence[str], times_s: Sequence[float] | None = None) -> None:
        self.scene = Path(scene)
        self.folder = inside(self.scene, EDITS_FOLDER, SceneFolderError)
        self._lock = ExitStack()
        try:
            with telling_of_full_disk(self.scene, "edits"):
                self.folder.mkdir(exist_ok=True)
                self._lock.enter_context(only_holder(self.folder / LOCK, wait=False))
        except LockedError:
            raise RuntimeError(
                f"another `das3r edit` has {self.scene} open. Close it first: two would overwrite one another's edits."
            ) from None
        except OSError:
            self.close()
            raise
        try:
            self.edits = read_edits(self.scene)
        except BaseException:
            self.close()
            raise
        if not self.edits.names:
            self.edits = Edits(tuple(names), None if times_s is None else tuple(times_s))
        self._sweep()

    def close(self) -> None:
        """Let another process change the edits. A folder without any is as it was before."""
        self._lock.close()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def add(self, edit: Edit, layers: Mapping[int, Bool[np.ndarray, "h w"]]) -> Edit:
        """Store an edit as the last one; what was undone before it cannot be redone.

        Args:
            edit: its id, frames and time are given here.
            layers: by place of the frame in `edits.names`.

        Raises:
            ValueError: it speaks of no pixel.
            DiskFullError: there is no room; the edits are as they were.
        """
        layers = {place: layer for place, layer in sorted(layers.items()) if layer.any()}
        if not layers:
            raise ValueError("the edit covers no pixel.")
        edit = replace(
            edit,
            id=secrets.token_hex(ID_BYTES),
            frames=tuple(layers),
            made_at=edit.made_at or datetime.now().astimezone().isoformat(timespec="seconds"),
        )
        with telling_of_full_disk(self.folder, "the edit"):
            part = self.folder / f"{WRITING}{edit.id}"
            part.mkdir()
            try:
                for place, layer in layers.items():
                    encoded, buffer = cv2.imencode(".png", layer.astype(np.uint8) * 255)
                    if not encoded:
                        raise OSError("could not encode a layer")
                    (part / f"{frame_name(place)}.png").write_bytes(buffer.tobytes())
                os.replace(part, self.folder / edit.id)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        try:
            self._write(replace(self.edits, done=(*self.edits.done, edit), undone=()))
        except BaseException:
            shutil.rmtree(self.folder / edit.id, ignore_errors=True)
            raise
        return edit

    def undo(self) -> Edit | None:
        """Take the last edit back; None if there is none."""
        if not self.edits.done:
            return None
        *rest, last = self.edits.done
        self._write(replace(self.edits, done=tuple(rest), undone=(*self.edits.undone, last)))
        return last

    def redo(self) -> Edit | None:
        """Bring back what was undone last; None if there is nothing."""
        if not self.edits.undone:
            return None
        *rest, last = self.edits.undone
        self._write(replace(self.edits, done=(*self.edits.done, last), undone=tuple(rest)))
        return last

    def remove(self, name: str) -> Edit | None:
        """Take one edit out, wherever it stands in the order; `redo` brings it back, as the last one."""
        for edit in self.edits.done:
            if edit.id == name:
                rest = tuple(other for other in self.edits.done if other.id != name)
                self._write(replace(self.edits, done=rest, undone=(*self.edits.undone, edit)))
                return edit
        return None

    def _write(self, edits: Edits) -> None:
        write_json(self.folder / EDITS_FILE, edits.to_json())
        self.edits = edits

    def _sweep(self) -> None:
        """Remove layers that no edit names: a process was killed before it named them, or later edits took the place
        of what was undone. This process holds the lock, so none is being written."""
        named = {edit.id for edit in (*self.edits.done, *self.edits.undone)}
        for path in self.folder.iterdir():
            ours = path.name.startswith(WRITING) or _OWN_ID.fullmatch(path.name)
            if ours and path.name not in named and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
